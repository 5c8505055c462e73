//! What can be wrong with a folder of embeddings.

use std::path::{Path, PathBuf};

/// Everything that can fail.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or the folder cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} cannot be used: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// The folder or a file is larger than the limits.
    #[error("{} is too large: {why}", path.display())]
    TooLarge {
        /// The file or folder.
        path: PathBuf,
        /// The size and the limit.
        why: String,
    },
    /// Two files have one trigger.
    #[error("{} and {} both have the trigger {trigger:?}: rename one", first.display(), second.display())]
    Twice {
        /// The word.
        trigger: String,
        /// The file that has it.
        first: PathBuf,
        /// The other one.
        second: PathBuf,
    },
    /// An embedding was made for another text encoder.
    #[error(
        "embedding {trigger:?} has vectors of {width} numbers, but the text encoder takes {wanted}: it is another model's, remove it"
    )]
    Width {
        /// The embedding.
        trigger: String,
        /// What it has.
        width: usize,
        /// What the text encoder has.
        wanted: usize,
    },
}

impl Error {
    pub(crate) fn malformed(path: &Path, why: impl ToString) -> Self {
        Self::Malformed {
            path: path.into(),
            why: why.to_string(),
        }
    }

    pub(crate) fn too_large(path: &Path, why: impl ToString) -> Self {
        Self::TooLarge {
            path: path.into(),
            why: why.to_string(),
        }
    }
}
