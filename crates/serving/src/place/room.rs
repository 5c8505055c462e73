//! What is free on each worker, with the names of resources replaced by numbers.
//!
//! Invariant: what is put is taken off everything that it needs, so that a replica fits as often as [`Room::count`] says.

use std::collections::BTreeMap;

use super::{
    Group, Problem, Worker,
    amounts::{Amounts, Resource},
    gpus::{Demand, Gpus, Piece},
};

const CPUS: usize = 0;
const MEMORY: usize = 1;
const GPUS: usize = 2;
const VRAM: usize = 3;
/// Custom resources come after those that every worker may have.
const FIRST_CUSTOM: usize = 4;

/// What a replica needs; only what is more than nothing is named.
#[derive(Clone, Debug)]
pub(super) struct Need {
    amounts: Vec<(usize, u64)>,
    pub(super) demand: Demand,
}

/// What a problem is about in numbers, worked out once.
#[derive(Debug)]
pub(super) struct Shape<'a> {
    pub(super) problem: &'a Problem,
    /// Numbers of the custom resources that some group needs; nobody asks how much there is of others.
    customs: BTreeMap<&'a str, usize>,
    /// For each group.
    pub(super) needs: Vec<Need>,
    /// For each worker its node, numbered from 0 without gaps.
    pub(super) node_of: Vec<usize>,
    /// How many nodes there are.
    pub(super) nodes: usize,
}

impl<'a> Shape<'a> {
    pub(super) fn of(problem: &'a Problem) -> Self {
        let mut customs: BTreeMap<&str, usize> = BTreeMap::new();
        for group in &problem.groups {
            for (name, amount) in &group.need.custom {
                let next = FIRST_CUSTOM + customs.len();
                if *amount > 0 {
                    customs.entry(name).or_insert(next);
                }
            }
        }
        let mut nodes: BTreeMap<usize, usize> = BTreeMap::new();
        let mut node_of = Vec::with_capacity(problem.workers.len());
        for worker in &problem.workers {
            let next = nodes.len();
            node_of.push(*nodes.entry(worker.node).or_insert(next));
        }
        let mut shape = Self {
            problem,
            customs,
            needs: Vec::new(),
            node_of,
            nodes: nodes.len(),
        };
        shape.needs = problem.groups.iter().map(|group| shape.need(group)).collect();
        shape
    }

    fn need(&self, group: &Group) -> Need {
        let demand = Demand::of(&group.need);
        let all = [
            (CPUS, group.need.cpus),
            (MEMORY, group.need.memory),
            (GPUS, group.need.gpus),
            (VRAM, demand.vram()),
        ];
        let customs = group.need.custom.iter();
        let customs = customs.filter_map(|(name, amount)| Some((*self.customs.get(name.as_str())?, *amount)));
        Need {
            amounts: all.into_iter().chain(customs).filter(|(_, n)| *n > 0).collect(),
            demand,
        }
    }

    /// Amounts as numbers, of what counts here.
    fn dense(&self, amounts: &Amounts) -> Vec<u64> {
        let mut dense = vec![amounts.cpus, amounts.memory, amounts.gpus, amounts.vram];
        dense.resize(FIRST_CUSTOM + self.customs.len(), 0);
        for (name, amount) in &amounts.custom {
            if let Some(i) = self.customs.get(name.as_str()) {
                dense[*i] = *amount;
            }
        }
        dense
    }

    pub(super) fn room(&self, worker: &Worker) -> Room {
        let all = self.dense(&worker.capacity);
        let reserved = self.dense(&worker.reserved);
        Room {
            free: all
                .iter()
                .zip(reserved)
                .map(|(all, r)| all.saturating_sub(r))
                .collect(),
            has: all.iter().skip(GPUS).filter(|all| **all > 0).count(),
            left: worker.room.unwrap_or(usize::MAX),
            held: 0,
            gpus: Gpus::of(&worker.capacity),
        }
    }

    /// How large the replicas of a group are among those of all groups: the largest part, in millionths, that one takes
    /// of any resource of the worker of its kind that has most of it.
    pub(super) fn sizes(&self) -> Vec<u64> {
        const MILLION: u128 = 1_000_000;
        let mut most: BTreeMap<_, Vec<u64>> = BTreeMap::new();
        for worker in &self.problem.workers {
            let dense = self.dense(&worker.capacity);
            let most = most.entry(worker.kind).or_insert_with(|| vec![0; dense.len()]);
            for (most, one) in most.iter_mut().zip(dense) {
                *most = one.max(*most);
            }
        }
        let part = |group: &Group, (i, need): &(usize, u64)| {
            let most = most.get(&group.kind).map_or(0, |most| most[*i]);
            let part = u128::from(*need) * MILLION / u128::from(most.max(1));
            u64::try_from(part).unwrap_or(u64::MAX)
        };
        let groups = self.problem.groups.iter().zip(&self.needs);
        groups
            .map(|(group, need)| {
                need.amounts
                    .iter()
                    .map(|need| part(group, need))
                    .max()
                    .unwrap_or(0)
            })
            .collect()
    }

    /// True if the group may take the worker at all.
    pub(super) fn allows(&self, group: &Group, worker: usize) -> bool {
        self.problem
            .workers
            .get(worker)
            .is_some_and(|worker| worker.kind == group.kind && group.selector.matches(&worker.labels))
    }
}

/// What is free on a worker.
#[derive(Clone, Debug)]
pub(super) struct Room {
    free: Vec<u64>,
    /// How many of the resources that are not on every machine it has in all.
    has: usize,
    left: usize,
    /// How many of the problem's replicas it holds.
    pub(super) held: usize,
    pub(super) gpus: Gpus,
}

impl Room {
    /// True if there is enough of everything, GPUs taken as a sum.
    pub(super) fn fits(&self, need: &Need) -> bool {
        self.left > 0 && need.amounts.iter().all(|(i, need)| *need <= self.free[*i])
    }

    /// How many more of them fit.
    pub(super) fn count(&self, need: &Need) -> usize {
        let mut count = self.left;
        for (i, need) in &need.amounts {
            count = count.min(usize::try_from(self.free[*i] / need).unwrap_or(usize::MAX));
        }
        if count == 0 {
            return 0;
        }
        count.min(self.gpus.count(&need.demand))
    }

    /// Takes everything but the GPUs themselves.
    pub(super) fn take(&mut self, need: &Need) {
        for (i, need) in &need.amounts {
            self.free[*i] = self.free[*i].saturating_sub(*need);
        }
        self.left = self.left.saturating_sub(1);
        self.held += 1;
    }

    /// Puts one that fits, and says which GPUs it has.
    pub(super) fn put(&mut self, need: &Need) -> Option<Vec<usize>> {
        let gpus = self.gpus.put(&need.demand)?;
        self.take(need);
        Some(gpus)
    }

    /// How many kinds of scarce resources of the worker would lie idle under a replica with this need.
    pub(super) fn wasted(&self, need: &Need) -> usize {
        let used = need.amounts.iter().filter(|(i, _)| *i >= GPUS).count();
        self.has.saturating_sub(used)
    }

    pub(super) fn is_full(&self) -> bool {
        self.left == 0
    }

    /// How much of a resource that a group needs is free.
    pub(super) fn of(&self, shape: &Shape<'_>, resource: &Resource) -> u64 {
        let i = match resource {
            Resource::Cpu => CPUS,
            Resource::Memory => MEMORY,
            Resource::Gpu => GPUS,
            Resource::Vram => VRAM,
            Resource::Custom(name) => match shape.customs.get(name.as_str()) {
                Some(i) => *i,
                None => return 0,
            },
        };
        self.free[i]
    }

    /// The GPU of which most is free: most of its time where a share is asked for, else most of its memory.
    pub(super) fn widest(&self, by_share: bool) -> Piece {
        let key = |piece: &&Piece| {
            if by_share {
                (piece.share, piece.vram)
            } else {
                (piece.vram, piece.share)
            }
        };
        self.gpus
            .free()
            .iter()
            .max_by_key(key)
            .copied()
            .unwrap_or_default()
    }
}
