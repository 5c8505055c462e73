//! Who there is in front of the replicas, on the way or in line: by class, and by tenant.
//!
//! Invariants: with nobody there every sum is zero; a tenant is known while it has a request here, and for [`KNOCK`] after
//! it was refused one.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{Ask, Scene};
use crate::fair::{Claim, level};

/// A tenant who was refused and has nothing here counts as one who shares for so long: refused callers come back within the
/// seconds that they are told.
const KNOCK: Duration = Duration::from_secs(10);
/// How often those who stopped knocking are looked for.
const SWEEP: Duration = Duration::from_secs(1);
/// Tenants who knock that are remembered: more than have a fair chance of a place anyway.
const KNOCKING: usize = 1024;

/// Requests, and rows of them. Wide enough for any number of requests of any cost.
#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    requests: usize,
    rows: u128,
}

impl Sum {
    fn add(&mut self, ask: Ask<'_>) {
        self.requests += 1;
        self.rows += u128::from(ask.cost.get());
    }

    fn remove(&mut self, ask: Ask<'_>) {
        self.requests = self.requests.saturating_sub(1);
        self.rows = self.rows.saturating_sub(ask.cost.get().into());
    }
}

/// A tenant.
#[derive(Debug)]
struct Held {
    sum: Sum,
    weight: u64,
    /// When it was refused last.
    knocked: Option<Duration>,
}

/// Who there is.
#[derive(Debug, Default)]
pub(super) struct Presence {
    classes: [Sum; 3],
    tenants: HashMap<Arc<str>, Held>,
    /// Weights of all tenants.
    weights: u64,
    bytes: u64,
    knocking: usize,
    swept: Duration,
}

impl Presence {
    /// Counts a request.
    pub(super) fn add(&mut self, ask: Ask<'_>) {
        let claim = ask.claim;
        self.classes[level(claim.class)].add(ask);
        self.bytes = self.bytes.saturating_add(ask.bytes);
        if !self.tenants.contains_key(&claim.tenant) {
            self.weights += claim.share();
        }
        let held = self
            .tenants
            .entry(Arc::clone(&claim.tenant))
            .or_insert_with(|| Held {
                sum: Sum::default(),
                weight: claim.share(),
                knocked: None,
            });
        held.sum.add(ask);
    }

    /// Uncounts it.
    pub(super) fn remove(&mut self, ask: Ask<'_>) {
        let claim = ask.claim;
        self.classes[level(claim.class)].remove(ask);
        self.bytes = self.bytes.saturating_sub(ask.bytes);
        let Some(held) = self.tenants.get_mut(&claim.tenant) else {
            return;
        };
        held.sum.remove(ask);
        if held.sum.requests == 0 && held.knocked.is_none() {
            self.weights = self.weights.saturating_sub(held.weight);
            self.tenants.remove(&claim.tenant);
        }
    }

    /// Requests and rows that are served before one that comes now: those of higher classes, and of its own what its tenant
    /// has and what the others get meanwhile.
    pub(super) fn before(&self, ask: Ask<'_>) -> (usize, u64) {
        let class = level(ask.claim.class);
        let higher = self.classes[class + 1..].iter();
        let (requests, rows) = higher.fold((0, 0), |(requests, rows), sum| {
            (requests + sum.requests, rows + sum.rows)
        });
        let own = self.classes[class];
        let held = self.tenants.get(&ask.claim.tenant);
        let (sum, weight, all) = match held {
            Some(held) => (held.sum, held.weight, self.weights),
            None => {
                let weight = ask.claim.share();
                (Sum::default(), weight, self.weights + weight)
            }
        };
        // While the tenant is served its requests up to this one, the others are served in proportion.
        let cost = u128::from(ask.cost.get());
        let turns = |own: u128| own.saturating_mul(all.into()) / u128::from(weight.max(1));
        let fair_requests = turns(sum.requests as u128 + 1).saturating_sub(1);
        let fair_rows = turns(sum.rows + cost).saturating_sub(cost);
        let requests = requests
            + own
                .requests
                .min(usize::try_from(fair_requests).unwrap_or(usize::MAX));
        let rows = rows + own.rows.min(fair_rows);
        (requests, u64::try_from(rows).unwrap_or(u64::MAX))
    }

    /// Whether a tenant has its share of `most` places: all of them while it is alone, never less than one.
    pub(super) fn has_share(&mut self, claim: &Claim, (most, scene): (usize, Scene)) -> bool {
        if !self.is_beyond_share(claim, (most, scene.free)) {
            return false;
        }
        // Not because of somebody who has given up.
        self.sweep(scene.now);
        self.is_beyond_share(claim, (most, scene.free))
    }

    fn is_beyond_share(&self, claim: &Claim, (most, free): (usize, usize)) -> bool {
        let Some(held) = self.tenants.get(&claim.tenant) else {
            return false;
        };
        if self.weights <= held.weight {
            return false;
        }
        let share = (most as u128 * u128::from(held.weight)).div_ceil(self.weights.into());
        held.sum.requests.saturating_sub(free) as u128 >= share.max(1)
    }

    /// A tenant was refused: from now on it has a share, that it may use when it comes back.
    pub(super) fn knock(&mut self, claim: &Claim, now: Duration) {
        self.sweep(now);
        match self.tenants.get_mut(&claim.tenant) {
            Some(held) => {
                self.knocking += usize::from(held.knocked.is_none());
                held.knocked = Some(now);
            }
            None if self.knocking < KNOCKING => {
                let held = Held {
                    sum: Sum::default(),
                    weight: claim.share(),
                    knocked: Some(now),
                };
                self.knocking += 1;
                self.weights += held.weight;
                self.tenants.insert(Arc::clone(&claim.tenant), held);
            }
            None => {}
        }
    }

    /// Forgets those who knocked and did not come back.
    fn sweep(&mut self, now: Duration) {
        if self.knocking == 0 || now < self.swept.saturating_add(SWEEP) {
            return;
        }
        self.swept = now;
        let (mut gone, mut knocking) = (0, 0);
        self.tenants.retain(|_, held| {
            held.knocked = held.knocked.filter(|at| now < at.saturating_add(KNOCK));
            knocking += usize::from(held.knocked.is_some());
            let stays = held.sum.requests > 0 || held.knocked.is_some();
            if !stays {
                gone += held.weight;
            }
            stays
        });
        self.weights = self.weights.saturating_sub(gone);
        self.knocking = knocking;
    }

    /// All requests.
    pub(super) fn requests(&self) -> usize {
        self.classes.iter().map(|sum| sum.requests).sum()
    }

    /// All rows.
    pub(super) fn rows(&self) -> u64 {
        let rows: u128 = self.classes.iter().map(|sum| sum.rows).sum();
        u64::try_from(rows).unwrap_or(u64::MAX)
    }

    /// All bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Requests of a class.
    #[cfg(test)]
    pub(super) fn of(&self, class: crate::tick::Class) -> usize {
        self.classes[level(class)].requests
    }
}
