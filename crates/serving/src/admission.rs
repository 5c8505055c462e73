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

/// A measurement is believed for so long without another one: what slowed a machine down is often over by then, and a request
/// that is let in for nothing every so often costs a replica little that has nothing else to do.
const DOUBTED_AFTER: Duration = Duration::from_secs(10);
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
            wait: wait(ahead, rows, before, pace),
        })
    }

    /// A request that was admitted before its cost was known now has one; `ahead` is what its admission said. Gives it
    /// what it is told of those before it.
    pub fn settle(
        &mut self,
        was: Admission,
        (before, now): (Cost, Cost),
        free: usize,
        pace: Pace,
    ) -> Admission {
        self.arriving_rows = left(self.arriving, self.arriving_rows, before);
        let others = (self.arriving + self.waiting.len()).saturating_sub(1);
        let rows = self.arriving_rows.saturating_add(self.waiting_rows);
        self.arriving_rows = self.arriving_rows.saturating_add(now.get());
        // Those that were admitted after it are counted here and were not then.
        let ahead = others.saturating_sub(free).min(was.ahead);
        Admission {
            ticket: was.ticket,
            ahead,
            wait: wait(ahead, rows, others, pace),
        }
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

    /// Those in line, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (Ticket, Cost, &T)> {
        self.waiting
            .iter()
            .map(|(ticket, (cost, item))| (*ticket, *cost, item))
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

/// What a predicted time rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Basis {
    /// Time since its time per row was last measured.
    pub age: Duration,
    /// Whether a request is under way that will measure it anew.
    pub under_way: bool,
}

impl Basis {
    /// Whether nothing would ever put a wrong prediction right: it is old, and only a request that runs is a measurement.
    fn is_doubtful(self) -> bool {
        !self.under_way && self.age >= DOUBTED_AFTER
    }
}

/// Refuses a deadline that is `left` away when a request is predicted to need `needed`. The prediction is halved first: a
/// request that could have been served must not be refused by a guess. One that rests on an old measurement refuses nobody
/// while nothing is under way: the request that comes then measures anew, and those behind it are judged by what it took.
///
/// # Errors
/// [`TooLate`] when even half of the predicted time is too long.
pub fn check_deadline(left: Duration, needed: Duration, basis: Basis) -> Result<(), TooLate> {
    let late = needed / 2 > left && !basis.is_doubtful();
    if left.is_zero() || late {
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

/// When the `ahead` of `before` requests that have `rows` together have left the line.
fn wait(ahead: usize, rows: u64, before: usize, pace: Pace) -> Option<Duration> {
    match ahead {
        0 => Some(Duration::ZERO),
        _ => pace.time(share(rows, ahead, before)),
    }
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
mod tests;
