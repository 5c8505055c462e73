//! Which nodes strictly spread gangs take, exactly: a matching of gangs to nodes, each gang at most once on a node.
//!
//! Refuses to weigh which nodes are wanted. Invariant: a gang is left out only if it cannot be placed together with those
//! before it, whatever nodes those take; so if all can be placed, all are.
//! Cost: O((gangs + nodes) · gang size) for each replica.

use super::{field::Field, fill::Batch};

struct Matching<'a> {
    batches: &'a [Batch],
    /// Nodes of each gang, as matched so far.
    taken: Vec<Vec<usize>>,
    /// Gangs on each node.
    on: Vec<Vec<usize>>,
    places: Vec<usize>,
}

/// Matches gangs to nodes, and takes the places of those that are complete.
pub(super) fn match_nodes(field: &mut Field, batches: &mut [Batch]) {
    let mut matching = Matching {
        batches,
        taken: vec![Vec::new(); batches.len()],
        on: vec![Vec::new(); field.nodes.len()],
        places: field.nodes.iter().map(super::field::Node::places).collect(),
    };
    for (gang, batch) in batches.iter().enumerate() {
        let complete = (0..batch.missing.len()).all(|_| matching.add(gang));
        if !complete {
            matching.give_back(gang);
            // Gangs that have nothing yet are alike and come last: none after this one can be placed either.
            if batch.nodes.is_empty() {
                break;
            }
        }
    }
    let taken = matching.taken;
    for (batch, mut nodes) in batches.iter_mut().zip(taken) {
        nodes.sort_unstable();
        for node in nodes {
            if let Some(slot) = field.best_on(node, usize::MAX) {
                field.take(slot);
                batch.slots.push(slot);
            }
        }
    }
}

impl Matching<'_> {
    fn may(&self, gang: usize, node: usize) -> bool {
        !self.batches[gang].nodes.contains(&node) && !self.taken[gang].contains(&node)
    }

    /// Finds one more node for the gang, moving others to other nodes where that frees one.
    fn add(&mut self, gang: usize) -> bool {
        // The node with most places first: so gangs that are alike need no moving.
        let direct = (0..self.places.len())
            .filter(|node| self.places[*node] > 0 && self.may(gang, *node))
            .max_by_key(|node| (self.places[*node], usize::MAX - node));
        if let Some(node) = direct {
            self.put(gang, node);
            return true;
        }
        // Breadth first over gangs; each node is seen once, from the gang that reached it.
        let mut unseen: Vec<usize> = (0..self.places.len()).collect();
        let mut reached: Vec<Option<usize>> = vec![None; self.places.len()];
        let mut came: Vec<Option<usize>> = vec![None; self.batches.len()];
        let mut queue = std::collections::VecDeque::from([gang]);
        while let Some(from) = queue.pop_front() {
            let (seen, rest): (Vec<usize>, Vec<usize>) =
                unseen.into_iter().partition(|node| self.may(from, *node));
            unseen = rest;
            for node in seen {
                reached[node] = Some(from);
                if self.places[node] > 0 {
                    self.shift(gang, node, &reached, &came);
                    return true;
                }
                for other in &self.on[node] {
                    if came[*other].is_none() && *other != gang {
                        came[*other] = Some(node);
                        queue.push_back(*other);
                    }
                }
            }
        }
        false
    }

    /// Walks back from a node with a place: each gang on the way takes the node it reached and leaves the one it came by.
    fn shift(&mut self, gang: usize, end: usize, reached: &[Option<usize>], came: &[Option<usize>]) {
        let mut node = end;
        while let Some(by) = reached[node] {
            self.put(by, node);
            match came[by].filter(|_| by != gang) {
                Some(left) => {
                    self.leave(by, left);
                    node = left;
                }
                None => return,
            }
        }
    }

    fn put(&mut self, gang: usize, node: usize) {
        self.taken[gang].push(node);
        self.on[node].push(gang);
        self.places[node] -= 1;
    }

    fn leave(&mut self, gang: usize, node: usize) {
        self.taken[gang].retain(|taken| *taken != node);
        self.on[node].retain(|on| *on != gang);
        self.places[node] += 1;
    }

    fn give_back(&mut self, gang: usize) {
        for node in std::mem::take(&mut self.taken[gang]) {
            self.on[node].retain(|on| *on != gang);
            self.places[node] += 1;
        }
    }
}
