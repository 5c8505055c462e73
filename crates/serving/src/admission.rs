//! Who may wait, in which order, and what those are told who may not.
//!
//! A [`Queue`] holds the requests of one deployment that found no replica free. A request is admitted once, gets a
//! [`Ticket`], and keeps its place by it: one that has to start again goes back to where it was, not to the end.
//! Whoever finds the queue full is told when to come back, computed from how fast the queue drains.
//!
//! Times are predicted from work, rows ahead x measured time per row, not from how often requests ended lately: that rate
//! is low after a quiet minute and after a few large requests, and says nothing of what the next ones take.
//!
//! It refuses to wake anybody and to know of time beyond lengths.
//!
//! Invariants: at most `max_queued` requests beyond the free slots are admitted; the oldest ticket leaves first.

use std::{collections::BTreeMap, time::Duration};

use crate::route::Cost;

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

/// How fast a deployment works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Nanoseconds per row at one replica; 0 before it was measured.
    pub row_ns: u64,
    /// Replicas that work side by side.
    pub replicas: usize,
}

impl Pace {
    /// Time that `rows` take; `None` when nothing was measured or nobody works.
    pub fn time(self, rows: u64) -> Option<Duration> {
        let replicas = u64::try_from(self.replicas).ok().filter(|n| *n > 0)?;
        (self.row_ns > 0).then(|| Cost::rows(rows.div_ceil(replicas)).time(self.row_ns))
    }
}

/// A request that was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// Its place in line.
    pub ticket: Ticket,
    /// Requests ahead of it, beyond those that find a slot free.
    pub ahead: usize,
    /// Predicted time until they have left the line: zero when there are none, `None` when nothing was measured.
    pub wait: Option<Duration>,
}

/// Requests of one deployment that wait for a replica.
#[derive(Debug)]
pub struct Queue<T> {
    max_queued: usize,
    arriving: usize,
    arriving_rows: u64,
    waiting: BTreeMap<Ticket, (Cost, T)>,
    waiting_rows: u64,
    next: u64,
}

impl<T> Queue<T> {
    /// An empty queue for at most `max_queued` requests.
    pub fn new(max_queued: usize) -> Self {
        Self {
            max_queued,
            arriving: 0,
            arriving_rows: 0,
            waiting: BTreeMap::new(),
            waiting_rows: 0,
            next: 0,
        }
    }

    /// Changes the bound; those who wait stay.
    pub fn set_max_queued(&mut self, max_queued: usize) {
        self.max_queued = max_queued;
    }

    /// Admits a request that will ask for a replica soon, when fewer than `max_queued` are ahead of it beyond the `free`
    /// slots. It counts until [`Queue::arrived`].
    ///
    /// # Errors
    /// [`Full`] when too many wait.
    pub fn admit(&mut self, cost: Cost, free: usize, pace: Pace) -> Result<Admission, Full> {
        let before = self.arriving + self.waiting.len();
        let rows = self.arriving_rows.saturating_add(self.waiting_rows);
        let ahead = before.saturating_sub(free);
        if before >= free && ahead >= self.max_queued {
            return Err(Full {
                waiting: ahead,
                retry_after: retry_after(rows.saturating_add(cost.get()), pace),
            });
        }
        self.arriving += 1;
        self.arriving_rows = self.arriving_rows.saturating_add(cost.get());
        Ok(Admission {
            ticket: self.ticket(),
            ahead,
            wait: match ahead {
                0 => Some(Duration::ZERO),
                _ => pace.time(share(rows, ahead, before)),
            },
        })
    }

    /// A ticket for somebody who was admitted elsewhere.
    pub fn ticket(&mut self) -> Ticket {
        self.next += 1;
        Ticket(self.next)
    }

    /// An admitted request now asks for a replica, or has left before it did.
    pub fn arrived(&mut self, cost: Cost) {
        self.arriving = self.arriving.saturating_sub(1);
        self.arriving_rows = left(self.arriving, self.arriving_rows, cost);
    }

    /// Puts a request in line.
    pub fn enter(&mut self, ticket: Ticket, cost: Cost, item: T) {
        self.leave(ticket);
        self.waiting_rows = self.waiting_rows.saturating_add(cost.get());
        self.waiting.insert(ticket, (cost, item));
    }

    /// Takes a request out of line.
    pub fn leave(&mut self, ticket: Ticket) -> Option<T> {
        let (cost, item) = self.waiting.remove(&ticket)?;
        self.waiting_rows = left(self.waiting.len(), self.waiting_rows, cost);
        Some(item)
    }

    /// True when nobody with an earlier ticket waits.
    pub fn is_first(&self, ticket: Ticket) -> bool {
        self.waiting
            .first_key_value()
            .is_none_or(|(first, _)| *first >= ticket)
    }

    /// Cost of the request that is served next.
    pub fn first(&self) -> Option<Cost> {
        self.waiting.first_key_value().map(|(_, (cost, _))| *cost)
    }

    /// Takes who is served next.
    pub fn pop(&mut self) -> Option<T> {
        let (cost, item) = self.waiting.pop_first()?.1;
        self.waiting_rows = left(self.waiting.len(), self.waiting_rows, cost);
        Some(item)
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
}

/// Refuses a deadline that is `left` away when a request is predicted to need `needed`. The prediction is halved first: a
/// request that could have been served must not be refused by a guess.
///
/// # Errors
/// [`TooLate`] when even half of the predicted time is too long.
pub fn check_deadline(left: Duration, needed: Duration) -> Result<(), TooLate> {
    if left.is_zero() || needed / 2 > left {
        Err(TooLate { needed, left })
    } else {
        Ok(())
    }
}

/// When somebody who was refused should come back: one place is enough for one caller, but the others who were refused
/// come back too, so it is the whole queue's time.
fn retry_after(rows: u64, pace: Pace) -> Duration {
    let (least, most) = RETRY_RANGE;
    pace.time(rows)
        .map_or(RETRY_UNKNOWN, |time| time.clamp(least, most))
}

/// The rows of `part` requests out of `whole` that have `rows` together.
fn share(rows: u64, part: usize, whole: usize) -> u64 {
    let shared = u128::from(rows) * (part as u128) / (whole.max(1) as u128);
    u64::try_from(shared).unwrap_or(u64::MAX)
}

/// Rows that are left without those of `cost`. Nobody has none, whatever saturated before.
fn left(requests: usize, rows: u64, cost: Cost) -> u64 {
    if requests == 0 {
        0
    } else {
        rows.saturating_sub(cost.get())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const ONE: Cost = Cost::ROW;
    const UNKNOWN: Pace = Pace {
        row_ns: 0,
        replicas: 1,
    };

    /// Replicas that take a second per row.
    fn slow(replicas: usize) -> Pace {
        Pace {
            row_ns: 1_000_000_000,
            replicas,
        }
    }

    #[test]
    fn free_slots_are_not_the_queue() {
        let mut queue = Queue::<()>::new(0);
        assert_eq!(queue.admit(ONE, 2, UNKNOWN).unwrap().ahead, 0);
        assert_eq!(queue.admit(ONE, 2, UNKNOWN).unwrap().ahead, 0);
        assert_eq!(queue.admit(ONE, 2, UNKNOWN).unwrap_err().waiting, 0);
    }

    #[test]
    fn the_bound_counts_those_on_their_way_and_those_in_line() {
        let mut queue = Queue::new(3);
        let first = queue.admit(ONE, 0, UNKNOWN).unwrap().ticket;
        queue.arrived(ONE);
        queue.enter(first, ONE, "first");
        assert_eq!(queue.admit(ONE, 0, UNKNOWN).unwrap().ahead, 1);
        assert_eq!(queue.admit(ONE, 0, UNKNOWN).unwrap().ahead, 2);
        assert_eq!(queue.admit(ONE, 0, UNKNOWN).unwrap_err().waiting, 3);
        queue.arrived(ONE);
        assert!(queue.admit(ONE, 0, UNKNOWN).is_ok());
    }

    #[test]
    fn one_who_starts_again_goes_back_to_its_place() {
        let mut queue = Queue::new(10);
        let early = queue.ticket();
        let late = queue.ticket();
        queue.enter(late, ONE, "late");
        assert!(queue.is_first(early));
        assert!(queue.is_first(late));
        queue.enter(early, ONE, "early");
        assert!(!queue.is_first(late));
        assert_eq!(queue.pop(), Some("early"));
        assert_eq!(queue.pop(), Some("late"));
    }

    #[test]
    fn the_wait_is_the_work_ahead_of_those_who_find_no_slot() {
        let mut queue = Queue::<()>::new(10);
        let wait = |queue: &mut Queue<()>, pace| queue.admit(Cost::rows(6), 2, pace).unwrap().wait;
        assert_eq!(wait(&mut queue, slow(1)), Some(Duration::ZERO));
        assert_eq!(wait(&mut queue, UNKNOWN), Some(Duration::ZERO));
        assert_eq!(wait(&mut queue, slow(1)), Some(Duration::ZERO));
        // Three are before it, two of them find a slot.
        assert_eq!(wait(&mut queue, slow(1)), Some(SECOND * 6));
        assert_eq!(wait(&mut queue, slow(2)), Some(SECOND * 6));
        assert_eq!(
            wait(&mut queue, UNKNOWN),
            None,
            "nothing measured, nothing predicted"
        );
        assert_eq!(wait(&mut queue, slow(0)), None, "nobody works, nothing predicted");
    }

    #[test]
    fn retry_after_is_the_time_of_the_whole_queue() {
        let mut queue = Queue::new(2);
        for i in 0..2 {
            let ticket = queue.ticket();
            queue.enter(ticket, Cost::rows(4), i);
        }
        let mut told = |pace| queue.admit(Cost::rows(2), 0, pace).unwrap_err().retry_after;
        assert_eq!(told(slow(1)), SECOND * 10);
        assert_eq!(told(slow(2)), SECOND * 5);
        assert_eq!(told(UNKNOWN), RETRY_UNKNOWN);
        assert_eq!(
            told(Pace {
                row_ns: 1,
                replicas: 1
            }),
            RETRY_RANGE.0
        );
        assert_eq!(
            told(Pace {
                row_ns: u64::MAX,
                replicas: 1
            }),
            RETRY_RANGE.1
        );
    }

    #[test]
    fn a_deadline_that_even_half_the_work_would_miss_is_refused() {
        assert!(check_deadline(SECOND, SECOND * 2).is_ok());
        assert!(check_deadline(SECOND, SECOND * 3).is_err());
        assert!(check_deadline(Duration::ZERO, Duration::ZERO).is_err());
    }

    proptest! {
        #[test]
        fn never_more_than_the_bound_wait_and_they_leave_in_order(max in 0usize..8, free in 0usize..4, tries in 0usize..30) {
            let mut queue = Queue::new(max);
            let mut admitted = Vec::new();
            for _ in 0..tries {
                if let Ok(admission) = queue.admit(ONE, free, UNKNOWN) {
                    prop_assert!(admission.ahead <= max);
                    admitted.push(admission.ticket);
                }
            }
            prop_assert_eq!(admitted.len(), tries.min(max + free));
            for ticket in admitted.iter().rev() {
                queue.arrived(ONE);
                queue.enter(*ticket, ONE, *ticket);
            }
            let served: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
            prop_assert_eq!(served, admitted);
        }

        #[test]
        fn rows_are_those_of_whoever_is_there(costs in prop::collection::vec((1u64..1000, any::<bool>()), 0..30)) {
            let mut queue = Queue::new(100);
            let mut there = 0;
            for (rows, leaves) in costs {
                let cost = Cost::rows(rows);
                let admission = queue.admit(cost, 0, slow(1)).unwrap();
                let predicted = if admission.ahead == 0 { 0 } else { there };
                prop_assert_eq!(admission.wait, Some(SECOND * u32::try_from(predicted).unwrap()));
                queue.arrived(cost);
                queue.enter(admission.ticket, cost, ());
                if leaves {
                    queue.leave(admission.ticket);
                } else {
                    there += rows;
                }
            }
        }
    }
}
