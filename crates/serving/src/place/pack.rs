//! Keeps replicas that belong together on few nodes, or on one.
//!
//! Refuses to trade what is wanted for fewer nodes: soft selectors and avoided workers come first, nodes second.
//! Invariant: within one tier the nodes in use are filled first, then the smallest node that takes all that is left, or
//! else the largest, which is the fewest nodes that hold them.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
};

use super::{field::Field, fill::Batch};

/// The nodes with places among the slots of one tier, by how many.
struct Shelf {
    tier: usize,
    places: Vec<usize>,
    sorted: BTreeSet<(usize, usize)>,
}

impl Shelf {
    fn new(field: &Field, tier: usize) -> Self {
        let places: Vec<usize> = (0..field.nodes.len())
            .map(|node| of_tier(field, node, tier))
            .collect();
        let open = places.iter().enumerate().filter(|(_, places)| **places > 0);
        Self {
            tier,
            sorted: open.map(|(node, places)| (*places, node)).collect(),
            places,
        }
    }

    /// Takes note of what has become of a node.
    fn refresh(&mut self, field: &Field, node: usize) {
        let now = of_tier(field, node, self.tier);
        let before = std::mem::replace(&mut self.places[node], now);
        if now != before {
            self.sorted.remove(&(before, node));
            if now > 0 {
                self.sorted.insert((now, node));
            }
        }
    }

    /// The smallest node that takes all of them, or the largest there is.
    fn pick(&self, wanted: usize) -> Option<usize> {
        let first = |from: usize| self.sorted.range((from, 0)..).next().map(|(_, node)| *node);
        first(wanted).or_else(|| first(self.sorted.last()?.0))
    }
}

/// How many places a node has among its slots of a tier.
fn of_tier(field: &Field, node: usize, tier: usize) -> usize {
    let slots = &field.slots[field.nodes[node].slots.clone()];
    let sum: usize = slots
        .iter()
        .filter(|slot| slot.tier == tier)
        .map(|slot| slot.left)
        .sum();
    // The node's own limit counts all tiers together.
    sum.min(field.nodes[node].places())
}

/// Places each batch on few nodes.
pub(super) fn loosely(field: &mut Field, batches: &mut [Batch]) {
    let tiers: BTreeSet<usize> = field.slots.iter().map(|slot| slot.tier).collect();
    let mut shelves: Vec<Shelf> = tiers.into_iter().map(|tier| Shelf::new(field, tier)).collect();
    for batch in batches {
        if batch.whole && batch.missing.len() > field.total {
            continue;
        }
        let mut used: BTreeSet<usize> = batch.nodes.iter().copied().collect();
        for i in 0..shelves.len() {
            let mut own: Vec<usize> = used.iter().copied().collect();
            // The last is the first: most places, then the lowest number.
            own.sort_by_key(|node| (shelves[i].places[*node], Reverse(*node)));
            while !batch.is_placed() {
                let wanted = batch.missing.len() - batch.slots.len();
                let node = own.pop().or_else(|| shelves[i].pick(wanted));
                let Some(node) = node else {
                    break;
                };
                used.insert(node);
                for _ in 0..wanted.min(shelves[i].places[node]) {
                    let tier = shelves[i].tier;
                    let best = field.nodes[node]
                        .slots
                        .clone()
                        .filter(|slot| field.slots[*slot].tier == tier && field.is_open(*slot))
                        .min_by_key(|slot| field.key(*slot, false));
                    if let Some(slot) = best {
                        field.take(slot);
                        batch.slots.push(slot);
                    }
                }
                for shelf in &mut shelves {
                    shelf.refresh(field, node);
                }
            }
        }
    }
}

/// Places each batch on one node: that of its members which are placed, or one with places for all.
pub(super) fn strictly(field: &mut Field, batches: &mut [Batch]) {
    for batch in batches.iter_mut() {
        if let Some(node) = batch.nodes.first().copied()
            && !(batch.whole && field.nodes[node].places() < batch.missing.len())
        {
            put(field, batch, node, usize::MAX);
        }
    }
    let mut queue: Option<BinaryHeap<_>> = None;
    for batch in batches.iter_mut().filter(|batch| batch.nodes.is_empty()) {
        let size = batch.missing.len();
        // All that have no member placed are of one size, and a node only loses places: one that is too small now stays so.
        let queue = queue.get_or_insert_with(|| {
            let nodes = 0..field.nodes.len();
            nodes
                .filter_map(|node| rank(field, node, size).map(Reverse))
                .collect()
        });
        while let Some(Reverse(entry)) = queue.pop() {
            let node = entry.3;
            let now = rank(field, node, size);
            if now == Some(entry) {
                put(field, batch, node, entry.0);
                queue.extend(rank(field, node, size).map(Reverse));
                break;
            }
            queue.extend(now.map(Reverse));
        }
    }
}

/// How good a node is for so many: the tier that it takes, then the fewest of the group, then the tightest; none if they do
/// not fit.
fn rank(field: &Field, node: usize, size: usize) -> Option<(usize, usize, usize, usize)> {
    let it = &field.nodes[node];
    if it.places() < size {
        return None;
    }
    let mut sum = 0;
    let enough = field.slots[it.slots.clone()].iter().find(|slot| {
        sum += slot.left;
        sum >= size
    });
    Some((enough?.tier, it.of_group, it.places(), node))
}

/// Places as many of the batch as the node takes.
fn put(field: &mut Field, batch: &mut Batch, node: usize, tiers: usize) {
    while !batch.is_placed() {
        let Some(slot) = field.best_on(node, tiers) else {
            break;
        };
        field.take(slot);
        batch.slots.push(slot);
    }
}
