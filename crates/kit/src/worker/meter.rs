//! What is measured of a worker's replicas, under Ray Serve's names (replica.py and deployment_state.py of 2.60), so that its
//! dashboards read it.
//!
//! Series end with their replica. What its deployment's stops took stays for a while longer, for how long its last replica took to end is
//! known only when it is gone. A replica is called over gRPC and knows no HTTP route, so `route` is its application's name, as
//! Ray has it for gRPC.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mobula_proto::control::v1::ReplicaSpec;
use tokio::time::Instant;

use super::busy::Busy;
use crate::metrics::{Family, Kind, MILLIS, START_MILLIS, Series};

const REPLICA: &[&str] = &["application", "deployment", "replica"];
const ROUTED: &[&str] = &["application", "deployment", "replica", "route"];
const DEPLOYMENT: &[&str] = &["application", "deployment"];

static STARTS: Family = Family {
    name: "serve_deployment_replica_starts_total",
    kind: Kind::Counter,
    labels: REPLICA,
    help: "Starts of the replica: 1.",
};
static REQUESTS: Family = Family {
    name: "serve_deployment_request_counter_total",
    kind: Kind::Counter,
    labels: ROUTED,
    help: "Requests that ended at the replica.",
};
static ERRORS: Family = Family {
    name: "serve_deployment_error_counter_total",
    kind: Kind::Counter,
    labels: &["application", "deployment", "replica", "route", "exception_type"],
    help: "Requests that ended with an error at the replica, by its reason.",
};
static LATENCY: Family = Family {
    name: "serve_deployment_processing_latency_ms",
    kind: Kind::Histogram(&MILLIS),
    labels: ROUTED,
    help: "Milliseconds from a request's place at the replica to the end of its answer.",
};
static PROCESSING: Family = Family {
    name: "serve_replica_processing_queries",
    kind: Kind::Gauge,
    labels: REPLICA,
    help: "Requests at the replica.",
};
static UTILIZATION: Family = Family {
    name: "serve_replica_utilization_percent",
    kind: Kind::Gauge,
    labels: REPLICA,
    help: "Part of the replica's places that were taken over the last ten minutes.",
};
static INITIALIZATION: Family = Family {
    name: "serve_replica_initialization_latency_ms",
    kind: Kind::Histogram(&START_MILLIS),
    labels: DEPLOYMENT,
    help: "Milliseconds to load a replica and warm it up.",
};
static RECONFIGURE: Family = Family {
    name: "serve_replica_reconfigure_latency_ms",
    kind: Kind::Histogram(&MILLIS),
    labels: DEPLOYMENT,
    help: "Milliseconds until a replica had taken another user_config.",
};
static CHECK: Family = Family {
    name: "serve_health_check_latency_ms",
    kind: Kind::Histogram(&MILLIS),
    labels: DEPLOYMENT,
    help: "Milliseconds of a health check.",
};
static CHECK_FAILURES: Family = Family {
    name: "serve_health_check_failures_total",
    kind: Kind::Counter,
    labels: REPLICA,
    help: "Health checks that failed.",
};
static SHUTDOWN: Family = Family {
    name: "serve_replica_shutdown_duration_ms",
    kind: Kind::Histogram(&START_MILLIS),
    labels: DEPLOYMENT,
    help: "Milliseconds from the word to stop until a replica was gone.",
};

/// All of them.
#[cfg(test)]
pub(super) static FAMILIES: [&Family; 11] = [
    &STARTS,
    &REQUESTS,
    &ERRORS,
    &LATENCY,
    &PROCESSING,
    &UTILIZATION,
    &INITIALIZATION,
    &RECONFIGURE,
    &CHECK,
    &CHECK_FAILURES,
    &SHUTDOWN,
];

/// What is measured of each replica, by id.
#[derive(Debug, Default)]
pub(super) struct Meters {
    of: Mutex<BTreeMap<Arc<str>, Arc<Meter>>>,
    /// Of replicas that are gone; bounded by how many can end within [`LINGER`].
    lingering: Mutex<Vec<Lingering>>,
}

/// A series of a replica that is gone, kept until then.
#[derive(Debug)]
struct Lingering {
    until: Instant,
    _series: Series,
}

impl Meters {
    /// Begins to measure a replica that is in the table.
    pub(super) fn start(&self, spec: &ReplicaSpec, now: Instant) -> Arc<Meter> {
        let meter = Arc::new(Meter::new(spec, now));
        lock(&self.of).insert(spec.replica_id.as_str().into(), meter.clone());
        meter
    }

    pub(super) fn get(&self, id: &str) -> Option<Arc<Meter>> {
        lock(&self.of).get(id).cloned()
    }

    /// All were told to stop.
    pub(super) fn drain_all(&self, now: Instant) {
        lock(&self.of).values().for_each(|meter| meter.drains(now));
    }

    /// Shows how busy the replicas are that have so many places each, and ends the series of those that are not among them.
    pub(super) fn keep(&self, now: Instant, places: impl FnOnce() -> BTreeMap<Arc<str>, u32>) {
        let mut of = lock(&self.of);
        // Asked for under the lock: a replica is in the table before it is measured, so none is taken for gone.
        let places = places();
        let gone = of.extract_if(.., |id, _| !places.contains_key(id));
        let gone: Vec<Lingering> = gone.map(|(_, meter)| meter.gone(now)).collect();
        for (id, meter) in of.iter() {
            meter.show(places.get(id).copied().unwrap_or_default(), now);
        }
        drop(of);
        let mut lingering = lock(&self.lingering);
        lingering.retain(|series| now < series.until);
        lingering.extend(gone);
    }
}

/// What is measured of one replica.
#[derive(Debug)]
pub(super) struct Meter {
    names: [String; 3],
    /// Held for as long as the replica is there.
    _starts: Series,
    requests: Series,
    latency: Series,
    processing: Series,
    utilization: Series,
    initialization: Series,
    reconfigure: Series,
    check: Series,
    check_failures: Series,
    shutdown: Series,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// By reason: a closed set.
    errors: BTreeMap<&'static str, Series>,
    busy: Busy,
    is_configured: bool,
    drains: Option<Instant>,
}

/// Long enough for every scraper to have seen it: Prometheus asks every minute by default.
const LINGER: Duration = Duration::from_secs(120);

impl Meter {
    /// Begins to measure a replica.
    fn new(spec: &ReplicaSpec, now: Instant) -> Self {
        let names = [&spec.application, &spec.deployment, &spec.replica_id].map(ToOwned::to_owned);
        let [application, deployment, replica] = names.each_ref().map(String::as_str);
        let replica = [application, deployment, replica];
        let routed = [application, deployment, replica[2], application];
        let deployment = [application, deployment];
        let starts = STARTS.series(&replica);
        starts.add(1);
        Self {
            _starts: starts,
            requests: REQUESTS.series(&routed),
            latency: LATENCY.series(&routed),
            processing: PROCESSING.series(&replica),
            utilization: UTILIZATION.series(&replica),
            initialization: INITIALIZATION.series(&deployment),
            reconfigure: RECONFIGURE.series(&deployment),
            check: CHECK.series(&deployment),
            check_failures: CHECK_FAILURES.series(&replica),
            shutdown: SHUTDOWN.series(&deployment),
            inner: Mutex::new(Inner {
                errors: BTreeMap::new(),
                busy: Busy::new(now),
                is_configured: false,
                drains: None,
            }),
            names,
        }
    }

    /// A request has a place.
    pub(super) fn begun(&self, now: Instant) {
        let ongoing = lock(&self.inner).busy.change(1, now);
        self.processing.set(f64::from(ongoing));
    }

    /// It gives it back, with the reason if it failed.
    pub(super) fn ended(&self, begun: Instant, failed: Option<&'static str>, now: Instant) {
        let mut inner = lock(&self.inner);
        let ongoing = inner.busy.change(-1, now);
        if let Some(reason) = failed {
            let errors = inner.errors.entry(reason);
            errors
                .or_insert_with(|| {
                    let [application, deployment, replica] = &self.names;
                    ERRORS.series(&[application, deployment, replica, application, reason])
                })
                .add(1);
        }
        drop(inner);
        self.processing.set(f64::from(ongoing));
        self.requests.add(1);
        self.latency.record_ms(now.saturating_duration_since(begun));
    }

    /// Shows how much of its places is taken, of so many.
    fn show(&self, places: u32, now: Instant) {
        let used = lock(&self.inner).busy.utilization(places, now);
        self.utilization.set(100.0 * used);
    }

    pub(super) fn loaded(&self, took: Duration) {
        self.initialization.record_ms(took);
    }

    /// It took a `user_config`; the first belongs to its start.
    pub(super) fn reconfigured(&self, took: Duration) {
        if std::mem::replace(&mut lock(&self.inner).is_configured, true) {
            self.reconfigure.record_ms(took);
        }
    }

    pub(super) fn checked(&self, took: Duration, is_healthy: bool) {
        self.check.record_ms(took);
        self.check_failures.add(u64::from(!is_healthy));
    }

    /// It was told to stop; the first time counts.
    pub(super) fn drains(&self, now: Instant) {
        lock(&self.inner).drains.get_or_insert(now);
    }

    /// It is gone, by the word that it was given or because it failed.
    fn gone(&self, now: Instant) -> Lingering {
        if let Some(since) = lock(&self.inner).drains {
            self.shutdown.record_ms(now.saturating_duration_since(since));
        }
        Lingering {
            until: now + LINGER,
            _series: self.shutdown.clone(),
        }
    }
}

/// Nothing under these locks can panic half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_types_labels_and_buckets_are_rays() {
        let list = include_str!("../../tests/golden/ray_metrics.tsv");
        for family in FAMILIES {
            assert!(
                list.lines().any(|line| line == family.line()),
                "{}",
                family.line()
            );
        }
    }
}
