//! A folder of embeddings, and the token ids that they get.
//!
//! Refuses two files with one trigger, folders beyond the limits, and vectors that do not fit the text encoder. Invariant:
//! entries are sorted by trigger, bytewise, so every process that reads the folder counts ids in the same order.

use std::{
    collections::HashMap,
    fs,
    io::ErrorKind,
    ops::Range,
    path::{Path, PathBuf},
};

use crate::{Encoder, Entry, Error, Matrix, Vocabulary};

/// Collections of embeddings that people serve have some tens.
const MAX_FILES: usize = 1024;
/// Numbers in memory: 64 MiB of float32 are some 5,000 vectors for Stable Diffusion XL.
const MAX_NUMBERS: usize = 16 << 20;

/// The embeddings of one model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embeddings {
    entries: Vec<Entry>,
}

/// What one embedding is to one text encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct Row<'a> {
    /// The embedding.
    pub entry: &'a Entry,
    /// Its vectors for this encoder.
    pub vectors: &'a Matrix,
    /// Their token ids, one per vector.
    pub ids: Range<u32>,
}

impl Embeddings {
    /// Reads every `*.safetensors` of a folder (`<model>/embeddings`); an absent folder holds none.
    ///
    /// # Errors
    ///
    /// [`Error::Unreadable`], [`Error::Malformed`], [`Error::TooLarge`] and [`Error::Twice`] name the file.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let unreadable = |source| Error::Unreadable {
            path: folder.into(),
            source,
        };
        let listed = match fs::read_dir(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            listed => listed.map_err(unreadable)?,
        };
        let mut paths = Vec::new();
        for entry in listed {
            let path = entry.map_err(unreadable)?.path();
            if path.extension().is_some_and(|ending| ending == "safetensors") {
                if paths.len() == MAX_FILES {
                    return Err(Error::too_large(
                        folder,
                        format!("it holds more than {MAX_FILES} files"),
                    ));
                }
                paths.push(path);
            }
        }
        let mut entries = Vec::with_capacity(paths.len());
        let mut numbers = 0;
        for path in paths {
            let entry = Entry::open(&path)?;
            let matrices = [&entry.vectors_1, &entry.vectors_2];
            numbers += matrices
                .into_iter()
                .flatten()
                .map(|matrix| matrix.values.len())
                .sum::<usize>();
            if numbers > MAX_NUMBERS {
                return Err(Error::too_large(
                    folder,
                    format!("its vectors have more than {MAX_NUMBERS} numbers"),
                ));
            }
            entries.push((entry, path));
        }
        Self::new(entries)
    }

    fn new(mut entries: Vec<(Entry, PathBuf)>) -> Result<Self, Error> {
        entries.sort_by(|(one, _), (other, _)| one.trigger.cmp(&other.trigger));
        let mut known: HashMap<&str, &Path> = HashMap::new();
        for (entry, path) in &entries {
            for trigger in entry.triggers() {
                if let Some(first) = known.insert(trigger, path) {
                    return Err(Error::Twice {
                        trigger: trigger.into(),
                        first: first.into(),
                        second: path.clone(),
                    });
                }
            }
        }
        Ok(Self {
            entries: entries.into_iter().map(|(entry, _)| entry).collect(),
        })
    }

    /// All of them, sorted by trigger.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Gives the embeddings that a text encoder takes their token ids: the first one the first id behind the encoder's
    /// vocabulary, one id per vector, the next one the ids behind those, in the order of triggers.
    ///
    /// Ids are counted per encoder: an embedding without vectors for it takes none. An id's vector is therefore row
    /// `id - vocabulary.size` of all [`Row::vectors`] put together.
    ///
    /// # Errors
    ///
    /// [`Error::Width`] when vectors do not fit the encoder.
    pub fn rows(&self, encoder: Encoder, vocabulary: Vocabulary) -> Result<Vec<Row<'_>>, Error> {
        let mut next = vocabulary.size;
        let mut rows = Vec::new();
        for entry in &self.entries {
            let vectors = match encoder {
                Encoder::First => &entry.vectors_1,
                Encoder::Second => &entry.vectors_2,
            };
            let Some(vectors) = vectors else { continue };
            if vectors.width != vocabulary.width {
                return Err(Error::Width {
                    trigger: entry.trigger.clone(),
                    width: vectors.width,
                    wanted: vocabulary.width,
                });
            }
            // At most MAX_NUMBERS vectors behind a vocabulary that is as bounded.
            let end = next + vectors.rows as u32;
            rows.push(Row {
                entry,
                vectors,
                ids: next..end,
            });
            next = end;
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests;
