//! Where capacity lies: the highest rate at which enough answers are good. Pure; it is told how each rate went.
//!
//! Invariant: what it names was tried twice and passed both times, and a rate at most one step higher failed.

use serde::Serialize;

use super::Report;

/// No rate below is tried.
const LOWEST: f64 = 0.01;
/// No rate above is tried.
const HIGHEST: f64 = 1e6;
/// Rates tried at most: doubling from the lowest to the highest and dividing to 1 % takes fewer.
const MAX_TRIES: usize = 48;

/// Looks for the highest rate that passes: doubles or halves until it is between two, then divides.
#[derive(Debug, Clone)]
pub struct Search {
    /// Highest rate that passed and was not refuted.
    low: Option<f64>,
    /// Lowest rate that failed.
    high: Option<f64>,
    next: Option<f64>,
    confirmed: bool,
    /// The search ends when failed and passed rate are this close.
    step: f64,
    tries: usize,
}

impl Search {
    /// Begins at `first` requests per second and ends within `precision` percent.
    #[must_use]
    pub fn new(first: f64, precision: f64) -> Self {
        Self {
            low: None,
            high: None,
            next: Some(first.clamp(LOWEST, HIGHEST)),
            confirmed: false,
            step: 1.0 + precision.clamp(1.0, 100.0) / 100.0,
            tries: 0,
        }
    }

    /// The rate to try, until there is none.
    #[must_use]
    pub fn next_rate(&self) -> Option<f64> {
        self.next
    }

    /// How the rate that was to be tried went.
    pub fn record(&mut self, passed: bool) {
        let Some(rate) = self.next.take() else { return };
        self.tries += 1;
        if passed {
            // Trying the same rate again is how a result is confirmed.
            self.confirmed = self.low == Some(rate);
            self.low = Some(rate);
        } else {
            self.high = Some(rate);
            if self.low.is_some_and(|low| low >= rate) {
                // It had passed by luck: look below.
                self.low = None;
            }
        }
        if self.tries < MAX_TRIES {
            self.next = self.plan();
        }
    }

    fn plan(&self) -> Option<f64> {
        match (self.low, self.high) {
            (Some(low), Some(high)) if high / low > self.step * (1.0 + 1e-9) => Some((low * high).sqrt()),
            (Some(low), _) if low >= HIGHEST => None,
            (Some(low), Some(_)) => (!self.confirmed).then_some(low),
            (Some(low), None) => Some((low * 2.0).min(HIGHEST)),
            (None, Some(high)) if high <= LOWEST => None,
            (None, Some(high)) => Some((high / 2.0).max(LOWEST)),
            (None, None) => None,
        }
    }

    /// The highest rate that passed, once the search has ended.
    #[must_use]
    pub fn capacity(&self) -> Option<f64> {
        self.low.filter(|_| self.next.is_none())
    }
}

/// One rate of a sweep.
#[derive(Debug, Clone, Serialize)]
pub struct Tried {
    /// Requests per second.
    pub rate: f64,
    /// Whether enough answers were good.
    pub passed: bool,
    /// How it went.
    pub report: Report,
}

/// What a sweep found.
#[derive(Debug, Clone, Serialize)]
pub struct Sweep {
    /// What was called.
    pub target: String,
    /// Good answers of a hundred due that a rate must have.
    pub require: f64,
    /// Highest rate that had them, twice.
    pub capacity: Option<f64>,
    /// Every rate that was tried, in order.
    pub points: Vec<Tried>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(mut search: Search, mut passes: impl FnMut(f64) -> bool) -> (Option<f64>, Vec<f64>) {
        let mut tried = Vec::new();
        while let Some(rate) = search.next_rate() {
            tried.push(rate);
            search.record(passes(rate));
        }
        (search.capacity(), tried)
    }

    #[test]
    fn a_target_that_passes_nothing_has_no_capacity() {
        let (capacity, tried) = run(Search::new(100.0, 5.0), |_| false);
        assert_eq!((capacity, tried.last()), (None, Some(&LOWEST)));
    }

    #[test]
    fn a_rate_that_passed_by_luck_is_not_the_result() {
        let mut lucky = true;
        let (capacity, _) = run(Search::new(64.0, 5.0), |rate| {
            rate <= 40.0 || (rate <= 65.0 && std::mem::take(&mut lucky))
        });
        assert!((38.0..=40.0).contains(&capacity.unwrap()), "{capacity:?}");
    }

    proptest! {
        #[test]
        fn it_ends_within_its_precision_below_the_true_capacity(
            truth in 0.05f64..500_000.0, first in 0.01f64..100_000.0, precision in 1.0f64..20.0,
        ) {
            let (capacity, tried) = run(Search::new(first, precision), |rate| rate <= truth);
            let capacity = capacity.unwrap();
            prop_assert!(capacity <= truth && capacity * (1.0 + precision / 100.0) * 1.001 >= truth, "{capacity} {truth}");
            prop_assert!(tried.iter().filter(|rate| **rate == capacity).count() >= 2);
        }

        #[test]
        fn it_ends_whatever_it_is_told(answers in proptest::collection::vec(any::<bool>(), 64)) {
            let mut answers = answers.into_iter();
            let (_, tried) = run(Search::new(10.0, 2.0), |_| answers.next().unwrap());
            prop_assert!(tried.len() <= MAX_TRIES);
        }
    }
}
