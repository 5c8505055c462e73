//! What the controller knows and decides: the intent, what was observed, and the steps from one to the other.
//!
//! Pure: time is an argument ([`Time`] since the controller's start), channels, processes and sockets are elsewhere.
//! [`State::apply`] takes in what happened, [`State::settle`] brings observed and intent together; both answer with what
//! is to be done. Refuses to move what need not move.
//!
//! Invariants:
//! - a deployment has exactly as many replicas as the intent wants, in whatever phase; a replica is replaced, not lost;
//! - a replica that reports in and fits the intent is adopted before a new one is started in its place;
//! - while workers of an earlier life may come back, nothing is started and no route table is published, so that a
//!   restart of the controller changes nothing for anybody;
//! - a heartbeat costs the replicas of its worker, a settling costs the workers and replicas, and settling is skipped
//!   when nothing changed.

mod model;
mod replicas;
mod routes;
mod settle;
mod status;
#[cfg(test)]
mod tests;
mod workers;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use mobula_proto::control::v1 as pb;
use mobula_serving::{
    backoff::{self, Backoff},
    lease::{self, Leases},
    place::Kind,
};

use self::model::{App, Deployment, Launch, Names, Replicas, Starts, Worker};
use crate::schema::Schema;

/// Time since the controller's start.
pub(crate) type Time = Duration;

/// The label by which a provider's workers are known.
pub(crate) const PROVIDER_LABEL: &str = "mobula.provider";

/// A replica that failed is tried again after 1 s; Ray gives up after 20 tries, we go on at the slowest pace.
const REPLICA_BACKOFF: backoff::Policy = backoff::Policy {
    first: Duration::from_secs(1),
    limit: Duration::from_secs(30),
    steady: Duration::from_secs(60),
};

/// A worker that ran for 5 s has not failed to start; one that dies faster is started ever more slowly.
const WORKER_BACKOFF: backoff::Policy = backoff::Policy {
    first: Duration::from_secs(1),
    limit: Duration::from_secs(30),
    steady: Duration::from_secs(5),
};

/// Failures in a row from which an application counts as failed.
const FAILURES_UNTIL_FAILED: u32 = 3;

/// What does not change in a controller's life.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Random, new with every start.
    pub(crate) controller_id: String,
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
        survivors: Vec<(String, Kind)>,
    },
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// A worker wants to attach.
    Hello { session: u64, hello: pb::Hello },
    /// It sent a sign of life.
    Heartbeat { session: u64, heartbeat: pb::Heartbeat },
    /// Its stream ended.
    Lost { session: u64, end: End },
    /// The provider saw a worker's process end, or could not start it.
    Exited { worker_id: String, why: String },
    /// A proxy watches the route table.
    Watched { watch: u64, proxy: pb::ProxyStatus },
    /// It no longer does.
    Unwatched { watch: u64 },
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
    Start { worker_id: String, kind: Kind },
    /// Have the provider watch over a worker that it started in an earlier life.
    Adopt { worker_id: String, kind: Kind, pid: u32 },
    /// Have the provider end a worker within `grace`; `told` if the worker heard of it over its stream.
    End {
        worker_id: String,
        told: bool,
        grace: Duration,
    },
}

/// Everything the controller knows.
#[derive(Debug)]
pub(crate) struct State {
    settings: Settings,
    apps: Vec<App>,
    deployments: Vec<Deployment>,
    replicas: Replicas,
    /// Failed replicas by the time of their next try.
    retries: BTreeSet<(Time, String)>,
    workers: BTreeMap<String, Worker>,
    sessions: HashMap<u64, String>,
    leases: Leases<String>,
    launched: BTreeMap<String, Launch>,
    starts: BTreeMap<Kind, Starts>,
    /// Workers that were told to leave.
    dismissed: BTreeSet<String>,
    watches: BTreeMap<u64, pb::ProxyStatus>,
    routes: routes::Table,
    /// Until then, workers of an earlier life are waited for.
    grace: Option<Time>,
    /// Those of them that are known by name.
    awaited: BTreeSet<String>,
    names: Names,
    dirty: bool,
    stopping: bool,
    /// When settling has something to do though nothing happens.
    wake: Option<Time>,
    /// Totals since the start, for the metrics.
    pub(crate) totals: Totals,
}

/// Counts that only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) placements: u64,
    pub(crate) lease_expiries: u64,
    pub(crate) worker_starts: u64,
    pub(crate) worker_failures: u64,
    pub(crate) replica_failures: u64,
}

impl State {
    pub(crate) fn new(settings: Settings, schema: Schema) -> Self {
        let survivors = match &settings.supply {
            Supply::External { .. } => None,
            Supply::Process { survivors, .. } => Some(survivors.clone()),
        };
        // Only a provider that remembers can know that nobody is left from before; then nothing is waited for.
        let grace = survivors
            .as_ref()
            .is_none_or(|s| !s.is_empty())
            .then_some(settings.adoption_grace);
        let survivors = survivors.unwrap_or_default();
        let mut state = Self {
            apps: Vec::new(),
            deployments: Vec::new(),
            replicas: Replicas::new(),
            retries: BTreeSet::new(),
            workers: BTreeMap::new(),
            sessions: HashMap::new(),
            leases: Leases::new(lease::term(settings.heartbeat)),
            launched: BTreeMap::new(),
            starts: [
                (Kind::Preprocess, Starts::default()),
                (Kind::Inference, Starts::default()),
            ]
            .into(),
            dismissed: BTreeSet::new(),
            watches: BTreeMap::new(),
            routes: routes::Table::default(),
            grace,
            awaited: survivors.iter().map(|(id, _)| id.clone()).collect(),
            names: Names::new(&settings.controller_id),
            dirty: true,
            stopping: false,
            wake: None,
            totals: Totals::default(),
            settings,
        };
        for (worker_id, kind) in survivors {
            let launch = Launch {
                kind,
                since: Time::ZERO,
                returning: true,
                overdue: false,
            };
            state.launched.insert(worker_id, launch);
        }
        state.intend(schema);
        state
    }

    /// Takes over an intent; the state has none before.
    fn intend(&mut self, schema: Schema) {
        for application in schema.applications {
            let app = self.apps.len();
            let deployments = (self.deployments.len()..)
                .take(application.deployments.len())
                .collect();
            self.apps.push(App {
                name: application.name,
                route_prefix: application.route_prefix,
                deployments,
                ran: false,
            });
            for spec in application.deployments {
                let (index, replicas) = (self.deployments.len(), spec.replicas);
                self.deployments.push(Deployment {
                    app,
                    version: spec.version(),
                    spec,
                    replicas: BTreeSet::new(),
                    pending: BTreeSet::new(),
                    running: BTreeSet::new(),
                    failed: BTreeSet::new(),
                    shunned: BTreeSet::new(),
                    reason: None,
                });
                for _ in 0..replicas {
                    self.add_replica(index, Backoff::default());
                }
            }
        }
    }

    /// Takes in what happened; what follows from it is mostly left to [`Self::settle`].
    pub(crate) fn apply(&mut self, event: Event, now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Hello { session, hello } => self.hello(session, hello, now, &mut actions),
            Event::Heartbeat { session, heartbeat } => self.heartbeat(session, heartbeat, now, &mut actions),
            Event::Lost { session, end } => self.lost(session, end, now, &mut actions),
            Event::Exited { worker_id, why } => self.exited(&worker_id, why, now, &mut actions),
            Event::Watched { watch, proxy } => drop(self.watches.insert(watch, proxy)),
            Event::Unwatched { watch } => drop(self.watches.remove(&watch)),
            Event::Stalled(stall) => self.leases.forgive(stall),
            Event::Stopping { grace } => self.stop(grace, &mut actions),
        }
        actions
    }

    /// When [`Self::settle`] or [`Self::take_routes`] has something to do, if nothing happens before.
    pub(crate) fn next(&self, now: Time) -> Time {
        if self.dirty && !self.stopping {
            return now;
        }
        let retry = self.retries.first().map(|(at, _)| *at);
        let table = self
            .routes
            .due(self.settings.heartbeat)
            .filter(|_| self.grace.is_none());
        [self.leases.next(), retry, self.grace, self.wake, table]
            .into_iter()
            .flatten()
            .fold(now + self.settings.heartbeat, Time::min)
            .max(now)
    }
}
