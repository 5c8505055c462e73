//! `mobula backup` and `mobula restore`: everything that the controller keeps, as one file.

use std::path::PathBuf;

use mobula_proto::control::v1::{BackupRequest, RestoreRequest};

use super::{Target, changes, print, timed, write};
use crate::Error;
use crate::human;
use crate::paint::Paint;

/// Pieces of a restore: well below any limit on messages.
const PIECE: usize = 256 << 10;

const BACKUP: &str = "\
Examples:
  mobula backup mesh.json
  mobula restore mesh.json      on this mesh or another

A backup holds the config, its history and the last decisions; no model and no picture.

Exit codes: 0 written, 1 no controller, 2 wrong usage.";

const RESTORE: &str = "\
Examples:
  mobula restore mesh.json

The backup's config becomes what shall run, as a new revision; a damaged backup, or one of a newer version, is refused whole.

Exit codes: 0 accepted, 1 refused, 2 wrong usage.";

/// Flags of `mobula backup`.
#[derive(Debug, clap::Args)]
#[command(after_help = BACKUP)]
pub(crate) struct Backup {
    /// Where it is written
    file: PathBuf,
    #[command(flatten)]
    target: Target,
}

impl Backup {
    pub(crate) async fn run(self) -> Result<(), Error> {
        let (remote, mut client) = self.target.client()?;
        let answer = client.backup(timed(BackupRequest {})).await;
        let mut pieces = answer.map_err(|status| remote.explain(status))?.into_inner();
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.message().await.map_err(|status| remote.explain(status))? {
            bytes.extend_from_slice(&piece.data);
        }
        write(&self.file, &bytes)?;
        print(&format!(
            "{}: {}\n",
            self.file.display(),
            human::bytes(bytes.len() as u64)
        ))
    }
}

/// Flags of `mobula restore`.
#[derive(Debug, clap::Args)]
#[command(after_help = RESTORE)]
pub(crate) struct Restore {
    /// What `mobula backup` wrote
    file: PathBuf,
    #[command(flatten)]
    target: Target,
}

impl Restore {
    pub(crate) async fn run(self) -> Result<(), Error> {
        let bytes = std::fs::read(&self.file).map_err(|source| Error::Config {
            path: self.file.clone(),
            source,
        })?;
        let (remote, mut client) = self.target.client()?;
        let pieces: Vec<RestoreRequest> = bytes
            .chunks(PIECE)
            .map(|piece| RestoreRequest {
                data: bytes::Bytes::copy_from_slice(piece),
            })
            .collect();
        let answer = client.restore(timed(tokio_stream::iter(pieces))).await;
        let answer = answer.map_err(|status| remote.explain(status))?.into_inner();
        let accepted = answer.accepted.unwrap_or_default();
        print(&changes::render(&accepted, Paint::for_stream(&std::io::stdout())))
    }
}
