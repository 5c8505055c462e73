//! How much of a replica's places was taken over the last while, as Ray's `serve_replica_utilization_percent` has it: time in
//! requests, divided by the window and the places.
//!
//! Pure: time is an argument. Invariant: what is remembered is bounded, whatever happens.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// RAY_SERVE_REPLICA_UTILIZATION_WINDOW_S and its buckets.
const WINDOW: Duration = Duration::from_secs(600);
const BUCKETS: u32 = 60;

/// Time in requests.
#[derive(Debug)]
pub(super) struct Busy {
    /// Requests now.
    ongoing: u32,
    /// Counted up to here.
    until: Instant,
    /// Seconds in requests by the start of their bucket, the newest last.
    buckets: VecDeque<(Instant, f64)>,
}

impl Busy {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            ongoing: 0,
            until: now,
            buckets: VecDeque::from([(now, 0.0)]),
        }
    }

    /// Requests came or went; gives how many there are.
    pub(super) fn change(&mut self, by: i32, now: Instant) -> u32 {
        self.count(now);
        self.ongoing = self.ongoing.saturating_add_signed(by);
        self.ongoing
    }

    /// The part of so many places that was taken.
    pub(super) fn utilization(&mut self, places: u32, now: Instant) -> f64 {
        self.count(now);
        let seconds: f64 = self.buckets.iter().map(|(_, seconds)| seconds).sum();
        seconds / (WINDOW.as_secs_f64() * f64::from(places.max(1)))
    }

    fn count(&mut self, now: Instant) {
        let width = WINDOW / BUCKETS;
        // What is older than the window is not counted, so a long silence costs no more than the window.
        if now.saturating_duration_since(self.until) > WINDOW {
            self.until = now - WINDOW;
            self.buckets = VecDeque::from([(self.until, 0.0)]);
        }
        while self.until < now {
            let Some((start, seconds)) = self.buckets.back_mut() else {
                return;
            };
            let end = (*start + width).min(now);
            *seconds += f64::from(self.ongoing) * end.saturating_duration_since(self.until).as_secs_f64();
            self.until = end;
            if end == *start + width {
                self.buckets.push_back((end, 0.0));
            }
        }
        while self
            .buckets
            .front()
            .is_some_and(|(start, _)| *start + WINDOW < now)
        {
            self.buckets.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn utilization_is_time_in_requests_over_the_window_and_the_places() {
        let start = Instant::now();
        let mut busy = Busy::new(start);
        assert_eq!(busy.change(1, start), 1);
        assert_eq!(busy.change(1, start + seconds(30)), 2);
        assert_eq!(busy.change(-2, start + seconds(60)), 0);
        // 30 s of one request, 30 s of two.
        let used = busy.utilization(3, start + seconds(300));
        assert!((used - 90.0 / 1800.0).abs() < 1e-9, "{used}");
        assert!(busy.buckets.len() <= BUCKETS as usize + 2);
        assert_eq!(busy.utilization(3, start + seconds(3_000)), 0.0);
    }

    #[test]
    fn a_replica_that_is_always_full_is_fully_used() {
        let start = Instant::now();
        let mut busy = Busy::new(start);
        busy.change(2, start);
        for minute in 1..100 {
            let used = busy.utilization(2, start + seconds(60 * minute));
            assert!(used <= 1.02, "{used}");
        }
        let used = busy.utilization(2, start + seconds(6_000));
        assert!((used - 1.0).abs() < 0.02, "{used}");
        assert!(busy.buckets.len() <= BUCKETS as usize + 2);
    }
}
