//! A tokenizer's settings: tokenizer_config.json, special_tokens_map.json, added_tokens.json, put together as
//! transformers' `from_pretrained` does.
//!
//! With `added_tokens_decoder` in tokenizer_config.json the other two files are not looked at; without it they win over
//! tokenizer_config.json, and the added tokens of a tokenizer.json count too. `do_lower_case` is not read: CLIPTokenizer
//! lower-cases whatever it says. Refuses a window that no text encoder has and a missing special token. Invariant: start,
//! end, unknown and padding token are all named.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::vocabulary::read;
use crate::Error;

/// The window of every CLIP text encoder of Stable Diffusion, for a configuration that names none.
const CLIP_WINDOW: usize = 77;
/// transformers takes a larger model_max_length (such as 1e30) as none at all.
const NO_WINDOW: f64 = 1e20;
/// Longer windows are a mistake in the file: the longest text encoders in use take 512 tokens.
const MAX_WINDOW: f64 = 4096.0;

/// Settings of one tokenizer.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) bos: String,
    pub(super) eos: String,
    pub(super) unk: String,
    pub(super) pad: String,
    /// These and all others that count as special, in transformers' order, each text once.
    pub(super) specials: Vec<Special>,
    /// The texts of `additional_special_tokens`.
    pub(super) additional: Vec<String>,
    /// Added tokens that come with an id.
    pub(super) added: Vec<(u32, Added)>,
    /// Tokens in a window, start and end token included.
    pub(super) window: usize,
    pub(super) pads_left: bool,
    pub(super) truncates_left: bool,
    /// `clean_up_tokenization_spaces`
    pub(super) cleans_up: bool,
    /// `split_special_tokens`: added tokens in a text are text.
    pub(super) splits_special: bool,
}

/// A token that is found in a text before anything else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Added {
    pub(super) content: String,
    /// Eats white space before it.
    pub(super) lstrip: bool,
    /// Eats white space behind it.
    pub(super) rstrip: bool,
    /// Counts only between spaces.
    pub(super) single_word: bool,
    pub(super) special: bool,
}

/// A special token as a file names it.
#[derive(Clone, Debug)]
pub(super) struct Special {
    pub(super) token: Added,
    /// Named by its text alone; then what the added tokens say about it stands.
    pub(super) plain: bool,
}

impl Settings {
    /// Reads the settings of a tokenizer folder; absent files count as empty.
    pub(super) fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("tokenizer_config.json");
        let mut config = object(&path)?.unwrap_or_default();
        let mut added = Vec::new();
        if let Some(decoder) = config.remove("added_tokens_decoder") {
            for (id, token) in decoder.as_object().into_iter().flatten() {
                let id = id
                    .parse()
                    .map_err(|_| Error::malformed(&path, format!("{id:?} is no token id")))?;
                added.push((
                    id,
                    Added::of(token).ok_or_else(|| no_token(&path, "added_tokens_decoder"))?,
                ));
            }
            // serde_json sorts names as text; ids decide which of two tokens with one text stays.
            added.sort_by_key(|(id, _)| *id);
        } else {
            legacy(folder, &mut config, &mut added)?;
        }
        Self::of(&config, added, &path)
    }

    fn of(config: &Map<String, Value>, added: Vec<(u32, Added)>, path: &Path) -> Result<Self, Error> {
        let mut specials: Vec<Special> = Vec::new();
        let mut add = |special: Special| {
            let content = special.token.content.clone();
            if !content.is_empty() && specials.iter().all(|known| known.token.content != content) {
                specials.push(special);
            }
            content
        };
        let named = |key: &str| match config.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => Special::of(value, &added)
                .map(Some)
                .ok_or_else(|| no_token(path, key)),
        };
        // Absent means CLIP's own token; null means none, and no window can be made without.
        let needed = |key: &str| match config.get(key) {
            None => Ok(Special::default_of(key)),
            Some(_) => named(key)?.ok_or_else(|| Error::malformed(path, format!("{key} is null"))),
        };
        // CLIPTokenizer makes these three tokens itself, so they replace what the added tokens say of them.
        let typed = |special: Special| Special {
            plain: false,
            ..special
        };
        let bos = add(typed(needed("bos_token")?));
        let eos = add(typed(needed("eos_token")?));
        let unk = add(typed(needed("unk_token")?));
        named("sep_token")?.map(&mut add);
        let pad = add(needed("pad_token")?);
        named("cls_token")?.map(&mut add);
        named("mask_token")?.map(&mut add);
        let mut additional = Vec::new();
        for value in config
            .get("additional_special_tokens")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            // Unlike the others they are not looked up among the added tokens.
            let special =
                Special::of(value, &[]).ok_or_else(|| no_token(path, "additional_special_tokens"))?;
            additional.push(add(special));
        }
        Ok(Self {
            bos,
            eos,
            unk,
            pad,
            specials,
            additional,
            window: window(config, path)?,
            pads_left: is_left(config, "padding_side", path)?,
            truncates_left: is_left(config, "truncation_side", path)?,
            cleans_up: flag(config, "clean_up_tokenization_spaces"),
            splits_special: flag(config, "split_special_tokens"),
            added,
        })
    }
}

impl Added {
    fn of(value: &Value) -> Option<Self> {
        let flag = |name| value.get(name).and_then(Value::as_bool).unwrap_or_default();
        Some(Self {
            content: value.get("content")?.as_str()?.into(),
            lstrip: flag("lstrip"),
            rstrip: flag("rstrip"),
            single_word: flag("single_word"),
            special: flag("special"),
        })
    }
}

impl Special {
    /// What CLIPTokenizer takes when no file names the token.
    fn default_of(key: &str) -> Self {
        let content = if key == "bos_token" {
            "<|startoftext|>"
        } else {
            "<|endoftext|>"
        };
        Self {
            token: Added {
                content: content.into(),
                special: true,
                ..Added::default()
            },
            plain: true,
        }
    }

    fn of(value: &Value, added: &[(u32, Added)]) -> Option<Self> {
        let plain = value.is_string();
        let content = if plain { value } else { value.get("content")? }
            .as_str()?
            .to_owned();
        // The last token of that text among the added ones takes its place.
        if let Some((_, token)) = added.iter().rev().find(|(_, token)| token.content == content) {
            return Some(Self {
                token: Added {
                    special: true,
                    ..token.clone()
                },
                plain: false,
            });
        }
        let token = Added::of(value).unwrap_or_else(|| Added {
            content,
            ..Added::default()
        });
        Some(Self {
            token: Added {
                special: true,
                ..token
            },
            plain,
        })
    }
}

/// What `from_pretrained` does without `added_tokens_decoder`.
fn legacy(
    folder: &Path,
    config: &mut Map<String, Value>,
    added: &mut Vec<(u32, Added)>,
) -> Result<(), Error> {
    for (key, value) in object(&folder.join("special_tokens_map.json"))?.unwrap_or_default() {
        match (config.get_mut(&key), value) {
            (Some(Value::Array(known)), Value::Array(more)) => {
                for token in more {
                    if !known.contains(&token) {
                        known.push(token);
                    }
                }
            }
            (_, value) => {
                config.insert(key, value);
            }
        }
    }
    let path = folder.join("added_tokens.json");
    let special: Vec<String> = SPECIAL_KEYS
        .iter()
        .filter_map(|key| config.get(*key))
        .flat_map(|value| {
            value
                .as_array()
                .map_or_else(|| std::slice::from_ref(value), Vec::as_slice)
        })
        .filter_map(|value| Special::of(value, &[]))
        .map(|special| special.token.content)
        .collect();
    for (content, id) in object(&path)?.unwrap_or_default() {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or_else(|| Error::malformed(&path, format!("{content:?} has no token id")))?;
        let special = special.contains(&content);
        added.push((
            id,
            Added {
                content,
                special,
                ..Added::default()
            },
        ));
    }
    let path = folder.join("tokenizer.json");
    if !path.exists() {
        return Ok(());
    }
    let file: TokenizerFile =
        serde_json::from_str(&read(&path)?).map_err(|why| Error::malformed(&path, why))?;
    for token in &file.added_tokens {
        let id = token
            .get("id")
            .and_then(Value::as_u64)
            .and_then(|id| u32::try_from(id).ok());
        let (Some(id), Some(token)) = (id, Added::of(token)) else {
            return Err(no_token(&path, "added_tokens"));
        };
        added.retain(|(known, _)| *known != id);
        added.push((id, token));
    }
    Ok(())
}

/// What is read here of a tokenizer.json; the rest, megabytes of it, is passed over.
#[derive(Deserialize)]
struct TokenizerFile {
    #[serde(default)]
    added_tokens: Vec<Value>,
}

const SPECIAL_KEYS: [&str; 8] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
    "additional_special_tokens",
];

/// Reads a JSON object; an absent file is none.
pub(crate) fn object(path: &Path) -> Result<Option<Map<String, Value>>, Error> {
    if !path.exists() {
        return Ok(None);
    }
    serde_json::from_str(&read(path)?)
        .map(Some)
        .map_err(|why| Error::malformed(path, why))
}

/// The class that model_index.json names for a tokenizer, if it names one.
pub(super) fn class(model: &Path, name: &str) -> Result<Option<String>, Error> {
    let index = object(&model.join("model_index.json"))?.unwrap_or_default();
    let class = index.get(name).and_then(|entry| entry.get(1));
    Ok(class.and_then(Value::as_str).map(Into::into))
}

fn no_token(path: &Path, key: &str) -> Error {
    Error::malformed(path, format!("{key} holds something that is no token"))
}

fn flag(config: &Map<String, Value>, key: &str) -> bool {
    config.get(key).and_then(Value::as_bool).unwrap_or_default()
}

fn is_left(config: &Map<String, Value>, key: &str, path: &Path) -> Result<bool, Error> {
    match config.get(key).map(Value::as_str) {
        None | Some(Some("right")) => Ok(false),
        Some(Some("left")) => Ok(true),
        Some(_) => Err(Error::malformed(path, format!("{key} is neither left nor right"))),
    }
}

fn window(config: &Map<String, Value>, path: &Path) -> Result<usize, Error> {
    let named = ["model_max_length", "max_len"]
        .iter()
        .find_map(|key| config.get(*key))
        .and_then(Value::as_f64);
    match named {
        None => Ok(CLIP_WINDOW),
        Some(length) if length > NO_WINDOW => Ok(CLIP_WINDOW),
        Some(length) if (2.0..=MAX_WINDOW).contains(&length) => Ok(length as usize),
        Some(length) => Err(Error::malformed(
            path,
            format!("model_max_length {length} is outside 2 to {MAX_WINDOW}"),
        )),
    }
}
