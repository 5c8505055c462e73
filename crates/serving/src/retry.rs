//! Whether a request whose replica was lost may start again.
//!
//! A request starts again with the same seeds, so a restart never changes a picture; the only harm a restart can do is
//! load. Three rules bound it: a request runs at most [`Policy::max_attempts`] times (a request that kills its replicas
//! must not kill them all), its first restart is its own by right (a lost replica never fails what it was working
//! on), and every further one comes out of a [`Budget`] that all requests share and that grows with their number, as
//! in linkerd and finagle (a storm of restarts stays a fraction of the traffic).
//!
//! It refuses to know why something failed: whether a fault is worth a restart is the caller's to say. Time is a
//! [`Duration`] since any fixed point of the caller's.

use std::time::Duration;

/// Restarts per request that is admitted.
const RATIO: f64 = 0.2;
/// Restarts per second that are granted without any traffic, so that a quiet server can restart at all.
const RESERVE_PER_SECOND: f64 = 10.0;
/// Most restarts that can be saved up: as many as requests may run on the replicas that are lost in one incident.
const BURST: f64 = 1000.0;

/// How often one request may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Attempts in all, the first included; 0 is taken as 1.
    pub max_attempts: u32,
}

/// Restarts that all requests share.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    tokens: f64,
    at: Duration,
}

impl Budget {
    /// A full budget.
    pub fn new(now: Duration) -> Self {
        Self {
            tokens: BURST,
            at: now,
        }
    }

    /// A request was admitted.
    pub fn deposit(&mut self) {
        self.tokens = (self.tokens + RATIO).min(BURST);
    }

    /// Takes one restart, if there is one.
    pub fn withdraw(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.tokens = (self.tokens + passed * RESERVE_PER_SECOND).min(BURST);
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

/// Why a request may not start again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GiveUp {
    /// It ran as often as it may.
    #[error("it was begun {attempts} times, as often as may be")]
    Attempts {
        /// How often it ran.
        attempts: u32,
    },
    /// Too many requests start again.
    #[error("too many requests start again")]
    Budget,
}

/// How often one request ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attempts {
    lost: u32,
}

impl Attempts {
    /// The replica that worked on the request was lost. Returns how many restarts it has had with the one that is granted
    /// now.
    ///
    /// # Errors
    /// [`GiveUp`] when it may not start again.
    pub fn lost(&mut self, policy: Policy, budget: &mut Budget, now: Duration) -> Result<u32, GiveUp> {
        self.lost += 1;
        if self.lost >= policy.max_attempts.max(1) {
            return Err(GiveUp::Attempts { attempts: self.lost });
        }
        if self.lost > 1 && !budget.withdraw(now) {
            return Err(GiveUp::Budget);
        }
        Ok(self.lost)
    }

    /// Restarts so far.
    pub fn restarts(&self) -> u32 {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: Policy = Policy { max_attempts: 3 };

    fn empty() -> Budget {
        Budget {
            tokens: 0.0,
            at: Duration::ZERO,
        }
    }

    #[test]
    fn the_first_restart_needs_no_budget() {
        let mut budget = empty();
        let mut attempts = Attempts::default();
        assert_eq!(attempts.lost(POLICY, &mut budget, Duration::ZERO), Ok(1));
        assert_eq!(
            attempts.lost(POLICY, &mut budget, Duration::ZERO),
            Err(GiveUp::Budget)
        );
    }

    #[test]
    fn a_request_that_kills_its_replicas_stops_at_its_last_attempt() {
        let mut budget = Budget::new(Duration::ZERO);
        let mut attempts = Attempts::default();
        assert_eq!(attempts.lost(POLICY, &mut budget, Duration::ZERO), Ok(1));
        assert_eq!(attempts.lost(POLICY, &mut budget, Duration::ZERO), Ok(2));
        assert_eq!(
            attempts.lost(POLICY, &mut budget, Duration::ZERO),
            Err(GiveUp::Attempts { attempts: 3 })
        );
    }

    #[test]
    fn one_attempt_means_no_restart() {
        let mut budget = Budget::new(Duration::ZERO);
        let policy = Policy { max_attempts: 0 };
        assert!(
            Attempts::default()
                .lost(policy, &mut budget, Duration::ZERO)
                .is_err()
        );
    }

    #[test]
    fn an_empty_budget_refills_with_traffic_and_with_time() {
        let mut budget = empty();
        assert!(!budget.withdraw(Duration::ZERO));
        for _ in 0..6 {
            budget.deposit();
        }
        assert!(budget.withdraw(Duration::ZERO));
        assert!(!budget.withdraw(Duration::ZERO));
        assert!(budget.withdraw(Duration::from_millis(100)));
    }

    proptest! {
        #[test]
        fn restarts_stay_a_fraction_of_the_traffic(requests in 0u32..5_000) {
            let mut budget = Budget::new(Duration::ZERO);
            let mut granted = 0u32;
            for _ in 0..requests {
                budget.deposit();
                while budget.withdraw(Duration::ZERO) {
                    granted += 1;
                }
            }
            prop_assert!(f64::from(granted) <= BURST + RATIO * f64::from(requests) + 1.0);
        }
    }
}
