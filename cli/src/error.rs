//! How the command fails: one enum, one mapping to exit codes. Texts are for people and say what to do next.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The command could not do what it was asked to.
pub const EXIT_FAILED: u8 = 1;
/// The command line is wrong; clap uses the same code.
pub const EXIT_USAGE: u8 = 2;
/// Ctrl-C or SIGTERM; 128 + SIGINT, as shells report it.
pub const EXIT_INTERRUPTED: u8 = 130;

/// Everything that can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Flags that do not go together.
    #[error("{0}")]
    Usage(String),
    /// The user said stop before the work was done.
    #[error("interrupted")]
    Interrupted,
    /// Nobody listens at the address.
    #[error("no mesh at {address}: start one with `mobula up`, or name another with {flag}")]
    NoMesh { address: String, flag: &'static str },
    /// Nobody listens where the controller should be.
    #[error(
        "no controller at {address} (a mesh draws on without it): start a mesh with `mobula up`, or name another with {flag}"
    )]
    NoController { address: String, flag: &'static str },
    /// The address is no host:port or http URL.
    #[error("{flag} {address}: {source}")]
    Address {
        address: String,
        flag: &'static str,
        source: mobula_kit::Error,
    },
    /// A certificate, a key, an authority or a token cannot be used.
    #[error("{0}")]
    Setting(#[source] mobula_kit::Error),
    /// The mesh answered with an error; the text is ready for people.
    #[error("{0}")]
    Refused(String),
    /// The stream ended without a last event.
    #[error("the answer from {address} ended early; the request may still have been drawn")]
    Cut { address: String },
    /// A config or a backup cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Config { path: PathBuf, source: io::Error },
    /// A picture to draw from cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// Standard output is closed.
    #[error("cannot write to standard output: {0}")]
    Output(#[source] io::Error),
    /// A port that a service needs is taken.
    #[error(
        "{flag} {address}: the port is in use (is another mesh running? see `mobula status`); choose another with {flag}"
    )]
    PortInUse { flag: &'static str, address: SocketAddr },
    /// An address cannot be listened on for another reason.
    #[error("{flag} {address}: cannot listen there: {source}")]
    Listen {
        flag: &'static str,
        address: SocketAddr,
        source: io::Error,
    },
    /// A service's binary is missing.
    #[error(
        "cannot find {name} in {searched}: build the workspace (`cargo build --bins`), or name its folder with --bin-dir"
    )]
    Binary { name: &'static str, searched: String },
    /// No model folder.
    #[error("{0}")]
    Model(String),
    /// The state folder cannot be used.
    #[error("cannot use the state folder {}: {source}; choose another with --state-dir", path.display())]
    StateDir { path: PathBuf, source: io::Error },
    /// Another `mobula up` uses the state folder.
    #[error("another mesh (pid {pid}) uses the state folder {}; choose another with --state-dir", path.display())]
    StateDirInUse { path: PathBuf, pid: u32 },
    /// A service cannot be started.
    #[error("cannot start {name}: {source}")]
    Spawn { name: &'static str, source: io::Error },
    /// A service ended while the mesh was starting.
    #[error("{name} {how} while the mesh was starting{log}")]
    Died {
        name: &'static str,
        how: String,
        log: String,
    },
    /// No application could be deployed.
    #[error("the mesh cannot draw: {0}")]
    Deploy(String),
    /// Signal handlers cannot be set.
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] io::Error),
}

impl Error {
    /// Maps the error to the process's exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => EXIT_USAGE,
            Self::Interrupted => EXIT_INTERRUPTED,
            Self::NoMesh { .. }
            | Self::NoController { .. }
            | Self::Address { .. }
            | Self::Setting(_)
            | Self::Refused(_)
            | Self::Cut { .. }
            | Self::Config { .. }
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::Output(_)
            | Self::PortInUse { .. }
            | Self::Listen { .. }
            | Self::Binary { .. }
            | Self::Model(_)
            | Self::StateDir { .. }
            | Self::StateDirInUse { .. }
            | Self::Spawn { .. }
            | Self::Died { .. }
            | Self::Deploy(_)
            | Self::Signals(_) => EXIT_FAILED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_with_its_flag() {
        let error = Error::PortInUse {
            flag: "--http",
            address: ([127, 0, 0, 1], 8000).into(),
        };
        assert!(
            error
                .to_string()
                .starts_with("--http 127.0.0.1:8000: the port is in use")
        );
        assert_eq!(error.exit_code(), EXIT_FAILED);
    }

    #[test]
    fn interruption_and_usage_have_codes_of_their_own() {
        assert_eq!(Error::Interrupted.exit_code(), EXIT_INTERRUPTED);
        assert_eq!(Error::Usage(String::new()).exit_code(), EXIT_USAGE);
    }
}
