//! The two doors: one card in, one picture or one ending out. One client belongs to one thread.
//!
//! A client never waits for room of its own: where every connection is full it opens another, since an open loop that queues
//! in the client would spare the server what it is there to measure.

mod access;
mod frames;
mod grpc;
mod http;

use std::time::Duration;

use bytes::Bytes;

pub use access::Access;
pub use frames::{Frames, Malformed};

use crate::record::{Ending, Kind};
use crate::{Error, Mix};

/// No picture that anybody asks for is larger.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// What comes when all goes well.
#[derive(Debug)]
pub(crate) struct Picture {
    pub(crate) data: Bytes,
    /// The digest that the server gives, or nothing.
    pub(crate) claimed: String,
}

/// What every request of a run has in common.
#[derive(Debug, Clone)]
pub struct Common {
    /// Application to ask for; empty for the only one.
    pub model: String,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// Connections of each thread to begin with.
    pub connections: usize,
    /// Connections of each thread at most.
    pub max_connections: usize,
    /// What a closed mesh asks for.
    pub access: Access,
}

/// A door of the mesh, with every card encoded beforehand.
#[derive(Debug)]
pub(crate) enum Client {
    Grpc(grpc::Client),
    Http(http::Client),
}

impl Client {
    /// A client of `host:port` or `grpcs://host:port` (gRPC), `http://host:port` or `https://host:port`.
    pub(crate) fn new(target: &str, mix: &Mix, common: &Common) -> Result<Self, Error> {
        let refused = || Error::Target {
            target: target.into(),
        };
        let secure = is_secure(target);
        let client = match target.split_once("://") {
            Some(("http" | "https", rest)) => http::Client::new(rest, secure, mix, common).map(Self::Http),
            Some(("grpcs", rest)) => grpc::Client::new(rest, secure, mix, common).map(Self::Grpc),
            Some(_) => None,
            None => grpc::Client::new(target, secure, mix, common).map(Self::Grpc),
        };
        client.ok_or_else(refused)
    }

    /// Opens the connections to begin with.
    pub(crate) async fn connect(&self) -> Result<(), Ending> {
        match self {
            Self::Grpc(client) => client.connect().await,
            Self::Http(client) => client.connect().await,
        }
    }

    /// Asks for one picture and waits for its end, at most the run's timeout.
    pub(crate) async fn draw(&self, card: usize, timeout: Duration) -> Result<Picture, Ending> {
        let answer = async {
            match self {
                Self::Grpc(client) => client.draw(card).await,
                Self::Http(client) => client.draw(card).await,
            }
        };
        match tokio::time::timeout(timeout, answer).await {
            Ok(reply) => reply,
            Err(_) => Err(Ending::other(Kind::Deadline, "no answer in time")),
        }
    }
}

/// Whether a target is called under TLS.
pub(crate) fn is_secure(target: &str) -> bool {
    target.starts_with("https://") || target.starts_with("grpcs://")
}

/// host and port, or nothing.
fn authority(text: &str) -> Option<::http::uri::Authority> {
    let authority: ::http::uri::Authority = text.trim_end_matches('/').parse().ok()?;
    (!authority.host().is_empty() && authority.port_u16().is_some()).then_some(authority)
}
