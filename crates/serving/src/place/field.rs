//! Where the replicas of one group could go, as numbers of places: replicas of a group are alike, so a worker is only how
//! many more of them fit.
//!
//! Refuses to know resources. Invariant: a take uses up exactly one place of one worker, of its node and of the whole, so
//! that counting places decides what is possible.

use std::{cmp::Reverse, collections::BinaryHeap, ops::Range};

use super::{
    Group,
    room::{Room, Shape},
};

/// More than any problem has replicas, and little enough to add up for all workers.
const MANY: usize = 1 << 32;

/// A worker with room.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) worker: usize,
    pub(super) node: usize,
    /// How little it is wanted: that of the best soft selector that it matches; avoided ones come after all others.
    pub(super) tier: usize,
    pub(super) left: usize,
    of_group: usize,
    held: usize,
    /// Scarce resources that would lie idle, and how much room there is: among equals the tightest, which keeps large
    /// holes for large replicas.
    waste: (usize, usize),
}

/// A node, with or without room.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    /// Its workers with room, the most wanted first.
    pub(super) slots: Range<usize>,
    /// How many more of the group it may hold.
    left: usize,
    /// How many more its workers can hold.
    sum: usize,
    pub(super) of_group: usize,
}

impl Node {
    /// How many more of the group go there.
    pub(super) fn places(&self) -> usize {
        self.left.min(self.sum)
    }
}

/// The smallest is the best.
type Key = (usize, usize, usize, usize, (usize, usize), usize);

/// Everything that has room for a group.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) slots: Vec<Slot>,
    pub(super) nodes: Vec<Node>,
    /// How many more replicas of the group fit.
    pub(super) total: usize,
    /// Nodes on which one fits.
    pub(super) open: usize,
}

impl Field {
    /// The field of a group that holds `places`.
    pub(super) fn new(shape: &Shape<'_>, rooms: &[Room], g: usize, places: &[Option<usize>]) -> Self {
        let (group, need) = (&shape.problem.groups[g], &shape.needs[g]);
        let mut nodes = vec![Node::default(); shape.nodes];
        let mut of_worker = vec![0_usize; rooms.len()];
        for worker in places.iter().flatten() {
            of_worker[*worker] += 1;
            nodes[shape.node_of[*worker]].of_group += 1;
        }
        let mut slots: Vec<Slot> = (0..rooms.len())
            .filter(|worker| shape.allows(group, *worker))
            .filter_map(|worker| {
                let count = rooms[worker].count(need);
                (count > 0).then(|| Slot {
                    worker,
                    node: shape.node_of[worker],
                    tier: tier(shape, group, worker),
                    left: count.min(MANY),
                    of_group: of_worker[worker],
                    held: rooms[worker].held,
                    waste: (rooms[worker].wasted(need), count),
                })
            })
            .collect();
        slots.sort_by_key(|slot| (slot.node, slot.tier, slot.worker));
        for (i, slot) in slots.iter().enumerate() {
            let node = &mut nodes[slot.node];
            if node.sum == 0 {
                node.slots = i..i;
            }
            node.slots.end = i + 1;
            node.sum += slot.left;
        }
        let cap = group.cap();
        let (mut total, mut open) = (0, 0);
        for node in &mut nodes {
            node.left = cap.saturating_sub(node.of_group).min(MANY);
            total += node.places();
            open += usize::from(node.places() > 0);
        }
        Self {
            slots,
            nodes,
            total,
            open,
        }
    }

    pub(super) fn is_open(&self, slot: usize) -> bool {
        let slot = &self.slots[slot];
        slot.left > 0 && self.nodes[slot.node].left > 0
    }

    /// Uses up a place of an open slot.
    pub(super) fn take(&mut self, slot: usize) {
        let slot = &mut self.slots[slot];
        let node = &mut self.nodes[slot.node];
        slot.left -= 1;
        slot.of_group += 1;
        slot.held += 1;
        node.left -= 1;
        node.sum -= 1;
        node.of_group += 1;
        self.total -= 1;
        self.open -= usize::from(node.places() == 0);
    }

    /// How good a slot is for the next replica: the wanted first, then the worker (or node) with the fewest of the group,
    /// then the worker with the fewest of all.
    pub(super) fn key(&self, slot: usize, by_node: bool) -> Key {
        let slot = &self.slots[slot];
        let of_node = self.nodes[slot.node].of_group;
        let (first, second) = if by_node {
            (of_node, slot.of_group)
        } else {
            (slot.of_group, of_node)
        };
        (slot.tier, first, second, slot.held, slot.waste, slot.worker)
    }

    /// The best open slot of a node up to a tier.
    pub(super) fn best_on(&self, node: usize, tiers: usize) -> Option<usize> {
        self.nodes[node]
            .slots
            .clone()
            .filter(|slot| self.slots[*slot].tier <= tiers && self.is_open(*slot))
            .min_by_key(|slot| self.key(*slot, false))
    }
}

/// How little a group wants a worker.
fn tier(shape: &Shape<'_>, group: &Group, worker: usize) -> usize {
    let labels = &shape.problem.workers[worker].labels;
    let rank = group.prefer.iter().position(|soft| soft.matches(labels));
    let last = group.prefer.len();
    rank.unwrap_or(last)
        + if group.avoid.contains(&worker) {
            last + 1
        } else {
            0
        }
}

/// Slots, the best first. Keys only grow while places are taken, so an entry that is out of date is put back when it comes
/// up, and one without room never comes back.
#[derive(Debug)]
pub(super) struct Queue {
    heap: BinaryHeap<Reverse<(Key, usize)>>,
    by_node: bool,
}

impl Queue {
    pub(super) fn new(field: &Field, by_node: bool) -> Self {
        let slots = 0..field.slots.len();
        Self {
            heap: slots
                .map(|slot| Reverse((field.key(slot, by_node), slot)))
                .collect(),
            by_node,
        }
    }

    /// Takes out the best open slot.
    pub(super) fn pop(&mut self, field: &Field) -> Option<usize> {
        while let Some(Reverse((key, slot))) = self.heap.pop() {
            if !field.is_open(slot) {
                continue;
            }
            if key == field.key(slot, self.by_node) {
                return Some(slot);
            }
            self.push(field, slot);
        }
        None
    }

    pub(super) fn push(&mut self, field: &Field, slot: usize) {
        self.heap.push(Reverse((field.key(slot, self.by_node), slot)));
    }
}
