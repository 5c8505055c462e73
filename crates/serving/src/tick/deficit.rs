//! Turns in proportion to cost: deficit round robin.
//!
//! Seats stand in a ring. Whose turn comes gets a quantum of credit for each unit of weight and is served while it has credit;
//! what a service costs is taken off afterwards and may leave a debt, which later turns pay (the surplus form of Shreedhar
//! and Varghese's "Efficient fair queuing using deficit round robin", so a cost need not be known before). It refuses to
//! know what is served.
//!
//! Invariant: of two seats that are always active, neither is ahead of the other, by cost for each unit of weight, by more
//! than two quanta and one service of each.

/// A participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) key: u64,
    /// Nanoseconds it may spend; negative: a debt.
    pub(crate) credit: i64,
    weight: i64,
    /// Where the caller finds it, if it has something to do.
    pub(crate) slot: Option<u32>,
}

/// What the caller knows of a seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has something to do.
    Active { slot: u32, weight: u32 },
    /// It has nothing to do; its debt, if any, is kept until it is paid.
    Idle,
    /// It will not come back.
    Gone,
}

/// The seats, in the order of their turns.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    seats: Vec<Seat>,
    /// Whose turn it is: the first of `seats` when nobody had one yet.
    at: Option<usize>,
}

impl Ring {
    /// Brings all seats up to date. Who left without a debt has no seat any more.
    pub(crate) fn update(&mut self, mut standing: impl FnMut(u64) -> Standing) {
        let (mut index, mut at) = (0, self.at);
        self.seats.retain_mut(|seat| {
            let keep = match standing(seat.key) {
                Standing::Active { slot, weight } => {
                    seat.slot = Some(slot);
                    seat.weight = i64::from(weight.max(1));
                    true
                }
                Standing::Idle => {
                    seat.slot = None;
                    seat.credit < 0
                }
                Standing::Gone => false,
            };
            if !keep && self.at.is_some_and(|turn| index <= turn) {
                // The turn goes back to the one before, so that the one behind the lost seat comes next.
                at = at.and_then(|at| at.checked_sub(1));
            }
            index += 1;
            keep
        });
        self.at = at;
    }

    /// Gives a seat to somebody new: the last turn of this round.
    pub(crate) fn enter(&mut self, key: u64, slot: u32, weight: u32) {
        let seat = Seat {
            key,
            credit: 0,
            weight: i64::from(weight.max(1)),
            slot: Some(slot),
        };
        match &mut self.at {
            None => self.seats.push(seat),
            Some(at) => {
                self.seats.insert(*at, seat);
                *at += 1;
            }
        }
    }

    /// The seats.
    pub(crate) fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// Moves on to whose turn it is; `None` when nobody is active. One pass over the seats, or two.
    pub(crate) fn next(&mut self, quantum: u64) -> Option<usize> {
        let quantum = i64::try_from(quantum).unwrap_or(i64::MAX).max(1);
        let active = |seat: &&Seat| seat.slot.is_some();
        if let Some(at) = self.at
            && self
                .seats
                .get(at)
                .is_some_and(|seat| seat.slot.is_some() && seat.credit > 0)
        {
            return Some(at);
        }
        for _ in 0..2 {
            for _ in 0..self.seats.len() {
                let at = self.at.map_or(0, |at| (at + 1) % self.seats.len());
                self.at = Some(at);
                self.seats[at].grant(quantum, 1);
                if self.seats[at].slot.is_some() && self.seats[at].credit > 0 {
                    return Some(at);
                }
            }
            // All are in debt: as many rounds at once as the first to come out of it needs, but the last.
            let rounds = self.seats.iter().filter(active).map(|seat| {
                let each = quantum.saturating_mul(seat.weight);
                seat.credit.min(0).saturating_neg() / each
            });
            let rounds = rounds.min()?;
            for seat in &mut self.seats {
                seat.grant(quantum, rounds);
            }
        }
        None
    }

    /// Takes what a service cost off a seat.
    pub(crate) fn charge(&mut self, seat: usize, cost: u64) {
        if let Some(seat) = self.seats.get_mut(seat) {
            seat.credit = seat
                .credit
                .saturating_sub(i64::try_from(cost).unwrap_or(i64::MAX));
        }
    }
}

impl Seat {
    fn grant(&mut self, quantum: i64, rounds: i64) {
        let granted = quantum.saturating_mul(self.weight).saturating_mul(rounds);
        self.credit = self.credit.saturating_add(granted);
        if self.slot.is_none() {
            // Nobody saves for later.
            self.credit = self.credit.min(0);
        }
    }
}
