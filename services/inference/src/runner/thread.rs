//! The engine thread: takes requests in, encodes their texts, runs ticks, decodes what is finished.
//!
//! Texts, pictures to start from and finished latents take turns between ticks.
//!
//! Invariant: between two ticks there is at most one other call of the engine while rows wait, and a request that nobody
//! wants any more has no row in the next tick.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvError, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use mobula_serving::tick::{Candidate, Planner, Timesteps};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::cache::Cache;
use super::decode::Finished;
use super::device::Place;
use super::encoders::Encoders;
use super::groups::{Groups, Measured};
use super::job::Job;
use super::pending::Pending;
use super::running::Running;
use super::stats::Stats;
use super::track::Track;
use super::work::{Task, Unit};
use super::{MAX_PICTURES, Options};
use crate::engine::{Batch, Encoded, Engine, Error, Info};
use crate::metrics::{Metrics, Outcome};

/// After so long without a request memory is given back: callers who come one after the other do not pay for taking it again.
const REST: Duration = Duration::from_millis(100);

/// What the thread is started with.
pub(super) struct Parts {
    pub(super) options: Options,
    pub(super) commands: Receiver<Arc<Job>>,
    pub(super) stats: Arc<Stats>,
    pub(super) metrics: Metrics,
    pub(super) running: Arc<Running>,
}

/// Whether the loop goes on.
enum Next {
    Work,
    Stop,
}

/// What may run between two ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Texts,
    Images,
    Decode,
}

pub(super) struct Loop {
    pub(super) engine: Box<dyn Engine>,
    pub(super) info: Info,
    pub(super) timesteps: Timesteps,
    pub(super) groups: Groups,
    pub(super) place: Place,
    pub(super) commands: Receiver<Arc<Job>>,
    pub(super) stats: Arc<Stats>,
    pub(super) metrics: Metrics,
    pub(super) encoders: Encoders,
    pub(super) cache: Cache,
    pub(super) planner: Planner,
    pub(super) batch: Batch,
    pub(super) running: Arc<Running>,
    pub(super) zeros_for_empty: bool,
    /// The beginning of the time that the planner counts.
    pub(super) epoch: Instant,
    /// Requests that wait for an encoder.
    pub(super) waiting: VecDeque<Pending>,
    /// Pictures that need steps, by arrival.
    pub(super) tracks: Vec<Track>,
    /// Pictures that need the decoder.
    pub(super) finished: VecDeque<Finished>,
    pub(super) arrivals: u64,
    /// What had the last call between ticks, so that the others come first now.
    last: Turn,
    // Kept for their memory.
    pub(super) candidates: Vec<Candidate>,
    /// What the tick before was predicted to take, and when it was planned.
    pub(super) planned: Option<(Duration, Instant)>,
    /// The group of the tick.
    pub(super) group: u64,
    /// What the decoder takes for a pixel, nanoseconds; 0 before it ran.
    pub(super) decode_ns: f64,
    pub(super) chosen: Vec<usize>,
    pub(super) values: Vec<f32>,
    pub(super) planes: Vec<f32>,
    pub(super) encoded: Encoded,
    /// What the load is counted in.
    pub(super) unit: Unit,
    /// The tick before was over at once, so that its readers are told with what comes next.
    pub(super) swift: bool,
    /// Whether there was work since memory was given back.
    worked: bool,
}

/// The thread's whole life.
pub(super) fn run<F>(parts: Parts, make: F, ready: oneshot::Sender<Result<Info, Error>>)
where
    F: FnOnce() -> Result<(Box<dyn Engine>, Vec<Measured>), Error>,
{
    let stats = Arc::clone(&parts.stats);
    let made = make().and_then(|(engine, measured)| Loop::new(parts, engine, measured));
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
    pub(super) fn new(parts: Parts, engine: Box<dyn Engine>, measured: Vec<Measured>) -> Result<Self, Error> {
        let Parts {
            options,
            commands,
            stats,
            metrics,
            running,
        } = parts;
        let info = engine.info().clone();
        running.interrupt_with(engine.interrupter());
        Ok(Self {
            engine,
            timesteps: if info.mixed_timesteps {
                Timesteps::Mixed
            } else {
                Timesteps::Equal
            },
            place: options.device.join(),
            groups: Groups::new(options.max_rows, options.native, measured),
            commands,
            stats,
            encoders: Encoders::start(options.latent_rgb, metrics.clone())?,
            metrics,
            cache: Cache::new(options.cache_bytes),
            planner: Planner::new(options.policy),
            batch: Batch::new(&info),
            waiting: VecDeque::new(),
            tracks: Vec::new(),
            finished: VecDeque::new(),
            arrivals: 0,
            last: Turn::Decode,
            running,
            zeros_for_empty: options.zeros_for_empty,
            epoch: Instant::now(),
            encoded: Encoded::default(),
            unit: Unit::of(info.stages),
            swift: false,
            worked: false,
            candidates: Vec::new(),
            planned: None,
            group: 0,
            decode_ns: 0.0,
            chosen: Vec::new(),
            values: Vec::new(),
            planes: Vec::new(),
            info,
        })
    }

    /// Works until the handle is stopped; an error is the engine's end.
    fn run(&mut self) -> Result<(), Error> {
        while self.turn()? {}
        Ok(())
    }

    /// One tick and what comes before it; whether the handle wants more.
    pub(super) fn turn(&mut self) -> Result<bool, Error> {
        if let Next::Stop = self.take_in() {
            return Ok(false);
        }
        self.stats.turned();
        self.sweep();
        self.metrics.batches.queued(self.waiting.len());
        match self.next_turn() {
            None => {}
            Some(turn) => {
                self.last = turn;
                match turn {
                    Turn::Texts => self.encode()?,
                    Turn::Images => self.encode_image()?,
                    Turn::Decode => self.decode()?,
                }
            }
        }
        if !self.tracks.is_empty() {
            self.tick()?;
        }
        Ok(true)
    }

    /// Who has the next call between ticks: the first after the last one in the ring that has work.
    fn next_turn(&self) -> Option<Turn> {
        let ring = match self.last {
            Turn::Texts => [Turn::Images, Turn::Decode, Turn::Texts],
            Turn::Images => [Turn::Decode, Turn::Texts, Turn::Images],
            Turn::Decode => [Turn::Texts, Turn::Images, Turn::Decode],
        };
        ring.into_iter().find(|turn| match turn {
            Turn::Texts => self.wants_texts(),
            Turn::Images => self.wants_images(),
            Turn::Decode => !self.finished.is_empty(),
        })
    }

    /// Takes in all requests that wait at the door; waits for one when there is nothing to do.
    fn take_in(&mut self) -> Next {
        if self.waiting.is_empty() && self.tracks.is_empty() && self.finished.is_empty() {
            match self.next_job() {
                Ok(job) => self.welcome(job),
                Err(RecvError) => return Next::Stop,
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

    /// Waits for a request; after a while gives back memory.
    fn next_job(&mut self) -> Result<Arc<Job>, RecvError> {
        self.planned = None;
        self.metrics.batches.queued(0);
        if self.worked {
            match self.commands.recv_timeout(REST) {
                Ok(job) => return Ok(job),
                Err(RecvTimeoutError::Disconnected) => return Err(RecvError),
                Err(RecvTimeoutError::Timeout) => self.rest(),
            }
        }
        self.commands.recv()
    }

    /// Whether there is more to do than the call that comes now, so that the device is waited for.
    pub(super) fn has_more(&self) -> bool {
        !(self.tracks.is_empty() && self.waiting.is_empty() && self.finished.is_empty())
    }

    /// Nothing is to be done: gives back the memory that large calls took.
    fn rest(&mut self) {
        self.batch.forget();
        for kept in [&mut self.values, &mut self.planes, &mut self.encoded.states] {
            *kept = Vec::new();
        }
        self.worked = false;
        self.place.run(false, || self.engine.trim());
    }

    /// Starts a request that has all it needs; the others wait for an encoder.
    fn welcome(&mut self, job: Arc<Job>) {
        self.worked = true;
        if let Task::Decode(latents) = &job.work.task {
            let given = job.work.pictures.iter().zip(latents);
            let finished = given.map(|((index, _), latents)| Finished::given(&job, *index, latents));
            self.finished.extend(finished);
            return;
        }
        let pending = match Pending::new(&job, &mut self.cache, &self.info) {
            Ok(pending) => pending,
            // Requests are checked before they come here, so this is about the request as a whole.
            Err(error) => return self.fail(&job, error),
        };
        self.metrics.texts_cached.increment(pending.cached);
        if let Some(pending) = self.start(pending) {
            self.waiting.push_back(pending);
        }
    }

    /// Lets go of requests that nobody reads any more or whose time is over.
    fn sweep(&mut self) {
        let now = Instant::now();
        let metrics = &self.metrics;
        let wanted = |job: &Arc<Job>| {
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
        self.waiting.retain(|pending| wanted(&pending.job));
        let before = self.tracks.len();
        self.tracks.retain(|track| wanted(&track.job));
        self.finished.retain(|finished| wanted(&finished.job));
        if self.tracks.len() < before {
            self.regroup();
        }
    }

    /// Ends every request that is left.
    fn fail_all(mut self, error: impl Fn() -> Error) {
        let waiting = self.waiting.drain(..).map(|pending| pending.job);
        let tracks = self.tracks.drain(..).map(|track| track.job);
        let finished = self.finished.drain(..).map(|finished| finished.job);
        let left: Vec<_> = waiting
            .chain(tracks)
            .chain(finished)
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
