//! One replica as this proxy sees it: where it is, what it serves, which models it holds, how busy it is.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mobula_kit::metrics::Series;
use mobula_proto::{
    common::v1::Load,
    control::v1::{HeldModel, ModelInfo, ReplicaEndpoint},
};
use mobula_serving::{
    affinity::Candidate,
    route::{Book, Pause, Report, tiers::Distance},
};
use tonic::transport::Channel;

use crate::pool::margin;

/// A model that a replica has just used is taken as held for this long, whatever the table says: the table hears of it by
/// way of a heartbeat and the controller, a second later or a few.
const FRESH: Duration = Duration::from_secs(10);

/// A replica in the route table.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) id: String,
    pub(crate) address: String,
    pub(crate) channel: Channel,
    pub(crate) distance: Distance,
    /// Where it is shown how many requests it has of this proxy; ends with it.
    pub(crate) shown: Series,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    book: Book,
    model: Option<Arc<ModelInfo>>,
    /// What the table said last; the table repeats it until the controller hears anew.
    told: Option<Load>,
    /// Models that it holds, as the table says.
    held: BTreeMap<String, Arc<ModelInfo>>,
    /// Models that it uses for this proxy, or has just used.
    used: HashMap<Arc<str>, Used>,
    /// Models that it said it does not have.
    lacks: HashSet<Arc<str>>,
    /// Models for which it said it has no room.
    cramped: HashMap<Arc<str>, Pause>,
}

/// A model that is used.
#[derive(Debug, Default)]
struct Used {
    /// Requests for it that are there.
    running: u32,
    /// Since when, without a break.
    since: Duration,
    /// Until when it counts as held beyond those.
    until: Duration,
}

/// What stands in for what a replica has not measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Typical {
    /// Nanoseconds per row.
    pub(crate) row_ns: u64,
    /// Nanoseconds that a model takes to load.
    pub(crate) load_ns: u64,
}

impl Used {
    /// What is left of a load that began with the first request, nanoseconds.
    fn loads_for(&self, now: Duration, load_ns: u64) -> u64 {
        let passed = now.saturating_sub(self.since).as_nanos();
        load_ns.saturating_sub(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    fn is_held(&self, now: Duration) -> bool {
        self.running > 0 || self.until > now
    }
}

impl Replica {
    /// A replica that is new in the table.
    pub(crate) fn new(
        endpoint: &ReplicaEndpoint,
        (channel, distance): (Channel, Distance),
        max_ongoing: u32,
        shown: Series,
    ) -> Self {
        let inner = Inner {
            book: Book::new(max_ongoing),
            model: None,
            told: None,
            held: BTreeMap::new(),
            used: HashMap::new(),
            lacks: HashSet::new(),
            cramped: HashMap::new(),
        };
        Self {
            id: endpoint.replica_id.clone(),
            address: endpoint.address.clone(),
            channel,
            distance,
            shown,
            inner: Mutex::new(inner),
        }
    }

    /// Takes in what the table says of it now.
    pub(crate) fn update(&self, endpoint: &ReplicaEndpoint, max_ongoing: u32, now: Duration) {
        let mut inner = self.lock();
        inner.book.set_max_ongoing(max_ongoing);
        if let Some(model) = &endpoint.model
            && inner.model.as_deref() != Some(model)
        {
            inner.model = Some(Arc::new(model.clone()));
        }
        if let Some(load) = endpoint.load
            && inner.told != Some(load)
        {
            inner.told = Some(load);
            inner.book.report(report(load), now);
        }
        let before = std::mem::take(&mut inner.held);
        inner.held = held(before, &endpoint.models);
        inner.used.retain(|_, used| used.is_held(now));
    }

    /// Its own model, or the one with this id, once it was reported.
    pub(crate) fn model(&self, model_id: Option<&str>) -> Option<Arc<ModelInfo>> {
        let inner = self.lock();
        match model_id {
            Some(model_id) => inner.held.get(model_id).cloned(),
            None => inner.model.clone(),
        }
    }

    /// Whether its own model has the digest, where one is asked for; one that has not said what it is may have it.
    pub(crate) fn is_of(&self, digest: Option<&str>) -> bool {
        let Some(digest) = digest else { return true };
        let inner = self.lock();
        inner.model.as_ref().is_none_or(|model| model.digest == digest)
    }

    /// Models that it holds, as the table says, with what they are.
    pub(crate) fn held(&self) -> BTreeMap<String, Arc<ModelInfo>> {
        self.lock().held.clone()
    }

    /// A request for a model is sent there: it holds the model, or loads it now.
    pub(crate) fn uses(&self, model_id: &Arc<str>, now: Duration) {
        let mut inner = self.lock();
        let used = inner.used.entry(Arc::clone(model_id)).or_default();
        if !used.is_held(now) {
            *used = Used {
                since: now,
                ..Used::default()
            };
        }
        used.running += 1;
    }

    /// The request has ended. `took` tells whether the replica took it, and so holds the model.
    pub(crate) fn used(&self, model_id: &Arc<str>, took: bool, now: Duration) {
        let mut inner = self.lock();
        if took {
            inner.cramped.remove(model_id);
        }
        if let Some(used) = inner.used.get_mut(model_id) {
            used.running = used.running.saturating_sub(1);
            if took {
                used.until = now + FRESH;
            }
        }
    }

    /// It said that it is full. Where it does not hold the model, that may mean that all it holds are in use: then it is the
    /// model that has to wait, and not everybody else.
    pub(crate) fn refused(&self, model_id: Option<&Arc<str>>, now: Duration) {
        let mut inner = self.lock();
        match model_id.filter(|id| !inner.held.contains_key(&***id)) {
            Some(model_id) => inner.cramped.entry(Arc::clone(model_id)).or_default().full(now),
            None => inner.book.refused(now),
        }
    }

    /// When a pause ends that keeps it from being asked for anything, or for some model; none when no such pause runs.
    pub(crate) fn paused_until(&self, now: Duration) -> Option<Duration> {
        let inner = self.lock();
        let cramped = inner.cramped.values().map(Pause::until);
        let models = cramped.filter(|until| *until > now).min();
        [inner.book.paused_until(now), models].into_iter().flatten().min()
    }

    /// It said that it does not have a model, nor ever will: what a replica serves is decided when it is placed.
    pub(crate) fn lacks(&self, model_id: &Arc<str>) {
        self.lock().lacks.insert(Arc::clone(model_id));
    }

    /// False when it said that it does not have the model.
    pub(crate) fn may_have(&self, model_id: Option<&str>) -> bool {
        model_id.is_none_or(|model_id| !self.lock().lacks.contains(model_id))
    }

    /// How it stands for a request of a model; `None` when it cannot be reached, is left out (unless `all` count), or does not
    /// have the model.
    pub(crate) fn candidate(
        &self,
        model_id: &str,
        (now, all): (Duration, bool),
        typical: Typical,
    ) -> Option<Candidate> {
        let inner = self.lock();
        let is_cramped = |pause: &Pause| !pause.is_over(now);
        if inner.lacks.contains(model_id)
            || inner.cramped.get(model_id).is_some_and(is_cramped)
            || !inner.book.is_reachable(now)
            || (inner.book.is_out(now) && !all)
        {
            return None;
        }
        let used = inner.used.iter().filter(|(_, used)| used.is_held(now));
        let unheard = used.filter(|(model, _)| !inner.held.contains_key(&***model));
        let is_told = inner.held.contains_key(model_id);
        let in_use = inner.used.get(model_id).filter(|used| used.is_held(now));
        let loads = in_use.filter(|used| !is_told && used.until.is_zero());
        let mut wait = inner.book.rank(now, typical.row_ns);
        if self.distance == Distance::Far {
            wait.ns = wait.ns.saturating_add(margin(typical.row_ns));
        }
        Some(Candidate {
            wait,
            loading_ns: loads.map_or(0, |used| used.loads_for(now, typical.load_ns)),
            is_open: inner.book.free(now, all) > 0,
            holds: is_told || in_use.is_some(),
            held: inner.held.len() + unheard.count(),
        })
    }

    /// Looks into its book, or writes into it.
    pub(crate) fn book<T>(&self, look: impl FnOnce(&mut Book) -> T) -> T {
        look(&mut self.lock().book)
    }

    /// Nothing under this lock can panic half-way.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is held now; what did not change stays as it is.
fn held(mut before: BTreeMap<String, Arc<ModelInfo>>, now: &[HeldModel]) -> BTreeMap<String, Arc<ModelInfo>> {
    let held = now.iter().filter_map(|model| {
        let info = model.info.as_ref()?;
        let known = before.remove(&model.model_id).filter(|known| **known == *info);
        let info = known.unwrap_or_else(|| Arc::new(info.clone()));
        Some((model.model_id.clone(), info))
    });
    held.collect()
}

/// A load as the router reads it.
pub(crate) fn report(load: Load) -> Report {
    Report {
        queued_rows: load.queued_rows,
        row_ns: load.row_ns,
    }
}
