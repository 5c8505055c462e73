//! The requests of an open loop, numbered, from a random process or from a recording. Pure.
//!
//! Invariant: every walk through one schedule gives the same requests, so that several threads can each take their part.

use std::time::Duration;

use super::{Arrivals, Pattern, Profile, Trace};

/// One request of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Counted from 0.
    pub number: u64,
    /// Since the start of the load.
    pub at: Duration,
    /// Index of its class, where the schedule says so.
    pub class: Option<usize>,
}

/// When requests are due.
#[derive(Debug, Clone)]
pub enum Schedule {
    /// A random process.
    Process {
        /// How requests are spread.
        pattern: Pattern,
        /// Coefficient of variation of gamma gaps.
        cv: f64,
        /// Their rate over time.
        profile: Profile,
        /// The same seed gives the same schedule.
        seed: u64,
    },
    /// A recording.
    Trace(Trace),
}

impl Schedule {
    /// When it ends.
    #[must_use]
    pub fn length(&self) -> Duration {
        match self {
            Self::Process { profile, .. } => profile.length(),
            // The last request is due before the end, not at it.
            Self::Trace(trace) => trace.length() + Duration::from_nanos(1),
        }
    }

    /// The requests that `part` of `parts` takes, in order of time.
    pub fn walk(&self, part: u64, parts: u64) -> impl Iterator<Item = Due> + Send + use<'_> {
        let all: Box<dyn Iterator<Item = (Duration, Option<usize>)> + Send> = match self {
            Self::Process {
                pattern,
                cv,
                profile,
                seed,
            } => Box::new(Arrivals::new(*pattern, *cv, profile.clone(), *seed).map(|at| (at, None))),
            Self::Trace(trace) => Box::new(trace.entries().iter().map(|entry| (entry.due, entry.class))),
        };
        (0..)
            .zip(all)
            .map(|(number, (at, class))| Due { number, at, class })
            .filter(move |due| due.number % parts == part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_together_are_the_whole_and_share_nothing() {
        let schedule = Schedule::Process {
            pattern: Pattern::Poisson,
            cv: 1.0,
            profile: Profile::constant(1000.0, Duration::from_secs(2)).unwrap(),
            seed: 5,
        };
        let whole: Vec<_> = schedule.walk(0, 1).collect();
        let mut parts: Vec<_> = (0..3).flat_map(|part| schedule.walk(part, 3)).collect();
        parts.sort_by_key(|due| due.number);
        assert_eq!(parts, whole);
        assert!(whole.iter().all(|due| due.at < schedule.length()));
    }
}
