//! When requests are due: a pure schedule, made from a rate and a seed. It knows no clock.
//!
//! Invariant: due times never go back, and over a long time their rate is the one asked for.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};

/// How requests are spread in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Pattern {
    /// Independent users: exponential gaps.
    Poisson,
    /// A metronome: equal gaps.
    Constant,
}

/// An endless iterator over due times, counted from the start of the load.
#[derive(Debug)]
pub struct Arrivals {
    pattern: Pattern,
    mean_gap_s: f64,
    due_s: f64,
    random: StdRng,
}

impl Arrivals {
    /// A schedule of `rate` requests per second; the same seed gives the same schedule.
    #[must_use]
    pub fn new(pattern: Pattern, rate: f64, seed: u64) -> Self {
        Self {
            pattern,
            mean_gap_s: 1.0 / rate.max(1e-3),
            due_s: 0.0,
            random: StdRng::seed_from_u64(seed),
        }
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let gap = match self.pattern {
            Pattern::Constant => self.mean_gap_s,
            // Inverse of the exponential distribution; 1 - u is never 0.
            Pattern::Poisson => -(1.0 - self.random.random::<f64>()).ln() * self.mean_gap_s,
        };
        self.due_s += gap;
        Some(Duration::from_secs_f64(self.due_s))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_metronome_ticks_evenly() {
        let due: Vec<_> = Arrivals::new(Pattern::Constant, 100.0, 0).take(3).collect();
        assert_eq!(due, [10, 20, 30].map(Duration::from_millis));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn due_times_never_go_back(rate in 0.1f64..10_000.0, seed: u64) {
            let due: Vec<_> = Arrivals::new(Pattern::Poisson, rate, seed).take(200).collect();
            prop_assert!(due.is_sorted());
        }

        #[test]
        fn the_rate_is_the_one_asked_for(rate in 1.0f64..10_000.0, seed: u64) {
            const COUNT: usize = 20_000;
            let last = Arrivals::new(Pattern::Poisson, rate, seed).take(COUNT).last().unwrap();
            let measured = COUNT as f64 / last.as_secs_f64();
            // Five standard deviations of a mean of 20,000 exponential gaps are 3.5 %.
            prop_assert!((measured / rate - 1.0).abs() < 0.036, "asked for {rate}, got {measured}");
        }
    }
}
