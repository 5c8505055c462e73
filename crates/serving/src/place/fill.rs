//! Finds places for the replicas of one group that have none.
//!
//! Refuses to move anything, and to place a part of what goes whole or not at all. What is certain, for one group on the
//! room it finds:
//! - replicas that stand alone, and gangs of Default, Spread and Pack: as many as there are places, since each take uses
//!   up one (a gang is placed if the places suffice);
//! - StrictPack: a gang is placed if some node has places for all of it; what a gang lost is placed if its node has them;
//! - StrictSpread: a gang is placed if there are enough nodes apart from each other and from its members that are placed;
//!   where taking them as wanted leaves a gang without, all are matched anew, which places all if all can be placed.
//!
//! Gangs that lack the fewest come first, so that a shortage leaves as few as possible incomplete.

use super::{
    Group, Strategy, exact,
    field::{Field, Queue},
    keep::Standing,
    pack,
    room::Shape,
};

/// Replicas that are placed together, or one after the other.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    /// Those without a place.
    pub(super) missing: Vec<usize>,
    /// The nodes of the others.
    pub(super) nodes: Vec<usize>,
    /// All of the missing or none.
    pub(super) whole: bool,
    /// The places found, for as many of the missing.
    pub(super) slots: Vec<usize>,
}

impl Batch {
    pub(super) fn is_placed(&self) -> bool {
        self.slots.len() == self.missing.len()
    }
}

/// What belongs together among the replicas of a group that have no place: gangs, or all of them.
///
/// The last replicas, if they are too few for a gang, belong to none.
pub(super) fn batches(shape: &Shape<'_>, group: &Group, places: &[Option<usize>]) -> Vec<Batch> {
    let mut batches: Vec<Batch> = (0..)
        .step_by(group.scope())
        .zip(places.chunks_exact(group.scope()))
        .filter(|(_, members)| members.iter().any(Option::is_none))
        .map(|(start, members)| {
            let missing = (start..).zip(members).filter(|(_, place)| place.is_none());
            let nodes: Vec<usize> = members.iter().flatten().map(|w| shape.node_of[*w]).collect();
            Batch {
                missing: missing.map(|(replica, _)| replica).collect(),
                whole: group.gang > 1 || (group.strategy == Strategy::StrictPack && nodes.is_empty()),
                nodes,
                slots: Vec::new(),
            }
        })
        .collect();
    batches.sort_by_key(|batch| batch.missing.len());
    batches
}

/// Places what can be placed of a group.
pub(super) fn fill(shape: &Shape<'_>, standing: &mut Standing, g: usize) {
    let group = &shape.problem.groups[g];
    let mut batches = batches(shape, group, &standing.placement[g]);
    if batches.is_empty() {
        return;
    }
    let mut field = Field::new(shape, &standing.rooms, g, &standing.placement[g]);
    match group.strategy {
        Strategy::Default => one_by_one(&mut field, &mut batches, false),
        Strategy::Pack => pack::loosely(&mut field, &mut batches),
        Strategy::StrictPack => pack::strictly(&mut field, &mut batches),
        // A node holds one of them at most, which its places know already.
        Strategy::Spread | Strategy::StrictSpread if group.gang <= 1 => {
            one_by_one(&mut field, &mut batches, true);
        }
        Strategy::Spread => {
            let mut queue = Queue::new(&field, true);
            for batch in &mut batches {
                if batch.missing.len() <= field.total {
                    apart(&mut field, &mut queue, batch, false);
                }
            }
        }
        Strategy::StrictSpread => strictly_apart(&mut field, &mut batches),
    }

    let mut found: Vec<(usize, usize)> = batches
        .iter()
        .flat_map(|batch| batch.missing.iter().zip(&batch.slots))
        .map(|(replica, slot)| (*replica, field.slots[*slot].worker))
        .collect();
    found.sort_unstable();
    for (replica, worker) in found {
        if let Some(gpus) = standing.rooms[worker].put(&shape.needs[g]) {
            standing.placement[g][replica] = Some(worker);
            standing.devices[g][replica] = gpus;
        }
    }
}

/// Gives each the best place that is left.
fn one_by_one(field: &mut Field, batches: &mut [Batch], by_node: bool) {
    let mut queue = Queue::new(field, by_node);
    for batch in batches {
        if batch.whole && batch.missing.len() > field.total {
            continue;
        }
        while !batch.is_placed() {
            let Some(slot) = queue.pop(field) else {
                break;
            };
            field.take(slot);
            batch.slots.push(slot);
            queue.push(field, slot);
        }
    }
}

/// Places the missing members of a gang on nodes that have none of it, as far as there are such among those that are
/// wanted as much; strictly, on such nodes only. The caller has seen that there are enough.
fn apart(field: &mut Field, queue: &mut Queue, batch: &mut Batch, strict: bool) {
    let mut used = batch.nodes.clone();
    let mut aside: Vec<usize> = Vec::new();
    while !batch.is_placed() {
        let next = queue.pop(field);
        let again = aside
            .iter()
            .copied()
            .filter(|slot| !strict && field.is_open(*slot))
            .min_by_key(|slot| {
                let node = field.slots[*slot].node;
                let times = used.iter().filter(|used| **used == node).count();
                (field.slots[*slot].tier, times, field.key(*slot, true))
            });
        let slot = match (next, again) {
            (Some(next), Some(again)) if field.slots[again].tier < field.slots[next].tier => {
                queue.push(field, next);
                again
            }
            (Some(next), _) if used.contains(&field.slots[next].node) => {
                aside.push(next);
                continue;
            }
            (Some(next), _) => {
                aside.push(next);
                next
            }
            (None, Some(again)) => again,
            (None, None) => break,
        };
        field.take(slot);
        used.push(field.slots[slot].node);
        batch.slots.push(slot);
    }
    for slot in aside {
        queue.push(field, slot);
    }
}

/// Places gangs with all members on different nodes.
fn strictly_apart(field: &mut Field, batches: &mut Vec<Batch>) {
    let (before, mut again) = (field.clone(), batches.clone());
    let mut queue = Queue::new(field, true);
    for batch in batches.iter_mut() {
        let mut own: Vec<usize> = batch.nodes.clone();
        own.sort_unstable();
        own.dedup();
        let own_open = own.iter().filter(|node| field.nodes[**node].places() > 0).count();
        if batch.missing.len() <= field.open - own_open {
            apart(field, &mut queue, batch, true);
        }
    }
    let placed = |batches: &[Batch]| batches.iter().filter(|batch| batch.is_placed()).count();
    if placed(batches) == batches.len() {
        return;
    }
    // A gang that took a node which another could not do without: which nodes are wanted gives way to placing more.
    let mut afresh = before;
    exact::match_nodes(&mut afresh, &mut again);
    if placed(&again) > placed(batches) {
        (*field, *batches) = (afresh, again);
    }
}
