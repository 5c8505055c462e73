//! One class of a line: tenants, each with its virtual time and with those who wait for it in the order in which they came.
//!
//! Invariant: `order` has exactly the tenants of whom somebody waits, by virtual time; `ages` everybody who waits.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use super::{Entry, walk::Walk};
use crate::{admission::Ticket, route::Cost};

/// Virtual time of one row at weight 1: weights up to this divide it without a rest that anybody would notice.
const ROW: u128 = 1 << 20;
/// Accounts of tenants who do not wait that are kept beside those of whom somebody does, before they are looked through.
const SPARE: usize = 16;

/// A tenant's place in the order: its virtual time, then who came first.
pub(super) type Turn = (u128, Ticket, Arc<str>);

/// A tenant in a lane.
#[derive(Debug)]
pub(super) struct Account<T> {
    /// When its next request starts, in virtual time.
    pub(super) start: u128,
    pub(super) weight: u64,
    pub(super) waiting: BTreeMap<Ticket, Entry<T>>,
}

/// One class.
#[derive(Debug)]
pub(super) struct Lane<T> {
    pub(super) accounts: HashMap<Arc<str>, Account<T>>,
    order: BTreeSet<Turn>,
    ages: BTreeSet<(Duration, Ticket)>,
    /// Virtual time: when who was served last started.
    clock: u128,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self {
            accounts: HashMap::new(),
            order: BTreeSet::new(),
            ages: BTreeSet::new(),
            clock: 0,
        }
    }
}

/// Virtual time that a cost takes.
pub(super) fn length(cost: Cost, weight: u64) -> u128 {
    u128::from(cost.get()) * ROW / u128::from(weight.max(1))
}

impl<T> Lane<T> {
    pub(super) fn enter(&mut self, ticket: Ticket, (tenant, weight): (&Arc<str>, u64), entry: Entry<T>) {
        let clock = self.clock;
        let account = self
            .accounts
            .entry(Arc::clone(tenant))
            .or_insert_with(|| Account {
                start: clock,
                weight,
                waiting: BTreeMap::new(),
            });
        match turn(account, tenant) {
            Some(turn) => drop(self.order.remove(&turn)),
            // It did nothing for a while: that earns nothing.
            None => account.start = account.start.max(clock),
        }
        account.weight = weight;
        self.ages.insert((entry.since, ticket));
        account.waiting.insert(ticket, entry);
        self.order.extend(turn(account, tenant));
    }

    pub(super) fn leave(&mut self, ticket: Ticket, tenant: &Arc<str>) -> Option<Entry<T>> {
        let entry = self.take(ticket, tenant, |_| {});
        self.forget();
        entry
    }

    pub(super) fn serve(&mut self, ticket: Ticket, tenant: &Arc<str>) -> Option<Entry<T>> {
        let mut clock = self.clock;
        let charge = |account: &mut Account<T>| {
            let cost = account.waiting.get(&ticket).map_or(Cost::ROW, |entry| entry.cost);
            clock = clock.max(account.start);
            account.start = account.start.saturating_add(length(cost, account.weight));
        };
        let entry = self.take(ticket, tenant, charge);
        self.clock = clock;
        self.forget();
        entry
    }

    /// Takes somebody out, after its account was looked at.
    fn take(
        &mut self,
        ticket: Ticket,
        tenant: &Arc<str>,
        look: impl FnOnce(&mut Account<T>),
    ) -> Option<Entry<T>> {
        let account = self.accounts.get_mut(tenant)?;
        if let Some(turn) = turn(account, tenant) {
            self.order.remove(&turn);
        }
        if account.waiting.contains_key(&ticket) {
            look(account);
        }
        let entry = account.waiting.remove(&ticket);
        self.order.extend(turn(account, tenant));
        if let Some(entry) = &entry {
            self.ages.remove(&(entry.since, ticket));
        }
        entry
    }

    /// Drops accounts that say nothing any more: of who does not wait and is not ahead of the clock.
    fn forget(&mut self) {
        if self.order.is_empty() {
            // Nobody waits: nobody has had more than somebody who does.
            self.accounts.clear();
            self.clock = 0;
        } else if self.accounts.len() > 2 * self.order.len() + SPARE {
            let clock = self.clock;
            self.accounts
                .retain(|_, account| !account.waiting.is_empty() || account.start > clock);
        }
    }

    /// Who has been here longest, and since when.
    pub(super) fn oldest(&self) -> Option<(Duration, Ticket)> {
        self.ages.first().copied()
    }

    /// A tenant's weight.
    pub(super) fn weight(&self, tenant: &Arc<str>) -> u64 {
        self.accounts.get(tenant).map_or(1, |account| account.weight)
    }

    /// Everybody, in the order in which they are served if nobody comes.
    pub(super) fn walk(&self) -> Walk<'_, T> {
        Walk::new(self, &self.order)
    }

    #[cfg(test)]
    pub(super) fn accounts(&self) -> usize {
        self.accounts.len()
    }
}

/// The place in the order of a tenant of whom somebody waits.
fn turn<T>(account: &Account<T>, tenant: &Arc<str>) -> Option<Turn> {
    let (first, _) = account.waiting.first_key_value()?;
    Some((account.start, *first, Arc::clone(tenant)))
}
