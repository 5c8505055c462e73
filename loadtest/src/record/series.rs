//! The same counts over time, for charts: stretches of equal length, which grow with the run so that their number does not.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::{Kind, add, histogram};

/// Stretches of a run at most: twice what a chart can show. One more, and every two become one.
const MAX_BUCKETS: usize = 240;
/// What they begin with; shorter ones hold too few requests to say anything.
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

impl Default for Series {
    fn default() -> Self {
        Self {
            width: SHORTEST,
            buckets: Vec::new(),
        }
    }
}

impl Bucket {
    fn empty() -> Self {
        Self {
            due: 0,
            good: 0,
            refused: 0,
            bad: 0,
            answered: 0,
            latency: histogram(DIGITS),
        }
    }

    fn merge(&mut self, other: &Self) {
        self.due += other.due;
        self.good += other.good;
        self.refused += other.refused;
        self.bad += other.bad;
        self.answered += other.answered;
        add(&mut self.latency, &other.latency);
    }
}

impl Series {
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

    /// The stretch at this time since the window's start.
    pub(super) fn at(&mut self, since: Duration) -> &mut Bucket {
        while since.as_nanos() / self.width.as_nanos() >= MAX_BUCKETS as u128 {
            self.coarsen();
        }
        let index = (since.as_nanos() / self.width.as_nanos()) as usize;
        if index >= self.buckets.len() {
            self.buckets.resize_with(index + 1, Bucket::empty);
        }
        &mut self.buckets[index]
    }

    /// Every two stretches become one.
    fn coarsen(&mut self) {
        self.width *= 2;
        let mut pairs = std::mem::take(&mut self.buckets).into_iter();
        while let Some(mut first) = pairs.next() {
            if let Some(second) = pairs.next() {
                first.merge(&second);
            }
            self.buckets.push(first);
        }
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
        let mut other = other.clone();
        while self.width < other.width {
            self.coarsen();
        }
        while other.width < self.width {
            other.coarsen();
        }
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize_with(other.buckets.len(), Bucket::empty);
        }
        for (own, others) in self.buckets.iter_mut().zip(&other.buckets) {
            own.merge(others);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_has_longer_stretches_and_loses_nothing() {
        let mut series = Series::default();
        for second in 0..86_400 {
            series.at(Duration::from_secs(second)).due += 1;
        }
        assert!((MAX_BUCKETS / 2..=MAX_BUCKETS).contains(&series.buckets.len()));
        assert_eq!(
            series.buckets.iter().map(|bucket| bucket.due).sum::<u64>(),
            86_400
        );
        // 0.1 s times a power of two.
        assert_eq!(series.width(), SHORTEST * 4096);
    }
}
