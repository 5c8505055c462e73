//! What the controller knows and decides: the intent, what was observed, and the steps from one to the other.
//!
//! Pure: time is an argument ([`Time`] since the controller's start), channels, processes and sockets are elsewhere.
//! [`State::apply`] takes in what happened, [`State::settle`] brings observed and intent together; both answer with what
//! is to be done. Refuses to move what need not move.
//!
//! Invariants:
//! - a deployment has as many replicas as are wanted, in whatever phase, and while an update runs at most its surge more; a
//!   replica is replaced, not lost;
//! - what runs of a deployment is not stopped for an update before as many others run as are wanted, unless there is no
//!   room for more;
//! - of the parts of a split application some model serves whole while an update runs, unless there is no room for parts of
//!   both;
//! - a replica that reports in and fits the intent is adopted before a new one is started in its place;
//! - while workers of an earlier life may come back, nothing is started and no route table is published, so that a
//!   restart of the controller changes nothing for anybody;
//! - a heartbeat costs the replicas of its worker, a settling the deployments that something happened to, and placing the
//!   workers and replicas, when there is something to place.
//!
//! `intend` takes over an intent, `reconcile` and `rollout` bring a deployment to it (`lockstep` the parts of a split one), `scaling` decides its number,
//! `placing` and `supply` find it workers, `replicas`, `adopt` and `workers` take in what is reported, `condition`, `status`
//! and `routes` tell of it all.

mod adopt;
mod books;
mod condition;
mod convert;
mod demand;
mod document;
mod events;
mod failing;
mod gauges;
mod groups;
mod handover;
mod intend;
mod lockstep;
mod model;
mod names;
mod pace;
mod parts;
mod placing;
mod progress;
mod reconcile;
mod replicas;
mod rollout;
mod routes;
mod scaling;
mod settle;
mod status;
mod supply;
#[cfg(test)]
mod tests;
mod victims;
mod why;
mod workers;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use mobula_proto::control::v1 as pb;
use mobula_schema::WorkerGroup;
use mobula_serving::{
    backoff,
    lease::{self, Leases},
};

pub(crate) use self::{
    events::{Action, End, Event, Note, Settings, Start, Supply, Survivor},
    supply::flags,
};
use self::{
    model::{App, Deployment, Key, Launch, Replicas, Starts, Worker},
    names::Names,
    scaling::Auto,
    supply::Growth,
};
use crate::intent::Intent;

/// Time since the controller's start.
pub(crate) type Time = Duration;

/// The label by which a provider's workers are known.
pub(crate) const PROVIDER_LABEL: &str = "mobula.provider";

/// The label by which a worker's group is known.
pub(crate) const GROUP_LABEL: &str = "mobula.io/group";

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

/// A replica whose worker dies under it is placed again at once the first time; it may be what kills its workers.
const LOSS_BACKOFF: backoff::Policy = backoff::Policy {
    first: Duration::from_millis(500),
    limit: Duration::from_secs(30),
    steady: Duration::from_secs(60),
};

/// Worker processes that failed in a row from which what waits for one counts as failed.
const FAILURES_UNTIL_FAILED: u32 = 3;

/// Everything the controller knows.
#[derive(Debug)]
pub(crate) struct State {
    settings: Settings,
    intent: Arc<Intent>,
    apps: BTreeMap<String, App>,
    deployments: BTreeMap<Key, Deployment>,
    last_key: u64,
    replicas: Replicas,
    /// Failed replicas by the time of their next try.
    retries: BTreeSet<(Time, String)>,
    /// Running replicas by the time at which they have run long enough to count on.
    gates: BTreeSet<(Time, String)>,
    /// Replicas that are told to stop then, with their workers.
    drains: BTreeSet<(Time, String, String)>,
    /// Workers and replicas that leave with the next route table.
    unpublished: Vec<(String, String)>,
    /// Deployments that something happened to.
    dirty: BTreeSet<Key>,
    /// Deployments that are looked at then.
    wakes: BTreeSet<(Time, Key)>,
    scalers: BTreeMap<Key, Auto>,
    /// When each scaler has something to do.
    ticks: BTreeSet<(Time, Key)>,
    /// When what proxies asked of an application counts no more, unless they say it again.
    silences: BTreeSet<(Time, String)>,
    /// What each proxy last reported.
    reports: BTreeMap<String, demand::Report>,
    workers: BTreeMap<String, Worker>,
    sessions: HashMap<u64, String>,
    leases: Leases<String>,
    /// How many times slower than set heartbeats are asked for.
    slowdown: u32,
    launched: BTreeMap<String, Launch>,
    /// How starting workers goes, by group.
    starts: BTreeMap<String, Starts>,
    groups: Vec<WorkerGroup>,
    /// How many workers each group should have.
    wanted: Vec<usize>,
    /// What replicas without a place wait for.
    growth: BTreeMap<Key, Growth>,
    /// Workers that were told to leave.
    dismissed: BTreeSet<String>,
    watches: BTreeMap<u64, pb::ProxyStatus>,
    routes: routes::Table,
    /// Until then, workers of an earlier life are waited for.
    grace: Option<Time>,
    /// Those of them that are known by name.
    awaited: BTreeSet<String>,
    names: Names,
    /// There is more or less room than when things were last placed, or more to place.
    room_changed: bool,
    /// When workers are to be started or to leave though nothing happens.
    supply_due: Option<Time>,
    stopping: bool,
    /// Replicas that began to run, for the metrics.
    startups: Vec<gauges::Startup>,
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
    /// Updates of deployments that began.
    pub(crate) updates: u64,
    /// Updates that failed and went back.
    pub(crate) rollbacks: u64,
    /// Decisions of scalers.
    pub(crate) decisions: u64,
    /// Deployments that were looked at.
    pub(crate) reconciled: u64,
    /// Problems of placement that were solved.
    pub(crate) solved: u64,
}

impl State {
    /// A state that has heard of nobody yet.
    pub(crate) fn new(settings: Settings, intent: Arc<Intent>) -> Self {
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
            intent: Arc::default(),
            apps: BTreeMap::new(),
            deployments: BTreeMap::new(),
            last_key: 0,
            replicas: Replicas::new(),
            retries: BTreeSet::new(),
            gates: BTreeSet::new(),
            drains: BTreeSet::new(),
            unpublished: Vec::new(),
            dirty: BTreeSet::new(),
            wakes: BTreeSet::new(),
            scalers: BTreeMap::new(),
            ticks: BTreeSet::new(),
            silences: BTreeSet::new(),
            reports: BTreeMap::new(),
            workers: BTreeMap::new(),
            sessions: HashMap::new(),
            leases: Leases::new(lease::term(settings.heartbeat)),
            slowdown: 1,
            launched: BTreeMap::new(),
            starts: BTreeMap::new(),
            groups: Vec::new(),
            wanted: Vec::new(),
            growth: BTreeMap::new(),
            dismissed: BTreeSet::new(),
            watches: BTreeMap::new(),
            routes: routes::Table::default(),
            grace,
            awaited: survivors.iter().map(|s| s.worker_id.clone()).collect(),
            names: Names::new(&settings.controller_id),
            room_changed: true,
            supply_due: None,
            stopping: false,
            startups: Vec::new(),
            totals: Totals::default(),
            settings,
        };
        for survivor in survivors {
            let launch = Launch {
                kind: survivor.kind,
                group: survivor.group,
                since: Time::ZERO,
                returning: true,
                overdue: false,
            };
            state.launched.insert(survivor.worker_id, launch);
        }
        // Nobody is attached whom anything could be told.
        state.intend(intent, Time::ZERO, &mut Vec::new());
        for key in state.deployments.keys().copied().collect::<Vec<_>>() {
            state.reconcile(key, Time::ZERO, &mut Vec::new());
        }
        state
    }

    /// Takes in what happened; what follows from it is mostly left to [`Self::settle`].
    pub(crate) fn apply(&mut self, event: Event, now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Intend(intent) => self.intend(intent, now, &mut actions),
            Event::Hello { session, hello } => self.hello(session, hello, now, &mut actions),
            Event::Heartbeat { session, heartbeat } => self.heartbeat(session, heartbeat, now, &mut actions),
            Event::Lost { session, end } => self.lost(session, end, now, &mut actions),
            Event::Exited { worker_id, why } => self.exited(&worker_id, why, now, &mut actions),
            Event::Foreign { worker_id } => self.disown(&worker_id),
            Event::Watched { watch, proxy } => self.watched(watch, proxy),
            Event::Unwatched { watch } => self.unwatched(watch),
            Event::Demand { proxy, request } => self.demand(&proxy, &request, now),
            Event::ProxyGone { proxy } => self.proxy_gone(&proxy, now),
            Event::Stalled(stall) => self.leases.forgive(stall),
            Event::Stopping { grace } => self.stop(grace, &mut actions),
        }
        actions
    }

    /// When [`Self::settle`] or [`Self::take_routes`] has something to do, if nothing happens before.
    pub(crate) fn next(&self, now: Time) -> Time {
        if self.stopping {
            return now + self.settings.heartbeat;
        }
        if !self.dirty.is_empty() || (self.room_changed && self.grace.is_none()) {
            return now;
        }
        let retry = self.retries.first().map(|(at, _)| *at);
        let table = self
            .routes
            .due(self.settings.heartbeat)
            .filter(|_| self.grace.is_none());
        let gate = self.gates.first().map(|(at, _)| *at);
        let drain = self.drains.first().map(|(at, ..)| *at);
        let wake = self.wakes.first().map(|(at, _)| *at);
        let supply = self.supply_due.filter(|_| self.grace.is_none());
        [
            self.leases.next(),
            retry,
            gate,
            drain,
            wake,
            supply,
            self.grace,
            table,
        ]
        .into_iter()
        .flatten()
        .fold(now + self.settings.heartbeat, Time::min)
        .max(now)
    }
}
