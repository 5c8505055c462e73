//! Prompts to token windows: one tokenizer per model folder.
//!
//! [`Tokenizer::load`] takes a folder in diffusers' layout, or `fake`. What the tokenizers share is the [`Frame`]; how text
//! becomes ids is `clip`'s, `file`'s or `fake`'s. Refuses folders that name a tokenizer of another kind.

mod added;
mod bpe;
mod cache;
mod clip;
mod fake;
mod file;
mod pieces;
mod settings;
mod text;
mod unicode;
mod unicode_table;
mod vocabulary;
mod window;

use std::path::Path;

use mobula_embeddings::Encoder;
use serde_json::Value;

pub use self::window::{Frame, Sequence};
use self::{clip::Clip, file::File, settings::Settings};
pub(crate) use self::{settings::object, unicode::is_python_space};
use crate::Error;

/// The model that needs no folder.
pub const FAKE: &str = "fake";

/// A loaded tokenizer; shared between threads, it never changes.
#[derive(Debug)]
pub struct Tokenizer(Kind);

/// Where a token may end a part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// A word goes on behind it.
    Inside,
    /// A word ends.
    Word,
    /// It is a comma, colon or semicolon.
    Phrase,
    /// It is a full stop.
    Sentence,
}

#[derive(Debug)]
enum Kind {
    Clip(Box<Clip>),
    File(Box<File>),
    Fake,
}

impl Tokenizer {
    /// Loads the first tokenizer of a model folder (`<model>/tokenizer/`), or the one called `fake`.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::load_for`].
    pub fn load(model: &Path) -> Result<Self, Error> {
        if model.as_os_str() == FAKE {
            return Ok(Self(Kind::Fake));
        }
        Self::load_for(model, Encoder::First)
    }

    /// Loads the tokenizer of one of a model's text encoders (`<model>/tokenizer/` or `<model>/tokenizer_2/`).
    ///
    /// CLIPTokenizer's files are vocab.json and merges.txt; tokenizer.json is used where they are not, or where
    /// model_index.json names CLIPTokenizerFast.
    ///
    /// # Errors
    ///
    /// [`Error::NoTokenizer`], [`Error::Unsupported`], [`Error::Unreadable`] and [`Error::Malformed`] name the folder or
    /// file.
    pub fn load_for(model: &Path, encoder: Encoder) -> Result<Self, Error> {
        let name = match encoder {
            Encoder::First => "tokenizer",
            Encoder::Second => "tokenizer_2",
        };
        let folder = model.join(name);
        let class = settings::class(model, name)?;
        if !matches!(
            class.as_deref(),
            None | Some("CLIPTokenizer" | "CLIPTokenizerFast")
        ) {
            return Err(Error::Unsupported {
                model: model.into(),
                class: class.unwrap_or_default(),
            });
        }
        let has = |name: &str| folder.join(name).is_file();
        let settings = Settings::read(&folder)?;
        let has_slow = has("vocab.json") && has("merges.txt");
        let tokenizer =
            if has("tokenizer.json") && (!has_slow || class.as_deref() == Some("CLIPTokenizerFast")) {
                Self(Kind::File(Box::new(File::load(&folder, &settings)?)))
            } else if has("vocab.json") || has("merges.txt") {
                Self(Kind::Clip(Box::new(Clip::load(&folder, &settings)?)))
            } else {
                return Err(Error::NoTokenizer { folder });
            };
        fits(&folder, &tokenizer, encoder)?;
        Ok(tokenizer)
    }

    /// Tokenizes a text of any length into one window.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] when a tokenizer.json fails on the text; CLIPTokenizer's own files cannot.
    pub fn window(&self, text: &str) -> Result<Sequence, Error> {
        Ok(match &self.0 {
            Kind::Clip(clip) => clip.frame.fit(&clip.encode(text), |cut| clip.decode(cut)),
            Kind::File(file) => file.frame.fit(&file.encode(text)?, |cut| file.decode(cut)),
            Kind::Fake => fake::FRAME.fit(&fake::encode(text), |_| fake::cut_off(text)),
        })
    }

    /// Tokenizes a text of any length, without start and end token.
    ///
    /// # Errors
    ///
    /// As for [`Tokenizer::window`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        Ok(match &self.0 {
            Kind::Clip(clip) => clip.encode(text),
            Kind::File(file) => file.encode(text)?,
            Kind::Fake => fake::encode(text),
        })
    }

    /// The text that ids stand for, as far as they can be turned back.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        match &self.0 {
            Kind::Clip(clip) => clip.decode(ids),
            Kind::File(file) => file.decode(ids),
            Kind::Fake => String::new(),
        }
    }

    /// Where a token may end a part of a text.
    #[must_use]
    pub fn ending(&self, id: u32) -> Ending {
        match &self.0 {
            Kind::Clip(clip) => ending(clip.spelled(id)),
            Kind::File(file) => ending(file.spelled(id).unwrap_or_default().as_bytes()),
            // An id stands for a word.
            Kind::Fake => Ending::Word,
        }
    }

    /// The id of a comma that ends a word, if it is one token.
    #[must_use]
    pub fn comma(&self) -> Option<u32> {
        let ids = self.encode(",").unwrap_or_default();
        <[u32; 1]>::try_from(ids)
            .ok()
            .map(|[id]| id)
            .filter(|id| self.ending(*id) == Ending::Phrase)
    }

    /// How its ids become a window.
    #[must_use]
    pub fn frame(&self) -> Frame {
        match &self.0 {
            Kind::Clip(clip) => clip.frame,
            Kind::File(file) => file.frame,
            Kind::Fake => fake::FRAME,
        }
    }
}

/// What a token's bytes say of its end.
fn ending(token: &[u8]) -> Ending {
    match token {
        b".</w>" => Ending::Sentence,
        b",</w>" | b";</w>" | b":</w>" => Ending::Phrase,
        _ if token.ends_with(bpe::END_OF_WORD.as_bytes()) => Ending::Word,
        _ => Ending::Inside,
    }
}

/// Refuses a tokenizer whose windows the text encoder beside it cannot encode; an absent configuration says nothing.
fn fits(folder: &Path, tokenizer: &Tokenizer, encoder: Encoder) -> Result<(), Error> {
    let encoder = encoder.folder();
    let config = folder.with_file_name(encoder).join("config.json");
    let config = settings::object(&config)?.unwrap_or_default();
    let number = |key: &str| config.get(key).and_then(Value::as_u64);
    let frame = tokenizer.frame();
    // Short enough to be padded, so that every special token is among the ids.
    let ids = tokenizer.window("a photo")?.ids;
    let largest = u64::from(ids.into_iter().max().unwrap_or_default());
    if let Some(size) = number("vocab_size")
        && largest >= size
    {
        let why = format!(
            "\"a photo\" has the token id {largest}, but {encoder}/config.json has vocab_size {size}: the tokenizer is \
             another model's"
        );
        return Err(Error::malformed(folder, why));
    }
    if let Some(window) = number("max_position_embeddings")
        && window != frame.window as u64
    {
        let why = format!(
            "model_max_length is {}, but {encoder}/config.json has max_position_embeddings {window}",
            frame.window
        );
        return Err(Error::malformed(folder, why));
    }
    Ok(())
}
