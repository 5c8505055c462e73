//! What can go wrong in the preprocess service, and what a caller sees of it.
use std::path::{Path, PathBuf};

/// Everything that can fail.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model folder has no tokenizer files.
    #[error("no tokenizer in {folder:?}: vocab.json with merges.txt, or tokenizer.json, is needed")]
    NoTokenizer {
        /// The tokenizer's folder.
        folder: PathBuf,
    },
    /// model_index.json names a tokenizer of another kind.
    #[error("{model:?} needs a {class}; CLIPTokenizer and CLIPTokenizerFast are supported")]
    Unsupported {
        /// The model folder.
        model: PathBuf,
        /// The class that was named.
        class: String,
    },
    /// A file of the model cannot be read.
    #[error("cannot read {path:?}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file of the model does not hold what it should.
    #[error("{path:?} is not usable: {why}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A tokenizer.json failed on a text.
    #[error("tokenizer failed")]
    Tokenizer(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// A file that holds something else than it should.
    pub(crate) fn malformed(path: &Path, why: impl ToString) -> Self {
        Self::Malformed { path: path.into(), why: why.to_string() }
    }
}
