//! The table of replicas with everything that takes time around it: loading, health, draining, retiring.
//!
//! One task, the keeper, owns the timers; the table is decided under a short lock and acted on outside of it.

use std::{
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use mobula_proto::control::v1::{LightConfig, ReplicaReport, ReplicaSpec};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{
    Failure, Lease, Loader, Refused, Replica,
    meter::Meters,
    table::{Assigned, Drain, Retiree, Table},
};
use crate::{Latch, Stop};

/// How often running replicas are asked for their health: a failed engine is out of the routes within a heartbeat.
const HEALTH_INTERVAL: Duration = Duration::from_millis(250);
/// A worker that stops takes requests for this long after it said so, since proxies hear of it by way of the controller:
/// as long as the gRPC server's own notice.
const NOTICE: Duration = Duration::from_millis(250);
/// What of a stop's grace is kept for releasing threads and memory; a quarter of it when that is less.
const RETIRE_RESERVE: Duration = Duration::from_millis(500);

/// A cheap handle to a worker's replicas.
pub struct Replicas<L: Loader> {
    loader: Arc<L>,
    shared: Arc<Shared<L::Replica>>,
    stop: Stop,
}

/// What handle, leases and keeper share.
#[derive(Debug)]
pub(super) struct Shared<R> {
    table: Mutex<Table<R>>,
    /// What is measured of each replica in the table.
    meters: Meters,
    /// Counts changes that reports show.
    changes: watch::Sender<u64>,
    /// Wakes the keeper.
    wake: Notify,
    latch: Mutex<Option<Latch>>,
}

impl<L: Loader> Replicas<L> {
    /// Makes an empty table and starts its keeper; call it inside the runtime.
    pub fn new(loader: L, stop: Stop) -> Self {
        let shared = Arc::new(Shared {
            table: Mutex::new(Table::default()),
            meters: Meters::default(),
            changes: watch::Sender::new(0),
            wake: Notify::new(),
            latch: Mutex::new(None),
        });
        stop.spawn("replica keeper", keep(shared.clone(), stop.clone()));
        Self {
            loader: Arc::new(loader),
            shared,
            stop,
        }
    }

    /// Hands over the latch that makes the worker ready: it is released when the controller has welcomed the worker, or
    /// when the first replica runs, whichever is first.
    pub fn ready_with(&self, latch: Latch) {
        *lock(&self.shared.latch) = Some(latch);
    }

    /// Releases the latch of [`Replicas::ready_with`].
    pub(super) fn welcomed(&self) {
        lock(&self.shared.latch).take();
    }

    /// Starts a replica. Again with the same spec it does nothing; with another spec under the same id the report says
    /// FAILED. A worker that stops ignores it.
    pub fn assign(&self, spec: ReplicaSpec) {
        if self.stop.is_triggered() {
            tracing::info!(
                replica = spec.replica_id,
                "assignment ignored: the worker is stopping"
            );
            return;
        }
        let assigned = lock(&self.shared.table).assign(spec.clone());
        if let Assigned::Load(serial) = assigned {
            tracing::info!(
                replica = spec.replica_id,
                model = spec.model,
                engine = spec.engine,
                "loading"
            );
            let (loader, shared, stop) = (self.loader.clone(), self.shared.clone(), self.stop.clone());
            let begun = Instant::now();
            let meter = shared.meters.start(&spec, begun);
            self.stop.spawn("replica load", async move {
                let result = AssertUnwindSafe(loader.load(&spec)).catch_unwind().await;
                let panicked =
                    || Failure::from("loading panicked; the log of the worker says where".to_owned());
                let result = result.unwrap_or_else(|_| Err(panicked()));
                if result.is_ok() {
                    meter.loaded(begun.elapsed());
                }
                shared.loaded(&spec, serial, result.map(Arc::new), &stop);
            });
        }
        self.shared.changed();
    }

    /// Changes what a replica can change while it runs; one that still loads takes it when it runs.
    pub fn reconfigure(&self, id: &str, light: LightConfig) {
        tracing::info!(replica = id, version = light.version, "reconfigured");
        lock(&self.shared.table).reconfigure(id, light);
        self.shared.reconfigure(&self.stop);
        self.shared.changed();
    }

    /// Stops a replica: no new leases from now on, retired when its requests are over or after `grace`.
    pub fn drain(&self, id: &str, grace: Duration) {
        let now = Instant::now();
        lock(&self.shared.table).drain(
            id,
            Drain {
                refuse_from: now,
                until: now + grace,
            },
        );
        if let Some(meter) = self.shared.meters.get(id) {
            meter.drains(now);
        }
        tracing::info!(replica = id, ?grace, "draining");
        self.shared.changed();
        self.shared.wake.notify_one();
    }

    /// How every replica is, in the order of their ids.
    pub fn reports(&self) -> Vec<ReplicaReport> {
        let reports = lock(&self.shared.table).reports(Instant::now());
        // Replicas are asked outside the lock: what they do for an answer is their business.
        reports
            .into_iter()
            .map(|(mut report, ongoing, replica)| {
                if let Some(replica) = replica {
                    let mut load = replica.load();
                    load.ongoing_requests = ongoing;
                    report.load = Some(load);
                    report.model = replica.model();
                    report.models = replica.models();
                }
                report
            })
            .collect()
    }

    /// Waits for the next change of a replica's state (not of its load). What counts as next begins with the call, not
    /// with the first poll.
    pub fn changed(&self) -> impl Future<Output = ()> + Send + use<L> {
        let mut changes = self.shared.changes.subscribe();
        let keep = self.shared.clone();
        async move {
            // `keep` holds the sender, so this ends with a change only.
            let _ = changes.changed().await;
            drop(keep);
        }
    }

    /// Takes a place among a replica's requests.
    ///
    /// # Errors
    /// [`Refused`] says why not; it becomes a status by `?`.
    pub fn lease(&self, id: &str) -> Result<Lease<L::Replica>, Refused> {
        let begun = Instant::now();
        let (id, serial, replica) = lock(&self.shared.table).lease(id, begun)?;
        let meter = self.shared.meters.get(&id);
        if let Some(meter) = &meter {
            meter.begun(begun);
        }
        Ok(Lease {
            shared: self.shared.clone(),
            id,
            serial,
            replica,
            meter,
            begun,
            failed: OnceLock::new(),
        })
    }

    /// True when no replica is left.
    pub fn is_empty(&self) -> bool {
        lock(&self.shared.table).is_empty()
    }
}

impl<L: Loader> Clone for Replicas<L> {
    fn clone(&self) -> Self {
        Self {
            loader: self.loader.clone(),
            shared: self.shared.clone(),
            stop: self.stop.clone(),
        }
    }
}

impl<L: Loader> fmt::Debug for Replicas<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let states = lock(&self.shared.table).reports(Instant::now());
        let states = states
            .iter()
            .map(|(report, ..)| (&report.replica_id, report.state()));
        f.debug_map().entries(states).finish()
    }
}

impl<R: Replica> Shared<R> {
    pub(super) fn release(&self, id: &str, serial: u64) {
        if lock(&self.table).release(id, serial) {
            self.wake.notify_one();
        }
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn loaded(
        self: &Arc<Self>,
        spec: &ReplicaSpec,
        serial: u64,
        result: Result<Arc<R>, Failure>,
        stop: &Stop,
    ) {
        match &result {
            Ok(_) => tracing::info!(replica = spec.replica_id, "loaded"),
            Err(failure) => tracing::error!(
                replica = spec.replica_id,
                model = spec.model,
                permanent = failure.permanent,
                "cannot load: {failure}"
            ),
        }
        let runs = result.is_ok();
        let id: Arc<str> = spec.replica_id.as_str().into();
        let unwanted = lock(&self.table).loaded(&id, serial, result);
        if let Some(replica) = unwanted {
            self.retire(Retiree { id, serial, replica }, stop);
        } else if runs {
            lock(&self.latch).take();
        }
        self.reconfigure(stop);
        self.changed();
        self.wake.notify_one();
    }

    /// Hands every running replica the `user_config` that it has not taken yet.
    fn reconfigure(self: &Arc<Self>, stop: &Stop) {
        let due = lock(&self.table).due_for_config();
        for (Retiree { id, serial, replica }, user_config) in due {
            let begun = Instant::now();
            let taken = replica.reconfigure(&user_config);
            if let Some(meter) = self.meters.get(&id) {
                meter.reconfigured(begun.elapsed());
            }
            if let Err(why) = taken {
                let failure = Failure::permanent(format!("user_config: {why}"));
                self.fail(&id, serial, failure, stop);
            }
        }
    }

    /// Marks a replica as failed for good and releases it.
    fn fail(self: &Arc<Self>, id: &Arc<str>, serial: u64, failure: Failure, stop: &Stop) {
        tracing::error!(replica = &**id, "failed: {failure}");
        let failed = lock(&self.table).fail(id, serial, failure);
        if let Some(replica) = failed {
            let id = id.clone();
            self.retire(Retiree { id, serial, replica }, stop);
            self.changed();
        }
    }

    /// Releases a replica on the blocking pool, then forgets it.
    fn retire(self: &Arc<Self>, retiree: Retiree<R>, stop: &Stop) {
        let shared = self.clone();
        stop.spawn("replica retirement", async move {
            let Retiree { id, serial, replica } = retiree;
            let retired = tokio::task::spawn_blocking(move || replica.retire()).await;
            if retired.is_err() {
                tracing::error!(replica = &*id, "releasing the replica panicked");
            }
            lock(&shared.table).retired(&id, serial);
            tracing::info!(replica = &*id, "gone");
            shared.changed();
            shared.wake.notify_one();
        });
    }

    /// Asks running replicas whether they failed, and begins the checks that are due.
    fn check_health(self: &Arc<Self>, stop: &Stop) {
        let running = lock(&self.table).running();
        for Retiree { id, serial, replica } in running {
            if let Err(message) = replica.health() {
                self.fail(&id, serial, message.into(), stop);
            }
        }
        let due = lock(&self.table).due_for_check(Instant::now());
        for (running, policy) in due {
            let (shared, of) = (self.clone(), stop.clone());
            stop.spawn("health check", async move {
                let Retiree { id, serial, replica } = running;
                let begun = Instant::now();
                let result = tokio::select! {
                    biased;
                    () = of.triggered() => Ok(()),
                    result = tokio::time::timeout(policy.timeout, replica.check()) => result.unwrap_or_else(|_| {
                        Err(format!("no answer within {} s", policy.timeout.as_secs_f64()))
                    }),
                };
                if let Some(meter) = shared.meters.get(&id) {
                    meter.checked(begun.elapsed(), result.is_ok());
                }
                let checked = lock(&shared.table).checked((&id, serial), result, Instant::now());
                if let Err(why) = checked {
                    shared.fail(&id, serial, why.into(), &of);
                }
            });
        }
    }

    fn retire_due(self: &Arc<Self>, stop: &Stop) {
        let due = lock(&self.table).due(Instant::now());
        for retiree in due {
            self.retire(retiree, stop);
            self.changed();
        }
    }
}

/// Asks for health, ends drains, and drains everything when the worker stops. Ends when nothing is left then.
async fn keep<R: Replica>(shared: Arc<Shared<R>>, stop: Stop) {
    let mut health = tokio::time::interval(HEALTH_INTERVAL);
    health.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stopping = false;
    loop {
        let next = lock(&shared.table).next_due();
        let due = async {
            match next {
                Some(next) => tokio::time::sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.triggered(), if !stopping => {
                stopping = true;
                let now = Instant::now();
                let until = stop.deadline().unwrap_or(now);
                let reserve = RETIRE_RESERVE.min(until.saturating_duration_since(now) / 4);
                let until = until - reserve;
                shared.meters.drain_all(now);
                lock(&shared.table).drain_all(Drain { refuse_from: now + NOTICE, until });
                shared.changed();
            }
            () = stop.expired() => return,
            () = shared.wake.notified() => {}
            () = due => {}
            _ = health.tick() => shared.check_health(&stop),
        }
        shared.retire_due(&stop);
        shared
            .meters
            .keep(Instant::now(), || lock(&shared.table).places());
        if stopping && lock(&shared.table).is_empty() {
            return;
        }
    }
}

/// The table's methods do not panic half-way, so a poisoned lock still guards a whole value.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "replicas_tests.rs"]
pub(crate) mod tests;
