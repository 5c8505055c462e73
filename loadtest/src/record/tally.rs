//! Counts and latencies of one class of requests.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::{Ending, Kind, add, histogram};

/// Significant decimal digits of a latency.
const DIGITS: u8 = 3;
/// Different reasons of failure that are told apart; the rest is counted together.
const MAX_LABELS: usize = 24;
const OTHER: &str = "others";

/// Counts and latencies.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Requests that were due.
    pub due: u64,
    /// Requests that were due and not sent, because too many were in flight.
    pub unsent: u64,
    /// Right answers within their objective.
    pub good: u64,
    /// Bytes of right answers.
    pub bytes: u64,
    /// Ends, by kind, in the order of [`Kind::ALL`].
    pub ended: [u64; Kind::ALL.len()],
    /// Ends other than right answers, by kind and reason.
    pub reasons: BTreeMap<(Kind, String), u64>,
    /// From due to the end, right answers only, microseconds.
    pub latency: Histogram<u64>,
    /// From due to the end, refusals only, microseconds.
    pub refusal: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            due: 0,
            unsent: 0,
            good: 0,
            bytes: 0,
            ended: [0; Kind::ALL.len()],
            reasons: BTreeMap::new(),
            latency: histogram(DIGITS),
            refusal: histogram(DIGITS),
        }
    }
}

impl Tally {
    /// One request ended, so long after it was due.
    pub(super) fn end(&mut self, ending: &Ending, latency: Duration, slo: Option<Duration>) {
        self.ended[ending.kind as usize] += 1;
        let us = latency.as_micros() as u64;
        match ending.kind {
            Kind::Right => {
                self.good += u64::from(slo.is_none_or(|slo| latency <= slo));
                self.bytes += ending.bytes as u64;
                self.latency.saturating_record(us);
                return;
            }
            Kind::Refused | Kind::RefusedBare => self.refusal.saturating_record(us),
            Kind::Deadline | Kind::Failed | Kind::Transport | Kind::Wrong => {}
        }
        self.reason(ending.kind, &ending.label, 1);
    }

    fn reason(&mut self, kind: Kind, label: &str, count: u64) {
        let label = if self.reasons.len() < MAX_LABELS || self.reasons.contains_key(&(kind, label.to_owned()))
        {
            label
        } else {
            OTHER
        };
        *self.reasons.entry((kind, label.to_owned())).or_insert(0) += count;
    }

    /// How many ended this way.
    #[must_use]
    pub fn count(&self, kind: Kind) -> u64 {
        self.ended[kind as usize]
    }

    /// Requests that were sent and had not ended when the run was over.
    #[must_use]
    pub fn unfinished(&self) -> u64 {
        self.due
            .saturating_sub(self.unsent + self.ended.iter().sum::<u64>())
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        self.due += other.due;
        self.unsent += other.unsent;
        self.good += other.good;
        self.bytes += other.bytes;
        for (own, others) in self.ended.iter_mut().zip(other.ended) {
            *own += others;
        }
        for ((kind, label), count) in &other.reasons {
            self.reason(*kind, label, *count);
        }
        add(&mut self.latency, &other.latency);
        add(&mut self.refusal, &other.refusal);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reasons_are_bounded_whatever_servers_say() {
        let mut tally = Tally::default();
        for i in 0..1000 {
            tally.end(
                &Ending::other(Kind::Failed, format!("reason {i}")),
                Duration::ZERO,
                None,
            );
        }
        // One more for each kind at most.
        assert!(tally.reasons.len() <= MAX_LABELS + Kind::ALL.len());
        assert_eq!(tally.reasons.values().sum::<u64>(), 1000);
        assert_eq!(
            tally.reasons[&(Kind::Failed, OTHER.to_owned())],
            1000 - MAX_LABELS as u64
        );
    }

    #[test]
    fn only_right_answers_within_the_objective_are_good() {
        let mut tally = Tally::default();
        let slo = Some(Duration::from_millis(100));
        tally.due = 4;
        tally.end(&Ending::right(10), Duration::from_millis(100), slo);
        tally.end(&Ending::right(10), Duration::from_millis(101), slo);
        tally.end(
            &Ending::other(Kind::Refused, "503"),
            Duration::from_millis(1),
            slo,
        );
        assert_eq!(
            (tally.good, tally.count(Kind::Right), tally.unfinished()),
            (1, 2, 1)
        );
        assert_eq!((tally.latency.len(), tally.refusal.len()), (2, 1));
    }

    proptest! {
        /// The judge is the definition: sort, and take the value at the rank.
        #[test]
        fn quantiles_are_those_of_the_sorted_latencies(mut us in proptest::collection::vec(1u64..10_000_000, 1..500)) {
            let mut tally = Tally::default();
            for us in &us {
                tally.end(&Ending::right(1), Duration::from_micros(*us), None);
            }
            us.sort_unstable();
            for quantile in [0.0, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0] {
                let rank = ((us.len() as f64 * quantile).ceil() as usize).clamp(1, us.len());
                let expected = us[rank - 1] as f64;
                let found = tally.latency.value_at_quantile(quantile) as f64;
                // Three significant digits, and the highest value that cannot be told apart from the recorded one.
                prop_assert!((found - expected).abs() <= expected / 1000.0 + 1.0, "{quantile}: {found} for {expected}");
            }
        }
    }
}
