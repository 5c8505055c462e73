//! What stays: replicas that have a place keep it as long as it holds them and their group allows it.
//!
//! Refuses to place anything anew. Whoever comes first in the problem keeps its place first.
//! Invariant: what is kept is within the capacity of every worker and within the hard limits of its group.

use super::{
    Devices, Group, Placement, Strategy,
    gpus::{Demand, Tenant, arrange},
    room::{Room, Shape},
};

/// Where things stand.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) rooms: Vec<Room>,
    pub(super) placement: Placement,
    pub(super) devices: Devices,
}

/// A worker while its replicas are gathered.
#[derive(Default)]
struct House {
    tenants: Vec<Tenant>,
    /// Group and replica of each.
    who: Vec<(usize, usize)>,
}

/// Keeps what can stay of `previous`.
pub(super) fn keep(shape: &Shape<'_>, previous: &Placement, devices: &Devices) -> Standing {
    let workers = &shape.problem.workers;
    let mut rooms: Vec<Room> = workers.iter().map(|worker| shape.room(worker)).collect();
    let mut houses: Vec<House> = workers.iter().map(|_| House::default()).collect();
    let groups = &shape.problem.groups;
    let mut placement: Placement = groups.iter().map(|group| vec![None; group.replicas]).collect();
    for (g, (group, before)) in groups.iter().zip(previous).enumerate() {
        let before = &before[..before.len().min(group.replicas)];
        let mut limits = Limits::new(shape, group);
        for (start, members) in (0..).step_by(group.scope()).zip(before.chunks(group.scope())) {
            limits.begin(shape, group, members);
            for (i, worker) in (start..).zip(members) {
                let Some(worker) = worker.filter(|worker| shape.allows(group, *worker)) else {
                    continue;
                };
                let node = shape.node_of[worker];
                let known = devices.get(g).and_then(|group| group.get(i));
                let known = known.map_or(&[][..], Vec::as_slice);
                if limits.allow(node)
                    && move_in(shape, g, &mut rooms[worker], &mut houses[worker], worker, known)
                {
                    houses[worker].who.push((g, i));
                    limits.count(node);
                    placement[g][i] = Some(worker);
                }
            }
        }
    }
    let mut seats: Devices = groups
        .iter()
        .map(|group| vec![Vec::new(); group.replicas])
        .collect();
    for (house, (room, worker)) in houses.into_iter().zip(rooms.iter_mut().zip(workers)) {
        let mut unknown = worker.reserved.clone();
        for (need, gpus) in &worker.reserved_gpus {
            if room.gpus.put_on(&Demand::of(need), gpus) {
                unknown.take(need);
            }
        }
        room.gpus.pour(&unknown);
        for ((g, i), tenant) in house.who.into_iter().zip(house.tenants) {
            seats[g][i] = tenant.gpus;
        }
    }
    Standing {
        rooms,
        placement,
        devices: seats,
    }
}

/// Lets a replica stay if there is room, moving others to other GPUs of the worker only where nobody said which they have.
fn move_in(
    shape: &Shape<'_>,
    g: usize,
    room: &mut Room,
    house: &mut House,
    worker: usize,
    known: &[usize],
) -> bool {
    let need = &shape.needs[g];
    if !room.fits(need) {
        return false;
    }
    let demand = need.demand;
    let mut tenant = Tenant {
        demand,
        pinned: demand.count > 0 && known.len() == demand.count,
        gpus: known.to_vec(),
    };
    let at_once = if tenant.pinned {
        room.gpus.put_on(&demand, known)
    } else if let Some(gpus) = room.gpus.put(&demand) {
        tenant.gpus = gpus;
        true
    } else {
        false
    };
    if at_once {
        house.tenants.push(tenant);
        room.take(need);
        return true;
    }
    let whole = super::gpus::Gpus::of(&shape.problem.workers[worker].capacity);
    for pinned in [true, false] {
        if pinned && !tenant.pinned {
            continue;
        }
        tenant.pinned = pinned;
        let mut tenants = house.tenants.clone();
        tenants.push(tenant.clone());
        if !demand.broken
            && let Some(free) = arrange(&whole, &mut tenants)
        {
            (room.gpus, house.tenants) = (free, tenants);
            room.take(need);
            return true;
        }
    }
    false
}

/// What a group's hard limits leave open.
struct Limits {
    /// How many a node may hold.
    cap: usize,
    of_group: Vec<usize>,
    /// The one node of a strictly packed gang.
    home: Option<usize>,
    /// Nodes that the gang is on, where its members must be apart.
    apart: Option<Vec<usize>>,
}

impl Limits {
    fn new(shape: &Shape<'_>, group: &Group) -> Self {
        Self {
            cap: group.cap(),
            of_group: vec![0; shape.nodes],
            home: None,
            apart: (group.strategy == Strategy::StrictSpread && group.gang > 1).then(Vec::new),
        }
    }

    /// Goes on to the next members that belong together.
    fn begin(&mut self, shape: &Shape<'_>, group: &Group, members: &[Option<usize>]) {
        if let Some(nodes) = &mut self.apart {
            nodes.clear();
        }
        if group.strategy != Strategy::StrictPack {
            return;
        }
        let at = members
            .iter()
            .flatten()
            .filter(|worker| shape.allows(group, **worker));
        let nodes: Vec<usize> = at.map(|worker| shape.node_of[*worker]).collect();
        // The node with most of them stays; among equals that of the first.
        let mut counts: Vec<(usize, usize)> = Vec::new();
        for node in nodes {
            match counts.iter_mut().find(|(other, _)| *other == node) {
                Some((_, count)) => *count += 1,
                None => counts.push((node, 1)),
            }
        }
        self.home = counts
            .iter()
            .rev()
            .max_by_key(|(_, count)| *count)
            .map(|(node, _)| *node);
    }

    fn allow(&self, node: usize) -> bool {
        self.of_group[node] < self.cap
            && self.home.is_none_or(|home| home == node)
            && self.apart.as_ref().is_none_or(|nodes| !nodes.contains(&node))
    }

    fn count(&mut self, node: usize) {
        self.of_group[node] += 1;
        if let Some(nodes) = &mut self.apart {
            nodes.push(node);
        }
    }
}
