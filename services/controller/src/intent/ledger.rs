//! The handle to the ledger, and the loop that brings its work to the desk.
//!
//! Decides nothing. The desk works on a thread for blocking work, one piece at a time, so that two changes never see the
//! same past. Work whose caller has gone is dropped before it is begun. Decisions of scalers gather while the disk is
//! busy and are written at once.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
    time::SystemTime,
};

use mobula_kit::Stop;
use mobula_proto::control::v1 as pb;
use sha2::{Digest, Sha256};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::spawn_blocking,
};
use tracing::{error, info, warn};

use super::{Intent, desk::Desk};
use crate::{
    Error,
    store::{Bounds, Place, Store},
};

/// Changes and questions that wait for the desk; senders wait beyond that.
const JOBS: usize = 64;
/// Decisions that wait to be written: a hundred deployments that change every 100 ms, while the disk is busy for a second.
const DECISIONS: usize = 1024;

type Job = Box<dyn FnOnce(&mut Desk) + Send>;

/// A cheap handle to the ledger.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    jobs: mpsc::Sender<Job>,
    decisions: mpsc::Sender<pb::Decision>,
    intent: watch::Receiver<Arc<Intent>>,
    /// What must not be there for its work to be done, as [`Self::if_vacant`] says.
    vacant: Option<Arc<str>>,
}

/// What the ledger is opened with.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) place: Place,
    pub(crate) bounds: Bounds,
    /// A backup to begin with, if nothing is there yet.
    pub(crate) restore: Option<PathBuf>,
    /// What the flags say to deploy, if they say anything.
    pub(crate) flags: Option<Flags>,
}

/// What the flags say to deploy.
#[derive(Clone, Debug)]
pub(crate) struct Flags {
    /// The flag.
    pub(crate) setting: &'static str,
    /// What it was given.
    pub(crate) value: String,
    /// The config that it stands for.
    pub(crate) text: String,
}

/// An update of an application that failed and was taken back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failed {
    pub(crate) application: String,
    /// The application's resource version that failed; 0 stands for whatever it is now. A newer one is left alone.
    pub(crate) resource_version: u64,
    pub(crate) deployment: String,
    pub(crate) why: String,
}

impl Ledger {
    /// Reads what is kept, heeds the flags if they say something new, and begins to take changes.
    ///
    /// # Errors
    ///
    /// The store cannot be used, or what the flags say is refused; nothing is changed then.
    pub(crate) async fn open(start: Start, stop: &Stop) -> Result<Self, Error> {
        let opened = spawn_blocking(move || begin(start)).await;
        let desk = opened.map_err(|_| Error::Stopping)??;
        let (jobs, job_inbox) = mpsc::channel(JOBS);
        let (decisions, decision_inbox) = mpsc::channel(DECISIONS);
        let ledger = Self {
            jobs,
            decisions,
            intent: desk.subscribe(),
            vacant: None,
        };
        let clerk = Clerk {
            jobs: job_inbox,
            decisions: decision_inbox,
        };
        stop.spawn("ledger", clerk.run(desk, stop.clone()));
        Ok(ledger)
    }

    /// What shall run now.
    pub(crate) fn intent(&self) -> Arc<Intent> {
        self.intent.borrow().clone()
    }

    /// Follows what shall run; the current intent counts as seen.
    pub(crate) fn follow(&self) -> watch::Receiver<Arc<Intent>> {
        let mut intent = self.intent.clone();
        intent.mark_unchanged();
        intent
    }

    /// The same ledger, whose work is refused while there is an application of this name; with an empty name, once
    /// anything was ever accepted.
    pub(crate) fn if_vacant(&self, name: &str) -> Self {
        Self {
            vacant: Some(name.into()),
            ..self.clone()
        }
    }

    /// Declares everything.
    pub(crate) async fn deploy(&self, request: pb::DeployRequest) -> Result<pb::Accepted, Error> {
        self.ask(move |desk| desk.deploy(request, None)).await
    }

    /// Puts one application.
    pub(crate) async fn put(&self, request: pb::PutApplicationRequest) -> Result<pb::Accepted, Error> {
        self.ask(move |desk| desk.put(request)).await
    }

    /// Deletes one application, or all.
    pub(crate) async fn delete(&self, request: pb::DeleteApplicationRequest) -> Result<pb::Accepted, Error> {
        self.ask(move |desk| desk.delete(request)).await
    }

    /// Sets a deployment's number of replicas.
    pub(crate) async fn scale(&self, request: pb::ScaleRequest) -> Result<pb::Accepted, Error> {
        self.ask(move |desk| desk.scale(&request)).await
    }

    /// Goes back to an earlier revision.
    pub(crate) async fn rollback(&self, request: pb::RollbackRequest) -> Result<pb::Accepted, Error> {
        self.ask(move |desk| desk.rollback(&request)).await
    }

    /// Makes an application's documents what they were before an update that failed.
    pub(crate) async fn rolled_back(&self, failed: Failed) -> Result<pb::Accepted, Error> {
        self.ask(move |desk| desk.rolled_back(&failed)).await
    }

    /// Says of a config what would become of it.
    pub(crate) async fn check(&self, request: pb::CheckRequest) -> Result<pb::CheckResponse, Error> {
        self.ask(move |desk| Ok(desk.check(&request))).await
    }

    /// The config that was last accepted.
    pub(crate) async fn config(&self, request: pb::GetConfigRequest) -> Result<pb::GetConfigResponse, Error> {
        self.ask(move |desk| desk.config(&request)).await
    }

    /// What was accepted, newest first.
    pub(crate) async fn history(
        &self,
        request: pb::GetHistoryRequest,
    ) -> Result<pb::GetHistoryResponse, Error> {
        self.ask(move |desk| desk.history(&request)).await
    }

    /// The last decisions of a deployment, newest first; empty names mean all.
    pub(crate) async fn decisions(
        &self,
        application: String,
        deployment: String,
        limit: usize,
    ) -> Result<Vec<pb::Decision>, Error> {
        self.ask(move |desk| desk.decisions((&application, &deployment), limit))
            .await
    }

    /// Everything that is kept, as one document.
    pub(crate) async fn backup(&self) -> Result<Vec<u8>, Error> {
        self.ask(Desk::backup).await
    }

    /// Takes a backup in place of what is kept.
    pub(crate) async fn restore(&self, bytes: Vec<u8>) -> Result<pb::Accepted, Error> {
        self.ask(move |desk| desk.restore(&bytes, String::new())).await
    }

    /// Hands in what a scaler decided. Does not wait: when the disk is behind by [`DECISIONS`], the oldest news is not
    /// worth a scaler's time, and the next decision says the number anyway.
    pub(crate) fn decided(&self, decision: pb::Decision) {
        if let Err(mpsc::error::TrySendError::Full(decision)) = self.decisions.try_send(decision) {
            warn!(
                application = decision.application,
                deployment = decision.deployment,
                to = decision.to,
                "the disk is behind; a decision of a scaler is not kept"
            );
        }
    }

    /// Has the desk do a piece of work.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Desk) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let vacant = self.vacant.clone();
        let job = move |desk: &mut Desk| {
            if !reply.is_closed() {
                let ready = desk.refresh();
                let ready = ready.and_then(|()| vacant.map_or(Ok(()), |name| desk.is_vacant(&name)));
                let _ = reply.send(ready.and_then(|()| work(desk)));
            }
        };
        self.jobs.send(Box::new(job)).await.map_err(|_| Error::Stopping)?;
        answer.await.map_err(|_| {
            if self.jobs.is_closed() {
                Error::Stopping
            } else {
                Error::Broken("what was asked for")
            }
        })?
    }
}

/// The loop.
struct Clerk {
    jobs: mpsc::Receiver<Job>,
    decisions: mpsc::Receiver<pb::Decision>,
}

impl Clerk {
    /// Runs until the stop; what was handed in before it is done.
    async fn run(mut self, mut desk: Desk, stop: Stop) {
        let mut decided = Vec::new();
        loop {
            let job = tokio::select! {
                biased;
                () = stop.triggered(), if !self.jobs.is_closed() => {
                    self.jobs.close();
                    self.decisions.close();
                    continue;
                }
                Some(job) = self.jobs.recv() => job,
                1.. = self.decisions.recv_many(&mut decided, DECISIONS) => {
                    let decisions = std::mem::take(&mut decided);
                    Box::new(move |desk: &mut Desk| {
                        // Whether they are kept is logged where they are written; nobody waits for it.
                        let _ = desk.decided(decisions);
                    })
                }
                else => break,
            };
            let worked = spawn_blocking(move || {
                // What one text breaks must not be the end of all changes. What was kept is on the disk, and is read again.
                if catch_unwind(AssertUnwindSafe(|| job(&mut desk))).is_err() {
                    error!("a piece of the ledger's work panicked; what is kept is read again");
                    desk.distrust();
                }
                desk
            });
            match worked.await {
                Ok(back) => desk = back,
                // The process ends.
                Err(_) => return,
            }
        }
        // Closing the file takes a moment of the disk.
        let _ = spawn_blocking(move || drop(desk)).await;
    }
}

/// Opens the store and heeds the flags.
fn begin(start: Start) -> Result<Desk, Error> {
    let Start {
        place,
        bounds,
        restore,
        flags,
    } = start;
    let mut desk = Desk::open(Store::open(place, bounds)?, unix_ms)?;
    if let Some(path) = restore {
        if desk.is_new() {
            let bytes =
                crate::config::read(&path, super::MAX_BACKUP_BYTES).map_err(|source| Error::ConfigFile {
                    path: path.clone(),
                    source,
                })?;
            desk.restore(&bytes, format!("--restore {}", path.display()))?;
        } else {
            info!(file = %path.display(), "the backup is not restored: something is there already");
        }
    }
    let Some(Flags { setting, value, text }) = flags else {
        if desk.is_new() {
            info!(
                "nothing is deployed: deploy a config with `mobula deploy` or over REST, or start with --config or --model"
            );
        }
        return Ok(desk);
    };
    let digest: String = Sha256::digest(&text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if desk.applied() == Some(&digest) {
        info!(
            setting,
            value, "says what it said before; what was changed since by other ways stays"
        );
        return Ok(desk);
    }
    let request = pb::DeployRequest {
        config: text,
        reason: format!("{setting} {value}"),
        ..Default::default()
    };
    match desk.deploy(request, Some(digest)) {
        Ok(_) => Ok(desk),
        Err(Error::Invalid(problems)) => {
            let why = problems.iter().map(|problem| format!("\n  {problem}")).collect();
            Err(Error::Kit(mobula_kit::Error::Config { setting, value, why }))
        }
        Err(other) => Err(other),
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis().try_into().unwrap_or(u64::MAX))
}
