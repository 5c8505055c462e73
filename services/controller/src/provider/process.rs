//! Workers as child processes of the controller, on this machine.
//!
//! Each runs in a process group of its own, so that Ctrl-C at the terminal reaches the controller alone and the workers
//! end in order. A child outlives a controller that is killed; the next one watches over it by its process id.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::{self, File},
    net::SocketAddr,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use mobula_kit::{Stop, token::Scope};
use mobula_serving::place::Kind;
use nix::sys::signal::Signal;
use tokio::{
    process::{Child, Command},
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tracing::{debug, info, warn};

use super::{Provider, Registry, binary, pid, registry::Record};
use crate::{
    Error,
    config::Config,
    owner::Handle,
    state::{PROVIDER_LABEL, Start, flags},
};

/// How often a process that is not our child is looked at: its death is noticed well within a lease.
const LOOK: Duration = Duration::from_millis(200);

/// What is run.
#[derive(Debug)]
pub(crate) struct Binaries {
    preprocess: PathBuf,
    inference: PathBuf,
    /// What they are told by their environment beside what is this process's own.
    variables: Vec<(&'static str, OsString)>,
}

impl Binaries {
    /// Finds them.
    ///
    /// # Errors
    ///
    /// [`Error::Binary`] if one is nowhere.
    pub(crate) fn find(config: &Config) -> Result<Self, Error> {
        Ok(Self {
            preprocess: config.binary(binary(Kind::Preprocess))?,
            inference: config.binary(binary(Kind::Inference))?,
            variables: config.worker_variables.clone(),
        })
    }
}

/// The provider.
#[derive(Debug)]
pub(crate) struct Process {
    binaries: Binaries,
    controller: SocketAddr,
    /// Where log files go, unless to our own standard error.
    logs: Option<PathBuf>,
    registry: Arc<Registry>,
    handle: Handle,
    stop: Stop,
    ends: HashMap<String, watch::Sender<Option<Ending>>>,
}

/// When a process that does not end by itself is made to.
#[derive(Clone, Copy, Debug)]
struct Ending {
    terminate: Instant,
    kill: Instant,
}

impl Process {
    /// Makes the provider and has it watch over what the registry remembers.
    pub(crate) fn new(
        binaries: Binaries,
        controller: SocketAddr,
        logs: Option<PathBuf>,
        registry: Registry,
        (handle, stop): (Handle, Stop),
    ) -> Self {
        let registry = Arc::new(registry);
        let ends = HashMap::new();
        let mut provider = Self {
            binaries,
            controller,
            logs,
            registry,
            handle,
            stop,
            ends,
        };
        for (worker_id, record) in provider.registry.records() {
            info!(worker = %worker_id, pid = record.pid, "worker of an earlier life is alive");
            let process = Watched::Foreign {
                pid: record.pid,
                start_ticks: record.start_ticks,
            };
            provider.watch_over(&worker_id, process);
        }
        provider
    }

    fn command(&self, worker: &Start) -> std::io::Result<Command> {
        let program = match worker.kind {
            Kind::Preprocess => &self.binaries.preprocess,
            Kind::Inference => &self.binaries.inference,
        };
        let mut command = Command::new(program);
        command
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .args([
                "--controller",
                &self.controller.to_string(),
                "--worker-id",
                &worker.worker_id,
            ])
            .args(["--label", &format!("{PROVIDER_LABEL}=process")])
            .args(flags(&worker.labels, &worker.resources))
            // Meant for the controller itself, and wrong for a worker on a port of its own.
            .env_remove("MOBULA_ADVERTISE")
            // Not theirs: a worker needs no more than the mesh's.
            .env_remove(Scope::Admin.variable())
            .env_remove(Scope::Admin.file_variable())
            .envs(self.binaries.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .process_group(0);
        if let Some(dir) = &self.logs {
            fs::create_dir_all(dir)?;
            let file = File::options()
                .create(true)
                .append(true)
                .open(dir.join(format!("{}.log", worker.kind)))?;
            command.stdout(file.try_clone()?).stderr(file);
        }
        Ok(command)
    }

    fn watch_over(&mut self, worker_id: &str, process: Watched) {
        self.ends.retain(|_, end| !end.is_closed());
        let (end, ending) = watch::channel(None);
        self.ends.insert(worker_id.to_owned(), end);
        let (id, registry, handle) = (worker_id.to_owned(), self.registry.clone(), self.handle.clone());
        let logs = self.logs.clone();
        self.stop.spawn("worker process", async move {
            let began = Instant::now();
            let how = watch_over(&id, process, ending).await;
            registry.remove(&id);
            let log = logs.map_or_else(
                || "its log".to_owned(),
                |dir| format!("its log in {}", dir.display()),
            );
            let why = format!("{how} after {:.1} s; see {log}", began.elapsed().as_secs_f64());
            // The loop may be over already.
            let _ = handle.exited(id, why).await;
        });
    }
}

impl Provider for Process {
    fn start(&mut self, worker: &Start) {
        let worker_id = worker.worker_id.as_str();
        match self.command(worker).and_then(|mut command| command.spawn()) {
            Ok(child) => {
                let pid = child.id().unwrap_or(0);
                debug!(worker = %worker_id, pid, "worker process started");
                if let Some(start_ticks) = pid::start_ticks(pid) {
                    let record = Record {
                        pid,
                        start_ticks,
                        binary: binary(worker.kind).to_owned(),
                        group: worker.group.clone(),
                    };
                    self.registry.put(worker_id, record);
                }
                self.watch_over(worker_id, Watched::Child(child));
            }
            Err(error) => {
                let (id, handle) = (worker_id.to_owned(), self.handle.clone());
                self.stop.spawn("worker process", async move {
                    let _ = handle.exited(id, format!("could not be started: {error}")).await;
                });
            }
        }
    }

    fn adopt(&mut self, worker_id: &str, kind: Kind, pid: u32) {
        if self.ends.get(worker_id).is_some_and(|end| !end.is_closed()) {
            return;
        }
        // Signals will go to this process: it must be one that a controller started under this worker id.
        match pid::start_ticks(pid).filter(|_| pid::has_argument(pid, worker_id)) {
            Some(start_ticks) => {
                let record = Record {
                    pid,
                    start_ticks,
                    binary: binary(kind).to_owned(),
                    group: String::new(),
                };
                self.registry.put(worker_id, record);
                self.watch_over(worker_id, Watched::Foreign { pid, start_ticks });
            }
            None => {
                warn!(worker = %worker_id, pid, "worker says that this provider started it, but it is no process here");
                let (id, handle) = (worker_id.to_owned(), self.handle.clone());
                self.stop.spawn("foreign worker", async move {
                    // The loop may be over already.
                    let _ = handle.foreign(id).await;
                });
            }
        }
    }

    fn end(&mut self, worker_id: &str, told: bool, grace: Duration) {
        let Some(end) = self.ends.get(worker_id) else {
            return;
        };
        let now = Instant::now();
        // A worker that was told is draining, and a signal would cut that short: it gets one only if the word was lost.
        let terminate = if told { now + grace * 3 / 4 } else { now };
        end.send_replace(Some(Ending {
            terminate,
            kill: now + grace,
        }));
    }
}

/// A process by what we can know of it.
#[derive(Debug)]
enum Watched {
    Child(Child),
    Foreign { pid: u32, start_ticks: u64 },
}

impl Watched {
    /// Waits for its end and says how it ended.
    async fn ended(&mut self) -> String {
        match self {
            Self::Child(child) => match child.wait().await {
                Ok(status) => describe(status),
                Err(error) => format!("was lost sight of ({error})"),
            },
            Self::Foreign { pid, start_ticks } => {
                while pid::start_ticks(*pid) == Some(*start_ticks) {
                    sleep(LOOK).await;
                }
                "ended".to_owned()
            }
        }
    }

    fn signal(&self, worker_id: &str, signal: Signal) {
        let pid = match self {
            Self::Child(child) => child.id(),
            Self::Foreign { pid, start_ticks } => {
                Some(*pid).filter(|pid| pid::start_ticks(*pid) == Some(*start_ticks))
            }
        };
        let Some(pid) = pid else { return };
        match pid::signal(pid, signal) {
            Ok(()) => info!(worker = %worker_id, pid, %signal, "worker process was sent a signal"),
            Err(error) => warn!(worker = %worker_id, pid, %signal, %error, "cannot signal a worker process"),
        }
    }
}

/// Waits for a process to end, and makes it once it is told to.
async fn watch_over(
    worker_id: &str,
    mut process: Watched,
    mut ending: watch::Receiver<Option<Ending>>,
) -> String {
    let mut sent = None;
    let mut open = true;
    loop {
        let due = (*ending.borrow_and_update()).and_then(|ending| match sent {
            None => Some((ending.terminate, Signal::SIGTERM)),
            Some(Signal::SIGTERM) => Some((ending.kill, Signal::SIGKILL)),
            Some(_) => None,
        });
        let timer = async {
            match due {
                Some((at, _)) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            how = process.ended() => return how,
            // The provider goes before its processes do; what it said last still holds.
            changed = ending.changed(), if open => open = changed.is_ok(),
            () = timer => {
                if let Some((_, signal)) = due {
                    process.signal(worker_id, signal);
                    sent = Some(signal);
                }
            }
        }
    }
}

fn describe(status: ExitStatus) -> String {
    format!("ended with {status}")
}
