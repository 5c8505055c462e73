//! Places what is pending: the state as a problem of [`place::solve_at`], and its answer as assignments.

use std::collections::{BTreeMap, HashMap};

use mobula_proto::control::v1::ReplicaState;
use mobula_serving::place::{self, Group, Problem, Reason};
use tracing::{info, warn};

use super::{
    Action, State, Supply, Time,
    model::{Deployment, Key, Phase, Replica, Stray},
};

/// The label by which workers of one machine know each other; one that has none is a machine of its own.
pub(super) const NODE_LABEL: &str = "mobula.io/node";

/// A problem and what its numbers stand for.
struct Board {
    problem: Problem,
    previous: place::Placement,
    devices: place::Devices,
    /// Replica ids by group.
    ids: Vec<Vec<String>>,
    /// The deployment of each group, and whether the group is of the version that is wanted.
    of: Vec<(Key, bool)>,
    /// Worker ids by ordinal.
    workers: Vec<String>,
}

impl State {
    /// Places what is pending.
    pub(super) fn place(&mut self, now: Time, actions: &mut Vec<Action>) {
        let board = self.board();
        let solution = place::solve_at(&board.problem, &board.previous, &board.devices);
        let groups = board
            .ids
            .iter()
            .zip(board.previous.iter().zip(&solution.placement));
        for ((ids, (before, after)), devices) in groups.zip(&solution.devices) {
            let places = ids.iter().zip(before.iter().zip(after)).zip(devices);
            for ((id, (before, after)), devices) in places {
                match (before, after) {
                    (None, Some(worker)) => {
                        self.book_devices(id, devices);
                        self.put(id, &board.workers[*worker], now, actions);
                    }
                    (Some(before), after) if Some(*before) != *after => {
                        self.displace(id, &board.workers[*before], now, actions);
                    }
                    (Some(_), _) => self.guess_devices(id, devices),
                    (None, None) => {}
                }
            }
        }
        let mut reasons: BTreeMap<Key, Reason> = BTreeMap::new();
        for ((key, current), reason) in board.of.iter().zip(solution.reasons) {
            if let Some(reason) = reason.filter(|_| *current) {
                reasons.insert(*key, reason);
            }
        }
        self.explain(reasons);
    }

    /// Keeps why replicas have no place.
    fn explain(&mut self, mut reasons: BTreeMap<Key, Reason>) {
        let starts_workers = matches!(self.settings.supply, Supply::Process { .. });
        let mut news = Vec::new();
        for (key, deployment) in &mut self.deployments {
            let reason = reasons.remove(key);
            if deployment.reason == reason {
                continue;
            }
            // Our provider is told next; that is no news.
            let expected = matches!(reason, Some(Reason::NoWorker { .. })) && starts_workers;
            if let Some(reason) = &reason
                && !expected
            {
                info!(deployment = %deployment.name(), app = %deployment.app, pending = deployment.pending.len(), %reason, "replicas have no place");
            }
            deployment.reason = reason;
            news.push(*key);
        }
        news.into_iter().for_each(|key| self.touch(key));
    }

    /// The state as a problem. A replica on a worker whose stream is broken is no part of it: it stays until the lease is
    /// over.
    fn board(&self) -> Board {
        let takes = self.workers.iter().filter(|(_, w)| w.takes_replicas());
        let workers: Vec<String> = takes.map(|(id, _)| id.clone()).collect();
        let ordinals: HashMap<&str, usize> = workers
            .iter()
            .enumerate()
            .map(|(i, id)| (id.as_str(), i))
            .collect();
        let mut nodes = HashMap::new();
        let rooms = workers.iter().enumerate().map(|(ordinal, id)| {
            let mut room = self.room(id);
            if let Some(node) = room.labels.get(NODE_LABEL) {
                room.node = *nodes.entry(node.clone()).or_insert(ordinal);
            } else {
                room.node = ordinal;
            }
            room
        });
        let problem = Problem {
            workers: rooms.collect(),
            groups: Vec::new(),
        };
        let mut board = Board {
            problem,
            previous: Vec::new(),
            devices: Vec::new(),
            ids: Vec::new(),
            of: Vec::new(),
            workers: Vec::new(),
        };
        for (key, deployment) in &self.deployments {
            self.lay_out(*key, deployment, &ordinals, &mut board);
        }
        board.workers = workers;
        board
    }

    /// Adds a deployment's replicas, those of each version as a group: they may need different things.
    fn lay_out(&self, key: Key, deployment: &Deployment, ordinals: &HashMap<&str, usize>, board: &mut Board) {
        let mut versions: BTreeMap<&str, Vec<(&String, &Replica)>> = BTreeMap::new();
        for id in &deployment.replicas {
            if let Some(replica) = self.replicas.get(id) {
                versions
                    .entry(&replica.spec.version)
                    .or_default()
                    .push((id, replica));
            }
        }
        for (version, mut members) in versions {
            let spec = members[0].1.spec.clone();
            if spec.gang() > 1 {
                members = self.whole_gangs(members, ordinals, board);
            }
            let (mut ids, mut places, mut devices) = (Vec::new(), Vec::new(), Vec::new());
            for (id, replica) in members {
                let at = place_of(replica, ordinals);
                if at.is_some() || replica.phase == Phase::Pending {
                    ids.push(id.clone());
                    places.push(at);
                    devices.push(replica.devices.clone());
                }
            }
            let config = &spec.config;
            let shunned = deployment.shunned.iter();
            board.problem.groups.push(Group {
                kind: config.kind,
                need: config.need.clone(),
                replicas: ids.len(),
                avoid: shunned
                    .filter_map(|id| ordinals.get(id.as_str()).copied())
                    .collect(),
                strategy: config.placing.strategy,
                gang: config.placing.gang,
                per_node: config.placing.per_node,
                selector: config.placing.selector.clone(),
                prefer: config.placing.prefer.clone(),
            });
            board.of.push((key, version == deployment.spec.version));
            board.ids.push(ids);
            board.previous.push(places);
            board.devices.push(devices);
        }
    }

    /// The members of gangs that are all here or pending, gang by gang. The others wait: what they have is taken off their
    /// workers, and they are placed again when all of them can be.
    fn whole_gangs<'a>(
        &self,
        members: Vec<(&'a String, &'a Replica)>,
        ordinals: &HashMap<&str, usize>,
        board: &mut Board,
    ) -> Vec<(&'a String, &'a Replica)> {
        let mut gangs: BTreeMap<&str, Vec<(&String, &Replica)>> = BTreeMap::new();
        for member in members {
            gangs.entry(&member.1.gang).or_default().push(member);
        }
        let mut whole = Vec::new();
        for members in gangs.into_values() {
            let size = members[0].1.spec.gang();
            let here =
                |replica: &Replica| replica.phase == Phase::Pending || place_of(replica, ordinals).is_some();
            if members.len() == size && members.iter().all(|(_, replica)| here(replica)) {
                whole.extend(members);
                continue;
            }
            for (_, replica) in members {
                if let Some(worker) = place_of(replica, ordinals) {
                    let room = &mut board.problem.workers[worker];
                    reserve(room, &replica.spec.config.need, &replica.devices);
                    room.room = room.room.map(|room| room.saturating_sub(1));
                }
            }
        }
        whole
    }

    /// Books GPUs for a replica whose worker does not say which it has; those that it was told it keeps while it lives.
    fn guess_devices(&mut self, id: &str, devices: &[usize]) {
        if self.replicas.get(id).is_some_and(|r| r.devices.is_empty()) {
            self.book_devices(id, devices);
        }
    }

    fn book_devices(&mut self, id: &str, devices: &[usize]) {
        if let Some(replica) = self.replicas.get_mut(id) {
            devices.clone_into(&mut replica.devices);
        }
    }

    fn room(&self, id: &str) -> place::Worker {
        let worker = &self.workers[id];
        let strays = worker.strays.values().filter(|stray| stray.takes_room());
        let limit = self.replica_limit(worker);
        let mut room = place::Worker {
            kind: worker.kind,
            node: 0,
            capacity: worker.capacity.clone(),
            reserved: place::Amounts::default(),
            reserved_gpus: Vec::new(),
            room: limit.map(|limit| limit.saturating_sub(strays.clone().count())),
            labels: worker.labels.clone(),
        };
        for stray in strays {
            reserve(&mut room, &stray.need, &stray.devices);
        }
        room
    }

    fn put(&mut self, id: &str, worker: &str, now: Time, actions: &mut Vec<Action>) {
        if let Some(replica) = self.replicas.get_mut(id) {
            replica.worker = Some(worker.to_owned());
            (replica.seen, replica.assigned) = (false, now);
        }
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.replicas.insert(id.to_owned());
        }
        self.enter(id, Phase::Starting);
        self.totals.placements += 1;
        info!(replica = %id, %worker, "replica placed");
        self.assign(id, now, actions);
    }

    /// Its worker came back smaller than it was and cannot hold it any more.
    fn displace(&mut self, id: &str, worker: &str, now: Time, actions: &mut Vec<Action>) {
        warn!(replica = %id, %worker, "worker has too little left for its replica, which is placed again");
        self.stray(id, ReplicaState::Stopping);
        self.drain(worker, id, actions);
        self.requeue(id, now);
    }

    /// What a worker's replicas and strays take of it.
    pub(super) fn used(&self, worker: &super::model::Worker) -> place::Amounts {
        let mut used = place::Amounts::default();
        for id in &worker.replicas {
            if let Some(replica) = self.replicas.get(id) {
                used.add(&replica.spec.config.need);
            }
        }
        worker
            .strays
            .values()
            .filter(|stray| Stray::takes_room(stray))
            .for_each(|stray| used.add(&stray.need));
        used
    }
}

/// The ordinal of a replica's worker.
fn place_of(replica: &Replica, ordinals: &HashMap<&str, usize>) -> Option<usize> {
    ordinals.get(replica.worker.as_deref()?).copied()
}

/// Takes off a worker what is no part of the problem.
fn reserve(room: &mut place::Worker, need: &place::Amounts, devices: &[usize]) {
    room.reserved.add(need);
    if !devices.is_empty() {
        room.reserved_gpus.push((need.clone(), devices.to_vec()));
    }
}
