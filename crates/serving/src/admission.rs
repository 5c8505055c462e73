//! Who may wait, and what those are told who may not.
//!
//! A [`Queue`] holds the requests of one deployment that found no replica free, in the order of [`crate::fair`]. A request
//! is admitted once, gets a [`Ticket`], and keeps its place by it: one that has to start again goes back ahead, not to the
//! end. Four things bound who is let in: requests, bytes, the time that would be waited, and with several tenants each one's
//! share of the requests, so that one who floods the queue does not shut the others out. Whoever is refused is told when to
//! come back, computed from how fast the queue drains.
//!
//! Times are predicted from work, rows ahead x measured time per row, not from how often requests ended lately: that rate
//! is low after a quiet minute and after a few large requests, and says nothing of what the next ones take. How far such
//! predictions can be trusted is learned ([`Trust`]).
//!
//! It refuses to wake anybody and to know of time beyond lengths.
//!
//! Invariants: at most `Bounds::requests` beyond the free slots are admitted; what is ahead of a request is never more than
//! what there is.

mod presence;
mod terms;
mod trust;

use std::time::Duration;

use self::presence::Presence;
pub use self::{
    terms::{Ask, Basis, Bound, Bounds, Full, Pace, Scene, TooLate, check_deadline},
    trust::Trust,
};
use crate::{
    fair::{Claim, Line},
    route::Cost,
    tick::Class,
};

/// Told to a caller when nothing was measured yet.
const RETRY_UNKNOWN: Duration = Duration::from_secs(1);
/// The shortest and the longest time a caller is told to stay away.
const RETRY_RANGE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
/// The low class leaves this part of the places free for whoever else comes: batches come by the thousand.
const KEPT_FROM_LOW: usize = 4;

/// A request's place in line: the smaller, the earlier it was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

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

/// Somebody in line, with what is counted for it.
#[derive(Debug)]
struct Waiter<T> {
    claim: Claim,
    bytes: u64,
    item: T,
}

/// Requests of one deployment that wait for a replica.
#[derive(Debug)]
pub struct Queue<T> {
    bounds: Bounds,
    arriving: usize,
    present: Presence,
    line: Line<Waiter<T>>,
    next: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self::new(Bounds::default())
    }
}

impl<T> Queue<T> {
    /// An empty queue.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            arriving: 0,
            present: Presence::default(),
            line: Line::default(),
            next: 0,
        }
    }

    /// Changes the bounds; those who wait stay.
    pub fn bound(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// Admits a request that will ask for a replica soon, when the bounds allow it. It counts until [`Queue::arrived`].
    ///
    /// # Errors
    /// [`Full`] when too much waits.
    pub fn admit(&mut self, ask: Ask<'_>, scene: Scene, trust: &Trust) -> Result<Admission, Full> {
        let (ahead, wait) = self.before(ask, (scene, usize::MAX));
        self.check(ask, (scene, wait), trust)
            .map_err(|bound| self.full(bound, ask, scene))?;
        self.arriving += 1;
        self.present.add(ask);
        Ok(Admission {
            ticket: self.ticket(),
            ahead,
            wait,
        })
    }

    /// A request that was admitted before it was known what it asks for, as `before`, asks for `now`; `was` is what its
    /// admission said. Gives it what it is told of those before it.
    ///
    /// # Errors
    /// [`Full`] when there is no room for what it asks for. It still counts as what it was.
    pub fn settle(
        &mut self,
        was: Admission,
        (before, now): (Ask<'_>, Ask<'_>),
        scene: Scene,
        trust: &Trust,
    ) -> Result<Admission, Full> {
        self.present.remove(before);
        // Those that were admitted after it are counted here and were not then.
        let (ahead, wait) = self.before(now, (scene, was.ahead));
        let bound = self.check_size(now, (scene, wait), trust);
        if let Err(bound) = bound {
            let full = self.full(bound, now, scene);
            self.present.add(before);
            return Err(full);
        }
        self.present.add(now);
        Ok(Admission {
            ticket: was.ticket,
            ahead,
            wait,
        })
    }

    /// Requests, `most` at the most, and the time ahead of one that comes now.
    fn before(&self, ask: Ask<'_>, (scene, most): (Scene, usize)) -> (usize, Option<Duration>) {
        let (before, rows) = self.present.before(ask);
        let ahead = before.saturating_sub(scene.free).min(most);
        (ahead, wait(ahead, rows, before, scene.pace))
    }

    fn check(
        &mut self,
        ask: Ask<'_>,
        (scene, wait): (Scene, Option<Duration>),
        trust: &Trust,
    ) -> Result<(), Bound> {
        let there = self.present.requests();
        let waiting = there.saturating_sub(scene.free);
        if there >= scene.free {
            let most = self.bounds.requests;
            if waiting >= most {
                return Err(Bound::Requests);
            }
            if ask.claim.class == Class::Low && waiting >= most - most / KEPT_FROM_LOW {
                return Err(Bound::Low);
            }
            if self.present.has_share(ask.claim, (most, scene)) {
                return Err(Bound::Share);
            }
        }
        self.check_size(ask, (scene, wait), trust)
    }

    fn check_size(
        &self,
        ask: Ask<'_>,
        (scene, wait): (Scene, Option<Duration>),
        trust: &Trust,
    ) -> Result<(), Bound> {
        let there = self.present.requests();
        // One alone is let in whatever it holds: it would never be.
        let bytes = self.present.bytes().saturating_add(ask.bytes);
        if there >= scene.free && there > 0 && ask.bytes > 0 && bytes > self.bounds.bytes {
            return Err(Bound::Bytes);
        }
        match wait {
            Some(wait) if trust.wait(wait) > self.bounds.age => Err(Bound::Age),
            Some(_) | None => Ok(()),
        }
    }

    /// What a request is told that was not let in; its tenant has a share from now on.
    fn full(&mut self, bound: Bound, ask: Ask<'_>, scene: Scene) -> Full {
        self.present.knock(ask.claim, scene.now);
        let rows = self.present.rows().saturating_add(ask.cost.get());
        Full {
            waiting: self.present.requests().saturating_sub(scene.free),
            retry_after: retry_after(rows, scene.pace),
            bound,
        }
    }

    /// A ticket for somebody who was admitted elsewhere.
    pub fn ticket(&mut self) -> Ticket {
        self.next += 1;
        Ticket(self.next)
    }

    /// An admitted request now asks for a replica, or has left before it did.
    pub fn arrived(&mut self, ask: Ask<'_>) {
        self.arriving = self.arriving.saturating_sub(1);
        self.present.remove(ask);
    }

    /// Puts a request in line; one that had a replica already goes ahead.
    pub fn enter(&mut self, ticket: Ticket, (ask, had_turn): (Ask<'_>, bool), item: T, now: Duration) {
        self.leave(ticket);
        self.present.add(ask);
        let waiter = Waiter {
            claim: ask.claim.clone(),
            bytes: ask.bytes,
            item,
        };
        if had_turn {
            self.line.come_back(ticket, (ask.cost, waiter), now);
        } else {
            self.line.enter(ticket, ask.claim, (ask.cost, waiter), now);
        }
    }

    /// Takes a request out of line that is not served.
    pub fn leave(&mut self, ticket: Ticket) -> Option<T> {
        let left = self.line.leave(ticket);
        self.uncount(left)
    }

    /// Takes a request out of line that is served now.
    pub fn serve(&mut self, ticket: Ticket) -> Option<T> {
        let served = self.line.serve(ticket);
        self.uncount(served)
    }

    fn uncount(&mut self, left: Option<(Cost, Waiter<T>)>) -> Option<T> {
        let (cost, Waiter { claim, bytes, item }) = left?;
        self.present.remove(Ask {
            claim: &claim,
            cost,
            bytes,
        });
        Some(item)
    }

    /// Takes whoever is first out of line.
    pub fn pop(&mut self) -> Option<T> {
        let (ticket, ..) = self.line.first()?;
        self.serve(ticket)
    }

    /// Lets age count: to be called before anybody is chosen.
    pub fn lift(&mut self, now: Duration) {
        self.line.lift(now);
    }

    /// Those in line, in the order in which they are served.
    pub fn iter(&self) -> impl Iterator<Item = (Ticket, Cost, &T)> {
        let line = self.line.iter();
        line.map(|(ticket, cost, waiter)| (ticket, cost, &waiter.item))
    }

    /// Requests that were admitted and have not asked for a replica yet.
    pub fn arriving(&self) -> usize {
        self.arriving
    }

    /// Requests in line.
    pub fn len(&self) -> usize {
        self.line.len()
    }

    /// True when nobody waits.
    pub fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// When somebody who is sent away should come back.
    pub fn retry_after(&self, pace: Pace) -> Duration {
        retry_after(self.present.rows(), pace)
    }

    /// Bytes of those that are on their way or in line.
    pub fn bytes(&self) -> u64 {
        self.present.bytes()
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

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
