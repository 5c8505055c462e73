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
    admission::{Queue, Ticket},
    route::{self, Cost},
};
use tokio::sync::oneshot;

use crate::{
    Error,
    clock::Clock,
    metrics::QueueMetrics,
    permit::Permit,
    replica::{Replica, report},
    table::Channels,
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
    /// A task is on its way that wakes the queue when a pause ends.
    armed: bool,
}

#[derive(Debug)]
struct Waiter {
    grant: oneshot::Sender<Permit>,
    cost: Cost,
}

/// A request's place in a pool, kept over its attempts.
#[derive(Debug)]
pub(crate) struct Place {
    pool: Arc<Pool>,
    ticket: Ticket,
    arriving: bool,
    /// Since when it has had no replica, by the clock.
    since: Duration,
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
            state: Mutex::new(State { replicas: Vec::new(), queue, armed: false }),
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
        state.queue.set_max_queued(max_queued.min(self.settings.max_queued));
        let before = std::mem::take(&mut state.replicas);
        for endpoint in &route.replicas {
            let known = before.iter().find(|r| r.id == endpoint.replica_id && r.address == endpoint.address);
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
    pub(crate) fn admit(
        self: &Arc<Self>,
        cost: Cost,
        deadline: Option<Deadline>,
    ) -> Result<Admitted, Error> {
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
        let best = state.best_wait(now, row_ns);
        let (ticket, ahead) = state.queue.admit(free, now)?;
        let place = |arriving| Place { pool: Arc::clone(self), ticket, arriving, since: now };
        if let Some(deadline) = deadline
            && let Err(late) = state.queue.check_deadline(deadline.remaining(), ahead, cost.time(row_ns), now)
        {
            state.queue.arrived();
            return Err(late.into());
        }
        let eta = (row_ns > 0).then(|| {
            let queue = if ahead == 0 { None } else { state.queue.drain_time(ahead, now) };
            queue.unwrap_or_default() + best + cost.time(row_ns)
        });
        Ok(Admitted { place: place(true), ahead, eta })
    }

    /// A place for a request that was admitted by another pool.
    pub(crate) fn place(self: &Arc<Self>) -> Place {
        let since = self.now();
        let ticket = self.lock().queue.ticket();
        Place { pool: Arc::clone(self), ticket, arriving: false, since }
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

    /// A permit came back; `finished` when its request was drawn.
    pub(crate) fn given_back(self: &Arc<Self>, finished: bool) {
        let mut state = self.lock();
        if finished {
            state.queue.finished(self.now());
        }
        let waiting = !state.queue.is_empty();
        drop(state);
        if waiting {
            self.pump();
        }
    }

    /// Serves those who wait while replicas are free.
    pub(crate) fn pump(self: &Arc<Self>) {
        let now = self.now();
        loop {
            let mut state = self.lock();
            let Some(cost) = state.queue.first().map(|first| first.cost) else { return };
            let Some(permit) = self.choose(&state, cost, now) else { break };
            let waiter = state.queue.pop();
            drop(state);
            self.left();
            if let Some(waiter) = waiter {
                // A waiter that has gone meanwhile gives the permit back, which serves the next one.
                let unused = waiter.grant.send(permit);
                drop(unused);
            }
        }
        self.arm();
    }

    /// Sees to it that the queue is served when the next pause of a replica ends.
    fn arm(self: &Arc<Self>) {
        let now = self.now();
        let mut state = self.lock();
        if state.armed || state.queue.is_empty() {
            return;
        }
        let ends = state.replicas.iter().filter_map(|replica| replica.book(|book| book.paused_until(now)));
        let Some(due) = ends.min() else { return };
        state.armed = true;
        drop(state);
        let due = self.settings.clock.at(due);
        let pool = Arc::downgrade(self);
        self.settings.stop.spawn_aside(async move {
            tokio::time::sleep_until(due).await;
            if let Some(pool) = pool.upgrade() {
                pool.lock().armed = false;
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

    /// When a request that has had no replica since `since` gives up, by the clock. While a replica is there, full or
    /// not, nobody gives up.
    fn gives_up_at(&self, since: Duration) -> Duration {
        let now = self.now();
        let there = self.lock().replicas.iter().any(|replica| replica.book(|book| book.is_reachable(now)));
        let alive = if there { now } else { Duration::from_nanos(self.alive_at.load(Ordering::Relaxed)) };
        since.max(alive) + self.settings.no_replica_timeout
    }

    fn no_replica(&self, since: Duration) -> Error {
        Error::NoReplica { deployment: self.name.clone(), waited: self.now().saturating_sub(since) }
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

impl Place {
    /// Waits for a replica.
    ///
    /// # Errors
    /// [`Error::NoReplica`] when none was there for the whole of the limit.
    pub(crate) async fn acquire(&mut self, cost: Cost) -> Result<Permit, Error> {
        let pool = Arc::clone(&self.pool);
        let (grant, mut granted) = oneshot::channel();
        {
            let mut state = pool.lock();
            if std::mem::take(&mut self.arriving) {
                state.queue.arrived();
            }
            if state.queue.is_first(self.ticket)
                && let Some(permit) = pool.choose(&state, cost, pool.now())
            {
                return Ok(permit);
            }
            state.queue.enter(self.ticket, Waiter { grant, cost });
            pool.metrics.entered.increment(1);
            pool.metrics.waiting.increment(1.0);
        }
        let _line = Line { pool: &pool, ticket: self.ticket };
        pool.arm();
        let mut limit = self.since.max(pool.now()) + pool.settings.no_replica_timeout;
        loop {
            tokio::select! {
                biased;
                permit = &mut granted => return permit.map_err(|_| pool.no_replica(self.since)),
                () = tokio::time::sleep_until(pool.settings.clock.at(limit)) => {
                    limit = pool.gives_up_at(self.since);
                    if limit <= pool.now() {
                        return Err(pool.no_replica(self.since));
                    }
                }
            }
        }
    }

    /// A replica took the request: the limit begins anew should it be lost.
    pub(crate) fn served(&mut self) {
        self.since = self.pool.now();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.arriving {
            self.pool.lock().queue.arrived();
        }
    }
}

/// Takes a request out of line when it stops waiting.
struct Line<'a> {
    pool: &'a Arc<Pool>,
    ticket: Ticket,
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let left = self.pool.lock().queue.leave(self.ticket);
        if left.is_some() {
            self.pool.left();
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
