//! What the state is made of.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use mobula_proto::{common::v1::Load, control::v1 as pb};
use mobula_schema as schema;
use mobula_serving::{
    backoff::Backoff,
    place::{Amounts, Kind, Reason},
};

use super::{
    Time, condition::Condition, convert::light_config, demand::Asks, handover::Handover, rollout::Rollout,
};
use crate::intent::Meta;

/// A deployment's number within one life of the controller; it outlives every change of the deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(pub(super) u64);

/// An application of the intent, or one that is being deleted.
#[derive(Debug)]
pub(super) struct App {
    pub(super) route_prefix: Option<String>,
    pub(super) import_path: String,
    pub(super) img_size: Option<u32>,
    pub(super) external_scaler: bool,
    /// The config that it runs, as JSON.
    pub(super) document: String,
    pub(super) meta: Meta,
    /// What proxies' callers ask of it.
    pub(super) asks: Asks,
    /// In the order of a request; those that are being deleted come last.
    pub(super) deployments: Vec<Key>,
    pub(super) deleting: bool,
    /// From the graph that its config had before to the one that it has.
    pub(super) handover: Handover,
}

/// A deployment's config with its digests.
#[derive(Debug)]
pub(super) struct Spec {
    pub(super) config: schema::Deployment,
    /// Digest of what needs a restart.
    pub(super) version: String,
    /// Digest of what a running replica is told of the rest.
    pub(super) light: String,
    /// What parts of a split application must have in common to draw together: the engine, and the models.
    pub(super) weights: String,
}

/// Engine and models in one text.
pub(super) fn weights(config: &schema::Deployment) -> String {
    format!("{} {} {:?}", config.engine, config.model, config.models)
}

impl Spec {
    pub(super) fn new(config: schema::Deployment) -> Arc<Self> {
        Arc::new(Self {
            version: config.version(),
            light: light_config(&config).version,
            weights: weights(&config),
            config,
        })
    }

    /// How many replicas make a unit that is placed and stopped together.
    pub(super) fn gang(&self) -> usize {
        self.config.placing.gang.max(1)
    }
}

/// A deployment and the replicas that stand for it. Its sets are kept by [`State::enter`].
#[derive(Debug)]
pub(super) struct Deployment {
    pub(super) app: String,
    /// What its replicas shall be.
    pub(super) spec: Arc<Spec>,
    /// What the intent says they shall be; another thing than `spec` after a rollback.
    pub(super) intended: Arc<Spec>,
    /// The last that is known to work: what a rollout goes back to.
    pub(super) proven: Option<Arc<Spec>>,
    /// How many replicas are wanted.
    pub(super) target: usize,
    pub(super) deleting: bool,
    /// The update that runs, or the last one.
    pub(super) rollout: Option<Rollout>,
    pub(super) condition: Condition,
    pub(super) failures: Failures,
    pub(super) replicas: BTreeSet<String>,
    pub(super) pending: BTreeSet<String>,
    pub(super) running: BTreeSet<String>,
    pub(super) failed: BTreeSet<String>,
    /// Replicas of another version than `spec`, in whatever phase.
    pub(super) outdated: BTreeSet<String>,
    /// Replicas that are as they shall be and have run for the gate's time: they may stand in for an outdated one.
    pub(super) steady: BTreeSet<String>,
    /// Replicas that were told of a light change and have not said that it is in force.
    pub(super) unlit: BTreeSet<String>,
    /// Replicas that stop, by worker and id.
    pub(super) stopping: BTreeSet<(String, String)>,
    /// Workers where one failed and none has run since: others are tried before them.
    pub(super) shunned: BTreeSet<String>,
    /// Why the pending ones have no place.
    pub(super) reason: Option<Reason>,
    /// What proxies are told when there is no replica: one is expected, or why not.
    pub(super) outlook: Outlook,
}

/// Failures of replicas that are as they shall be, since one of them last proved itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Failures {
    pub(super) count: u32,
    pub(super) last: String,
    /// Workers on which a start failed in a way that another try there cannot mend.
    pub(super) hopeless: BTreeSet<String>,
    /// No worker is left that may do better, as far as was seen.
    pub(super) are_final: bool,
}

impl Failures {
    /// Whether they tell of the version and no longer of chance: so many in a row, or such as no other try can mend. Ray
    /// counts only (`max_constructor_retry_count`).
    pub(super) fn are_enough(&self, spec: &Spec) -> bool {
        self.are_final || self.count >= spec.config.rollout.max_failures.max(1)
    }

    /// What they tell, in words.
    pub(super) fn told(&self) -> String {
        let Self { count, last, .. } = self;
        if self.are_final {
            format!("replicas cannot start, and would fail alike again: {last}")
        } else {
            format!("replicas failed to start {count} times in a row, the last with: {last}")
        }
    }
}

/// Whether a caller without a replica may wait for one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outlook {
    pub(super) expected: bool,
    pub(super) why_none: String,
}

impl Deployment {
    pub(super) fn name(&self) -> &str {
        &self.spec.config.name
    }

    /// Replicas that are as they shall be, in whatever phase.
    pub(super) fn current(&self) -> usize {
        self.replicas.len() - self.outdated.len()
    }

    /// Replicas that are as they shall be and run.
    pub(super) fn updated(&self) -> usize {
        self.running.difference(&self.outdated).count()
    }

    /// As many run as are wanted.
    pub(super) fn is_complete(&self) -> bool {
        self.running.len() >= self.target
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

impl Phase {
    pub(super) fn is_running(self) -> bool {
        matches!(self, Self::Running { .. })
    }
}

/// A replica that is wanted, or that serves until its replacement does.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) deployment: Key,
    pub(super) spec: Arc<Spec>,
    /// Those of one gang have the same; it is part of their ids, so that it is known again after a restart.
    pub(super) gang: String,
    pub(super) phase: Phase,
    /// Set while starting and running.
    pub(super) worker: Option<String>,
    /// The GPUs of the worker that it was given, while it has one.
    pub(super) devices: Vec<usize>,
    /// The worker has reported it since it was assigned.
    pub(super) seen: bool,
    pub(super) made: Time,
    pub(super) assigned: Time,
    /// A start had failed for good on its worker before it was placed there: no other had room.
    pub(super) last_resort: bool,
    /// Goes on to the replica that takes its place.
    pub(super) record: Record,
    pub(super) message: String,
    pub(super) load: Option<Load>,
    pub(super) model: Option<pb::ModelInfo>,
    pub(super) models: Vec<pb::HeldModel>,
    /// Digest of the light config that it says is in force.
    pub(super) light: String,
    /// The last that it was told, and when.
    pub(super) told: Option<(String, Time)>,
}

impl Replica {
    /// One that has no place yet.
    pub(super) fn new(key: Key, spec: Arc<Spec>, gang: String, record: Record, now: Time) -> Self {
        Self {
            deployment: key,
            spec,
            gang,
            phase: Phase::Pending,
            worker: None,
            devices: Vec::new(),
            seen: false,
            made: now,
            assigned: Time::ZERO,
            last_resort: false,
            record,
            message: String::new(),
            load: None,
            model: None,
            models: Vec::new(),
            light: String::new(),
            told: None,
        }
    }
}

/// What went wrong with a replica and those before it in its place.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    /// It failed.
    pub(super) failures: Backoff,
    /// Its worker went while it had not yet worked for long.
    pub(super) losses: Backoff,
}

/// A replica on a worker that is not wanted there: it stops, or has failed and is cleared away.
#[derive(Debug)]
pub(super) struct Stray {
    /// None for a deployment that nobody knows.
    pub(super) deployment: Option<Key>,
    pub(super) need: Amounts,
    /// The GPUs that it is on, as far as they are known.
    pub(super) devices: Vec<usize>,
    pub(super) grace: Time,
    pub(super) state: pb::ReplicaState,
    pub(super) message: String,
    pub(super) load: Option<Load>,
    pub(super) version: String,
    /// As [`Spec::weights`]; empty for a deployment that nobody knows.
    pub(super) weights: String,
    pub(super) made: Time,
    /// It leaves the route table, and is told to stop when the proxies have had that: so no request is sent in vain.
    pub(super) undrained: bool,
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
    pub(super) labels: BTreeMap<String, String>,
    /// Empty if it came by itself.
    pub(super) group: String,
    /// None while its stream is broken: it may come back until its lease is over.
    pub(super) session: Option<u64>,
    /// Our provider started it: it leaves when we say so.
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
    pub(super) group: String,
    pub(super) since: Time,
    /// It was attached once (in an earlier life of the controller, or before its lease ended), so nobody counts on it.
    pub(super) returning: bool,
    /// It had its time and was told to end.
    pub(super) overdue: bool,
}

impl Launch {
    /// True if it may attach at any moment.
    pub(super) fn is_counted_on(&self) -> bool {
        !self.returning && !self.overdue
    }
}

/// How starting workers of one group goes.
#[derive(Debug, Default)]
pub(super) struct Starts {
    pub(super) backoff: Backoff,
    /// None is started before.
    pub(super) not_before: Time,
    /// What became of the last that ended unasked.
    pub(super) last_end: String,
}

pub(super) type Replicas = HashMap<String, Replica>;
