//! What the text encoders of a model read: one tokenizer each, with the words that embeddings stand for.
//!
//! Stable Diffusion XL has two encoders, its refiner only the second one, all others the first one; model_index.json says
//! which, and folders where it says nothing. Refuses encoders whose windows have different lengths, and embeddings that do
//! not fit. Invariant: an embedding's ids are those that the inference service gives it ([`mobula_embeddings`]).

use std::{collections::HashMap, ops::Range, path::Path};

use mobula_embeddings::{Embeddings, Encoder, Vocabulary};

use crate::{
    Error,
    tokenizer::{Ending, FAKE, Frame, Sequence, Tokenizer, object},
};

/// The text encoders of a model, as far as texts go.
#[derive(Debug)]
pub struct Model {
    /// For `text_encoder`, or the only encoder there is.
    pub first: Reader,
    /// For `text_encoder_2`, where there are two.
    pub second: Option<Reader>,
}

/// Reads texts for one text encoder.
#[derive(Debug)]
pub struct Reader {
    tokenizer: Tokenizer,
    comma: Option<u32>,
    triggers: Triggers,
}

/// A part of a text as ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text.
    Tokens(Vec<u32>),
    /// The vectors of an embedding.
    Embedding(Range<u32>),
}

/// Whether triggers are found in other letters too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// As diffusers finds them.
    Counts,
    /// As AUTOMATIC1111 finds them, which compares the tokens of lower-cased words.
    Ignored,
}

impl Model {
    /// Loads the tokenizers of a model folder with its embeddings, or the one called `fake`.
    ///
    /// # Errors
    ///
    /// Those of [`Tokenizer::load_for`] and [`Error::Embeddings`].
    pub fn load(folder: &Path) -> Result<Self, Error> {
        if folder.as_os_str() == FAKE {
            let first = Reader::new(Tokenizer::load(folder)?, Triggers::default());
            return Ok(Self { first, second: None });
        }
        let embeddings = Embeddings::open(&folder.join("embeddings"))?;
        let index = object(&folder.join("model_index.json"))?.unwrap_or_default();
        let has = |name: &str| match index.get(name) {
            Some(entry) => entry.get(1).is_some_and(|class| !class.is_null()),
            None => folder.join(name).is_dir(),
        };
        let load = |encoder| Reader::load(folder, encoder, &embeddings);
        let is_refiner = has("tokenizer_2") && !has("tokenizer");
        let first = load(if is_refiner {
            Encoder::Second
        } else {
            Encoder::First
        })?;
        let second = match has("tokenizer_2") && !is_refiner {
            true => Some(load(Encoder::Second)?),
            false => None,
        };
        if let Some(second) = &second
            && second.frame().window != first.frame().window
        {
            let why = format!(
                "model_max_length is {}, but tokenizer has {}",
                second.frame().window,
                first.frame().window
            );
            return Err(Error::malformed(&folder.join("tokenizer_2"), why));
        }
        Ok(Self { first, second })
    }
}

impl Reader {
    fn load(folder: &Path, encoder: Encoder, embeddings: &Embeddings) -> Result<Self, Error> {
        let tokenizer = Tokenizer::load_for(folder, encoder)?;
        if embeddings.is_empty() {
            return Ok(Self::new(tokenizer, Triggers::default()));
        }
        let room = tokenizer.frame().window - 2;
        let mut triggers = Triggers::default();
        for row in embeddings.rows(encoder, Vocabulary::of_model(folder, encoder)?)? {
            if row.ids.len() > room {
                let why = format!(
                    "{:?} has {} vectors, a window holds {room}",
                    row.entry.trigger,
                    row.ids.len()
                );
                return Err(Error::malformed(&folder.join("embeddings"), why));
            }
            for trigger in row.entry.triggers() {
                triggers.add(trigger, row.ids.clone());
            }
        }
        Ok(Self::new(tokenizer, triggers))
    }

    fn new(tokenizer: Tokenizer, triggers: Triggers) -> Self {
        Self {
            comma: tokenizer.comma(),
            tokenizer,
            triggers,
        }
    }

    /// How ids become a window.
    #[must_use]
    pub fn frame(&self) -> Frame {
        self.tokenizer.frame()
    }

    /// Ids in a window, start and end token not counted.
    pub(crate) fn room(&self) -> usize {
        self.frame().window - 2
    }

    /// The id of a comma, if it is one token.
    pub(crate) fn comma(&self) -> Option<u32> {
        self.comma
    }

    /// Where a token may end a part of a text.
    pub(crate) fn ending(&self, id: u32) -> Ending {
        self.tokenizer.ending(id)
    }

    /// A text's ids, without start and end token.
    pub(crate) fn read(&self, text: &str, case: Case) -> Result<Vec<Piece>, Error> {
        let mut pieces = Vec::new();
        let mut from = 0;
        for (found, ids) in self.triggers.find(text, case) {
            if found.start > from {
                pieces.push(Piece::Tokens(self.tokenizer.encode(&text[from..found.start])?));
            }
            pieces.push(Piece::Embedding(ids));
            from = found.end;
        }
        if from < text.len() {
            pieces.push(Piece::Tokens(self.tokenizer.encode(&text[from..])?));
        }
        Ok(pieces)
    }

    /// A text of any length in one window, as diffusers makes it.
    pub(crate) fn window(&self, text: &str) -> Result<Sequence, Error> {
        let pieces = match self.triggers.is_empty() {
            true => return self.tokenizer.window(text),
            false => self.read(text, Case::Counts)?,
        };
        let ids: Vec<u32> = pieces
            .into_iter()
            .flat_map(|piece| match piece {
                Piece::Tokens(ids) => ids,
                Piece::Embedding(ids) => ids.collect(),
            })
            .collect();
        Ok(self.frame().fit(&ids, |cut| self.decode(cut)))
    }

    /// The text that ids stand for, triggers for the ids of embeddings.
    fn decode(&self, ids: &[u32]) -> String {
        let trigger = |id: &u32| self.triggers.of(*id);
        let runs = ids.chunk_by(|one, other| trigger(one) == trigger(other));
        let text = |run: &[u32]| match trigger(&run[0]) {
            Some(trigger) => trigger.to_owned(),
            None => self.tokenizer.decode(run),
        };
        runs.map(text).collect::<Vec<_>>().join(" ")
    }
}

/// Words that stand for embeddings.
#[derive(Debug, Default)]
struct Triggers {
    /// By their first character in small letters, longest first.
    by_first: HashMap<char, Vec<(String, Range<u32>)>>,
}

impl Triggers {
    fn add(&mut self, trigger: &str, ids: Range<u32>) {
        let Some(first) = trigger.chars().next() else {
            return;
        };
        let known = self.by_first.entry(first.to_ascii_lowercase()).or_default();
        known.push((trigger.into(), ids));
        known.sort_by_key(|(trigger, _)| std::cmp::Reverse(trigger.len()));
    }

    fn is_empty(&self) -> bool {
        self.by_first.is_empty()
    }

    /// The trigger of an id.
    fn of(&self, id: u32) -> Option<&str> {
        let mut all = self.by_first.values().flatten();
        all.find(|(_, ids)| ids.contains(&id))
            .map(|(trigger, _)| trigger.as_str())
    }

    /// Where triggers stand in a text as words of their own, and what ids they get.
    fn find(&self, text: &str, case: Case) -> Vec<(Range<usize>, Range<u32>)> {
        let mut found = Vec::new();
        if self.is_empty() {
            return found;
        }
        let is_word = |char: Option<char>| char.is_some_and(|char| char.is_alphanumeric() || char == '_');
        let (mut end, mut before) = (0, None);
        for (at, char) in text.char_indices() {
            let previous = before.replace(char);
            let Some(known) = self
                .by_first
                .get(&char.to_ascii_lowercase())
                .filter(|_| at >= end)
            else {
                continue;
            };
            let fits = |(trigger, _): &&(String, Range<u32>)| {
                let Some(part) = text.get(at..at + trigger.len()) else {
                    return false;
                };
                let same = part == trigger || case == Case::Ignored && part.eq_ignore_ascii_case(trigger);
                let begins = !(is_word(trigger.chars().next()) && is_word(previous));
                let behind = text[at + trigger.len()..].chars().next();
                same && begins && !(is_word(trigger.chars().next_back()) && is_word(behind))
            };
            if let Some((trigger, ids)) = known.iter().find(fits) {
                end = at + trigger.len();
                found.push((at..end, ids.clone()));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests;
