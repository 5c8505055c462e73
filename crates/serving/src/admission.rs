//! Who may wait, in which order, and what those are told who may not.
//!
//! A [`Queue`] holds the requests of one deployment that found no replica free. A request is admitted once, gets a
//! [`Ticket`], and keeps its place by it: one that has to start again goes back to where it was, not to the end.
//! Whoever finds the queue full is told when to come back, computed from how fast the queue drains.
//!
//! It refuses to wake anybody and to read a clock: time is a [`Duration`] since any fixed point of the caller's.
//!
//! Invariants: at most `max_queued` requests beyond the free slots are admitted; the oldest ticket leaves first.

use std::{collections::BTreeMap, time::Duration};

/// Memory of the drain rate: long against one picture, short against a change of load.
const RATE_WINDOW: Duration = Duration::from_secs(10);
/// Told to a caller when nothing was measured yet.
const RETRY_UNKNOWN: Duration = Duration::from_secs(1);
/// The shortest and the longest time a caller is told to stay away.
const RETRY_RANGE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// A request's place in line: the smaller, the earlier it was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// The queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("queue is full ({waiting} waiting)")]
pub struct Full {
    /// Requests that wait.
    pub waiting: usize,
    /// When a place is likely to be free.
    pub retry_after: Duration,
}

/// A deadline cannot be met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("deadline cannot be met: {needed:?} needed, {left:?} left")]
pub struct TooLate {
    /// Predicted time to the last picture, at the least.
    pub needed: Duration,
    /// Time to the deadline.
    pub left: Duration,
}

/// How often something happens, forgetting exponentially.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rate {
    count: f64,
    at: Duration,
    since: Option<Duration>,
}

impl Rate {
    /// Counts one.
    pub fn record(&mut self, now: Duration) {
        self.count = self.count * self.decay(now) + 1.0;
        self.at = now;
        self.since.get_or_insert(now);
    }

    /// Events per second; `None` before two were seen.
    pub fn per_second(&self, now: Duration) -> Option<f64> {
        let seen = now.checked_sub(self.since?).filter(|seen| !seen.is_zero())?;
        // What was forgotten of the time before the first event must not count as time in which nothing happened.
        let window = RATE_WINDOW.as_secs_f64();
        let effective = window * (1.0 - (-seen.as_secs_f64() / window).exp());
        Some(self.count * self.decay(now) / effective)
    }

    fn decay(&self, now: Duration) -> f64 {
        (-now.saturating_sub(self.at).as_secs_f64() / RATE_WINDOW.as_secs_f64()).exp()
    }
}

/// Requests of one deployment that wait for a replica.
#[derive(Debug)]
pub struct Queue<T> {
    max_queued: usize,
    arriving: usize,
    waiting: BTreeMap<Ticket, T>,
    next: u64,
    drained: Rate,
}

impl<T> Queue<T> {
    /// An empty queue for at most `max_queued` requests.
    pub fn new(max_queued: usize) -> Self {
        Self {
            max_queued,
            arriving: 0,
            waiting: BTreeMap::new(),
            next: 0,
            drained: Rate::default(),
        }
    }

    /// Changes the bound; those who wait stay.
    pub fn set_max_queued(&mut self, max_queued: usize) {
        self.max_queued = max_queued;
    }

    /// Admits a request that will ask for a replica soon, when fewer than `max_queued` are ahead of it beyond the `free`
    /// slots. Returns its ticket and how many are ahead. It counts until [`Queue::arrived`].
    ///
    /// # Errors
    /// [`Full`] when too many wait.
    pub fn admit(&mut self, free: usize, now: Duration) -> Result<(Ticket, usize), Full> {
        let before = self.arriving + self.waiting.len();
        let ahead = before.saturating_sub(free);
        if before >= free && ahead >= self.max_queued {
            return Err(Full {
                waiting: ahead,
                retry_after: self.retry_after(now),
            });
        }
        self.arriving += 1;
        Ok((self.ticket(), ahead))
    }

    /// A ticket for somebody who was admitted elsewhere.
    pub fn ticket(&mut self) -> Ticket {
        self.next += 1;
        Ticket(self.next)
    }

    /// An admitted request now asks for a replica, or has left before it did.
    pub fn arrived(&mut self) {
        self.arriving = self.arriving.saturating_sub(1);
    }

    /// Puts a request in line.
    pub fn enter(&mut self, ticket: Ticket, item: T) {
        self.waiting.insert(ticket, item);
    }

    /// Takes a request out of line.
    pub fn leave(&mut self, ticket: Ticket) -> Option<T> {
        self.waiting.remove(&ticket)
    }

    /// True when nobody with an earlier ticket waits.
    pub fn is_first(&self, ticket: Ticket) -> bool {
        self.waiting
            .first_key_value()
            .is_none_or(|(first, _)| *first >= ticket)
    }

    /// Who is served next.
    pub fn first(&self) -> Option<&T> {
        self.waiting.first_key_value().map(|(_, item)| item)
    }

    /// Takes who is served next.
    pub fn pop(&mut self) -> Option<T> {
        self.waiting.pop_first().map(|(_, item)| item)
    }

    /// Requests that were admitted and have not asked for a replica yet.
    pub fn arriving(&self) -> usize {
        self.arriving
    }

    /// Requests in line.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// True when nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A request was finished, which makes room.
    pub fn finished(&mut self, now: Duration) {
        self.drained.record(now);
    }

    /// Time until the queue as it is now has drained, at the rate that was measured; `None` before.
    pub fn drain_time(&self, requests: usize, now: Duration) -> Option<Duration> {
        let seconds = requests as f64 / self.drained.per_second(now)?;
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// When somebody who was refused should come back.
    pub fn retry_after(&self, now: Duration) -> Duration {
        let (least, most) = RETRY_RANGE;
        // One place is enough for one caller, but the others who were refused come back too: the whole queue's time.
        self.drain_time(self.waiting.len() + 1, now)
            .map_or(RETRY_UNKNOWN, |time| time.clamp(least, most))
    }

    /// Refuses a deadline that is `left` away when `ahead` requests have to go first and the work alone takes `work`.
    /// Predictions are halved first: a request that could have been served must not be refused by a guess.
    ///
    /// # Errors
    /// [`TooLate`] when even half of the predicted time is too long.
    pub fn check_deadline(
        &self,
        left: Duration,
        ahead: usize,
        work: Duration,
        now: Duration,
    ) -> Result<(), TooLate> {
        let queue = if ahead == 0 {
            Duration::ZERO
        } else {
            self.drain_time(ahead, now).unwrap_or_default()
        };
        let needed = queue.saturating_add(work);
        if left.is_zero() || needed / 2 > left {
            Err(TooLate { needed, left })
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn free_slots_are_not_the_queue() {
        let mut queue = Queue::<()>::new(0);
        assert_eq!(queue.admit(2, SECOND).unwrap().1, 0);
        assert_eq!(queue.admit(2, SECOND).unwrap().1, 0);
        assert_eq!(queue.admit(2, SECOND).unwrap_err().waiting, 0);
    }

    #[test]
    fn the_bound_counts_those_on_their_way_and_those_in_line() {
        let mut queue = Queue::new(3);
        let (first, _) = queue.admit(0, SECOND).unwrap();
        queue.arrived();
        queue.enter(first, "first");
        assert_eq!(queue.admit(0, SECOND).unwrap().1, 1);
        assert_eq!(queue.admit(0, SECOND).unwrap().1, 2);
        assert_eq!(queue.admit(0, SECOND).unwrap_err().waiting, 3);
        queue.arrived();
        assert!(queue.admit(0, SECOND).is_ok());
    }

    #[test]
    fn one_who_starts_again_goes_back_to_its_place() {
        let mut queue = Queue::new(10);
        let early = queue.ticket();
        let late = queue.ticket();
        queue.enter(late, "late");
        assert!(queue.is_first(early));
        assert!(queue.is_first(late));
        queue.enter(early, "early");
        assert!(!queue.is_first(late));
        assert_eq!(queue.pop(), Some("early"));
        assert_eq!(queue.pop(), Some("late"));
    }

    #[test]
    fn retry_after_follows_the_drain_rate() {
        let mut queue = Queue::new(0);
        assert_eq!(queue.retry_after(SECOND), RETRY_UNKNOWN);
        for i in 0..100 {
            queue.finished(SECOND + Duration::from_millis(500) * i);
        }
        let now = SECOND + Duration::from_millis(500) * 99;
        for i in 0..9 {
            let ticket = queue.ticket();
            queue.enter(ticket, i);
        }
        // Ten requests at two a second.
        let told = queue.retry_after(now).as_secs_f64();
        assert!((4.5..5.5).contains(&told), "{told}");
        let later = queue.retry_after(now + RATE_WINDOW * 3);
        assert_eq!(
            later, RETRY_RANGE.1,
            "a queue that has stopped draining is not worth coming back to soon"
        );
    }

    #[test]
    fn a_young_rate_is_not_an_underestimate() {
        let mut rate = Rate::default();
        for i in 0..=10 {
            rate.record(SECOND + Duration::from_millis(100) * i);
        }
        let seen = rate.per_second(SECOND * 2).unwrap();
        assert!((9.0..12.5).contains(&seen), "{seen}");
    }

    #[test]
    fn a_deadline_that_even_half_the_work_would_miss_is_refused() {
        let queue = Queue::<()>::new(0);
        assert!(queue.check_deadline(SECOND, 0, SECOND * 2, SECOND).is_ok());
        assert!(queue.check_deadline(SECOND, 0, SECOND * 3, SECOND).is_err());
        assert!(
            queue
                .check_deadline(Duration::ZERO, 0, Duration::ZERO, SECOND)
                .is_err()
        );
        assert!(
            queue
                .check_deadline(SECOND, 1_000, Duration::ZERO, SECOND)
                .is_ok(),
            "nothing measured, nothing refused"
        );
    }

    proptest! {
        #[test]
        fn never_more_than_the_bound_wait_and_they_leave_in_order(max in 0usize..8, free in 0usize..4, tries in 0usize..30) {
            let mut queue = Queue::new(max);
            let mut admitted = Vec::new();
            for _ in 0..tries {
                if let Ok((ticket, ahead)) = queue.admit(free, SECOND) {
                    prop_assert!(ahead <= max);
                    admitted.push(ticket);
                }
            }
            prop_assert_eq!(admitted.len(), tries.min(max + free));
            for ticket in admitted.iter().rev() {
                queue.arrived();
                queue.enter(*ticket, *ticket);
            }
            let served: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
            prop_assert_eq!(served, admitted);
        }
    }
}
