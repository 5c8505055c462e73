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

use serde_json::Value;

pub use self::window::{Frame, Sequence};
use self::{clip::Clip, file::File, settings::Settings};
use crate::Error;

/// The model that needs no folder.
pub const FAKE: &str = "fake";

/// A loaded tokenizer; shared between threads, it never changes.
#[derive(Debug)]
pub struct Tokenizer(Kind);

#[derive(Debug)]
enum Kind {
    Clip(Box<Clip>),
    File(Box<File>),
    Fake,
}

impl Tokenizer {
    /// Loads the tokenizer of a model folder (`<model>/tokenizer/`), or the one called `fake`.
    ///
    /// CLIPTokenizer's files are vocab.json and merges.txt; tokenizer.json is used where they are not, or where
    /// model_index.json names CLIPTokenizerFast.
    ///
    /// # Errors
    ///
    /// [`Error::NoTokenizer`], [`Error::Unsupported`], [`Error::Unreadable`] and [`Error::Malformed`] name the folder or
    /// file.
    pub fn load(model: &Path) -> Result<Self, Error> {
        if model.as_os_str() == FAKE {
            return Ok(Self(Kind::Fake));
        }
        let folder = model.join("tokenizer");
        let class = class(model)?;
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
        fits(&folder, &tokenizer, &model.join("text_encoder/config.json"))?;
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

/// Refuses a tokenizer whose windows the text encoder beside it cannot encode; an absent configuration says nothing.
fn fits(folder: &Path, tokenizer: &Tokenizer, config: &Path) -> Result<(), Error> {
    let config = settings::object(config)?.unwrap_or_default();
    let number = |key: &str| config.get(key).and_then(Value::as_u64);
    let frame = tokenizer.frame();
    // Short enough to be padded, so that every special token is among the ids.
    let ids = tokenizer.window("a photo")?.ids;
    let largest = u64::from(ids.into_iter().max().unwrap_or_default());
    if let Some(size) = number("vocab_size")
        && largest >= size
    {
        let why = format!(
            "\"a photo\" has the token id {largest}, but text_encoder/config.json has vocab_size {size}: the \
             tokenizer is another model's"
        );
        return Err(Error::malformed(folder, why));
    }
    if let Some(window) = number("max_position_embeddings")
        && window != frame.window as u64
    {
        let why = format!(
            "model_max_length is {}, but text_encoder/config.json has max_position_embeddings {window}",
            frame.window
        );
        return Err(Error::malformed(folder, why));
    }
    Ok(())
}

/// The tokenizer class that model_index.json names, if there is one.
fn class(model: &Path) -> Result<Option<String>, Error> {
    let index = settings::object(&model.join("model_index.json"))?.unwrap_or_default();
    Ok(index
        .get("tokenizer")
        .and_then(|entry| entry.get(1))
        .and_then(Value::as_str)
        .map(Into::into))
}
