//! Whether a replica that can be reached does its work: outlier detection, as Envoy and gRPC (proposal A50) have it.
//!
//! What could not be reached is another matter, see [`super::Book::failed`]: that is noticed at once and is over as fast.
//! Here is the replica that takes requests and then fails them, which a router that looks at waits alone would even prefer,
//! since it is never busy. One that failed [`IN_A_ROW`] requests, or half of its last [`WINDOW`], is left out for a time
//! that doubles each time.
//!
//! It refuses to know why a request failed, and to decide about other replicas: [`may_leave_out`] says how many may be out.
//!
//! Invariants: at most half of the replicas are out, and never the only one; whoever is out comes back.

use std::time::Duration;

/// Failures one after the other that make an outlier: Envoy's `consecutive_5xx`.
pub const IN_A_ROW: u32 = 5;
/// Requests over which failures are counted that are not in a row.
pub const WINDOW: u32 = 16;
/// How long an outlier is left out the first time: as long as a worker takes to notice and start anew what is broken.
const FIRST: Duration = Duration::from_secs(5);
/// The longest time.
const LAST: Duration = Duration::from_secs(60);

/// How a replica did lately.
#[derive(Debug, Clone, Copy, Default)]
pub struct Health {
    in_a_row: u32,
    /// One bit per request, the newest lowest; set where it failed.
    failed: u32,
    seen: u32,
    until: Duration,
    times: u32,
}

impl Health {
    /// A request was done.
    pub fn did(&mut self) {
        self.in_a_row = 0;
        self.note(0);
    }

    /// A request failed by the replica's fault. True when that makes it an outlier.
    pub fn failed(&mut self) -> bool {
        self.in_a_row += 1;
        self.note(1);
        let window = self.failed & ((1 << WINDOW) - 1);
        self.in_a_row >= IN_A_ROW || (self.seen >= WINDOW && window.count_ones() >= WINDOW / 2)
    }

    fn note(&mut self, failed: u32) {
        self.failed = (self.failed << 1) | failed;
        self.seen = self.seen.saturating_add(1);
    }

    /// Leaves it out from `now` on; gives until when. What it did before is forgotten.
    pub fn leave_out(&mut self, now: Duration) -> Duration {
        // One that has done well for long enough starts from the beginning.
        if now >= self.until.saturating_add(LAST) {
            self.times = 0;
        }
        let length = FIRST.saturating_mul(1 << self.times.min(8)).min(LAST);
        *self = Self {
            until: now + length,
            times: self.times + 1,
            ..Self::default()
        };
        self.until
    }

    /// It is left out.
    pub fn is_out(&self, now: Duration) -> bool {
        now < self.until
    }

    /// How often it was left out, one time after the other.
    pub fn times(&self) -> u32 {
        self.times
    }

    /// Until when it is, or was.
    pub fn until(&self) -> Duration {
        self.until
    }
}

/// Whether one more of `all` replicas may be left out, when `out` are.
pub fn may_leave_out(out: usize, all: usize) -> bool {
    out.saturating_add(1).saturating_mul(2) <= all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn failures_in_a_row_make_an_outlier_and_one_success_between_does_not() {
        let mut health = Health::default();
        for _ in 0..3 {
            for _ in 1..IN_A_ROW {
                assert!(!health.failed());
            }
            for _ in 0..WINDOW {
                health.did();
            }
        }
        for _ in 1..IN_A_ROW {
            health.failed();
        }
        assert!(health.failed());
    }

    #[test]
    fn half_of_the_last_requests_make_an_outlier_too() {
        let mut health = Health::default();
        let mut found = None;
        for i in 0..WINDOW * 2 {
            health.did();
            if health.failed() {
                found = Some(i);
                break;
            }
        }
        assert_eq!(found, Some(WINDOW / 2 - 1));
    }

    #[test]
    fn it_is_out_for_longer_each_time_until_it_has_done_well_for_long() {
        let mut health = Health::default();
        let mut now = S;
        for seconds in [5, 10, 20, 40, 60, 60] {
            let until = health.leave_out(now);
            assert_eq!(until, now + S * seconds);
            assert!(health.is_out(now) && !health.is_out(until));
            now = until;
        }
        now += LAST;
        assert_eq!(health.leave_out(now), now + FIRST);
    }

    proptest! {
        #[test]
        fn at_most_half_are_out_and_never_the_only_one(all in 0usize..100, failures in prop::collection::vec(0usize..100, 0..300)) {
            let mut replicas = vec![Health::default(); all];
            for (second, at) in failures.into_iter().enumerate() {
                let now = S * u32::try_from(second).unwrap();
                let out = replicas.iter().filter(|r| r.is_out(now)).count();
                prop_assert!(out * 2 <= all);
                if all > 0 && may_leave_out(out, all) {
                    replicas[at % all].leave_out(now);
                }
            }
        }
    }
}
