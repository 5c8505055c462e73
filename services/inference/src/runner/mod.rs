//! The tick loop around an engine: a handle that takes requests, and a thread that owns the engine and all trajectories.
//!
//! Rows of different requests run in one UNet call; requests join and leave between calls. The handle never computes and the
//! thread never waits for a reader. Which rows run is decided in `mobula_serving::tick`, what a step does in `mobula_diffusion`.

mod cache;
mod compose;
mod decode;
mod device;
mod encoders;
mod groups;
mod hand;
mod images;
mod job;
mod outbox;
mod pending;
mod plan;
mod prompt;
mod running;
mod stats;
mod texts;
mod thread;
mod ticks;
mod track;
mod work;

use std::fmt;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use mobula_diffusion::preview::LatentRgb;
use mobula_proto::common::v1::{Load, Timings};
use mobula_proto::inference::v1::generate_response::Event;
use mobula_proto::inference::v1::{Accepted, Done};
use mobula_serving::tick::Policy;
use tokio::sync::oneshot;

use crate::engine::{Engine, Info};
use crate::error::Error;
use crate::metrics::{Metrics, Place};
pub(crate) use cache::Text;
pub(crate) use device::Device;
pub(crate) use groups::Measured;
pub(crate) use hand::Hand;
use job::Job;
pub(crate) use outbox::Inbox;
pub(crate) use prompt::{Emphasis, Prompt, Stretch, Variant, Window};
use running::Running;
use stats::Stats;
use work::Unit;
pub(crate) use work::{Draw, Origin, Output, Task, Work, windows};

/// Pictures that a replica may have in work: what they hold in memory is bounded by it (320 MiB at 512 by 512).
pub(crate) const MAX_PICTURES: usize = 1024;

/// How often a loop that works is looked at for a sign of life.
const SIGN_OF_LIFE: Duration = Duration::from_millis(50);

/// How the loop works.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Rows in one UNet call of the native size.
    pub(crate) max_rows: usize,
    /// Latent positions of the native size.
    pub(crate) native: usize,
    /// Bytes of text states to keep.
    pub(crate) cache_bytes: usize,
    /// The map for previews.
    pub(crate) latent_rgb: LatentRgb,
    /// The model is given zeros for an empty negative prompt (`force_zeros_for_empty_prompt`).
    pub(crate) zeros_for_empty: bool,
    /// How ticks are planned.
    pub(crate) policy: Policy,
    /// Where calls run, with those of other models.
    pub(crate) device: Device,
    /// What it is loaded for.
    pub(crate) place: Place,
}

/// The handle.
#[derive(Clone)]
pub(crate) struct Runner {
    info: Arc<Info>,
    stats: Arc<Stats>,
    metrics: Metrics,
    running: Arc<Running>,
    thread: Arc<Mutex<Thread>>,
}

/// The way to the engine thread, until it is stopped.
struct Thread {
    sender: Option<SyncSender<Arc<Job>>>,
    handle: Option<JoinHandle<()>>,
}

/// The handle's ends of what it shares with its loop, before the engine is known.
struct Ends {
    sender: SyncSender<Arc<Job>>,
    stats: Arc<Stats>,
    metrics: Metrics,
    running: Arc<Running>,
}

impl Ends {
    /// Makes both: these, and what the loop is made with.
    fn new(options: Options) -> (Self, thread::Parts) {
        let (sender, commands) = sync_channel(MAX_PICTURES);
        let ends = Self {
            sender,
            stats: Arc::new(Stats::default()),
            metrics: Metrics::new(&options.place, options.max_rows),
            running: Arc::new(Running::default()),
        };
        let parts = thread::Parts {
            options,
            commands,
            stats: Arc::clone(&ends.stats),
            metrics: ends.metrics.clone(),
            running: Arc::clone(&ends.running),
        };
        (ends, parts)
    }

    /// The handle of a loop, and of its thread if it has one.
    fn runner(self, info: Info, handle: Option<JoinHandle<()>>) -> Runner {
        let thread = Thread {
            sender: Some(self.sender),
            handle,
        };
        Runner {
            info: Arc::new(info),
            stats: self.stats,
            metrics: self.metrics,
            running: self.running,
            thread: Arc::new(Mutex::new(thread)),
        }
    }
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner")
            .field("info", &self.info)
            .field("load", &self.load())
            .finish_non_exhaustive()
    }
}

impl Runner {
    /// Starts the thread, makes the engine on it, with what was measured of it, and waits until it is there.
    ///
    /// # Errors
    /// What `make` says; [`Error::Failed`] when it panics, [`Error::Thread`].
    pub(crate) async fn start<F>(options: Options, make: F) -> Result<Self, Error>
    where
        F: FnOnce() -> Result<(Box<dyn Engine>, Vec<Measured>), Error> + Send + 'static,
    {
        let (ready, made) = oneshot::channel();
        let (ends, parts) = Ends::new(options);
        let handle = std::thread::Builder::new()
            .name("mobula-engine".to_owned())
            .spawn(move || thread::run(parts, make, ready))
            .map_err(Error::Thread)?;
        // The sender is dropped without a word only by a panic.
        let info = made
            .await
            .unwrap_or_else(|_| Err(Error::Failed("the engine panicked while it was made".into())))?;
        Ok(ends.runner(info, Some(handle)))
    }

    /// What the engine is.
    pub(crate) fn info(&self) -> &Info {
        &self.info
    }

    /// Takes a request; its events come out of the inbox, `Accepted` first. Dropping the inbox cancels it.
    ///
    /// # Errors
    /// [`Error::Overloaded`], [`Error::Stopping`], [`Error::Failed`], [`Error::DeadlinePassed`].
    pub(crate) fn submit(&self, work: Work) -> Result<Inbox, Error> {
        if let Some(why) = self.stats.failed() {
            return Err(Error::Failed(why.to_owned()));
        }
        if work.deadline.is_some_and(|deadline| deadline <= work.arrived) {
            return Err(Error::DeadlinePassed { started: false });
        }
        let (outbox, inbox) = outbox::channel(&self.running);
        outbox.send(Event::Accepted(Accepted {}));
        if work.count() == 0 {
            outbox.send(Event::Done(Done {
                timings: Some(Timings::default()),
            }));
            return Ok(inbox);
        }
        let pictures = self.stats.pictures();
        if pictures + work.count() > MAX_PICTURES {
            return Err(Error::Overloaded { pictures });
        }
        let cost = work.cost(Unit::of(self.info.stages));
        let job = Arc::new(Job::new(work, outbox, Arc::clone(&self.stats), cost));
        let thread = self.lock();
        match thread.sender.as_ref().ok_or(Error::Stopping)?.try_send(job) {
            Ok(()) => {
                self.metrics.requests_in.increment(1);
                Ok(inbox)
            }
            Err(TrySendError::Full(_)) => Err(Error::Overloaded { pictures }),
            Err(TrySendError::Disconnected(_)) => Err(Error::Failed("the engine thread is gone".into())),
        }
    }

    /// How busy it is.
    pub(crate) fn load(&self) -> Load {
        self.stats.load()
    }

    /// An error when the engine is dead.
    ///
    /// # Errors
    /// [`Error::Failed`] with the reason.
    pub(crate) fn health(&self) -> Result<(), Error> {
        match self.stats.failed() {
            None => Ok(()),
            Some(why) => Err(Error::Failed(why.to_owned())),
        }
    }

    /// Waits until the loop has turned once more, or has nothing to do: a call that never ends is no sign of life.
    ///
    /// # Errors
    /// [`Error::Failed`] with the reason when the engine failed.
    pub(crate) async fn answers(&self) -> Result<(), Error> {
        let before = self.stats.turns();
        loop {
            self.health()?;
            if self.stats.pictures() == 0 || self.stats.turns() != before {
                return Ok(());
            }
            tokio::time::sleep(SIGN_OF_LIFE).await;
        }
    }

    /// Ends the loop after the call that runs now, fails what is left, and waits for the engine to be gone. Again it does
    /// nothing. It blocks: not for async threads.
    pub(crate) fn stop(&self) {
        let handle = {
            let mut thread = self.lock();
            thread.sender = None;
            thread.handle.take()
        };
        if let Some(handle) = handle {
            // A panic there was reported as a failure of the engine.
            let _ = handle.join();
        }
    }

    /// No panic can leave the two fields half changed, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, Thread> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
