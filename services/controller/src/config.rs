//! The controller's flags, each with its environment variable, and what follows from them.

use std::{
    ffi::OsString,
    fs::File,
    io::Read as _,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use mobula_kit::token::Token;

use crate::{
    Error,
    intent::{Flags, Start},
    store::{Bounds, Place},
};

/// A change a day for three months; a revision is as large as the config.
const KEEP_REVISIONS: u32 = 100;
/// Bytes of all revisions together: a hundred of the largest configs, and half of what a backup may have. The oldest go first.
const KEEP_BYTES: u64 = 128 << 20;
const _: () = assert!(KEEP_BYTES <= crate::intent::MAX_BACKUP_BYTES as u64 / 2);
/// A week of a deployment that changes every minute; 300 bytes each.
const KEEP_DECISIONS: u32 = 10_000;

/// What the controller serves and how.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// Applications to serve: a file in the shape of Ray Serve's config. Applied when it says something else than at the
    /// last start, so that what was deployed since by other ways outlives a restart
    #[arg(long, env = "MOBULA_CONFIG", conflicts_with = "model")]
    pub config: Option<PathBuf>,
    /// Serve one application with this model folder, or with the model "fake"; applied as --config is
    #[arg(long, env = "MOBULA_MODEL")]
    pub model: Option<String>,
    /// Who starts workers: the controller as child processes, or somebody else
    #[arg(long, env = "MOBULA_PROVIDER", value_enum, default_value_t = Supplier::External)]
    pub provider: Supplier,
    /// Milliseconds between a worker's heartbeats; three missed ones end its lease
    #[arg(long, env = "MOBULA_HEARTBEAT_MS", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(10..=60_000))]
    pub heartbeat_ms: u32,
    /// Milliseconds that workers have to come back after a restart of the controller, before others take their place;
    /// by default one lease
    #[arg(long, env = "MOBULA_ADOPTION_GRACE_MS")]
    pub adoption_grace_ms: Option<u64>,
    /// Where the controller keeps what shall run and the process provider remembers its workers; by default a directory of
    /// the user's, by port
    #[arg(long, env = "MOBULA_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Keep what was deployed in memory alone: a restart forgets it. A state directory that is given comes before this
    #[arg(long, env = "MOBULA_EPHEMERAL")]
    pub ephemeral: bool,
    /// Begin with this backup if nothing was ever deployed
    #[arg(long, value_name = "FILE", env = "MOBULA_RESTORE")]
    pub restore: Option<PathBuf>,
    /// Revisions of what was deployed that can be gone back to; fewer if they have more than 128 MiB together
    #[arg(long, env = "MOBULA_KEEP_REVISIONS", default_value_t = KEEP_REVISIONS,
          value_parser = clap::value_parser!(u32).range(2..=10_000))]
    pub keep_revisions: u32,
    /// Decisions of scalers that are kept
    #[arg(long, env = "MOBULA_KEEP_DECISIONS", default_value_t = KEEP_DECISIONS,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub keep_decisions: u32,
    /// Where the process provider finds mobula-preprocess and mobula-inference; by default beside this binary, then PATH
    #[arg(long, env = "MOBULA_BIN_DIR")]
    pub bin_dir: Option<PathBuf>,
    /// The process provider runs no more workers than this
    #[arg(long, env = "MOBULA_MAX_WORKERS", default_value_t = 16)]
    pub max_workers: usize,
    /// Where the process provider's workers write their logs
    #[arg(long, env = "MOBULA_WORKER_LOGS", value_enum, default_value_t = WorkerLogs::Stderr)]
    pub worker_logs: WorkerLogs,
    /// What people and tools must show; none closes what they use, unless nobody else can reach it.
    #[arg(skip)]
    pub admin_token: Option<Token>,
    /// What workers and proxies must show; none as above.
    #[arg(skip)]
    pub mesh_token: Option<Token>,
    /// Variables that the process provider gives its workers: how they reach this controller.
    #[arg(skip)]
    pub worker_variables: Vec<(&'static str, OsString)>,
}

/// Who starts workers.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Supplier {
    /// Somebody else: compose, Kubernetes, a person.
    External,
    /// The controller, as child processes on this machine.
    Process,
}

/// Where workers write their logs.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerLogs {
    /// Where the controller writes its own.
    Stderr,
    /// Into `logs/<kind>.log` below the state directory.
    Files,
}

impl Default for Config {
    /// As the flags are when none is given, except that nothing is kept on disk unless a state directory is given.
    fn default() -> Self {
        Self {
            config: None,
            model: None,
            provider: Supplier::External,
            heartbeat_ms: 1000,
            adoption_grace_ms: None,
            state_dir: None,
            ephemeral: true,
            restore: None,
            keep_revisions: KEEP_REVISIONS,
            keep_decisions: KEEP_DECISIONS,
            bin_dir: None,
            max_workers: 16,
            worker_logs: WorkerLogs::Stderr,
            admin_token: None,
            mesh_token: None,
            worker_variables: Vec::new(),
        }
    }
}

impl Config {
    pub(crate) fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms.into())
    }

    pub(crate) fn adoption_grace(&self) -> Duration {
        let lease = mobula_serving::lease::term(self.heartbeat());
        self.adoption_grace_ms.map_or(lease, Duration::from_millis)
    }

    /// What the ledger is opened with, for a controller at this address.
    pub(crate) fn start(&self, address: SocketAddr) -> Result<Start, Error> {
        let place = if self.ephemeral && self.state_dir.is_none() {
            Place::Memory
        } else {
            Place::Dir(self.state_dir(address))
        };
        Ok(Start {
            place,
            bounds: Bounds {
                revisions: self.keep_revisions.into(),
                bytes: KEEP_BYTES,
                decisions: self.keep_decisions.into(),
            },
            restore: self.restore.clone(),
            flags: self.flags()?,
        })
    }

    /// What the flags say to deploy.
    fn flags(&self) -> Result<Option<Flags>, Error> {
        if let Some(path) = &self.config {
            let text = read(path, mobula_schema::MAX_BYTES)
                .and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other));
            let text = text.map_err(|source| Error::ConfigFile {
                path: path.clone(),
                source,
            })?;
            let value = path.display().to_string();
            return Ok(Some(Flags {
                setting: "--config",
                value,
                text,
            }));
        }
        let model = self.model.as_deref().filter(|model| !model.is_empty());
        Ok(model.map(|model| {
            let config = mobula_schema::Config::of_model(model);
            let documents: Vec<_> = config.applications.iter().map(|app| &app.document).collect();
            Flags {
                setting: "--model",
                value: model.to_owned(),
                text: serde_json::json!({ "applications": documents }).to_string(),
            }
        }))
    }

    /// The directory of the controller at this address.
    pub(crate) fn state_dir(&self, address: SocketAddr) -> PathBuf {
        let of_user = || {
            let home = |name: &str| {
                std::env::var_os(name)
                    .map(PathBuf::from)
                    .filter(|path| path.is_absolute())
            };
            let base = home("XDG_STATE_HOME").or_else(|| home("HOME").map(|home| home.join(".local/state")));
            let base = base.unwrap_or_else(std::env::temp_dir);
            base.join("mobula").join(format!("controller-{}", address.port()))
        };
        self.state_dir.clone().unwrap_or_else(of_user)
    }

    /// Finds a worker's binary: in `--bin-dir` alone if that is given, else beside this executable, else on PATH.
    pub(crate) fn binary(&self, name: &str) -> Result<PathBuf, Error> {
        let places: Vec<PathBuf> = if let Some(dir) = &self.bin_dir {
            vec![dir.clone()]
        } else {
            let own = std::env::current_exe()
                .ok()
                .and_then(|exe| exe.parent().map(Path::to_path_buf));
            let path = std::env::var_os("PATH").unwrap_or_default();
            own.into_iter().chain(std::env::split_paths(&path)).collect()
        };
        let found = places
            .iter()
            .map(|dir| dir.join(name))
            .find(|file| file.is_file());
        found.ok_or_else(|| {
            let looked = match (&self.bin_dir, places.first()) {
                (Some(dir), _) => dir.display().to_string(),
                (None, Some(own)) => format!("{} and on PATH", own.display()),
                (None, None) => "PATH".to_owned(),
            };
            Error::Binary {
                name: name.to_owned(),
                looked,
            }
        })
    }
}

/// All of a file, unless it has more bytes than that: a device or a pipe may never end.
pub(crate) fn read(path: &Path, most: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = most as u64;
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(std::io::Error::other(format!("it has more than {most} bytes")));
    }
    Ok(bytes)
}

/// What a worker on this machine dials to reach a controller that is bound to this address.
pub(crate) fn reachable(bound: SocketAddr) -> SocketAddr {
    if bound.ip().is_unspecified() {
        SocketAddr::from((Ipv4Addr::LOCALHOST, bound.port()))
    } else {
        bound
    }
}
