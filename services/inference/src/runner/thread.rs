//! The engine thread: takes requests in, encodes their texts, runs ticks, decodes what is finished.
//!
//! Invariant: between two ticks there is at most one other call of the engine while rows wait, and a request that nobody
//! wants any more has no row in the next tick.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};

use mobula_diffusion::Trajectory;
use mobula_serving::tick::{Candidate, Planner, Timesteps};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::cache::Cache;
use super::encoders::Encoders;
use super::job::{Job, PictureTimes};
use super::stats::Stats;
use super::{MAX_PICTURES, Options};
use crate::engine::{Batch, Engine, Error, Info};
use crate::metrics::{Metrics, Outcome};

/// What the thread is started with.
pub(super) struct Parts {
    pub(super) options: Options,
    pub(super) commands: Receiver<Arc<Job>>,
    pub(super) stats: Arc<Stats>,
    pub(super) metrics: Metrics,
}

/// One picture on its way.
pub(super) struct Track {
    pub(super) job: Arc<Job>,
    /// Place in `Work::pictures`.
    pub(super) place: usize,
    pub(super) trajectory: Trajectory,
    pub(super) cond: Arc<[f32]>,
    pub(super) uncond: Option<Arc<[f32]>>,
    pub(super) arrival: u64,
    pub(super) times: Option<PictureTimes>,
}

/// Whether the loop goes on.
enum Next {
    Work,
    Stop,
}

pub(super) struct Loop {
    pub(super) engine: Box<dyn Engine>,
    pub(super) info: Info,
    pub(super) timesteps: Timesteps,
    pub(super) max_rows: usize,
    pub(super) native: usize,
    pub(super) commands: Receiver<Arc<Job>>,
    pub(super) stats: Arc<Stats>,
    pub(super) metrics: Metrics,
    pub(super) encoders: Encoders,
    pub(super) cache: Cache,
    pub(super) planner: Planner,
    pub(super) batch: Batch,
    /// Requests whose texts are not encoded yet.
    pub(super) waiting: VecDeque<Arc<Job>>,
    /// Pictures that need steps, by arrival.
    pub(super) tracks: Vec<Track>,
    /// Pictures that need the decoder.
    pub(super) finished: VecDeque<Track>,
    pub(super) arrivals: u64,
    /// Whether the decoder had the last free call, so that the text encoder is next.
    pub(super) decoded_last: bool,
    // Kept for their memory.
    pub(super) candidates: Vec<Candidate>,
    pub(super) chosen: Vec<usize>,
    pub(super) values: Vec<f32>,
    pub(super) planes: Vec<f32>,
}

/// The thread's whole life.
pub(super) fn run<F>(parts: Parts, make: F, ready: oneshot::Sender<Result<Info, Error>>)
where
    F: FnOnce() -> Result<Box<dyn Engine>, Error>,
{
    let stats = Arc::clone(&parts.stats);
    let made = make().and_then(|engine| Loop::new(parts, engine));
    let mut work = match made {
        Ok(work) => work,
        Err(error) => {
            // The other end is gone only when nobody wants the replica any more.
            let _ = ready.send(Err(error));
            return;
        }
    };
    if ready.send(Ok(work.info.clone())).is_err() {
        return;
    }
    // After a panic nothing of the loop is used again but its jobs, to fail them.
    let ended = catch_unwind(AssertUnwindSafe(|| work.run()));
    match ended {
        Ok(Ok(())) => work.fail_all(|| Error::Stopping),
        Ok(Err(error)) => {
            tracing::error!(%error, "the engine failed");
            stats.fail(error.to_string());
            work.fail_all(|| Error::Failed(error.to_string()));
        }
        Err(_) => {
            stats.fail("the engine panicked".to_owned());
            work.fail_all(|| Error::Failed("the engine panicked".to_owned()));
        }
    }
}

impl Loop {
    fn new(parts: Parts, engine: Box<dyn Engine>) -> Result<Self, Error> {
        let Parts {
            options,
            commands,
            stats,
            metrics,
        } = parts;
        let info = engine.info().clone();
        Ok(Self {
            engine,
            timesteps: if info.mixed_timesteps {
                Timesteps::Mixed
            } else {
                Timesteps::Equal
            },
            max_rows: options.max_rows.max(1),
            native: options.native,
            commands,
            stats,
            encoders: Encoders::start(options.latent_rgb, metrics.clone())?,
            metrics,
            cache: Cache::new(options.cache_bytes),
            planner: Planner::new(),
            batch: Batch::new(&info),
            waiting: VecDeque::new(),
            tracks: Vec::new(),
            finished: VecDeque::new(),
            arrivals: 0,
            decoded_last: false,
            candidates: Vec::new(),
            chosen: Vec::new(),
            values: Vec::new(),
            planes: Vec::new(),
            info,
        })
    }

    /// Works until the handle is stopped; an error is the engine's end.
    fn run(&mut self) -> Result<(), Error> {
        while let Next::Work = self.take_in() {
            self.sweep();
            let (texts, pictures) = (!self.waiting.is_empty(), !self.finished.is_empty());
            if texts && (self.decoded_last || !pictures) {
                self.decoded_last = false;
                self.encode()?;
            } else if pictures {
                self.decoded_last = true;
                self.decode()?;
            }
            if !self.tracks.is_empty() {
                self.tick()?;
            }
        }
        Ok(())
    }

    /// Takes in all requests that wait at the door; waits for one when there is nothing to do.
    fn take_in(&mut self) -> Next {
        if self.waiting.is_empty() && self.tracks.is_empty() && self.finished.is_empty() {
            self.batch.forget();
            match self.commands.recv() {
                Ok(job) => self.welcome(job),
                Err(_) => return Next::Stop,
            }
        }
        loop {
            match self.commands.try_recv() {
                Ok(job) => self.welcome(job),
                Err(TryRecvError::Empty) => return Next::Work,
                Err(TryRecvError::Disconnected) => return Next::Stop,
            }
        }
    }

    /// Starts a request whose texts are known; the others wait for the text encoder.
    fn welcome(&mut self, job: Arc<Job>) {
        if let Some(job) = self.start(job, &HashMap::new()) {
            self.waiting.push_back(job);
        }
    }

    /// Lets go of requests that nobody reads any more or whose time is over.
    fn sweep(&mut self) {
        let now = Instant::now();
        let metrics = &self.metrics;
        let mut wanted = |job: &Arc<Job>| {
            if job.outbox.has_ended() {
                return false;
            }
            if job.outbox.reader_gone() {
                job.outbox.fail(Error::Stopping);
                metrics.ended(Outcome::Cancelled);
                tracing::debug!(request_id = job.work.request_id, "cancelled");
                return false;
            }
            if job.work.deadline.is_some_and(|deadline| deadline <= now) {
                job.outbox.fail(Error::DeadlinePassed {
                    started: job.has_started(),
                });
                metrics.ended(Outcome::Expired);
                return false;
            }
            true
        };
        self.waiting.retain(&mut wanted);
        self.tracks.retain(|track| wanted(&track.job));
        self.finished.retain(|track| wanted(&track.job));
    }

    /// Ends every request that is left.
    fn fail_all(mut self, error: impl Fn() -> Error) {
        let waiting = self.waiting.drain(..);
        let tracks = self
            .tracks
            .drain(..)
            .chain(self.finished.drain(..))
            .map(|track| track.job);
        let left: Vec<_> = waiting
            .chain(tracks)
            .chain(self.commands.try_iter().take(MAX_PICTURES))
            .collect();
        for job in left {
            if !job.outbox.has_ended() {
                job.outbox.fail(error());
                self.metrics.ended(Outcome::Failed);
            }
        }
    }
}
