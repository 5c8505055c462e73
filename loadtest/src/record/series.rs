//! The same counts over time, for charts: a fixed number of stretches of equal length.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::{Kind, add, histogram};

/// Stretches of a run at most, as many as a chart can show.
const MAX_BUCKETS: u32 = 120;
/// A stretch is no shorter, or it holds too few requests to say anything.
const SHORTEST: Duration = Duration::from_millis(100);
/// Significant digits: a chart shows no more.
const DIGITS: u8 = 2;

/// One stretch.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// Requests due in it.
    pub due: u64,
    /// Of those, answered rightly and within their objective.
    pub good: u64,
    /// Of those, refused.
    pub refused: u64,
    /// Of those, ended in any other way, or not sent.
    pub bad: u64,
    /// Right answers that came in it, whenever they were due.
    pub answered: u64,
    /// Of right answers to those due in it, microseconds.
    pub latency: Histogram<u64>,
}

/// All stretches of a run.
#[derive(Debug, Clone)]
pub struct Series {
    width: Duration,
    buckets: Vec<Bucket>,
}

impl Series {
    /// Stretches that cover `length`.
    #[must_use]
    pub fn new(length: Duration) -> Self {
        let width = (length / MAX_BUCKETS).max(SHORTEST);
        let count = length
            .as_nanos()
            .div_ceil(width.as_nanos())
            .clamp(1, u128::from(MAX_BUCKETS));
        let empty = Bucket {
            due: 0,
            good: 0,
            refused: 0,
            bad: 0,
            answered: 0,
            latency: histogram(DIGITS),
        };
        Self {
            width,
            buckets: vec![empty; count as usize],
        }
    }

    /// How long each stretch is.
    #[must_use]
    pub fn width(&self) -> Duration {
        self.width
    }

    /// The stretches in order.
    #[must_use]
    pub fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// The stretch at this time since the window's start; the last one also for what comes at its very end.
    pub(super) fn at(&mut self, since: Duration) -> &mut Bucket {
        let index = (since.as_nanos() / self.width.as_nanos()) as usize;
        let last = self.buckets.len() - 1;
        &mut self.buckets[index.min(last)]
    }

    pub(super) fn end(&mut self, since: Duration, kind: Kind, good: bool, latency: Duration) {
        let bucket = self.at(since);
        match kind {
            Kind::Right => {
                bucket.good += u64::from(good);
                bucket.latency.saturating_record(latency.as_micros() as u64);
            }
            Kind::Refused | Kind::RefusedBare => bucket.refused += 1,
            Kind::Deadline | Kind::Failed | Kind::Transport | Kind::Wrong => bucket.bad += 1,
        }
    }

    /// Adds another series of the same window.
    pub fn merge(&mut self, other: &Self) {
        for (own, others) in self.buckets.iter_mut().zip(&other.buckets) {
            own.due += others.due;
            own.good += others.good;
            own.refused += others.refused;
            own.bad += others.bad;
            own.answered += others.answered;
            add(&mut own.latency, &others.latency);
        }
    }
}
