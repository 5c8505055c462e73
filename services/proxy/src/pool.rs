//! The replicas of one deployment and the requests that wait for one of them.
//!
//! A request takes a [`Place`] once and comes with it for a [`Permit`], again each time it has to start anew. The
//! decisions are `mobula_serving::{route, admission}`; here are the lock, the wake-ups and the time limits.
//!
//! Invariants: a replica never has more permits out than it takes requests; while a replica may be asked nobody waits;
//! an earlier place is served before a later one. No lock is held across an await, and no permit is dropped under one.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mobula_kit::{Deadline, Stop};
use mobula_proto::{common::v1::Load, control::v1::DeploymentRoute};
use mobula_serving::{
    admission::{Pace, Queue, Ticket, check_deadline},
    route::{self, Cost},
};
use tokio::sync::oneshot;

use crate::{
    Error,
    channels::Channels,
    clock::Clock,
    metrics::QueueMetrics,
    permit::Permit,
    place::Place,
    replica::{Replica, report},
};

/// What holds for every pool.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// How long a request waits while no replica is there.
    pub(crate) no_replica_timeout: Duration,
    /// Most requests that wait in one pool, whatever the deployment allows.
    pub(crate) max_queued: usize,
    pub(crate) clock: Clock,
    pub(crate) stop: Stop,
}

/// The replicas of one deployment and who waits for them. Shared as `Arc`.
#[derive(Debug)]
pub(crate) struct Pool {
    /// `application#deployment`.
    pub(crate) name: String,
    pub(crate) settings: Settings,
    metrics: QueueMetrics,
    state: Mutex<State>,
    /// When a replica last showed that it is there, nanoseconds by the clock.
    alive_at: AtomicU64,
    /// Time per row that was measured last by any replica, nanoseconds.
    row_ns: AtomicU64,
}

#[derive(Debug)]
struct State {
    replicas: Vec<Arc<Replica>>,
    queue: Queue<Waiter>,
    /// When the next task wakes the queue because a pause ends, by the clock.
    armed: Option<Duration>,
}

/// Who waits, by the way to give it a replica.
type Waiter = oneshot::Sender<Permit>;

/// What came of asking for a replica.
#[derive(Debug)]
pub(crate) enum Asked {
    /// Here it is.
    Served(Permit),
    /// It will come through here.
    Waits(oneshot::Receiver<Permit>),
}

/// A request that was admitted.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) place: Place,
    /// Requests ahead of it.
    pub(crate) ahead: usize,
    /// Predicted time to its last picture; `None` before anything was measured.
    pub(crate) eta: Option<Duration>,
}

impl Pool {
    /// A pool without replicas.
    pub(crate) fn new(application: &str, deployment: &str, settings: Settings) -> Self {
        let queue = Queue::new(settings.max_queued);
        Self {
            name: format!("{application}#{deployment}"),
            metrics: QueueMetrics::new(application, deployment),
            state: Mutex::new(State {
                replicas: Vec::new(),
                queue,
                armed: None,
            }),
            alive_at: AtomicU64::new(0),
            row_ns: AtomicU64::new(0),
            settings,
        }
    }

    /// Takes in what the table says now: replicas come, go and change.
    pub(crate) fn update(self: &Arc<Self>, route: &DeploymentRoute, channels: &mut Channels) {
        let now = self.now();
        let max_queued = usize::try_from(route.max_queued_requests).unwrap_or(usize::MAX);
        let mut state = self.lock();
        state
            .queue
            .set_max_queued(max_queued.min(self.settings.max_queued));
        let before = std::mem::take(&mut state.replicas);
        for endpoint in &route.replicas {
            let known = before
                .iter()
                .find(|r| r.id == endpoint.replica_id && r.address == endpoint.address);
            let replica = match known {
                Some(replica) => Arc::clone(replica),
                None => match channels.of(&endpoint.address) {
                    Ok(channel) => Arc::new(Replica::new(endpoint, channel, route.max_ongoing_requests)),
                    Err(error) => {
                        tracing::warn!(replica = endpoint.replica_id, %error, "a replica cannot be reached");
                        continue;
                    }
                },
            };
            replica.update(endpoint, route.max_ongoing_requests, now);
            self.note_row_ns(replica.book(|book| book.row_ns()));
            state.replicas.push(replica);
        }
        self.metrics.replicas.set(state.replicas.len() as f64);
        drop(state);
        self.pump();
    }

    /// Replicas in the table.
    pub(crate) fn replicas(&self) -> Vec<Arc<Replica>> {
        self.lock().replicas.clone()
    }

    /// Admits a request, or refuses it at the door: the queue is full, or its deadline cannot be met.
    pub(crate) fn admit(self: &Arc<Self>, cost: Cost, deadline: Option<Deadline>) -> Result<Admitted, Error> {
        let now = self.now();
        let row_ns = self.row_ns.load(Ordering::Relaxed);
        let mut state = self.lock();
        let state = &mut *state;
        // Counting stops early: whoever is ahead of everybody else needs one slot only.
        let needed = state.queue.len() + state.queue.arriving() + 1;
        let mut free = 0;
        for replica in &state.replicas {
            free += replica.book(|book| book.free(now)) as usize;
            if free >= needed {
                break;
            }
        }
        let pace = Pace {
            row_ns,
            replicas: state.replicas.len(),
        };
        let admission = state.queue.admit(cost, free, pace)?;
        if let Some(deadline) = deadline {
            // What runs already is left out: small requests pass large ones there.
            let needed = admission.wait.unwrap_or_default() + cost.time(row_ns);
            if let Err(late) = check_deadline(deadline.remaining(), needed) {
                state.queue.arrived(cost);
                return Err(late.into());
            }
        }
        let best = state.best_wait(now, row_ns);
        let eta = admission
            .wait
            .filter(|_| row_ns > 0)
            .map(|wait| wait + best + cost.time(row_ns));
        let (ticket, ahead) = (admission.ticket, admission.ahead);
        let place = Place::new(Arc::clone(self), ticket, Some(cost), now);
        Ok(Admitted { place, ahead, eta })
    }

    /// A place for a request that was admitted by another pool.
    pub(crate) fn place(self: &Arc<Self>) -> Place {
        let since = self.now();
        let ticket = self.lock().queue.ticket();
        Place::new(Arc::clone(self), ticket, None, since)
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

    /// A permit came back.
    pub(crate) fn given_back(self: &Arc<Self>) {
        let waiting = !self.lock().queue.is_empty();
        if waiting {
            self.pump();
        }
    }

    /// Serves those who wait while replicas are free.
    pub(crate) fn pump(self: &Arc<Self>) {
        let now = self.now();
        loop {
            let mut state = self.lock();
            let Some(cost) = state.queue.first() else {
                return;
            };
            let Some(permit) = self.choose(&state, cost, now) else {
                break;
            };
            let waiter = state.queue.pop();
            drop(state);
            self.left();
            if let Some(waiter) = waiter {
                // A waiter that has gone meanwhile gives the permit back, which serves the next one.
                let unused = waiter.send(permit);
                drop(unused);
            }
        }
        self.arm();
    }

    /// Sees to it that the queue is served when the next pause of a replica ends.
    fn arm(self: &Arc<Self>) {
        let now = self.now();
        let mut state = self.lock();
        if state.queue.is_empty() {
            return;
        }
        let ends = state
            .replicas
            .iter()
            .filter_map(|replica| replica.book(|book| book.paused_until(now)));
        let Some(due) = ends.min() else { return };
        if state.armed.is_some_and(|armed| armed <= due) {
            return;
        }
        state.armed = Some(due);
        drop(state);
        let wake = self.settings.clock.at(due);
        let pool = Arc::downgrade(self);
        self.settings.stop.spawn_aside(async move {
            tokio::time::sleep_until(wake).await;
            if let Some(pool) = pool.upgrade() {
                pool.lock().armed.take_if(|armed| *armed == due);
                pool.pump();
            }
        });
    }

    /// Chooses a replica and counts the request there.
    fn choose(self: &Arc<Self>, state: &State, cost: Cost, now: Duration) -> Option<Permit> {
        let typical = self.row_ns.load(Ordering::Relaxed);
        let picked = route::pick(state.replicas.len(), &mut rand::rng(), |i| {
            state.replicas[i].book(|book| (book.free(now) > 0).then(|| book.wait(now, typical)))
        })?;
        let replica = Arc::clone(&state.replicas[picked]);
        replica.book(|book| book.take(cost));
        Some(Permit::new(Arc::clone(self), replica, cost))
    }

    /// An admitted request asks for a replica now, or has left before it did.
    pub(crate) fn arrived(&self, cost: Cost) {
        self.lock().queue.arrived(cost);
    }

    /// Gives a replica, or a place in line.
    pub(crate) fn ask(self: &Arc<Self>, ticket: Ticket, cost: Cost) -> Asked {
        let mut state = self.lock();
        if state.queue.is_first(ticket)
            && let Some(permit) = self.choose(&state, cost, self.now())
        {
            return Asked::Served(permit);
        }
        let (grant, granted) = oneshot::channel();
        state.queue.enter(ticket, cost, grant);
        drop(state);
        self.metrics.entered.increment(1);
        self.metrics.waiting.increment(1.0);
        self.arm();
        Asked::Waits(granted)
    }

    /// Takes a request out of line, if it is still there.
    pub(crate) fn leave(&self, ticket: Ticket) {
        let left = self.lock().queue.leave(ticket);
        if left.is_some() {
            self.left();
        }
    }

    /// Until when a request waits that has had no replica since `since`, by the clock.
    pub(crate) fn waits_until(&self, since: Duration) -> Duration {
        let alive = Duration::from_nanos(self.alive_at.load(Ordering::Relaxed));
        since.max(alive) + self.settings.no_replica_timeout
    }

    /// Notes whether any replica is there now.
    pub(crate) fn look_alive(&self) {
        let now = self.now();
        if self
            .lock()
            .replicas
            .iter()
            .any(|replica| replica.book(|book| book.is_reachable(now)))
        {
            self.note_alive();
        }
    }

    /// What a request is told that waited in vain.
    pub(crate) fn no_replica(&self, since: Duration) -> Error {
        Error::NoReplica {
            deployment: self.name.clone(),
            waited: self.now().saturating_sub(since),
        }
    }

    fn left(&self) {
        self.metrics.left.increment(1);
        self.metrics.waiting.decrement(1.0);
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
    /// The shorter wait of two replicas at random, as the router will find it.
    fn best_wait(&self, now: Duration, typical: u64) -> Duration {
        let wait = |i: usize| self.replicas[i].book(|book| book.wait(now, typical));
        let picked = route::pick(self.replicas.len(), &mut rand::rng(), |i| Some(wait(i)));
        picked.map_or(Duration::ZERO, |i| Duration::from_nanos(wait(i).ns))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
