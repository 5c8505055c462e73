//! Where replicas go: `solve(problem, previous)` is pure, deterministic and stable.
//!
//! Refuses to know ids, states and time; the caller maps its workers and replicas to ordinals and back.
//!
//! Invariants, each a property test:
//! - no worker and no GPU is given more than it has, no replica goes to a worker that its group may not take, and no
//!   group is over its hard limits (nodes, gangs, replicas per node);
//! - what is placed stays where it is while it fits: solving a solution again changes nothing, and the loss of a worker
//!   moves that worker's replicas only;
//! - a group whose replicas without a place could all be placed on the room that is free for it has them placed; one that
//!   lacks room for all has no replica, and no gang, left over that would still fit.
//!
//! What stays is settled first. Then the groups are filled one after the other, those with the largest replicas first and
//! among these the one with the fewest workers to choose from. That is no search over all groups: a group may be left
//! without because of one before it. Within a group the answer is exact, since its replicas are alike; `fill` says how.
//!
//! Among the places that a group may take, in this order: avoided workers last; the first soft selector that matches; the
//! strategy; the worker with the fewest replicas; the one with the fewest scarce resources that would lie idle; the
//! tightest; the first.
//!
//! The GPUs of a replica are part of the answer, and [`solve_at`] takes them back as part of the question. Where they are
//! not known, any arrangement that holds all replicas of a worker is taken to be the one there is. What a worker has
//! reserved without a word of its GPUs is a sum: on which it lies is a guess, made anew each time, so that a replica without
//! a place may find one the second time it is asked for; what is placed stays all the same.
//! Cost: O(groups · workers + replicas · log workers); strict spreading under shortage adds O(nodes) for each replica.

mod amounts;
mod exact;
mod explain;
mod field;
mod fill;
mod gpus;
mod keep;
mod labels;
mod pack;
mod reason;
mod room;
#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

pub use self::{
    amounts::{Amounts, Resource, UNIT, fraction, units},
    labels::{Match, Selector},
    reason::Reason,
};

/// What a worker can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Replicas that prepare inputs.
    Preprocess,
    /// Replicas that run models.
    Inference,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Preprocess => "preprocess",
            Self::Inference => "inference",
        })
    }
}

/// How the replicas of a group, or the members of each of its gangs, lie among nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Strategy {
    /// Each on the worker with the fewest of the group, whatever its node.
    #[default]
    Default,
    /// On as few nodes as possible, as far as that can be had.
    Pack,
    /// On as many nodes as possible, as far as that can be had.
    Spread,
    /// On one node or nowhere. Without gangs that is said of the whole group, and once it has a node, more replicas join
    /// there one by one.
    StrictPack,
    /// On a node each or nowhere.
    StrictSpread,
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "DEFAULT",
            Self::Pack => "PACK",
            Self::Spread => "SPREAD",
            Self::StrictPack => "STRICT_PACK",
            Self::StrictSpread => "STRICT_SPREAD",
        })
    }
}

/// A worker that may be given replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// What it can hold.
    pub kind: Kind,
    /// The machine it runs on, by any number that the workers of one machine share.
    pub node: usize,
    /// What it has in all.
    pub capacity: Amounts,
    /// What is taken by what is not part of the problem, such as replicas that are stopping.
    pub reserved: Amounts,
    /// Those of them whose GPUs are known: what each takes, which `reserved` counts too, and the GPUs that it is on.
    pub reserved_gpus: Vec<(Amounts, Vec<usize>)>,
    /// How many of the problem's replicas it may hold; none means that only its capacity counts.
    pub room: Option<usize>,
    /// What selectors look at.
    pub labels: BTreeMap<String, String>,
}

/// Replicas that are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What workers they take.
    pub kind: Kind,
    /// What each needs.
    pub need: Amounts,
    /// How many there are.
    pub replicas: usize,
    /// Workers that get one only when no other can hold it, such as those where one has failed before.
    pub avoid: BTreeSet<usize>,
    /// How they lie among nodes.
    pub strategy: Strategy,
    /// With n over 1, each n replicas in a row are a gang: placed all or not at all. Members that lost their place get one
    /// while the others stay. A caller keeps a member's successor at its index.
    pub gang: usize,
    /// How many a node may hold.
    pub per_node: Option<usize>,
    /// The workers they may take at all.
    pub selector: Selector,
    /// The workers they would rather have, the best first; then any.
    pub prefer: Vec<Selector>,
}

impl Group {
    /// How many replicas in a row the strategy is about.
    fn scope(&self) -> usize {
        if self.gang > 1 {
            self.gang
        } else {
            self.replicas.max(1)
        }
    }

    /// How many of them a node may hold.
    fn cap(&self) -> usize {
        let one = self.strategy == Strategy::StrictSpread && self.gang <= 1;
        self.per_node
            .unwrap_or(usize::MAX)
            .min(if one { 1 } else { usize::MAX })
    }
}

/// What is to be placed, and where it could be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    /// The workers; an ordinal is an index into this.
    pub workers: Vec<Worker>,
    /// The groups.
    pub groups: Vec<Group>,
}

/// For each group and each replica in it, the ordinal of its worker.
pub type Placement = Vec<Vec<Option<usize>>>;

/// For each group and each replica in it, which GPUs of its worker it has a part of, counted from 0.
pub type Devices = Vec<Vec<Vec<usize>>>;

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Solution {
    /// Where every replica is; none where it has no place.
    pub placement: Placement,
    /// The GPUs of every replica; empty where it needs none or has no place.
    pub devices: Devices,
    /// For each group that has replicas without a place, why; alike replicas have the same reason.
    pub reasons: Vec<Option<Reason>>,
}

/// Places the replicas of `problem`, keeping those of `previous` where they are if they still fit.
///
/// `previous` may be shorter than the problem (what it lacks was nowhere) and may name workers that do not exist.
#[must_use]
pub fn solve(problem: &Problem, previous: &Placement) -> Solution {
    solve_at(problem, previous, &Vec::new())
}

/// As [`solve`], where it is known which GPUs the replicas of `previous` have: they keep them.
///
/// `devices` may be shorter too; a replica for which it has nothing is arranged around those for which it has.
#[must_use]
pub fn solve_at(problem: &Problem, previous: &Placement, devices: &Devices) -> Solution {
    let shape = room::Shape::of(problem);
    let mut standing = keep::keep(&shape, previous, devices);
    let pending: Vec<usize> = (0..problem.groups.len())
        .filter(|g| standing.placement[*g].contains(&None))
        .collect();
    for g in order(&shape, &pending) {
        fill::fill(&shape, &mut standing, g);
    }
    let mut reasons = vec![None; problem.groups.len()];
    for g in pending {
        if standing.placement[g].contains(&None) {
            reasons[g] = Some(explain::explain(&shape, &standing, g));
        }
    }
    Solution {
        placement: standing.placement,
        devices: standing.devices,
        reasons,
    }
}

/// The order in which groups are filled.
fn order(shape: &room::Shape<'_>, pending: &[usize]) -> Vec<usize> {
    if pending.len() < 2 {
        return pending.to_vec();
    }
    let sizes = shape.sizes();
    let choice = |g: usize| {
        let workers = 0..shape.problem.workers.len();
        workers
            .filter(|worker| shape.allows(&shape.problem.groups[g], *worker))
            .count()
    };
    let mut order = pending.to_vec();
    order.sort_by_cached_key(|g| (Reverse(sizes[*g]), choice(*g), *g));
    order
}
