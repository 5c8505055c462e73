//! One service as a child process that is kept alive: a task owns the process, a handle tells it to stop.
//!
//! Each service leads a process group of its own: Ctrl-C on the terminal reaches `mobula up` alone, which stops the
//! services in order; and a kill reaches what the service started. Invariant: while the task lives and was not told to
//! stop, the process runs or its next start is scheduled.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::logs::Log;
use super::restarts::Restarts;
use crate::Error;

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    /// For people: `controller`, `proxy`.
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) variables: Vec<(&'static str, OsString)>,
    /// Variables that it must not inherit.
    pub(crate) cleared: &'static [&'static str],
    pub(crate) log: Log,
}

/// Tells that a service died without being asked to.
#[derive(Debug)]
pub(crate) struct Death {
    pub(crate) name: &'static str,
    /// `was killed by signal 9`, `exited with code 1`.
    pub(crate) how: String,
    /// A code that a service gives itself. Signals come from outside and say nothing about the service.
    pub(crate) by_itself: bool,
    /// Until the next start.
    pub(crate) again_in: Duration,
    /// The end of its log.
    pub(crate) log: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Run,
    /// End gracefully, or be killed at the deadline.
    Stop(Instant),
    Kill,
}

/// Handle to one service.
#[derive(Debug)]
pub(crate) struct Service {
    order: watch::Sender<Order>,
    /// Closed when the keeper has ended, in whatever way.
    ended: watch::Receiver<()>,
}

impl Service {
    /// Starts it; fails when the program cannot be started at all.
    pub(crate) fn start(spec: Spec, deaths: mpsc::Sender<Death>) -> Result<Self, Error> {
        let child = spawn(&spec).map_err(|source| Error::Spawn {
            name: spec.name,
            source,
        })?;
        let (order, orders) = watch::channel(Order::Run);
        let (alive, ended) = watch::channel(());
        let keeper = Keeper {
            spec,
            restarts: Restarts::new(),
            orders,
            deaths,
            _alive: alive,
        };
        tokio::spawn(keeper.run(child));
        Ok(Self { order, ended })
    }

    /// Asks it to end and waits until it has; at the deadline it is killed.
    pub(crate) async fn stop(&self, deadline: Instant) {
        self.order.send_if_modified(|order| {
            let first = *order == Order::Run;
            if first {
                *order = Order::Stop(deadline);
            }
            first
        });
        // A keeper that panicked has dropped its child, which kills it.
        while self.ended.clone().changed().await.is_ok() {}
    }

    /// Kills it and what it started.
    pub(crate) fn kill(&self) {
        self.order.send_replace(Order::Kill);
    }
}

struct Keeper {
    spec: Spec,
    restarts: Restarts,
    orders: watch::Receiver<Order>,
    deaths: mpsc::Sender<Death>,
    _alive: watch::Sender<()>,
}

/// How one life of the process ended.
enum End {
    Died(ExitStatus),
    Stopped,
}

impl Keeper {
    async fn run(mut self, mut child: Child) {
        loop {
            let born = Instant::now();
            let status = match self.live(child).await {
                End::Died(status) => status,
                End::Stopped => return,
            };
            let mut wait = self.restarts.after(born.elapsed());
            let how = describe(status);
            self.tell(how, status.code().is_some(), wait).await;
            child = loop {
                tokio::select! {
                    biased;
                    _ = self.orders.changed() => return,
                    () = sleep(wait) => {}
                }
                match spawn(&self.spec) {
                    Ok(child) => break child,
                    // The program may be on its way back: somebody builds it anew.
                    Err(error) => {
                        wait = self.restarts.after(Duration::ZERO);
                        self.tell(format!("cannot be started ({error})"), true, wait)
                            .await;
                    }
                }
            };
        }
    }

    /// Waits for the end of the process, by itself or by order.
    async fn live(&mut self, mut child: Child) -> End {
        let Some(pid) = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .map(Pid::from_raw)
        else {
            return child.wait().await.map_or(End::Stopped, End::Died);
        };
        loop {
            let order = *self.orders.borrow_and_update();
            let deadline = match order {
                Order::Run => None,
                Order::Stop(deadline) => {
                    let _ = kill(pid, Signal::SIGTERM);
                    Some(deadline)
                }
                Order::Kill => Some(Instant::now()),
            };
            tokio::select! {
                biased;
                status = child.wait() => {
                    return match (order, status) {
                        (Order::Run, Ok(status)) => End::Died(status),
                        _ => End::Stopped,
                    };
                }
                // The child is not reaped yet, so that its id still names its own group.
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    let _ = killpg(pid, Signal::SIGKILL);
                    let _ = child.wait().await;
                    return End::Stopped;
                }
                changed = self.orders.changed() => if changed.is_err() {
                    let _ = killpg(pid, Signal::SIGKILL);
                    return End::Stopped;
                }
            }
        }
    }

    async fn tell(&self, how: String, by_itself: bool, again_in: Duration) {
        let death = Death {
            name: self.spec.name,
            how,
            by_itself,
            again_in,
            log: self.spec.log.tail(),
        };
        // Nobody listens any more: the mesh is being stopped.
        let _ = self.deaths.send(death).await;
    }
}

/// How allocators give freed memory back, which left alone keep what loading a model took. glibc (mallopt(3)): free ends of the heap
/// from its own first value on, which it would raise to 64 MiB as soon as a large block is freed, and blocks of 32 KiB, tensors of
/// a file that is read, each by itself. mimalloc: after 20 ms; its own 1,000 ms pass while nothing more is freed, and then nothing
/// looks.
const MALLOC: [(&str, &str); 3] = [
    ("MALLOC_TRIM_THRESHOLD_", "131072"),
    ("MALLOC_MMAP_THRESHOLD_", "32768"),
    ("MIMALLOC_PURGE_DELAY", "20"),
];

fn spawn(spec: &Spec) -> std::io::Result<Child> {
    let mut command = Command::new(&spec.program);
    for name in spec.cleared {
        command.env_remove(name);
    }
    for (name, value) in MALLOC {
        if std::env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
    command
        .args(&spec.arguments)
        .envs(spec.variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(spec.log.stdio()?)
        .stderr(spec.log.stdio()?)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => match Signal::try_from(signal) {
            Ok(signal) => format!("was killed by {}", signal.as_str()),
            Err(_) => format!("was killed by signal {signal}"),
        },
        (None, None) => "ended".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Spec {
        Spec {
            name: "proxy",
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            variables: vec![],
            cleared: &[],
            log: Log::Inherit,
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[tokio::test]
    async fn a_service_that_dies_is_started_again_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("lives");
        // Dies once, then stays.
        let script = format!(
            "echo x >> {0}; [ $(wc -l < {0}) -gt 1 ] && exec sleep 60; kill -9 $$",
            mark.display()
        );
        let (deaths, mut told) = mpsc::channel(4);
        let service = Service::start(shell(&script), deaths).unwrap();
        let death = told.recv().await.unwrap();
        assert_eq!(
            (death.name, death.how.as_str(), death.by_itself),
            ("proxy", "was killed by SIGKILL", false)
        );
        assert_eq!(death.again_in, Duration::ZERO);
        while std::fs::read_to_string(&mark).unwrap().lines().count() < 2 {
            tokio::task::yield_now().await;
        }
        service.stop(soon()).await;
        assert!(told.recv().await.is_none(), "stopping is no death");
    }

    #[tokio::test]
    async fn an_exit_code_is_told_as_the_services_own_doing() {
        let (deaths, mut told) = mpsc::channel(4);
        let service = Service::start(shell("exit 64"), deaths).unwrap();
        let death = told.recv().await.unwrap();
        assert_eq!(
            (death.how.as_str(), death.by_itself),
            ("exited with code 64", true)
        );
        service.stop(soon()).await;
    }

    #[tokio::test]
    async fn services_give_freed_memory_back() {
        let script = "[ $((MALLOC_TRIM_THRESHOLD_ * MALLOC_MMAP_THRESHOLD_ * MIMALLOC_PURGE_DELAY)) -gt 0 ] && exit 64";
        let mut child = spawn(&shell(script)).unwrap();
        assert_eq!(child.wait().await.unwrap().code(), Some(64));
    }

    #[tokio::test]
    async fn a_service_that_does_not_end_is_killed_at_the_deadline() {
        let (deaths, _told) = mpsc::channel(4);
        let service = Service::start(shell("trap '' TERM; while :; do sleep 60; done"), deaths).unwrap();
        service.stop(Instant::now() + Duration::from_millis(50)).await;
    }

    #[tokio::test]
    async fn a_kill_takes_what_the_service_started_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let (deaths, _told) = mpsc::channel(4);
        let script = format!(
            "sleep 60 & echo $! > {0}.new; mv {0}.new {0}; wait",
            file.display()
        );
        let service = Service::start(shell(&script), deaths).unwrap();
        let worker: i32 = loop {
            match std::fs::read_to_string(&file) {
                Ok(text) => break text.trim().parse().unwrap(),
                Err(_) => tokio::task::yield_now().await,
            }
        };
        service.kill();
        service.stop(soon()).await;
        let gone = || {
            // A zombie that nobody reaps in a container is as gone as it gets.
            let stat = std::fs::read_to_string(format!("/proc/{worker}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        while !gone() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_an_error_at_once() {
        let (deaths, _told) = mpsc::channel(1);
        let spec = Spec {
            program: "/nowhere/mobula-proxy".into(),
            ..shell("")
        };
        assert!(matches!(
            Service::start(spec, deaths),
            Err(Error::Spawn { name: "proxy", .. })
        ));
    }
}
