//! How far predicted times can be trusted: what was predicted is compared with what it took.
//!
//! Two ratios of real to predicted time are followed, of waits and of work, each at its ninetieth percentile: of ten
//! requests that are let in by it, nine make it. Each begins at one half, since a request that could have been served must
//! not be refused by a guess, and moves by a few percent with every request that is served. Without it a queue at one and
//! a half times its capacity fills with requests that wait until their deadlines and then have no time left to be drawn.
//!
//! The work's ratio counts only for who waits: where nobody does, requests have the replicas to themselves, and what was
//! learned in a crowd says nothing of them.
//!
//! It refuses to read a clock.

use std::time::Duration;

/// Before anything was compared.
const FIRST: f64 = 0.5;
/// Waits are the work of others over a measured pace: what is off by more was not predicted at all, as when replicas went
/// away meanwhile, and says nothing of the next ones.
const WAITS: (f64, f64) = (0.25, 2.0);
/// A replica that works on many requests at a time takes so much longer for each.
const WORK: (f64, f64) = (0.5, 64.0);
/// How much of the requests an estimate is to cover.
const PART: f64 = 0.9;
/// How far one request moves an estimate: a tenth up or a hundredth down, so that a few dozen settle it.
const STEP: f64 = 0.1;
/// Shorter predictions are lost in what happens besides.
const NOTABLE: Duration = Duration::from_millis(10);

/// How far predicted times can be trusted.
#[derive(Debug, Clone, Copy)]
pub struct Trust {
    wait: f64,
    work: f64,
}

impl Default for Trust {
    fn default() -> Self {
        Self {
            wait: FIRST,
            work: FIRST,
        }
    }
}

impl Trust {
    /// A request that was predicted to wait for `predicted` waited for `took`, or was still waiting then and left.
    pub fn waited(&mut self, predicted: Duration, took: Duration, was_served: bool) {
        note(&mut self.wait, WAITS, (predicted, took, was_served));
    }

    /// A request whose work alone was predicted to take `predicted` was drawn in `took`, or was not done then and left.
    pub fn worked(&mut self, predicted: Duration, took: Duration, was_done: bool) {
        note(&mut self.work, WORK, (predicted, took, was_done));
    }

    /// How long a predicted wait will be, as far as is known.
    pub fn wait(&self, predicted: Duration) -> Duration {
        times(predicted, self.wait)
    }

    /// How long work will take that has to wait for others first, or does not.
    pub fn work(&self, predicted: Duration, after_others: bool) -> Duration {
        times(predicted, if after_others { self.work } else { FIRST })
    }
}

fn times(time: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(time.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

/// Moves an estimate towards its percentile.
fn note(at: &mut f64, (least, most): (f64, f64), (predicted, took, is_whole): (Duration, Duration, bool)) {
    if predicted < NOTABLE {
        return;
    }
    let ratio = took.as_secs_f64() / predicted.as_secs_f64();
    if ratio > *at {
        *at *= 1.0 + STEP * PART;
    } else if is_whole {
        // One that left early says nothing of how long it would have taken.
        *at *= 1.0 - STEP * (1.0 - PART);
    }
    *at = at.clamp(least, most);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn before_anything_was_compared_half_of_a_prediction_counts() {
        let trust = Trust::default();
        assert_eq!(trust.wait(S * 4), S * 2);
        assert_eq!(trust.work(S * 4, true), S * 2);
        assert_eq!(trust.work(S * 4, false), S * 2);
    }

    #[test]
    fn an_estimate_comes_to_cover_nine_of_ten() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut trust = Trust::default();
        let mut covered = 0;
        for i in 0..4_000 {
            let took = S.mul_f64(rng.random_range(0.5..2.5));
            covered += u32::from(i >= 2_000 && took <= trust.work(S, true));
            trust.worked(S, took, true);
        }
        assert!((1_700..1_900).contains(&covered), "{covered} of 2000");
        assert_eq!(
            trust.work(S, false),
            S / 2,
            "who is alone is not judged by a crowd"
        );
    }

    #[test]
    fn who_left_early_says_nothing_and_who_left_late_something() {
        let mut trust = Trust::default();
        trust.waited(S, S / 100, false);
        assert_eq!(trust.wait(S), S / 2);
        trust.waited(S, S * 3, false);
        assert!(trust.wait(S) > S / 2);
    }

    proptest! {
        #[test]
        fn no_sample_takes_an_estimate_out_of_its_range(
            samples in prop::collection::vec((0u64..u64::MAX, 0u64..u64::MAX, any::<bool>()), 0..200),
        ) {
            let mut trust = Trust::default();
            for (predicted, took, is_whole) in samples {
                let (predicted, took) = (Duration::from_nanos(predicted), Duration::from_nanos(took));
                trust.waited(predicted, took, is_whole);
                trust.worked(predicted, took, is_whole);
            }
            prop_assert!(trust.wait(S) >= S / 4 && trust.wait(S) <= S * 2);
            prop_assert!(trust.work(S, true) >= S / 2 && trust.work(S, true) <= S * 64);
        }
    }
}
