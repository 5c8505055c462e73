//! What the controller refuses or fails at, and the one table from it to codes.

use std::{io, path::PathBuf};

use mobula_schema::Problem;
use tonic::{Code, Status};

/// Of the problems in a status: they travel twice in its trailers, as details and as words, and many clients take no more
/// than 8 KiB of those.
const MAX_STATUS_BYTES: usize = 2 << 10;

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
    /// The directory that the controller keeps its state in cannot be used.
    #[error("state directory {} cannot be used; give another one with --state-dir", path.display())]
    StateDir {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another controller keeps its state there.
    #[error(
        "another controller (pid {by}) uses the state directory {}; stop it, or give another one with --state-dir",
        path.display()
    )]
    StateInUse {
        /// The directory.
        path: PathBuf,
        /// Its process id, as it wrote it.
        by: String,
    },
    /// What was kept cannot be used; it is left as it is.
    #[error(
        "state file {} cannot be used: {why}. It was left as it is. Put a copy of it back, or move it away and start \
         with --restore and the last backup",
        path.display()
    )]
    StateFile {
        /// Which one.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// What shall be kept cannot be written, or what is kept cannot be read.
    #[error("state file {} failed; nothing was changed", path.display())]
    Store {
        /// Which one.
        path: PathBuf,
        /// What the disk or the database said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A config, or what was asked of it, has problems.
    #[error("{}", said(.0))]
    Invalid(Vec<Problem>),
    /// It was made of something older than what is there.
    #[error("{why}")]
    Conflict {
        /// What is there instead, and what to do.
        why: String,
        /// The current resource version; 0 when it is gone.
        current: u64,
    },
    /// There is no such application, deployment or revision.
    #[error("{0}")]
    Unknown(String),
    /// The number of replicas is not anybody's to set.
    #[error("{0}")]
    ScalesItself(String),
    /// A backup cannot be made.
    #[error("no backup was made: {0}")]
    Backup(String),
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
    /// Somebody else does what one can do at a time.
    #[error("{0}; try again when it is over")]
    Busy(&'static str),
    /// Something of the controller broke: its log says where.
    #[error("{0} broke, which is a fault of the controller; its log says where")]
    Broken(&'static str),
    /// The controller stops, or its loop has ended.
    #[error("the controller is stopping")]
    Stopping,
}

impl Error {
    /// Decides what a caller sees.
    pub fn code(&self) -> Code {
        match self {
            Self::Kit(error) => error.code(),
            Self::ConfigFile { .. }
            | Self::StateDir { .. }
            | Self::StateInUse { .. }
            | Self::StateFile { .. }
            | Self::ScalesItself(_)
            | Self::Backup(_)
            | Self::Binary { .. } => Code::FailedPrecondition,
            Self::Store { .. } | Self::Broken(_) => Code::Internal,
            Self::Field { .. } | Self::Invalid(_) => Code::InvalidArgument,
            Self::Conflict { .. } => Code::Aborted,
            Self::Unknown(_) => Code::NotFound,
            Self::Busy(_) => Code::ResourceExhausted,
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
            Self::StateInUse { .. } => "STATE_IN_USE",
            Self::StateFile { .. } => "STATE_FILE",
            Self::Store { .. } => "STORE",
            Self::Invalid(_) => "INVALID",
            Self::Conflict { .. } => "CONFLICT",
            Self::Unknown(_) => "UNKNOWN",
            Self::ScalesItself(_) => "SCALES_ITSELF",
            Self::Backup(_) => "BACKUP",
            Self::Binary { .. } => "NO_BINARY",
            Self::Field { .. } => "BAD_FIELD",
            Self::Duplicate(_) => "DUPLICATE_WORKER",
            Self::NoHello(_) => "NO_HELLO",
            Self::Busy(_) => "BUSY",
            Self::Broken(_) => "BROKEN",
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
        if let Error::Invalid(problems) = error {
            return mobula_kit::status::invalid_fields(fitting(problems));
        }
        mobula_kit::status::error(error.code(), error.reason(), error.to_string())
    }
}

fn said(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("; ")
}

/// As many problems as fit a status, each with its field, its line and why.
fn fitting(problems: Vec<Problem>) -> Vec<(String, String)> {
    let mut left = problems.len();
    let mut bytes = 0;
    let mut fields = Vec::new();
    for Problem { path, line, why } in problems {
        let why = match line {
            Some(line) => format!("{why} (line {line})"),
            None => why,
        };
        bytes += path.len() + why.len();
        if bytes > MAX_STATUS_BYTES && !fields.is_empty() {
            let more = format!("{left} more problems; a check lists all of them");
            fields.push(("(document)".to_owned(), more));
            break;
        }
        left -= 1;
        fields.push((path, why));
    }
    fields
}
