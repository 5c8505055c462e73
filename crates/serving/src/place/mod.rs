//! Where replicas go: `solve(problem, previous)` is pure, deterministic and stable.
//!
//! Refuses to know ids, states and time; the caller maps its workers and replicas to ordinals and back.
//!
//! Invariants, each a property test:
//! - no worker is given more than it has, and no replica a worker of another kind;
//! - what is placed stays where it is while it fits: solving a solution again changes nothing, and the loss of a worker
//!   moves that worker's replicas only;
//! - a replica that fits somewhere is placed.
//!
//! Replicas of one group are spread: each goes to the worker with the fewest of its group, then with the fewest of all;
//! workers that the group avoids come after all others.
//! Cost: O(groups · workers + replicas · log workers).

mod amounts;
mod reason;
#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
    fmt,
};

pub use self::{
    amounts::{Amounts, Resource, UNIT, fraction, units},
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

/// A worker that may be given replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// What it can hold.
    pub kind: Kind,
    /// What it has in all.
    pub capacity: Amounts,
    /// What is taken by what is not part of the problem, such as replicas that are stopping.
    pub reserved: Amounts,
    /// How many of the problem's replicas it may hold; none means that only its capacity counts.
    pub room: Option<usize>,
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

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Solution {
    /// Where every replica is; none where it has no place.
    pub placement: Placement,
    /// For each group that has replicas without a place, why; alike replicas have the same reason.
    pub reasons: Vec<Option<Reason>>,
}

struct Room {
    free: Amounts,
    left: usize,
    held: usize,
}

impl Room {
    fn holds(&self, need: &Amounts) -> bool {
        self.left > 0 && need.fits(&self.free)
    }

    fn put(&mut self, need: &Amounts) {
        self.free.take(need);
        self.left -= 1;
        self.held += 1;
    }
}

/// Places the replicas of `problem`, keeping those of `previous` where they are if they still fit.
///
/// `previous` may be shorter than the problem (what it lacks was nowhere) and may name workers that do not exist.
#[must_use]
pub fn solve(problem: &Problem, previous: &Placement) -> Solution {
    let mut rooms: Vec<Room> = problem.workers.iter().map(room).collect();
    let mut placement: Placement = problem
        .groups
        .iter()
        .map(|group| vec![None; group.replicas])
        .collect();

    // All that stays is settled before anything new, or a new replica could push out an old one.
    for ((group, places), before) in problem.groups.iter().zip(&mut placement).zip(previous) {
        for (place, before) in places.iter_mut().zip(before) {
            if let Some(worker) = *before
                && problem.workers.get(worker).is_some_and(|w| w.kind == group.kind)
                && rooms[worker].holds(&group.need)
            {
                rooms[worker].put(&group.need);
                *place = Some(worker);
            }
        }
    }

    let mut reasons = Vec::with_capacity(problem.groups.len());
    for (group, places) in problem.groups.iter().zip(&mut placement) {
        let complete = spread(problem, group, places, &mut rooms);
        reasons.push((!complete).then(|| explain(problem, group, &rooms)));
    }
    Solution { placement, reasons }
}

fn room(worker: &Worker) -> Room {
    let mut free = worker.capacity.clone();
    free.take(&worker.reserved);
    Room {
        free,
        left: worker.room.unwrap_or(usize::MAX),
        held: 0,
    }
}

/// Gives every replica of the group that has no place the best one; false if one is left without.
fn spread(problem: &Problem, group: &Group, places: &mut [Option<usize>], rooms: &mut [Room]) -> bool {
    if places.iter().all(Option::is_some) {
        return true;
    }
    let mut of_group = vec![0_usize; rooms.len()];
    for worker in places.iter().flatten() {
        of_group[*worker] += 1;
    }
    let mut best: BinaryHeap<Reverse<(bool, usize, usize, usize)>> = problem
        .workers
        .iter()
        .enumerate()
        .filter(|(_, worker)| worker.kind == group.kind)
        .map(|(ordinal, _)| {
            Reverse((
                group.avoid.contains(&ordinal),
                of_group[ordinal],
                rooms[ordinal].held,
                ordinal,
            ))
        })
        .collect();
    for place in places.iter_mut().filter(|place| place.is_none()) {
        // A worker that cannot hold one replica of the group cannot hold a later one either: it leaves the heap.
        while let Some(Reverse((avoided, count, held, ordinal))) = best.pop() {
            if rooms[ordinal].holds(&group.need) {
                rooms[ordinal].put(&group.need);
                *place = Some(ordinal);
                best.push(Reverse((avoided, count + 1, held + 1, ordinal)));
                break;
            }
        }
        if place.is_none() {
            return false;
        }
    }
    true
}

fn explain(problem: &Problem, group: &Group, rooms: &[Room]) -> Reason {
    let kind = group.kind;
    let workers: Vec<(&Worker, &Room)> = problem
        .workers
        .iter()
        .zip(rooms)
        .filter(|(worker, _)| worker.kind == kind)
        .collect();
    if workers.is_empty() {
        return Reason::NoWorker { kind };
    }
    // What no worker could ever hold is named before what none has free: adding a worker like these would not help.
    let shortages: Vec<Reason> = group
        .need
        .resources()
        .filter_map(|resource| {
            let need = group.need.of(&resource);
            let (free, of) = workers
                .iter()
                .map(|(worker, room)| (room.free.of(&resource), worker.capacity.of(&resource)))
                .max()?;
            let most = workers
                .iter()
                .map(|(worker, _)| worker.capacity.of(&resource))
                .max()?;
            let of = if need > most { most } else { of };
            (need > free).then_some(Reason::Short {
                kind,
                resource,
                need,
                free,
                of,
            })
        })
        .collect();
    let never = shortages
        .iter()
        .find(|r| matches!(r, Reason::Short { need, of, .. } if need > of));
    if let Some(reason) = never.or_else(|| shortages.first()) {
        return reason.clone();
    }
    if workers.iter().all(|(_, room)| room.left == 0) {
        return Reason::NoRoom {
            kind,
            workers: workers.len(),
        };
    }
    Reason::Apart {
        kind,
        need: group.need.clone(),
    }
}
