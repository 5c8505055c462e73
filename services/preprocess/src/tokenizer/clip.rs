//! transformers' CLIPTokenizer (4.57, without ftfy): text to token ids and back.
//!
//! Any text gives exactly its ids. CLIPTokenizerFast differs (it keeps control characters, does not set ideographs apart,
//! does not know the final sigma) and is [`super::file`]'s matter. Refuses a folder without vocab.json or merges.txt and
//! one whose special tokens have no id.

use std::path::Path;

use super::{
    added::{AddedTokens, Part},
    bpe::Bpe,
    pieces::pieces,
    settings::Settings,
    text::normalize,
    vocabulary::{Merges, Spelling, Vocabulary, clean_up, to_text},
    window::Frame,
};
use crate::Error;

/// A loaded CLIPTokenizer.
#[derive(Debug)]
pub(super) struct Clip {
    /// Where the ids go.
    pub(super) frame: Frame,
    added: AddedTokens,
    bpe: Bpe,
    spelling: Spelling,
    /// Added tokens that stand apart when ids are turned back (`legacy_added_tokens`), with their texts.
    apart: Vec<(u32, String)>,
    splits_special: bool,
    cleans_up: bool,
}

impl Clip {
    /// Loads vocab.json and merges.txt with the settings beside them.
    pub(super) fn load(folder: &Path, settings: &Settings) -> Result<Self, Error> {
        let vocabulary = Vocabulary::read(&folder.join("vocab.json"))?;
        let merges = Merges::read(&folder.join("merges.txt"))?;
        let added = AddedTokens::new(settings, &vocabulary);
        let id = |token: &str| added.id(token).or_else(|| vocabulary.id(token));
        let needed = |name, token: &str| {
            id(token).ok_or_else(|| Error::malformed(folder, format!("{name} {token:?} has no id")))
        };
        // The vocabulary first: that is where CLIPTokenizer looks for the unknown token.
        let unknown = vocabulary
            .id(&settings.unk)
            .map_or_else(|| needed("unk_token", &settings.unk), Ok)?;
        let frame = Frame {
            window: settings.window,
            bos: needed("bos_token", &settings.bos)?,
            eos: needed("eos_token", &settings.eos)?,
            pad: needed("pad_token", &settings.pad)?,
            pads_left: settings.pads_left,
            truncates_left: settings.truncates_left,
        };
        let is_special = |content: &str| {
            settings
                .specials
                .iter()
                .any(|special| special.token.content == content)
        };
        let is_new = |content: &str| {
            settings.additional.iter().any(|additional| additional == content)
                && id(content).is_some_and(|id| id as usize >= vocabulary.len())
        };
        let apart = added
            .iter()
            .filter(|(content, _)| !is_special(content) || is_new(content))
            .map(|(content, id)| (id, content.to_owned()))
            .collect();
        let spelling = Spelling::new(vocabulary.iter().chain(added.iter()));
        let bpe = Bpe::new(merges.pairs(), |token| id(token).unwrap_or(unknown));
        Ok(Self {
            frame,
            bpe,
            spelling,
            apart,
            added,
            splits_special: settings.splits_special,
            cleans_up: settings.cleans_up,
        })
    }

    /// The text's token ids, without start and end token.
    pub(super) fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::with_capacity(self.frame.window);
        if self.splits_special {
            self.encode_part(text, &mut ids);
            return ids;
        }
        for part in self.added.split(text) {
            match part {
                Part::Token(id) => ids.push(id),
                Part::Text(text) => self.encode_part(&text, &mut ids),
            }
        }
        ids
    }

    /// A token's bytes, with the mark of a word's end; none for an id that has no token.
    pub(super) fn spelled(&self, id: u32) -> &[u8] {
        self.spelling.of(id)
    }

    fn encode_part(&self, text: &str, ids: &mut Vec<u32>) {
        for piece in normalize(text).split(' ').flat_map(pieces) {
            self.bpe.encode(piece, ids);
        }
    }

    /// The text that token ids stand for, as far as they can be turned back (`decode`).
    pub(super) fn decode(&self, ids: &[u32]) -> String {
        let mut parts = Vec::new();
        let mut bytes: Vec<u8> = Vec::new();
        let flush = |bytes: &mut Vec<u8>, parts: &mut Vec<String>| {
            parts.extend(Some(to_text(bytes)).filter(|text| !text.is_empty()));
            bytes.clear();
        };
        for id in ids {
            match self.apart.iter().find(|(apart, _)| apart == id) {
                Some((_, content)) => {
                    flush(&mut bytes, &mut parts);
                    parts.push(content.clone());
                }
                None => bytes.extend_from_slice(self.spelling.of(*id)),
            }
        }
        // What remains joins even when it is empty text, with the space before it.
        if !bytes.is_empty() {
            parts.push(to_text(&bytes));
        }
        let text = parts.join(" ");
        if self.cleans_up { clean_up(text) } else { text }
    }
}
