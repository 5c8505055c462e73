//! What happened: counts and latencies, kept without a clock of its own.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::Shot;

/// Longest latency that is told apart; longer ones count as this.
const LONGEST: Duration = Duration::from_secs(3600);
/// Significant decimal digits of a latency.
const DIGITS: u8 = 3;

/// How one request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A picture came.
    Picture {
        /// SHA-256 of its bytes, or the bytes' own hash where the server gives no digest.
        digest: String,
        /// Length of the file.
        bytes: usize,
    },
    /// It was refused or failed, with the status code's name.
    Failed(String),
}

/// Collects outcomes; the part that counts begins after [`Recorder::start`].
#[derive(Debug)]
pub struct Recorder {
    counting: bool,
    latencies: Histogram<u64>,
    failures: BTreeMap<String, u64>,
    digests: HashMap<Shot, String>,
    pictures: u64,
    bytes: u64,
    differing: u64,
    missed: u64,
}

impl Recorder {
    /// An empty recorder that does not count yet.
    #[must_use]
    pub fn new() -> Self {
        let highest = LONGEST.as_micros() as u64;
        Self {
            counting: false,
            latencies: Histogram::new_with_bounds(1, highest, DIGITS)
                .expect("1 to an hour at three digits is a valid histogram"),
            failures: BTreeMap::new(),
            digests: HashMap::new(),
            pictures: 0,
            bytes: 0,
            differing: 0,
            missed: 0,
        }
    }

    /// From now on requests count. Digests of the warm-up are kept for comparison.
    pub fn start(&mut self) {
        self.counting = true;
    }

    /// One request is over, so long after it was due. One that ended after the load did (`late`) counts with its latency, so
    /// that a hang shows, but not as throughput.
    pub fn record(&mut self, shot: Shot, latency: Duration, outcome: Outcome, late: bool) {
        match outcome {
            Outcome::Picture { digest, bytes } => {
                let known = self.digests.entry(shot).or_insert_with(|| digest.clone());
                // A wrong picture is wrong in the warm-up too.
                self.differing += u64::from(*known != digest);
                if self.counting {
                    self.pictures += u64::from(!late);
                    self.bytes += if late { 0 } else { bytes as u64 };
                    self.latencies.saturating_record(latency.as_micros() as u64);
                }
            }
            Outcome::Failed(code) if self.counting => *self.failures.entry(code).or_insert(0) += 1,
            Outcome::Failed(_) => {}
        }
    }

    /// A request was due and could not be sent because too many were in flight.
    pub fn miss(&mut self) {
        self.missed += u64::from(self.counting);
    }

    pub(crate) fn latencies(&self) -> &Histogram<u64> {
        &self.latencies
    }

    pub(crate) fn failures(&self) -> &BTreeMap<String, u64> {
        &self.failures
    }

    pub(crate) fn pictures(&self) -> u64 {
        self.pictures
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn differing(&self) -> u64 {
        self.differing
    }

    pub(crate) fn missed(&self) -> u64 {
        self.missed
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(digest: &str) -> Outcome {
        Outcome::Picture {
            digest: digest.into(),
            bytes: 10,
        }
    }

    fn shot(seed: u64) -> Shot {
        Shot {
            prompt: "p".into(),
            seed,
        }
    }

    #[test]
    fn the_warm_up_is_not_counted_but_compared() {
        let mut recorder = Recorder::new();
        recorder.record(shot(1), Duration::from_millis(5), picture("a"), false);
        recorder.start();
        recorder.record(shot(1), Duration::from_millis(5), picture("b"), false);
        assert_eq!((recorder.pictures(), recorder.differing()), (1, 1));
    }

    #[test]
    fn a_late_answer_counts_as_latency_and_not_as_throughput() {
        let mut recorder = Recorder::new();
        recorder.start();
        recorder.record(shot(1), Duration::from_secs(9), picture("a"), true);
        assert_eq!((recorder.pictures(), recorder.latencies().len()), (0, 1));
    }

    #[test]
    fn failures_are_counted_by_code() {
        let mut recorder = Recorder::new();
        recorder.start();
        recorder.record(
            shot(1),
            Duration::ZERO,
            Outcome::Failed("unavailable".into()),
            false,
        );
        recorder.record(
            shot(2),
            Duration::ZERO,
            Outcome::Failed("unavailable".into()),
            false,
        );
        assert_eq!(recorder.failures()["unavailable"], 2);
        assert_eq!(recorder.pictures(), 0);
    }
}
