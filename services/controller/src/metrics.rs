//! The controller's metrics; names and handles are made once.

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

use crate::state::{State, Totals};

/// Workers that hold a lease, by state: attached, or suspect (the stream is broken).
pub const WORKERS: &str = "mobula_controller_workers";
/// Wanted replicas, by state.
pub const REPLICAS: &str = "mobula_controller_replicas";
/// Replicas that were given a worker.
pub const PLACEMENTS: &str = "mobula_controller_placements_total";
/// Leases that ended because nothing was heard.
pub const LEASE_EXPIRIES: &str = "mobula_controller_lease_expiries_total";
/// Worker processes that the provider was told to start.
pub const WORKER_STARTS: &str = "mobula_controller_worker_starts_total";
/// Worker processes that ended unasked, or could not be started.
pub const WORKER_FAILURES: &str = "mobula_controller_worker_failures_total";
/// Replicas that failed.
pub const REPLICA_FAILURES: &str = "mobula_controller_replica_failures_total";
/// Version of the route table.
pub const ROUTE_VERSION: &str = "mobula_controller_route_version";
/// Time to take in a batch of events and settle.
pub const RECONCILE_SECONDS: &str = "mobula_controller_reconcile_seconds";

/// Handles of all metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    attached: Gauge,
    suspect: Gauge,
    replicas: Vec<(&'static str, Gauge)>,
    placements: Counter,
    lease_expiries: Counter,
    worker_starts: Counter,
    worker_failures: Counter,
    replica_failures: Counter,
    route_version: Gauge,
    reconcile: Histogram,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        describe_gauge!(
            WORKERS,
            Unit::Count,
            "Workers that hold a lease, by state: attached or suspect"
        );
        describe_gauge!(REPLICAS, Unit::Count, "Wanted replicas, by state");
        describe_counter!(PLACEMENTS, Unit::Count, "Replicas that were given a worker");
        describe_counter!(
            LEASE_EXPIRIES,
            Unit::Count,
            "Leases that ended because nothing was heard"
        );
        describe_counter!(
            WORKER_STARTS,
            Unit::Count,
            "Worker processes that the provider was told to start"
        );
        describe_counter!(
            WORKER_FAILURES,
            Unit::Count,
            "Worker processes that ended unasked or did not start"
        );
        describe_counter!(REPLICA_FAILURES, Unit::Count, "Replicas that failed");
        describe_gauge!(ROUTE_VERSION, Unit::Count, "Version of the route table");
        describe_histogram!(
            RECONCILE_SECONDS,
            Unit::Seconds,
            "Time to take in a batch of events and settle"
        );
        let replicas = ["pending", "starting", "running", "failed"];
        Self {
            attached: gauge!(WORKERS, "state" => "attached"),
            suspect: gauge!(WORKERS, "state" => "suspect"),
            replicas: replicas
                .map(|state| (state, gauge!(REPLICAS, "state" => state)))
                .into(),
            placements: counter!(PLACEMENTS),
            lease_expiries: counter!(LEASE_EXPIRIES),
            worker_starts: counter!(WORKER_STARTS),
            worker_failures: counter!(WORKER_FAILURES),
            replica_failures: counter!(REPLICA_FAILURES),
            route_version: gauge!(ROUTE_VERSION),
            reconcile: histogram!(RECONCILE_SECONDS),
        }
    }

    /// Shows the state as it is after a round of the loop.
    #[allow(clippy::cast_precision_loss)] // Counts far below 2^52.
    pub(crate) fn show(&self, state: &State, took: Duration) {
        let (attached, suspect) = state.worker_counts();
        self.attached.set(attached as f64);
        self.suspect.set(suspect as f64);
        for ((name, gauge), (state, count)) in self.replicas.iter().zip(state.replica_counts()) {
            debug_assert_eq!(*name, state);
            gauge.set(count as f64);
        }
        let Totals {
            placements,
            lease_expiries,
            worker_starts,
            worker_failures,
            replica_failures,
        } = state.totals;
        self.placements.absolute(placements);
        self.lease_expiries.absolute(lease_expiries);
        self.worker_starts.absolute(worker_starts);
        self.worker_failures.absolute(worker_failures);
        self.replica_failures.absolute(replica_failures);
        self.reconcile.record(took.as_secs_f64());
    }

    #[allow(clippy::cast_precision_loss)] // A table every 10 ms reaches 2^52 after a million years.
    pub(crate) fn published(&self, version: u64) {
        self.route_version.set(version as f64);
    }
}
