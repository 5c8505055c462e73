//! What can go wrong before a service serves, in words that say what to do.
//!
//! Failures of single requests are gRPC statuses ([`crate::status`]), not this enum.

use std::{io, net::SocketAddr};

use tonic::Code;

/// Everything that the kit refuses or fails at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port could not be bound.
    #[error("cannot listen on {address} for {what} ({hint})")]
    Bind {
        /// What the port was for, such as `gRPC`.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// What a person can do about it.
        hint: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A setting has a value that cannot be used.
    #[error("{setting} is {value:?}, which cannot be used: {why}")]
    Config {
        /// Flag and environment variable.
        setting: &'static str,
        /// The value given.
        value: String,
        /// Why not, and what would do.
        why: String,
    },
    /// An address is not one that can be dialled.
    #[error(
        "address {address:?} cannot be dialled: it must be host:port, such as 127.0.0.1:7265, or https://host:port for TLS"
    )]
    Address {
        /// The address given.
        address: String,
    },
    /// A certificate, a key or an authority cannot be used.
    #[error("{what} cannot be used for TLS: {why}")]
    Tls {
        /// The file, or what else it is.
        what: String,
        /// Why not.
        why: String,
    },
    /// The contracts that reflection is to serve cannot be read.
    #[error("reflection cannot read the contracts")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// Logs or traces could not be set up.
    #[error("cannot set up {what}")]
    Telemetry {
        /// Which part.
        what: &'static str,
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// Maps every failure to the code a caller would see.
    pub fn code(&self) -> Code {
        match self {
            Self::Bind { .. } => Code::Unavailable,
            Self::Config { .. } | Self::Address { .. } | Self::Tls { .. } => Code::InvalidArgument,
            Self::Reflection(_) | Self::Telemetry { .. } => Code::Internal,
        }
    }

    /// True when a person has to change a setting; the process then exits with [`crate::EXIT_CONFIG`].
    pub fn is_config(&self) -> bool {
        match self {
            Self::Config { .. } | Self::Address { .. } | Self::Tls { .. } => true,
            Self::Bind { .. } | Self::Reflection(_) | Self::Telemetry { .. } => false,
        }
    }
}

/// Writes an error and all its causes as one sentence: `what failed: why: why that`.
///
/// A cause whose text the one before it already ends with is left out.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let said = next.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_one_sentence_that_names_the_port_and_what_to_do() {
        let error = Error::Bind {
            what: "HTTP",
            address: "127.0.0.1:8000".parse().unwrap(),
            hint: "choose another address",
            source: io::Error::from(io::ErrorKind::AddrInUse),
        };
        assert_eq!(
            chain(&error),
            "cannot listen on 127.0.0.1:8000 for HTTP (choose another address): address in use"
        );
    }
}
