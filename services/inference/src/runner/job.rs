//! One request as the engine works on it, shared by the engine thread and the threads that encode its pictures.
//!
//! Invariant: what a job counts for in the replica's load is taken back exactly once, when the last holder lets go of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mobula_proto::common::v1::Timings;
use mobula_proto::inference::v1::generate_response::Event;
use mobula_proto::inference::v1::{Done, Started, Step};
use tokio::time::Instant;
use tracing::Span;

use super::outbox::Outbox;
use super::stats::Stats;
use super::work::{Answer, Draw, Output, Work};

/// Where a job's time went so far.
#[derive(Debug, Default)]
struct Progress {
    encode: Duration,
    started: Option<Instant>,
    /// End of the last tick of any picture.
    denoised: Option<Instant>,
    decode: Duration,
    image: Duration,
    ticks: u32,
    /// Model calls taken by each picture, in the order of `Work::pictures`.
    calls: Vec<u32>,
    /// Steps done by all pictures together.
    steps: u64,
    /// Pictures that were sent.
    sent: usize,
    denoise_span: Option<Span>,
}

/// A request in work.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) work: Work,
    pub(crate) outbox: Outbox,
    stats: Arc<Stats>,
    rows_left: AtomicU64,
    progress: Mutex<Progress>,
}

impl Job {
    /// Takes up a request that costs so many rows; it counts in `stats` from now on.
    pub(crate) fn new(work: Work, outbox: Outbox, stats: Arc<Stats>, rows: u64) -> Self {
        stats.add(rows, work.count());
        let progress = Progress {
            calls: vec![0; work.pictures.len()],
            ..Progress::default()
        };
        Self {
            work,
            outbox,
            stats,
            rows_left: AtomicU64::new(rows),
            progress: Mutex::new(progress),
        }
    }

    /// A panic cannot leave the progress half changed, so a poisoned lock is as good as any.
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn has_started(&self) -> bool {
        self.progress().started.is_some()
    }

    /// A run of the text encoder or the VAE encoder for it took so long.
    pub(crate) fn encoded(&self, took: Duration) {
        self.progress().encode += took;
    }

    /// What it has of it is decoded now, which is the begin of a job that only decodes.
    pub(crate) fn decode_begins(&self, now: Instant) {
        self.progress().started.get_or_insert(now);
    }

    /// Gives what came of a task that has one answer; the reader hears of nothing else.
    pub(crate) fn answered(&self, result: Output) -> Timings {
        let (encode, now) = (self.progress().encode, Instant::now());
        let total = now - self.work.arrived;
        let timings = Timings {
            queue_us: micros(total.saturating_sub(encode)),
            encode_us: micros(encode),
            total_us: micros(total),
            ..Timings::default()
        };
        // Before the reader hears of it: who asks for the load then must not see this job.
        self.stats.done(self.rows_left.swap(0, Ordering::Relaxed));
        self.outbox.answer(Answer { result, timings });
        timings
    }

    /// A tick with rows of this job is about to run, after which there is something to tell at once if ticks are `swift`;
    /// whether it is its first.
    pub(crate) fn tick_begins(&self, draw: &Draw, now: Instant, swift: bool) -> bool {
        let mut progress = self.progress();
        if progress.started.is_none() {
            progress.started = Some(now);
            progress.denoise_span = Some(tracing::debug_span!(
                parent: &self.work.span,
                "denoise",
                pictures = self.work.pictures.len(),
                steps = draw.steps(),
            ));
            drop(progress);
            self.tell(Event::Started(Started {}), swift);
            return true;
        }
        false
    }

    /// A picture (by its place in `Work::pictures`) took a model call; tells the reader when that makes another step of the
    /// request: one is done whenever its pictures have done as many as there are pictures. Of `swift` ticks it hears with what
    /// comes next.
    pub(crate) fn step_taken(&self, draw: &Draw, place: usize, now: Instant, swift: bool) {
        let rows = draw.rows();
        self.rows_left.fetch_sub(rows, Ordering::Relaxed);
        self.stats.done(rows);
        let of = draw.steps();
        let mut progress = self.progress();
        let pictures = progress.calls.len() as u64;
        let before = progress.steps / pictures;
        let calls = progress.calls[place];
        let moved = draw.steps_done(calls + 1) - draw.steps_done(calls);
        progress.calls[place] = calls + 1;
        progress.steps += u64::from(moved);
        let index = progress.steps / pictures;
        progress.denoised = Some(now);
        if index == u64::from(of) {
            progress.denoise_span = None;
        }
        drop(progress);
        if index > before {
            // Never above `of`.
            let index = index as u32;
            self.tell(Event::Step(Step { index, of }), swift);
        }
    }

    fn tell(&self, event: Event, later: bool) {
        if later {
            self.outbox.leave(event);
        } else {
            self.outbox.send(event);
        }
    }

    /// A tick ended that had rows of this job.
    pub(crate) fn tick_ended(&self) {
        self.progress().ticks += 1;
    }

    pub(crate) fn decoded(&self, took: Duration) {
        self.progress().decode += took;
    }

    /// Times of one picture: `from` and `to` are its first and last tick.
    pub(crate) fn picture_timings(&self, times: &PictureTimes, image: Duration, now: Instant) -> Timings {
        let encode = self.progress().encode;
        Timings {
            queue_us: micros((times.from - self.work.arrived).saturating_sub(encode)),
            preprocess_us: 0,
            encode_us: micros(encode),
            denoise_us: micros(times.to - times.from),
            decode_us: micros(times.decode),
            image_us: micros(image),
            total_us: micros(now - self.work.arrived),
            ticks: times.ticks,
        }
    }

    /// Sends a finished picture, and the end after the last one; or leaves both for a reader who is told later. Returns the
    /// request's times at the end.
    pub(crate) fn picture_done(&self, event: Event, image: Duration, later: bool) -> Option<Timings> {
        let now = Instant::now();
        let mut progress = self.progress();
        progress.image += image;
        progress.sent += 1;
        if progress.sent < self.work.pictures.len() {
            drop(progress);
            self.tell(event, later);
            return None;
        }
        self.outbox.leave(event);
        let from = progress.started.unwrap_or(now);
        let to = progress.denoised.unwrap_or(from);
        let timings = Timings {
            queue_us: micros((from - self.work.arrived).saturating_sub(progress.encode)),
            preprocess_us: 0,
            encode_us: micros(progress.encode),
            denoise_us: micros(to - from),
            decode_us: micros(progress.decode),
            image_us: micros(progress.image),
            total_us: micros(now - self.work.arrived),
            ticks: progress.ticks,
        };
        drop(progress);
        // Before the reader hears of the end: who asks for the load then must not see this job.
        self.stats.done(self.rows_left.swap(0, Ordering::Relaxed));
        let done = Done {
            timings: Some(timings),
        };
        self.tell(Event::Done(done), later);
        Some(timings)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.stats
            .remove(self.rows_left.load(Ordering::Relaxed), self.work.count());
    }
}

/// Where one picture's time went.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PictureTimes {
    /// Begin of its first tick.
    pub(crate) from: Instant,
    /// End of its last tick.
    pub(crate) to: Instant,
    pub(crate) decode: Duration,
    pub(crate) ticks: u32,
}

impl PictureTimes {
    /// The times of a picture whose first tick begins now.
    pub(crate) fn begin(now: Instant) -> Self {
        Self {
            from: now,
            to: now,
            decode: Duration::ZERO,
            ticks: 0,
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
