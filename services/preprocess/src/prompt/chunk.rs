//! Tokens in windows: where a long text is cut.
//!
//! AUTOMATIC1111 fills windows, but takes what follows a comma near the end into the next one (`tokenize_line` in
//! modules/sd_hijack_clip.py, version 1.10, with its default of 20 tokens). compel ends windows at a full stop, else at
//! a comma, colon or semicolon, else between words (`_find_next_best_split_point` of embeddings_provider.py, compel 2.3,
//! `SplitLongTextMode.SENTENCES`). Refuses texts with more windows than the limit. Invariant: there is a chunk, and none has
//! more tokens than a window has room for.

use super::{Limits, Part, Refused};
use crate::{
    Error,
    model::{Case, Piece, Reader},
    tokenizer::Ending,
};

/// AUTOMATIC1111's `comma_padding_backtrack`.
const COMMA_TOKENS: usize = 20;

/// The tokens of a window, without start and end token.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Chunk {
    pub(super) ids: Vec<u32>,
    pub(super) weights: Vec<f32>,
}

impl Chunk {
    fn push(&mut self, ids: impl IntoIterator<Item = u32>, weight: f32) {
        self.ids.extend(ids);
        self.weights.resize(self.ids.len(), weight);
    }

    fn split_off(&mut self, at: usize) -> Self {
        Self {
            ids: self.ids.split_off(at),
            weights: self.weights.split_off(at),
        }
    }
}

/// Windows that are full, and the one that is being filled.
struct Chunks<'a> {
    done: Vec<Chunk>,
    open: Chunk,
    limits: &'a Limits,
}

impl<'a> Chunks<'a> {
    fn new(limits: &'a Limits) -> Self {
        Self {
            done: Vec::new(),
            open: Chunk::default(),
            limits,
        }
    }

    /// Closes the open window.
    fn close(&mut self) -> Result<(), Refused> {
        if self.done.len() == self.limits.windows {
            return Err(Refused(format!(
                "needs at least {} windows of tokens, more than {}",
                self.limits.windows + 1,
                self.limits.windows
            )));
        }
        self.done.push(std::mem::take(&mut self.open));
        Ok(())
    }
}

/// Why parts did not become chunks.
pub(super) enum Failed {
    Refused(Refused),
    Error(Error),
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Windows as AUTOMATIC1111 fills them.
pub(super) fn a1111(reader: &Reader, parts: &[Part], limits: &Limits) -> Result<Vec<Chunk>, Failed> {
    let (room, comma) = (reader.room(), reader.comma());
    let mut chunks = Chunks::new(limits);
    let mut last_comma: Option<usize> = None;
    for part in parts {
        let (text, weight) = match part {
            Part::Text(text, weight) => (text, *weight as f32),
            Part::Break => {
                chunks.close()?;
                last_comma = None;
                continue;
            }
        };
        for piece in reader.read(text, Case::Ignored)? {
            let ids = match piece {
                Piece::Tokens(ids) => ids,
                Piece::Embedding(ids) => {
                    // All its vectors in one window.
                    if chunks.open.ids.len() + ids.len() > room {
                        chunks.close()?;
                        last_comma = None;
                    }
                    chunks.open.push(ids, weight);
                    continue;
                }
            };
            for id in ids {
                let length = chunks.open.ids.len();
                if Some(id) == comma {
                    last_comma = Some(length);
                } else if length == room
                    && let Some(at) = last_comma
                    && length - at <= COMMA_TOKENS
                {
                    let moved = chunks.open.split_off(at + 1);
                    chunks.close()?;
                    last_comma = None;
                    chunks.open = moved;
                }
                if chunks.open.ids.len() == room {
                    chunks.close()?;
                    last_comma = None;
                }
                chunks.open.push([id], weight);
            }
        }
    }
    if !chunks.open.ids.is_empty() || chunks.done.is_empty() {
        chunks.close()?;
    }
    Ok(chunks.done)
}

/// Windows as compel cuts them.
pub(super) fn compel(reader: &Reader, parts: &[Part], limits: &Limits) -> Result<Vec<Chunk>, Failed> {
    let mut chunks = Chunks::new(limits);
    let mut all = Chunk::default();
    for part in parts {
        if let Part::Text(text, weight) = part {
            for piece in reader.read(text, Case::Counts)? {
                match piece {
                    Piece::Tokens(ids) => all.push(ids, *weight as f32),
                    Piece::Embedding(ids) => all.push(ids, *weight as f32),
                }
            }
        }
    }
    loop {
        let rest = all.split_off(cut(reader, &all.ids));
        chunks.open = std::mem::replace(&mut all, rest);
        chunks.close()?;
        if all.ids.is_empty() {
            return Ok(chunks.done);
        }
    }
}

/// How many tokens the next window takes.
fn cut(reader: &Reader, ids: &[u32]) -> usize {
    let room = reader.room();
    if ids.len() <= room {
        return ids.len();
    }
    // A full stop is a phrase's end and a word's end too, so the later of the best kind counts.
    let last = |least: Ending| ids[..room].iter().rposition(|id| reader.ending(*id) >= least);
    [Ending::Sentence, Ending::Phrase, Ending::Word]
        .into_iter()
        .find_map(last)
        .map_or(room, |at| at + 1)
}
