//! What can go wrong in the preprocess service, and what a caller sees of it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use mobula_kit::{chain, status, worker::Refused};
use tonic::{Code, Status};

/// A photograph of some megapixels takes about as long.
const PICTURE_RETRY: Duration = Duration::from_millis(200);

/// Everything that can fail.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model folder has no tokenizer files.
    #[error("no tokenizer in {}: vocab.json with merges.txt, or tokenizer.json, is needed", folder.display())]
    NoTokenizer {
        /// The tokenizer's folder.
        folder: PathBuf,
    },
    /// model_index.json names a tokenizer of another kind.
    #[error("{} needs a {class}; CLIPTokenizer and CLIPTokenizerFast are supported", model.display())]
    Unsupported {
        /// The model folder.
        model: PathBuf,
        /// The class that was named.
        class: String,
    },
    /// A file of the model cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file of the model does not hold what it should.
    #[error("{} cannot be used: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The model's embeddings cannot be used.
    #[error(transparent)]
    Embeddings(#[from] mobula_embeddings::Error),
    /// The specification of a replica asks for something that this service does not do.
    #[error("{0}")]
    Specification(String),
    /// A tokenizer.json failed on a text.
    #[error("tokenizer failed")]
    Tokenizer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Tokenizing panicked.
    #[error("tokenizer panicked")]
    Panicked,
    /// A request's field is not as it must be.
    #[error("{field}: {why}")]
    Invalid {
        /// Which field.
        field: String,
        /// Why not.
        why: String,
    },
    /// No tokenizer thread is free and the queue is full.
    #[error("tokenizer queue is full ({depth} waiting)")]
    Overloaded {
        /// Requests in the queue.
        depth: usize,
        /// When it should have drained.
        retry_after: Duration,
    },
    /// More files are here than memory is meant for.
    #[error("{limit} pictures are being prepared, which is the limit")]
    Pictures {
        /// How many there may be.
        limit: usize,
    },
    /// The tokenizer threads have ended.
    #[error("service is stopping")]
    Stopping,
    /// The replica takes no request.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The system refused something that the service cannot start without.
    #[error("cannot start: {what}")]
    Start {
        /// What was refused.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The kit refused.
    #[error(transparent)]
    Kit(#[from] mobula_kit::Error),
}

impl Error {
    /// A file that holds something else than it should.
    pub(crate) fn malformed(path: &Path, why: impl ToString) -> Self {
        Self::Malformed {
            path: path.into(),
            why: why.to_string(),
        }
    }

    /// Decides what a caller sees and whether a retry elsewhere can help.
    pub fn code(&self) -> Code {
        match self {
            Self::Invalid { .. } => Code::InvalidArgument,
            Self::NoTokenizer { .. }
            | Self::Unsupported { .. }
            | Self::Malformed { .. }
            | Self::Embeddings(_)
            | Self::Specification(_) => Code::FailedPrecondition,
            Self::Overloaded { .. } | Self::Pictures { .. } => Code::ResourceExhausted,
            Self::Stopping => Code::Unavailable,
            Self::Refused(refused) => refused.code(),
            Self::Kit(error) => error.code(),
            Self::Unreadable { .. } | Self::Tokenizer(_) | Self::Panicked | Self::Start { .. } => {
                Code::Internal
            }
        }
    }

    /// Whether loading the same model here again would fail alike: it is missing, or is nothing that this service reads.
    /// A disk that could not be read may be read the next time.
    pub(crate) fn is_permanent(&self) -> bool {
        match self {
            Self::Unreadable { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            Self::Embeddings(_)
            | Self::NoTokenizer { .. }
            | Self::Unsupported { .. }
            | Self::Malformed { .. }
            | Self::Specification(_) => true,
            Self::Tokenizer(_)
            | Self::Panicked
            | Self::Invalid { .. }
            | Self::Overloaded { .. }
            | Self::Pictures { .. }
            | Self::Stopping
            | Self::Refused(_)
            | Self::Start { .. }
            | Self::Kit(_) => false,
        }
    }

    /// The reason in ErrorInfo.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "INVALID_FIELD",
            Self::NoTokenizer { .. }
            | Self::Unsupported { .. }
            | Self::Unreadable { .. }
            | Self::Malformed { .. }
            | Self::Embeddings(_)
            | Self::Specification(_) => "MODEL_UNUSABLE",
            Self::Tokenizer(_) | Self::Panicked => "TOKENIZER_FAILED",
            Self::Overloaded { .. } => "TOKENIZER_QUEUE_FULL",
            Self::Pictures { .. } => "PICTURE_LIMIT",
            Self::Stopping => "STOPPING",
            Self::Refused(refused) => refused.reason(),
            Self::Start { .. } | Self::Kit(_) => "SERVICE_FAILED",
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        if error.code() == Code::Internal {
            // The request ends here; its caller gets no more than the first words.
            tracing::error!("{}", chain(&error));
        }
        match error {
            Error::Invalid { field, why } => status::invalid(&field, why),
            Error::Overloaded { retry_after, .. } => {
                status::retryable(error.code(), error.reason(), error.to_string(), retry_after)
            }
            Error::Pictures { .. } => {
                status::retryable(error.code(), error.reason(), error.to_string(), PICTURE_RETRY)
            }
            Error::Refused(refused) => refused.into(),
            Error::NoTokenizer { .. }
            | Error::Unsupported { .. }
            | Error::Unreadable { .. }
            | Error::Malformed { .. }
            | Error::Embeddings(_)
            | Error::Specification(_)
            | Error::Tokenizer(_)
            | Error::Panicked
            | Error::Stopping
            | Error::Start { .. }
            | Error::Kit(_) => status::error(error.code(), error.reason(), error.to_string()),
        }
    }
}
