//! What the state is made of, and the one place where a replica changes its phase.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use mobula_proto::{common::v1::Load, control::v1 as pb};
use mobula_serving::{
    backoff::Backoff,
    place::{Amounts, Kind, Reason, fraction, units},
};

use super::{State, Time};
use crate::schema;

/// An application of the intent.
#[derive(Debug)]
pub(super) struct App {
    pub(super) name: String,
    pub(super) route_prefix: Option<String>,
    /// Indexes into the state's deployments.
    pub(super) deployments: Vec<usize>,
    /// All its replicas ran at once at some time.
    pub(super) ran: bool,
}

/// A deployment of the intent and the replicas that stand for it. Its sets are kept by [`State::enter`].
#[derive(Debug)]
pub(super) struct Deployment {
    pub(super) app: usize,
    pub(super) spec: schema::Deployment,
    pub(super) version: String,
    pub(super) replicas: BTreeSet<String>,
    pub(super) pending: BTreeSet<String>,
    pub(super) running: BTreeSet<String>,
    pub(super) failed: BTreeSet<String>,
    /// Workers where one failed and none has run since: others are tried before them.
    pub(super) shunned: BTreeSet<String>,
    /// Why the pending ones have no place.
    pub(super) reason: Option<Reason>,
}

impl Deployment {
    pub(super) fn is_complete(&self) -> bool {
        self.running.len() >= self.spec.replicas
    }
}

/// Where a wanted replica is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Pending,
    Starting,
    Running { since: Time },
    Failed { retry: Time },
}

/// A replica that the intent wants.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) deployment: usize,
    pub(super) phase: Phase,
    /// Set while starting and running.
    pub(super) worker: Option<String>,
    /// The worker has reported it since it was assigned.
    pub(super) seen: bool,
    pub(super) assigned: Time,
    /// Goes on to the replica that takes its place.
    pub(super) backoff: Backoff,
    pub(super) message: String,
    pub(super) load: Option<Load>,
    pub(super) model: Option<pb::ModelInfo>,
}

/// A replica on a worker that the intent does not want there: it stops, or has failed and is cleared away.
#[derive(Debug)]
pub(super) struct Stray {
    pub(super) application: String,
    pub(super) deployment: String,
    pub(super) need: Amounts,
    pub(super) state: pb::ReplicaState,
    pub(super) message: String,
    pub(super) load: Option<Load>,
}

impl Stray {
    /// A failed replica has given back what it took.
    pub(super) fn takes_room(&self) -> bool {
        self.state != pb::ReplicaState::Failed
    }
}

/// A worker that holds a lease.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) kind: Kind,
    pub(super) address: String,
    pub(super) pid: u32,
    pub(super) capacity: Amounts,
    /// None while its stream is broken: it may come back until its lease is over.
    pub(super) session: Option<u64>,
    /// Our provider started it: it holds one replica and leaves when we say so.
    pub(super) owned: bool,
    /// It leaves, and is given nothing more.
    pub(super) leaving: bool,
    pub(super) since: Time,
    pub(super) idle_since: Option<Time>,
    pub(super) resident_bytes: u64,
    /// Wanted replicas that are here.
    pub(super) replicas: BTreeSet<String>,
    pub(super) strays: BTreeMap<String, Stray>,
}

impl Worker {
    pub(super) fn takes_replicas(&self) -> bool {
        self.session.is_some() && !self.leaving
    }

    pub(super) fn is_idle(&self) -> bool {
        self.takes_replicas() && self.replicas.is_empty() && !self.strays.values().any(Stray::takes_room)
    }
}

/// A worker process that runs and is not attached.
#[derive(Debug)]
pub(super) struct Launch {
    pub(super) kind: Kind,
    pub(super) since: Time,
    /// It was attached once (in an earlier life of the controller, or before its lease ended), so nobody counts on it.
    pub(super) returning: bool,
    /// It had its time and was told to end.
    pub(super) overdue: bool,
}

/// How starting workers of one kind goes.
#[derive(Debug, Default)]
pub(super) struct Starts {
    pub(super) backoff: Backoff,
    /// None is started before.
    pub(super) not_before: Time,
    /// What became of the last that ended unasked.
    pub(super) last_end: String,
}

pub(super) type Replicas = HashMap<String, Replica>;

impl State {
    /// Makes a new pending replica of a deployment; the failures of the one before it still count.
    pub(super) fn add_replica(&mut self, deployment: usize, backoff: Backoff) {
        let place = &self.deployments[deployment];
        let prefix = format!("{}#{}", self.apps[place.app].name, place.spec.name);
        let mut id = format!("{prefix}#{}", self.names.draw());
        while self.replicas.contains_key(&id) {
            id = format!("{prefix}#{}", self.names.draw());
        }
        self.insert_replica(id, deployment, backoff);
    }

    pub(super) fn insert_replica(&mut self, id: String, deployment: usize, backoff: Backoff) {
        let replica = Replica {
            deployment,
            phase: Phase::Pending,
            worker: None,
            seen: false,
            assigned: Time::ZERO,
            backoff,
            message: String::new(),
            load: None,
            model: None,
        };
        self.deployments[deployment].replicas.insert(id.clone());
        self.replicas.insert(id.clone(), replica);
        self.enter(&id, Phase::Pending);
    }

    /// Moves a replica to a phase and keeps every index that depends on it.
    pub(super) fn enter(&mut self, id: &str, phase: Phase) {
        let Some(replica) = self.replicas.get_mut(id) else {
            return;
        };
        let deployment = &mut self.deployments[replica.deployment];
        if let Phase::Failed { retry } = replica.phase {
            self.retries.remove(&(retry, id.to_owned()));
        }
        for set in [
            &mut deployment.pending,
            &mut deployment.running,
            &mut deployment.failed,
        ] {
            set.remove(id);
        }
        match phase {
            Phase::Pending => drop(deployment.pending.insert(id.to_owned())),
            Phase::Starting => {}
            Phase::Running { .. } => drop(deployment.running.insert(id.to_owned())),
            Phase::Failed { retry } => {
                deployment.failed.insert(id.to_owned());
                self.retries.insert((retry, id.to_owned()));
            }
        }
        let routed = |phase: Phase| matches!(phase, Phase::Running { .. });
        self.routes.changed |= routed(phase) != routed(replica.phase);
        replica.phase = phase;
        self.dirty = true;
    }

    /// Takes a replica out of the state and off its worker's books.
    pub(super) fn remove_replica(&mut self, id: &str) -> Option<Replica> {
        self.enter(id, Phase::Pending);
        let replica = self.replicas.remove(id)?;
        let deployment = &mut self.deployments[replica.deployment];
        deployment.pending.remove(id);
        deployment.replicas.remove(id);
        if let Some(worker) = replica
            .worker
            .as_ref()
            .and_then(|worker| self.workers.get_mut(worker))
        {
            worker.replicas.remove(id);
        }
        Some(replica)
    }

    /// Replaces a replica that is gone by a pending one with another id.
    pub(super) fn requeue(&mut self, id: &str) {
        if let Some(replica) = self.remove_replica(id) {
            self.add_replica(replica.deployment, replica.backoff);
        }
    }

    /// What a worker needs to know to run a replica.
    pub(super) fn replica_spec(&self, id: &str, deployment: usize) -> pb::ReplicaSpec {
        let Deployment {
            app, spec, version, ..
        } = &self.deployments[deployment];
        pb::ReplicaSpec {
            replica_id: id.to_owned(),
            application: self.apps[*app].name.clone(),
            deployment: spec.name.clone(),
            kind: kind_to_proto(spec.kind).into(),
            model: spec.model.clone(),
            engine: spec.engine.clone(),
            max_ongoing_requests: spec.max_ongoing_requests,
            resources: Some(amounts_to_proto(&spec.need)),
            version: version.clone(),
            options: spec.options.clone().into_iter().collect(),
        }
    }
}

/// Draws short names; the same seed draws the same names.
#[derive(Debug)]
pub(super) struct Names(u64);

impl Names {
    /// FNV-1a over the controller's id, which is random.
    pub(super) fn new(seed: &str) -> Self {
        Self(seed.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        }))
    }

    /// Eight characters out of a-z and 0-9, by SplitMix64: a double among 10^5 names has a chance of 2 in 1000.
    pub(super) fn draw(&mut self) -> String {
        const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (0..8)
            .map(|i| char::from(LETTERS[(z >> (8 * i)) as u8 as usize % LETTERS.len()]))
            .collect()
    }
}

/// The kind that a message names, if it names one.
pub(super) fn kind_of(kind: pb::WorkerKind) -> Option<Kind> {
    match kind {
        pb::WorkerKind::Unspecified => None,
        pb::WorkerKind::Preprocess => Some(Kind::Preprocess),
        pb::WorkerKind::Inference => Some(Kind::Inference),
    }
}

pub(super) fn kind_to_proto(kind: Kind) -> pb::WorkerKind {
    match kind {
        Kind::Preprocess => pb::WorkerKind::Preprocess,
        Kind::Inference => pb::WorkerKind::Inference,
    }
}

pub(super) fn amounts_of(resources: &pb::Resources) -> Amounts {
    Amounts {
        cpus: units(resources.cpus),
        gpus: units(resources.gpus),
        memory: resources.memory_bytes,
        custom: resources
            .custom
            .iter()
            .map(|(name, amount)| (name.clone(), units(*amount)))
            .collect(),
    }
}

pub(super) fn amounts_to_proto(amounts: &Amounts) -> pb::Resources {
    pb::Resources {
        cpus: fraction(amounts.cpus),
        gpus: fraction(amounts.gpus),
        memory_bytes: amounts.memory,
        custom: amounts
            .custom
            .iter()
            .map(|(name, units)| (name.clone(), fraction(*units)))
            .collect(),
    }
}
