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

use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mobula_kit::{channel::Link, grpc::MAX_MESSAGE_BYTES, tls::ClientArgs, token::AdminArgs};
use mobula_proto::control::v1::serve_service_client::ServeServiceClient;
use tonic::Request;

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

/// No config is as long: four times what the controller reads.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

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
    #[command(flatten)]
    tls: ClientArgs,
    #[command(flatten)]
    admin: AdminArgs,
}

impl Target {
    /// The controller, and a client that connects with the first call.
    pub(crate) fn client(&self) -> Result<(Remote, ServeServiceClient<Link>), Error> {
        let mut remote = Remote::new(&self.controller, Who::Controller, &self.tls)?;
        remote.dial.token = self.admin.open().map_err(Error::Setting)?;
        let client = ServeServiceClient::new(remote.link()?).max_decoding_message_size(MAX_MESSAGE_BYTES);
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
        return text(std::io::stdin()).map_err(failed);
    }
    std::fs::File::open(path).and_then(text).map_err(failed)
}

/// All of a text, unless it is far too long for a config: a device or a pipe may never end.
fn text(from: impl Read) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    from.take(MAX_CONFIG_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_CONFIG_BYTES {
        let why = format!("it has more than {MAX_CONFIG_BYTES} bytes and is no config");
        return Err(std::io::Error::other(why));
    }
    String::from_utf8(bytes).map_err(std::io::Error::other)
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

/// Writes a file; one that is there is replaced when all is written, and stays as it is when that fails.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    replace(path, bytes).map_err(|source| Error::Write {
        path: path.to_owned(),
        source,
    })
}

fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    // A pipe or a device is no file to be replaced, and a link leads to one elsewhere.
    if std::fs::symlink_metadata(path).is_ok_and(|there| !there.is_file()) {
        return std::fs::write(path, bytes);
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    let partial = PathBuf::from(name);
    let written = std::fs::File::create(&partial).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let moved = written.and_then(|()| std::fs::rename(&partial, path));
    if moved.is_err() {
        // What is left of it is of no use.
        let _ = std::fs::remove_file(&partial);
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_without_end_is_refused() {
        let error = text(std::io::repeat(b'#')).unwrap_err();
        assert!(error.to_string().contains("is no config"), "{error}");
        assert_eq!(text(&b"applications: []"[..]).unwrap(), "applications: []");
    }

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mesh.json");
        write(&path, b"first").unwrap();
        write(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        let partial = dir.path().join("mesh.json.partial");
        // In the way of the new one.
        std::fs::create_dir(&partial).unwrap();
        write(&path, b"third").unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
