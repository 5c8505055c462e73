//! The replicas of one deployment and the requests that wait for one of them.
//!
//! A request takes a [`Place`] once and comes with it for a [`Permit`], again each time it has to start anew. The
//! decisions are `mobula_serving::{route, affinity, admission, fair}` and [`crate::demand`]; here are the lock, the wake-ups
//! and the time limits.
//!
//! Invariants: a replica never has more permits out than it takes requests; nobody waits whom a replica would serve now;
//! of two places of one class and tenant the earlier is served before the later one for the same model. No lock is held across an await, and no permit is
//! dropped under one.

mod admit;
mod backpressure;
mod line;
mod out;
mod outlook;
mod parts;
mod patience;
mod standing;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mobula_kit::Stop;
use mobula_proto::{
    common::v1::Load,
    control::v1::{self as pb, DeploymentRoute, ModelInfo, WorkerKind},
};
use mobula_serving::{
    admission::{Bounds, Pace, Queue, Trust},
    affinity::LOAD_ASSUMED,
    route::{
        Cost,
        tiers::{Distance, Tiers},
    },
};
use tokio::sync::watch;

pub(crate) use self::line::margin;
pub(crate) use self::{
    admit::{Admitted, Early, Want},
    line::{Asked, Asking},
    standing::{Standing, TELL},
};
use self::{backpressure::Backpressure, line::Waiter, outlook::Outlook, parts::Role};
use crate::{
    channels::Channels,
    clock::Clock,
    demand::{Stir, Tally},
    generate::Turn,
    metrics::QueueMetrics,
    replica::{Replica, report},
    report::Signal,
};

/// What holds for every pool.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// This proxy's name, a label of metrics.
    pub(crate) proxy_id: Arc<str>,
    /// How long a request waits while no replica is there and none is expected.
    pub(crate) no_replica_timeout: Duration,
    /// How much may wait in one pool, whatever the deployment allows.
    pub(crate) bounds: Bounds,
    /// How long a replica is new.
    pub(crate) slow_start: Duration,
    /// The machine that this is.
    pub(crate) node: Arc<str>,
    /// The zone that this is in; empty when that is not known.
    pub(crate) zone: Arc<str>,
    pub(crate) clock: Clock,
    pub(crate) stop: Stop,
    /// Told when there is demand to report.
    pub(crate) signal: Arc<Signal>,
}

/// The replicas of one deployment and who waits for them. Shared as `Arc`.
#[derive(Debug)]
pub(crate) struct Pool {
    /// `application#deployment`.
    pub(crate) name: String,
    application: String,
    deployment: String,
    pub(crate) settings: Settings,
    pub(crate) metrics: QueueMetrics,
    state: Mutex<State>,
    /// When a replica last showed that it is there, nanoseconds by the clock.
    alive_at: AtomicU64,
    /// Time per row that was measured last by any replica, nanoseconds.
    row_ns: AtomicU64,
    /// Time that the last load of a model took, nanoseconds; 0 before any.
    load_ns: AtomicU64,
    /// How long a request may wait; those that wait hear of a change.
    age: watch::Sender<Duration>,
}

#[derive(Debug)]
struct State {
    replicas: Vec<Arc<Replica>>,
    /// Whether they draw whole pictures.
    draws: bool,
    queue: Queue<Waiter>,
    /// How far predictions have been right.
    trust: Trust,
    /// How far the replicas are, which stand in the order of that.
    tiers: Tiers,
    /// Until when some replica is left out.
    out_until: Duration,
    /// When those who wait were last told their places.
    placed_at: Option<Duration>,
    tally: Tally,
    outlook: Outlook,
    /// What a full queue is answered.
    backpressure: Backpressure,
    /// Models that are served on demand.
    models: BTreeMap<Arc<str>, OnDemand>,
    /// When the next task wakes the queue because a pause ends, by the clock.
    armed: Option<Duration>,
    /// When it is shown next how many replicas get less than their share, by the clock.
    shown_at: Option<Duration>,
    /// Who does what it did.
    role: Role,
    /// Models of which the other parts of a split application have replicas; none where there are no other parts, or none that
    /// said so.
    whole: Option<BTreeSet<String>>,
}

/// A model that is served on demand.
#[derive(Debug, Default)]
struct OnDemand {
    /// What it is, once any replica said so.
    info: Option<Arc<ModelInfo>>,
    /// Whose turn it is to ask.
    turn: Arc<Turn>,
}

impl Pool {
    /// A pool without replicas.
    pub(crate) fn new(application: &str, deployment: &str, settings: Settings) -> Self {
        let state = State {
            replicas: Vec::new(),
            draws: false,
            queue: Queue::new(settings.bounds),
            trust: Trust::default(),
            tiers: Tiers::default(),
            out_until: Duration::ZERO,
            placed_at: None,
            tally: Tally::default(),
            outlook: Outlook::default(),
            backpressure: Backpressure::default(),
            models: BTreeMap::new(),
            armed: None,
            shown_at: None,
            role: Role::default(),
            whole: None,
        };
        Self {
            name: format!("{application}#{deployment}"),
            application: application.to_owned(),
            deployment: deployment.to_owned(),
            metrics: QueueMetrics::new(application, deployment, &settings.proxy_id),
            state: Mutex::new(state),
            alive_at: AtomicU64::new(0),
            row_ns: AtomicU64::new(0),
            load_ns: AtomicU64::new(0),
            age: watch::Sender::new(settings.bounds.age),
            settings,
        }
    }

    /// Takes in what the table says now: replicas come, go and change. One that goes keeps the requests that it has.
    pub(crate) fn update(self: &Arc<Self>, route: &DeploymentRoute, channels: &mut Channels) {
        let now = self.now();
        let mut state = self.lock();
        let bounds = bounds(route, self.settings.bounds);
        state.queue.bound(bounds);
        self.age
            .send_if_modified(|age| std::mem::replace(age, bounds.age) != bounds.age);
        state.backpressure = Backpressure::of(route);
        state.draws = route.kind() == WorkerKind::Inference && route.stages.is_empty();
        let before = std::mem::take(&mut state.replicas);
        let here = (&*self.settings.node, &*self.settings.zone);
        for endpoint in &route.replicas {
            let replica = match before.iter().find(|replica| is_at(replica, endpoint)) {
                Some(replica) => Arc::clone(replica),
                None => match channels.of(&endpoint.address) {
                    Ok(channel) => {
                        let shown = self.metrics.at_replica(&endpoint.replica_id);
                        let distance = Distance::between(here, (&endpoint.node, &endpoint.zone));
                        let reached = (channel, distance);
                        let replica = Replica::new(endpoint, reached, route.max_ongoing_requests, shown);
                        // The first ones are all alike.
                        if !before.is_empty() {
                            replica.book(|book| book.begin(now, self.settings.slow_start));
                            self.settings.signal.stir(Stir::Asked);
                        }
                        Arc::new(replica)
                    }
                    Err(error) => {
                        tracing::warn!(replica = endpoint.replica_id, %error, "a replica cannot be reached");
                        continue;
                    }
                },
            };
            replica.update(endpoint, route.max_ongoing_requests, now);
            self.note_row_ns(replica.book(|book| book.measured_row_ns()));
            state.replicas.push(replica);
        }
        state.replicas.sort_by_key(|replica| replica.distance);
        state.tiers = Tiers::of(state.replicas.iter().map(|replica| replica.distance));
        self.show_restrained(&mut state, now);
        state.learn(route);
        let count = state.replicas.len();
        state.outlook.told(route, count > 0, now);
        self.metrics.replicas.set(count as f64);
        drop(state);
        self.send_away();
        self.pump();
    }

    /// Replicas in the table.
    pub(crate) fn replicas(&self) -> Vec<Arc<Replica>> {
        self.lock().replicas.clone()
    }

    /// Models that are served on demand, with what is known of them; none for a deployment of one model.
    pub(crate) fn models(&self) -> BTreeMap<String, Option<Arc<ModelInfo>>> {
        let state = self.lock();
        let models = state.models.iter();
        models
            .map(|(id, model)| (id.as_ref().to_owned(), model.info.clone()))
            .collect()
    }

    /// One of them.
    pub(crate) fn model(&self, model_id: &str) -> Option<(Arc<str>, Option<Arc<ModelInfo>>)> {
        let state = self.lock();
        let (id, model) = state.models.get_key_value(model_id)?;
        Some((Arc::clone(id), model.info.clone()))
    }

    /// Whose turn it is to ask what a model is.
    pub(crate) fn turn(&self, model_id: &str) -> Option<Arc<Turn>> {
        self.lock()
            .models
            .get(model_id)
            .map(|model| Arc::clone(&model.turn))
    }

    /// A replica said what a model is, `took` after it was asked to load it.
    pub(crate) fn loaded(&self, model_id: &str, model: Arc<ModelInfo>, took: Option<Duration>) {
        if let Some(took) = took {
            self.load_ns.store(nanos(took).max(1), Ordering::Relaxed);
        }
        if let Some(known) = self.lock().models.get_mut(model_id) {
            known.info = Some(model);
        }
    }

    /// Counts a request that comes.
    pub(crate) fn enter(&self, cost: Cost, model_id: Option<&Arc<str>>) {
        let mut state = self.lock();
        let is_cold = state.tally.is_idle() && state.replicas.is_empty();
        state.tally.enter(cost, model_id);
        self.metrics.show(&state.tally);
        drop(state);
        self.metrics.requests();
        self.settings
            .signal
            .stir(if is_cold { Stir::Cold } else { Stir::Asked });
    }

    /// Counts a request that goes. One that goes unserved tells the wait that was predicted, and how long it waited.
    pub(crate) fn exit(
        &self,
        cost: Cost,
        model_id: Option<&Arc<str>>,
        unserved: Option<(Duration, Duration)>,
    ) {
        let mut state = self.lock();
        if let Some((predicted, waited)) = unserved {
            state.trust.waited(predicted, waited, false);
        }
        state.tally.leave(cost, model_id);
        self.metrics.show(&state.tally);
    }

    /// A replica computed rows of a request.
    pub(crate) fn progress(&self, rows: u64) {
        self.lock().tally.progress(rows);
    }

    /// What is asked of the deployment; `None` when nobody ever asked.
    pub(crate) fn demand(&self) -> Option<pb::Demand> {
        let row_ns = self.row_ns.load(Ordering::Relaxed);
        let demand = self.lock().tally.demand(row_ns)?;
        Some(pb::Demand {
            application: self.application.clone(),
            deployment: self.deployment.clone(),
            ..demand
        })
    }

    /// A replica showed that it is there.
    pub(crate) fn note_alive(&self) {
        self.alive_at.store(nanos(self.now()), Ordering::Relaxed);
    }

    /// Takes in what a replica says of itself.
    pub(crate) fn note_load(&self, replica: &Replica, load: Load) {
        let now = self.now();
        replica.book(|book| book.report(report(load), now));
        self.note_row_ns(load.row_ns);
    }

    fn note_row_ns(&self, row_ns: u64) {
        if row_ns > 0 {
            self.row_ns.store(row_ns, Ordering::Relaxed);
        }
    }

    fn load_ns(&self) -> u64 {
        match self.load_ns.load(Ordering::Relaxed) {
            0 => nanos(LOAD_ASSUMED),
            measured => measured,
        }
    }

    fn pace(&self, state: &State) -> Pace {
        Pace {
            row_ns: self.row_ns.load(Ordering::Relaxed),
            replicas: state.replicas.len(),
        }
    }

    fn now(&self) -> Duration {
        self.settings.clock.now()
    }

    /// Nothing under this lock can panic half-way.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes in which models there are. What is known of one outlives the replicas that hold it.
    fn learn(&mut self, route: &DeploymentRoute) {
        let mut before = std::mem::take(&mut self.models);
        // Tokenizers are small: any preprocess replica serves any model.
        if route.kind() != WorkerKind::Inference {
            return;
        }
        let mut held: BTreeMap<_, _> = self.replicas.iter().flat_map(|r| r.held()).collect();
        for id in &route.models {
            let (id, mut model) = before
                .remove_entry(id.as_str())
                .unwrap_or_else(|| (Arc::from(id.as_str()), OnDemand::default()));
            if let Some(info) = held.remove(&*id) {
                model.info = Some(info);
            }
            self.models.insert(id, model);
        }
    }
}

/// What may wait, as a deployment says it, and no more than the proxy's own bounds.
fn bounds(route: &DeploymentRoute, own: Bounds) -> Bounds {
    let requests = usize::try_from(route.max_queued_requests).unwrap_or(usize::MAX);
    let age = match route.max_queued_ms {
        0 => own.age,
        millis => Duration::from_millis(millis).min(own.age),
    };
    Bounds {
        requests: requests.min(own.requests),
        age,
        ..own
    }
}

fn is_at(replica: &Replica, endpoint: &pb::ReplicaEndpoint) -> bool {
    replica.id == endpoint.replica_id && replica.address == endpoint.address
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
