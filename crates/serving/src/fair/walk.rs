//! A look along a lane without serving anybody: the turns of the tenants are taken as they would be.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, btree_map},
};

use super::{
    Entry,
    lane::{Account, Lane, Turn, length},
};
use crate::{admission::Ticket, route::Cost};

/// A tenant on the way.
struct Head<'a, T> {
    at: u128,
    ticket: Ticket,
    entry: &'a Entry<T>,
    weight: u64,
    rest: btree_map::Iter<'a, Ticket, Entry<T>>,
}

/// Those of a lane, in the order in which they are served if nobody comes.
pub(super) struct Walk<'a, T> {
    heads: BinaryHeap<Reverse<Head<'a, T>>>,
}

impl<'a, T> Walk<'a, T> {
    pub(super) fn new(lane: &'a Lane<T>, order: &'a BTreeSet<Turn>) -> Self {
        let accounts = order
            .iter()
            .filter_map(|(_, _, tenant)| lane.accounts.get(tenant));
        let heads = accounts.filter_map(|account| Head::new(account).map(Reverse));
        Self {
            heads: heads.collect(),
        }
    }
}

impl<'a, T> Head<'a, T> {
    fn new(account: &'a Account<T>) -> Option<Self> {
        let mut rest = account.waiting.iter();
        let (ticket, entry) = rest.next()?;
        Some(Self {
            at: account.start,
            ticket: *ticket,
            entry,
            weight: account.weight,
            rest,
        })
    }

    /// The tenant's next one.
    fn step(mut self) -> Option<Self> {
        let at = self.at.saturating_add(length(self.entry.cost, self.weight));
        let (ticket, entry) = self.rest.next()?;
        Some(Self {
            at,
            ticket: *ticket,
            entry,
            ..self
        })
    }
}

impl<'a, T> Iterator for Walk<'a, T> {
    type Item = (Ticket, Cost, &'a T);

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse(head) = self.heads.pop()?;
        let found = (head.ticket, head.entry.cost, &head.entry.item);
        self.heads.extend(head.step().map(Reverse));
        Some(found)
    }
}

impl<T> PartialEq for Head<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.ticket) == (other.at, other.ticket)
    }
}

impl<T> Eq for Head<'_, T> {}

impl<T> PartialOrd for Head<'_, T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Head<'_, T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.ticket).cmp(&(other.at, other.ticket))
    }
}
