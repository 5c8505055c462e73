//! How long to wait before something that failed is tried again.
//!
//! Refuses to wait by itself and to add chance: what retries here is one controller, not a crowd that must be spread.

use std::time::Duration;

/// First wait, limit, and what clears the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Wait after the first failure.
    pub first: Duration,
    /// No wait is longer.
    pub limit: Duration,
    /// What worked for so long has not failed "in a row" with what was before.
    pub steady: Duration,
}

/// Failures in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts a failure of something that worked for `worked` and returns how long to wait: first, doubled each time,
    /// up to the limit.
    pub fn fail(&mut self, policy: &Policy, worked: Duration) -> Duration {
        if worked >= policy.steady {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        // 2^20 times any sensible first wait is over any sensible limit.
        let doublings = (self.failures - 1).min(20);
        policy.first.saturating_mul(1 << doublings).min(policy.limit)
    }

    /// How often it failed in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        first: Duration::from_secs(1),
        limit: Duration::from_secs(30),
        steady: Duration::from_secs(60),
    };

    #[test]
    fn waits_double_up_to_the_limit_and_start_over_after_steady_work() {
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..7)
            .map(|_| backoff.fail(&POLICY, Duration::ZERO).as_secs())
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(backoff.failures(), 7);
        assert_eq!(backoff.fail(&POLICY, Duration::from_secs(60)).as_secs(), 1);
        assert_eq!(backoff.failures(), 1);
    }
}
