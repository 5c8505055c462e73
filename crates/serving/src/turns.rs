//! Whose turn it is on a device that several models share, each with a loop of its own.
//!
//! A loop asks before each call, waits until it is told to run, and says afterwards what the call took; turns are given in
//! proportion to that ([`crate::tick`] shares a model's time among its groups the same way). A loop that comes back at once is
//! waited for a moment, else the model with the longest calls would slip in after each call of the others and have nearly
//! all of the device. It refuses to wait or to wake anybody by itself.
//!
//! Invariants: at most one has the device; it stands idle while somebody asks only for a member whose turn it is, that said it
//! comes back, and for [`GRACE`] at most after that one's call.

use std::time::Duration;

use crate::tick::deficit::{Ring, Standing};

/// How long the device waits for a member that comes back: a loop gathers rows and reads its mail in about a millisecond.
pub const GRACE: Duration = Duration::from_millis(3);
/// What a turn brings before any call was measured.
const FIRST_QUANTUM: u64 = 1_000_000;

/// What to do with the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// This member has it now; tell it.
    Run(u64),
    /// Ask again at this time, or when somebody asks.
    Wait(Duration),
    /// Somebody has it.
    Busy,
    /// Nobody wants it.
    Idle,
}

/// One loop.
#[derive(Debug, Clone, Copy)]
struct Member {
    id: u64,
    weight: u32,
    asks: bool,
    /// Until when it is waited for.
    expected: Option<Duration>,
    /// What its last call took, in nanoseconds; 0 before the first.
    cost: u64,
}

/// The members and who has the device.
#[derive(Debug, Default)]
pub struct Turns {
    /// By id.
    members: Vec<Member>,
    ring: Ring,
    holder: Option<u64>,
}

impl Turns {
    /// A device that nobody uses.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a member in, or changes its weight: its part of the device beside the weights of the others that ask.
    pub fn join(&mut self, id: u64, weight: u32) {
        match self.place(id) {
            Ok(place) => self.members[place].weight = weight,
            Err(place) => self.members.insert(
                place,
                Member {
                    id,
                    weight,
                    asks: false,
                    expected: None,
                    cost: 0,
                },
            ),
        }
    }

    /// Lets a member go; if it has the device, the device is free.
    pub fn leave(&mut self, id: u64) {
        if let Ok(place) = self.place(id) {
            self.members.remove(place);
        }
        if self.holder == Some(id) {
            self.holder = None;
        }
    }

    /// A member wants the device for one call. False when it has not joined.
    #[must_use]
    pub fn ask(&mut self, id: u64) -> bool {
        let place = self.place(id);
        if let Ok(place) = place {
            self.members[place].asks = true;
        }
        place.is_ok()
    }

    /// A member no longer wants what it asked for.
    pub fn withdraw(&mut self, id: u64) {
        if let Ok(place) = self.place(id) {
            self.members[place].asks = false;
            self.members[place].expected = None;
        }
    }

    /// The holder's call took so long; `returns` when it has more to do. Nothing changes when it is not the holder.
    pub fn done(&mut self, id: u64, cost: Duration, now: Duration, returns: bool) {
        let (Ok(place), true) = (self.place(id), self.holder == Some(id)) else {
            return;
        };
        self.holder = None;
        let member = &mut self.members[place];
        member.expected = returns.then(|| now.saturating_add(GRACE));
        member.cost = u64::try_from(cost.as_nanos()).unwrap_or(u64::MAX).max(1);
        let seat = self.ring.seats().iter().position(|seat| seat.key == id);
        if let Some(seat) = seat {
            self.ring.charge(seat, self.members[place].cost);
        }
    }

    /// Says whose turn it is, and gives it the device. To be called after [`Self::ask`], [`Self::done`], [`Self::leave`] and
    /// [`Self::withdraw`], and when a wait is over.
    pub fn next(&mut self, now: Duration) -> Next {
        if self.holder.is_some() {
            return Next::Busy;
        }
        if !self.members.iter().any(|member| member.asks) {
            return Next::Idle;
        }
        self.seat(now);
        let quantum = self
            .members
            .iter()
            .filter(|member| member.wants(now) && member.cost > 0);
        let quantum = quantum.map(|member| member.cost).min().unwrap_or(FIRST_QUANTUM);
        let seat = self
            .ring
            .next(quantum)
            .and_then(|seat| self.ring.seats().get(seat));
        let Some(member) = seat.and_then(|seat| self.members.get_mut(seat.slot? as usize)) else {
            return Next::Idle;
        };
        if !member.asks {
            return Next::Wait(member.expected.unwrap_or(now));
        }
        member.asks = false;
        member.expected = None;
        self.holder = Some(member.id);
        Next::Run(member.id)
    }

    /// Brings the seats up to date.
    fn seat(&mut self, now: Duration) {
        let members = &self.members;
        self.ring.update(|key| {
            let Ok(place) = members.binary_search_by_key(&key, |member| member.id) else {
                return Standing::Gone;
            };
            if !members[place].wants(now) {
                return Standing::Idle;
            }
            Standing::Active {
                slot: place as u32,
                weight: members[place].weight,
            }
        });
        for (place, member) in self.members.iter().enumerate() {
            if member.wants(now) && self.ring.seats().iter().all(|seat| seat.key != member.id) {
                self.ring.enter(member.id, place as u32, member.weight);
            }
        }
    }

    fn place(&self, id: u64) -> Result<usize, usize> {
        self.members.binary_search_by_key(&id, |member| member.id)
    }
}

impl Member {
    fn wants(&self, now: Duration) -> bool {
        self.asks || self.expected.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests;
