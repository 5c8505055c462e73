//! What the controller refuses or fails at, and the one table from it to codes.

use std::{io, path::PathBuf};

use tonic::{Code, Status};

/// Everything that can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting, an address or a port cannot be used.
    #[error("{0}")]
    Kit(#[source] mobula_kit::Error),
    /// The config file cannot be read.
    #[error("config file {} cannot be read", path.display())]
    ConfigFile {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The directory that the process provider remembers its workers in cannot be used.
    #[error("state directory {} cannot be used; give another one with --state-dir", path.display())]
    StateDir {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A worker's binary is nowhere.
    #[error("{name} was not found in {looked}; build it, or give its directory with --bin-dir")]
    Binary {
        /// Which one.
        name: String,
        /// Where it was looked for.
        looked: String,
    },
    /// A message has a field that cannot be used.
    #[error("{field} {why}")]
    Field {
        /// Its path.
        field: &'static str,
        /// Why not.
        why: String,
    },
    /// Another live worker has the id.
    #[error("{0}")]
    Duplicate(String),
    /// A worker dialled and said nothing.
    #[error("no hello within {0} s")]
    NoHello(u64),
    /// The controller stops, or its loop has ended.
    #[error("the controller is stopping")]
    Stopping,
}

impl Error {
    /// Decides what a caller sees.
    pub fn code(&self) -> Code {
        match self {
            Self::Kit(error) => error.code(),
            Self::ConfigFile { .. } | Self::StateDir { .. } | Self::Binary { .. } => Code::FailedPrecondition,
            Self::Field { .. } => Code::InvalidArgument,
            Self::Duplicate(_) => Code::AlreadyExists,
            Self::NoHello(_) => Code::DeadlineExceeded,
            Self::Stopping => Code::Unavailable,
        }
    }

    /// The reason of the status's ErrorInfo.
    fn reason(&self) -> &'static str {
        match self {
            Self::Kit(_) => "SETTING",
            Self::ConfigFile { .. } => "CONFIG_FILE",
            Self::StateDir { .. } => "STATE_DIR",
            Self::Binary { .. } => "NO_BINARY",
            Self::Field { .. } => "BAD_FIELD",
            Self::Duplicate(_) => "DUPLICATE_WORKER",
            Self::NoHello(_) => "NO_HELLO",
            Self::Stopping => "STOPPING",
        }
    }
}

impl From<mobula_kit::Error> for Error {
    fn from(error: mobula_kit::Error) -> Self {
        Self::Kit(error)
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        if let Error::Field { field, why } = error {
            return mobula_kit::status::invalid(field, why);
        }
        mobula_kit::status::error(error.code(), error.reason(), error.to_string())
    }
}
