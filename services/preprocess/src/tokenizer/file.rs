//! A tokenizer.json, run by Hugging Face's `tokenizers`: transformers' CLIPTokenizerFast.
//!
//! For folders without vocab.json and merges.txt, and for those whose model_index.json names the fast class. The file says
//! itself how text is normalized and cut, and that differs from CLIPTokenizer (control characters, ideographs, final
//! sigma). Refuses a file that `tokenizers` cannot read or that lacks a special token.

use std::path::Path;

use tokenizers::{AddedToken, Tokenizer};

use super::{
    bpe::END_OF_WORD,
    settings::{Added, Settings},
    unicode::is_python_space,
    vocabulary::clean_up,
    window::Frame,
};
use crate::Error;

/// A loaded tokenizer.json.
#[derive(Debug)]
pub(super) struct File {
    /// Where the ids go.
    pub(super) frame: Frame,
    tokenizer: Tokenizer,
    cleans_up: bool,
}

impl File {
    /// Loads tokenizer.json with the settings beside it.
    pub(super) fn load(folder: &Path, settings: &Settings) -> Result<Self, Error> {
        let path = folder.join("tokenizer.json");
        let mut tokenizer = Tokenizer::from_file(&path).map_err(|why| Error::malformed(&path, why))?;
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|why| Error::malformed(&path, why))?;
        // Only those that the file does not have already: adding again would change how it treats them.
        let missing = settings.added.iter().map(|(_, token)| token);
        for token in missing.chain(settings.specials.iter().map(|special| &special.token)) {
            if !tokenizer
                .get_added_vocabulary()
                .get_vocab()
                .contains_key(&token.content)
            {
                let token = [native(token)];
                if token[0].special {
                    tokenizer
                        .add_special_tokens(token)
                        .map_err(|why| Error::malformed(&path, why))?;
                } else {
                    tokenizer
                        .add_tokens(token)
                        .map_err(|why| Error::malformed(&path, why))?;
                }
            }
        }
        let id = |name, token: &str| {
            tokenizer
                .token_to_id(token)
                .ok_or_else(|| Error::malformed(&path, format!("{name} {token:?} has no id")))
        };
        let frame = Frame {
            window: settings.window,
            bos: id("bos_token", &settings.bos)?,
            eos: id("eos_token", &settings.eos)?,
            pad: id("pad_token", &settings.pad)?,
            pads_left: settings.pads_left,
            truncates_left: settings.truncates_left,
        };
        Ok(Self {
            frame,
            tokenizer,
            cleans_up: settings.cleans_up,
        })
    }

    /// The text's token ids, without start and end token.
    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        let encoding = self
            .tokenizer
            .encode_fast(text, false)
            .map_err(Error::Tokenizer)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// A token as the file spells it.
    pub(super) fn spelled(&self, id: u32) -> Option<String> {
        self.tokenizer.id_to_token(id)
    }

    /// The text that token ids stand for; empty where the file cannot say.
    pub(super) fn decode(&self, ids: &[u32]) -> String {
        let text = self
            .tokenizer
            .decode(ids, false)
            .unwrap_or_default()
            .replace(END_OF_WORD, " ");
        let text = text.trim_matches(is_python_space).to_owned();
        if self.cleans_up { clean_up(text) } else { text }
    }
}

fn native(token: &Added) -> AddedToken {
    AddedToken::from(token.content.clone(), token.special)
        .lstrip(token.lstrip)
        .rstrip(token.rstrip)
        .single_word(token.single_word)
}
