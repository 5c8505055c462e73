//! Who of those that wait is served next: the higher class first, within a class every tenant its fair share, within a
//! tenant who came first.
//!
//! A class is a lane with start-time fair queueing (Goyal, Vin, Cheng 1996) over tenants: a tenant has a virtual time
//! that grows by cost / weight with every request of it that is served, and the tenant whose time is least is next. The
//! lane's clock is the time of whoever was served last; a tenant that comes back after a pause starts at the clock, so
//! that doing nothing earns nothing. Requests that leave unserved cost their tenant nothing. Age lifts a request by a class
//! each time that it has waited [`LIFT`], so that no class starves: who is in the highest one is served in its turn.
//!
//! A request that was served and lost its replica comes back ahead of everybody, and is not charged again.
//!
//! It refuses to know what a tenant is, and to read a clock: times are lengths since any fixed point of the caller's.
//!
//! Invariants: while tenants of one class wait, what any two of them got per weight differs by no more than the largest
//! request of each; somebody is next whenever anybody waits; entering, leaving and being served cost O(log n).

mod lane;
mod walk;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use self::lane::Lane;
use crate::{admission::Ticket, route::Cost, tick::Class};

/// Who has waited so long in a class goes on in the next higher one: three times what lifts the low class in the engine, so
/// that the line in front of it does not undo what classes mean there.
pub const LIFT: Duration = Duration::from_secs(30);

/// Classes, from the lowest.
const CLASSES: usize = 3;

/// As whom a request waits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claim {
    /// How much it matters to its caller.
    pub class: Class,
    /// Whose share it is served from; those who name nobody share one.
    pub tenant: Arc<str>,
    /// The tenant's share, relative to those of others; 0 is taken as 1.
    pub weight: u32,
}

impl Claim {
    /// The weight, at least 1.
    pub fn share(&self) -> u64 {
        u64::from(self.weight.max(1))
    }
}

/// Somebody who waits.
#[derive(Debug)]
pub(crate) struct Entry<T> {
    pub(crate) cost: Cost,
    /// Since when it has been in its class.
    since: Duration,
    pub(crate) item: T,
}

/// Where somebody waits.
#[derive(Debug, Clone)]
enum Spot {
    /// Ahead of everybody.
    Back,
    /// In a lane.
    Lane(usize, Arc<str>),
}

/// Those who wait, in the order in which they are served.
#[derive(Debug)]
pub struct Line<T> {
    /// Those who were served before.
    back: BTreeMap<Ticket, Entry<T>>,
    lanes: [Lane<T>; CLASSES],
    spots: HashMap<Ticket, Spot>,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            back: BTreeMap::new(),
            lanes: std::array::from_fn(|_| Lane::default()),
            spots: HashMap::new(),
        }
    }
}

impl<T> Line<T> {
    /// Puts somebody in line at `now`.
    pub fn enter(&mut self, ticket: Ticket, claim: &Claim, (cost, item): (Cost, T), now: Duration) {
        self.leave(ticket);
        let class = level(claim.class);
        let entry = Entry {
            cost,
            since: now,
            item,
        };
        self.lanes[class].enter(ticket, (&claim.tenant, claim.share()), entry);
        let spot = Spot::Lane(class, Arc::clone(&claim.tenant));
        self.spots.insert(ticket, spot);
    }

    /// Puts somebody back who was served already: ahead of all who were not.
    pub fn come_back(&mut self, ticket: Ticket, (cost, item): (Cost, T), now: Duration) {
        self.leave(ticket);
        let entry = Entry {
            cost,
            since: now,
            item,
        };
        self.back.insert(ticket, entry);
        self.spots.insert(ticket, Spot::Back);
    }

    /// Takes somebody out who is not served; costs its tenant nothing.
    pub fn leave(&mut self, ticket: Ticket) -> Option<(Cost, T)> {
        let entry = match self.spots.remove(&ticket)? {
            Spot::Back => self.back.remove(&ticket),
            Spot::Lane(class, tenant) => self.lanes[class].leave(ticket, &tenant),
        }?;
        Some((entry.cost, entry.item))
    }

    /// Takes somebody out who is served now, first in line or not, at its tenant's cost.
    pub fn serve(&mut self, ticket: Ticket) -> Option<(Cost, T)> {
        let entry = match self.spots.remove(&ticket)? {
            Spot::Back => self.back.remove(&ticket),
            Spot::Lane(class, tenant) => self.lanes[class].serve(ticket, &tenant),
        }?;
        Some((entry.cost, entry.item))
    }

    /// Moves those up a class who have waited for [`LIFT`].
    pub fn lift(&mut self, now: Duration) {
        for class in (0..CLASSES - 1).rev() {
            while let Some((since, ticket)) = self.lanes[class].oldest()
                && since.saturating_add(LIFT) <= now
            {
                let Some(Spot::Lane(_, tenant)) = self.spots.get(&ticket).cloned() else {
                    return;
                };
                let weight = self.lanes[class].weight(&tenant);
                let Some(entry) = self.lanes[class].leave(ticket, &tenant) else {
                    return;
                };
                let entry = Entry { since: now, ..entry };
                self.lanes[class + 1].enter(ticket, (&tenant, weight), entry);
                self.spots.insert(ticket, Spot::Lane(class + 1, tenant));
            }
        }
    }

    /// Who is next.
    pub fn first(&self) -> Option<(Ticket, Cost, &T)> {
        self.iter().next()
    }

    /// Everybody, in the order in which they are served if nobody comes.
    pub fn iter(&self) -> impl Iterator<Item = (Ticket, Cost, &T)> {
        let back = self.back.iter();
        let back = back.map(|(ticket, entry)| (*ticket, entry.cost, &entry.item));
        back.chain(self.lanes.iter().rev().flat_map(Lane::walk))
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.spots.len()
    }

    /// True when nobody waits.
    pub fn is_empty(&self) -> bool {
        self.spots.is_empty()
    }
}

/// A class as a number, from 0.
pub(crate) fn level(class: Class) -> usize {
    match class {
        Class::Low => 0,
        Class::Normal => 1,
        Class::High => 2,
    }
}

#[cfg(test)]
mod tests;
