//! Finds out why replicas of a group have no place, on the room that is left in the end.
//!
//! Refuses to list everything: one reason, that which must change first. What no worker could ever hold is named before
//! what none has free, since adding a worker like these would not help.

use std::collections::BTreeMap;

use super::{
    Group, Reason, Resource, Strategy, Worker,
    field::Field,
    fill::{Batch, batches},
    gpus::Gpus,
    keep::Standing,
    room::{Room, Shape},
};

/// How many sets of labels a reason names.
const MAX_FOUND: usize = 5;

pub(super) fn explain(shape: &Shape<'_>, standing: &Standing, g: usize) -> Reason {
    let group = &shape.problem.groups[g];
    let kind = group.kind;
    let of_kind = || shape.problem.workers.iter().filter(|worker| worker.kind == kind);
    if of_kind().next().is_none() {
        return Reason::NoWorker { kind };
    }
    let allowed: Vec<usize> = (0..shape.problem.workers.len())
        .filter(|worker| shape.allows(group, *worker))
        .collect();
    if allowed.is_empty() {
        return Reason::Labels {
            kind,
            selector: group.selector.clone(),
            found: found(group, of_kind()),
        };
    }
    let need = &shape.needs[g];
    if need.demand.broken {
        return Reason::PartGpus {
            gpus: group.need.gpus,
        };
    }
    let places = &standing.placement[g];
    let batches = batches(shape, group, places);
    // Gangs that lack the fewest come first and are the nearest to a place.
    let Some(first) = batches.first() else {
        return Reason::Rest {
            gang: group.gang,
            rest: group.replicas % group.scope(),
        };
    };
    let field = Field::new(shape, &standing.rooms, g, places);
    let mut nodes: Vec<usize> = allowed.iter().map(|worker| shape.node_of[*worker]).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let joins = group.strategy == Strategy::StrictPack && !first.nodes.is_empty();
    if field.slots.is_empty() && !joins {
        return shortage(shape, standing, g, &allowed);
    }
    match group.strategy {
        Strategy::StrictPack => one_node(group, &field, first, &nodes),
        Strategy::StrictSpread => apart(group, &field, first, &nodes),
        Strategy::Default | Strategy::Pack | Strategy::Spread if field.total == 0 => {
            let with_room = |node: &&usize| !field.nodes[**node].slots.is_empty();
            Reason::PerNode {
                cap: group.cap(),
                nodes: nodes.iter().filter(with_room).count(),
            }
        }
        Strategy::Default | Strategy::Pack | Strategy::Spread => Reason::Gang {
            gang: group.gang,
            missing: first.missing.len(),
            fit: field.total,
        },
    }
}

fn one_node(group: &Group, field: &Field, batch: &Batch, nodes: &[usize]) -> Reason {
    let joins = !batch.nodes.is_empty();
    let need = if batch.whole || !joins {
        batch.missing.len()
    } else {
        1
    };
    let own: Vec<usize> = batch.nodes.iter().take(1).copied().collect();
    let nodes = if joins { &own } else { nodes };
    let fit = nodes
        .iter()
        .map(|node| field.nodes[*node].places())
        .max()
        .unwrap_or(0);
    let together = group.scope().min(batch.nodes.len() + need);
    Reason::OneNode {
        need,
        fit,
        nodes: nodes.len(),
        joins,
        cap: group.per_node.filter(|cap| *cap < together),
    }
}

fn apart(group: &Group, field: &Field, batch: &Batch, nodes: &[usize]) -> Reason {
    let open = |node: &&usize| field.nodes[**node].places() > 0;
    let other = |node: &&usize| !batch.nodes.contains(*node);
    Reason::Nodes {
        need: group.scope(),
        have: batch.nodes.len() + nodes.iter().filter(open).filter(other).count(),
    }
}

/// What labels of the selector workers have, the most frequent first.
fn found<'a>(group: &Group, workers: impl Iterator<Item = &'a Worker>) -> Vec<String> {
    let mut sets: BTreeMap<String, usize> = BTreeMap::new();
    for worker in workers {
        let words: Vec<String> = group
            .selector
            .0
            .keys()
            .map(|name| match worker.labels.get(name) {
                Some(value) => format!("{name}={value}"),
                None => format!("no {name}"),
            })
            .collect();
        *sets.entry(words.join(" and ")).or_default() += 1;
    }
    let mut sets: Vec<(String, usize)> = sets.into_iter().collect();
    // Stable: sets that are as frequent stay in the order of their names.
    sets.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let more = sets.len().saturating_sub(MAX_FOUND);
    let words = |(set, count): (String, usize)| match count {
        1 => format!("{set} (1 worker)"),
        count => format!("{set} ({count} workers)"),
    };
    let mut found: Vec<String> = sets.into_iter().take(MAX_FOUND).map(words).collect();
    if more > 0 {
        found.push(format!("{more} other sets of labels"));
    }
    found
}

/// No worker that the group may take holds one more.
fn shortage(shape: &Shape<'_>, standing: &Standing, g: usize, allowed: &[usize]) -> Reason {
    let group = &shape.problem.groups[g];
    let workers: Vec<(&Worker, &Room)> = allowed
        .iter()
        .map(|worker| (&shape.problem.workers[*worker], &standing.rooms[*worker]))
        .collect();
    let shortages: Vec<Reason> = group
        .need
        .resources()
        .filter_map(|resource| match resource {
            Resource::Vram => short_of_vram(shape, g, &workers),
            Resource::Cpu | Resource::Gpu | Resource::Memory | Resource::Custom(_) => {
                short_of(shape, group, resource, &workers)
            }
        })
        .collect();
    let never = shortages
        .iter()
        .find(|r| matches!(r, Reason::Short { need, of, .. } if need > of));
    if let Some(reason) = never.or_else(|| shortages.first()) {
        return reason.clone();
    }
    if workers.iter().all(|(_, room)| room.is_full()) {
        return Reason::NoRoom {
            kind: group.kind,
            workers: workers.len(),
        };
    }
    in_pieces(shape, g, &workers).unwrap_or_else(|| Reason::Apart {
        kind: group.kind,
        need: group.need.clone(),
    })
}

fn short_of(
    shape: &Shape<'_>,
    group: &Group,
    resource: Resource,
    workers: &[(&Worker, &Room)],
) -> Option<Reason> {
    let need = group.need.of(&resource);
    let amounts =
        |(worker, room): &(&Worker, &Room)| (room.of(shape, &resource), worker.capacity.of(&resource));
    let (free, of) = workers.iter().map(amounts).max()?;
    let most = workers.iter().map(|worker| amounts(worker).1).max()?;
    (need > free).then_some(Reason::Short {
        kind: group.kind,
        resource,
        need,
        free,
        of: if need > most { most } else { of },
    })
}

/// GPU memory is lacking where no GPU has enough of it.
fn short_of_vram(shape: &Shape<'_>, g: usize, workers: &[(&Worker, &Room)]) -> Option<Reason> {
    let need = shape.needs[g].demand.each.vram;
    let amounts = |(worker, room): &(&Worker, &Room)| {
        let all = Gpus::of(&worker.capacity);
        let of = all.free().iter().map(|gpu| gpu.vram).max().unwrap_or(0);
        (room.widest(false).vram, of)
    };
    let (free, of) = workers.iter().map(amounts).max()?;
    let most = workers.iter().map(|worker| amounts(worker).1).max()?;
    (need > free).then_some(Reason::Short {
        kind: shape.problem.groups[g].kind,
        resource: Resource::Vram,
        need,
        free,
        of: if need > most { most } else { of },
    })
}

/// GPU time is there as a sum, and not as the replica needs it.
fn in_pieces(shape: &Shape<'_>, g: usize, workers: &[(&Worker, &Room)]) -> Option<Reason> {
    let demand = &shape.needs[g].demand;
    let need = shape.problem.groups[g].need.gpus;
    if need == 0 {
        return None;
    }
    let wide = |room: &Room| {
        room.gpus
            .free()
            .iter()
            .filter(|gpu| gpu.share >= demand.each.share)
            .count()
    };
    if workers.iter().any(|(_, room)| wide(room) >= demand.count) {
        return None;
    }
    let free = |room: &Room| room.of(shape, &Resource::Gpu);
    // A whole GPU is what counts where more than one is needed; else the largest piece.
    let best = workers.iter().map(|(_, room)| *room);
    let best = best.max_by_key(|room| (wide(room), room.widest(true).share, free(room)))?;
    Some(Reason::Pieces {
        kind: shape.problem.groups[g].kind,
        need,
        free: free(best),
        largest: best.widest(true).share,
        whole: wide(best) as u64,
    })
}
