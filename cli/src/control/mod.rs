//! What people say to the controller: deploy, scale, roll back, look, ask why. One file per command; here is what they share.
//!
//! The commands decide nothing: the controller checks and answers, and these print it for people or as JSON.

mod backup;
mod changes;
mod check;
mod config;
mod delete;
mod deploy;
mod explain;
mod history;
mod scale;
mod wait;

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mobula_kit::grpc::MAX_MESSAGE_BYTES;
use mobula_proto::control::v1::serve_service_client::ServeServiceClient;
use tonic::Request;
use tonic::transport::Channel;

use crate::Error;
use crate::remote::{Remote, Who};

pub(crate) use self::{
    backup::{Backup, Restore},
    check::Check,
    config::Config,
    delete::Delete,
    deploy::Deploy,
    explain::Explain,
    history::{History, Rollback},
    scale::Scale,
};

/// How long the controller may take: it writes to its disk before it answers.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// Where the controller is.
#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    /// gRPC address of the controller
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "MOBULA_CONTROLLER",
        default_value = "127.0.0.1:7265"
    )]
    controller: String,
}

impl Target {
    /// The controller, and a client that connects with the first call.
    fn client(&self) -> Result<(Remote, ServeServiceClient<Channel>), Error> {
        let remote = Remote {
            address: self.controller.clone(),
            who: Who::Controller,
        };
        let client = ServeServiceClient::new(remote.channel()?).max_decoding_message_size(MAX_MESSAGE_BYTES);
        Ok((remote, client))
    }
}

/// A request with the time it may take.
fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(ANSWER_WAIT);
    request
}

/// Reads a config; `-` is standard input.
fn read(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::Config {
        path: path.to_owned(),
        source,
    };
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(failed)?;
        return Ok(text);
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// Prints to standard output.
fn print(text: &str) -> Result<(), Error> {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(Error::Output)
}

/// Prints one JSON object on a line.
fn print_json(value: &serde_json::Value) -> Result<(), Error> {
    print(&format!("{value}\n"))
}

/// Writes a file.
fn write(path: &PathBuf, bytes: &[u8]) -> Result<(), Error> {
    std::fs::write(path, bytes).map_err(|source| Error::Write {
        path: path.clone(),
        source,
    })
}
