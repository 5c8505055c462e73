//! What happens to the state and what it has done: its only words with the world.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mobula_proto::control::v1::{self as pb};
use mobula_serving::place::{Amounts, Kind};

use crate::intent::Intent;

/// What does not change in a controller's life.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Random, new with every start.
    pub(crate) controller_id: String,
    /// The Unix time at which [`Time`] is zero.
    pub(crate) origin_unix_ms: u64,
    pub(crate) heartbeat: Duration,
    /// How long workers of an earlier life are waited for.
    pub(crate) adoption_grace: Duration,
    pub(crate) supply: Supply,
}

/// Where workers come from.
#[derive(Clone, Debug)]
pub(crate) enum Supply {
    /// Somebody else starts them; `controller` is what they are to be given.
    External { controller: String },
    /// Our provider starts them on this machine, at most so many.
    Process {
        max_workers: usize,
        survivors: Vec<Survivor>,
    },
}

/// A worker process that the provider started in an earlier life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Survivor {
    pub(crate) worker_id: String,
    pub(crate) kind: Kind,
    pub(crate) group: String,
}

/// A worker that is to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) worker_id: String,
    pub(crate) kind: Kind,
    pub(crate) group: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// What it is to offer; what is not said it finds out itself.
    pub(crate) resources: Amounts,
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// This is the intent from now on.
    Intend(Arc<Intent>),
    /// A worker wants to attach.
    Hello { session: u64, hello: pb::Hello },
    /// It sent a sign of life.
    Heartbeat { session: u64, heartbeat: pb::Heartbeat },
    /// Its stream ended.
    Lost { session: u64, end: End },
    /// The provider saw a worker's process end, or could not start it.
    Exited { worker_id: String, why: String },
    /// The provider has no such process, whatever the worker says of itself.
    Foreign { worker_id: String },
    /// A proxy watches the route table.
    Watched { watch: u64, proxy: pb::ProxyStatus },
    /// It no longer does.
    Unwatched { watch: u64 },
    /// A proxy tells what its callers ask for.
    Demand {
        proxy: String,
        request: pb::ReportDemandRequest,
    },
    /// A proxy tells no more.
    ProxyGone { proxy: String },
    /// The controller itself did not run for so long.
    Stalled(Duration),
    /// The controller stops; its provider's workers have so long to finish.
    Stopping { grace: Duration },
}

/// How a worker's stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By the other side: a worker that lives dials again within a moment, one that does not is dead.
    Closed,
    /// By us, for it does not read what it is told: as far as we know it lives.
    Cut,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Answer a hello.
    Welcome { session: u64 },
    /// Tell a worker how often to send heartbeats from now on.
    Pace { session: u64, heartbeat: Duration },
    /// Refuse a hello: another live worker has its id.
    Refuse { session: u64, why: String },
    /// Tell a worker something.
    Send {
        session: u64,
        command: Box<pb::attach_response::Message>,
    },
    /// End a worker's stream.
    Close { session: u64 },
    /// Have the provider start a worker.
    Start(Start),
    /// Have the provider watch over a worker that it started in an earlier life.
    Adopt { worker_id: String, kind: Kind, pid: u32 },
    /// Have the provider end a worker within `grace`; `told` if the worker heard of it over its stream.
    End {
        worker_id: String,
        told: bool,
        grace: Duration,
    },
    /// Keep on disk what was decided.
    Note(Note),
}

/// What is to be kept on disk, for the one who keeps the intent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Note {
    /// A scaler decided.
    Decided(pb::Decision),
    /// An update failed and goes back; the intent should follow.
    RolledBack {
        application: String,
        /// The application's resource version that failed.
        resource_version: u64,
        deployment: String,
        why: String,
    },
}
