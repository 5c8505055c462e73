//! The controller's metrics; names and handles are made once. Those that Ray Serve has too are in `ray`.

mod ray;

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

pub(crate) use self::ray::Ray;
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
/// Updates of deployments that began: replicas are replaced.
pub const UPDATES: &str = "mobula_controller_updates_total";
/// Updates that failed and went back by themselves.
pub const ROLLBACKS: &str = "mobula_controller_rollbacks_total";
/// Changes of a deployment's number of replicas that a scaler decided.
pub const SCALE_DECISIONS: &str = "mobula_controller_scale_decisions_total";
/// Deployments that were looked at.
pub const RECONCILED: &str = "mobula_controller_reconciled_total";
/// Problems of placement that were solved.
pub const SOLVED: &str = "mobula_controller_solved_total";
/// Version of the route table.
pub const ROUTE_VERSION: &str = "mobula_controller_route_version";
/// Changes of the intent that were accepted, by action.
pub const INTENT_CHANGES: &str = "mobula_controller_intent_changes_total";
/// Resource version of the intent.
pub const RESOURCE_VERSION: &str = "mobula_controller_resource_version";
/// Time to put a change, or a batch of decisions, on the disk.
pub const COMMIT_SECONDS: &str = "mobula_controller_commit_seconds";
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
    updates: Counter,
    rollbacks: Counter,
    decisions: Counter,
    reconciled: Counter,
    solved: Counter,
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
        describe_counter!(UPDATES, Unit::Count, "Updates of deployments that began");
        describe_counter!(
            ROLLBACKS,
            Unit::Count,
            "Updates that failed and went back by themselves"
        );
        describe_counter!(SCALE_DECISIONS, Unit::Count, "Decisions of scalers");
        describe_counter!(RECONCILED, Unit::Count, "Deployments that were looked at");
        describe_counter!(SOLVED, Unit::Count, "Problems of placement that were solved");
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
            updates: counter!(UPDATES),
            rollbacks: counter!(ROLLBACKS),
            decisions: counter!(SCALE_DECISIONS),
            reconciled: counter!(RECONCILED),
            solved: counter!(SOLVED),
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
            updates,
            rollbacks,
            decisions,
            reconciled,
            solved,
        } = state.totals;
        self.placements.absolute(placements);
        self.lease_expiries.absolute(lease_expiries);
        self.worker_starts.absolute(worker_starts);
        self.worker_failures.absolute(worker_failures);
        self.replica_failures.absolute(replica_failures);
        self.updates.absolute(updates);
        self.rollbacks.absolute(rollbacks);
        self.decisions.absolute(decisions);
        self.reconciled.absolute(reconciled);
        self.solved.absolute(solved);
        self.reconcile.record(took.as_secs_f64());
    }

    #[allow(clippy::cast_precision_loss)] // A table every 10 ms reaches 2^52 after a million years.
    pub(crate) fn published(&self, version: u64) {
        self.route_version.set(version as f64);
    }
}

/// Handles of the ledger's metrics.
#[derive(Debug)]
pub(crate) struct Ledger {
    resource_version: Gauge,
    commit: Histogram,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        describe_counter!(
            INTENT_CHANGES,
            Unit::Count,
            "Changes of the intent that were accepted, by action"
        );
        describe_gauge!(RESOURCE_VERSION, Unit::Count, "Resource version of the intent");
        describe_histogram!(
            COMMIT_SECONDS,
            Unit::Seconds,
            "Time to put a change, or a batch of decisions, on the disk"
        );
        Self {
            resource_version: gauge!(RESOURCE_VERSION),
            commit: histogram!(COMMIT_SECONDS),
        }
    }

    #[allow(clippy::cast_precision_loss)] // A change every millisecond reaches 2^52 after 140 millennia.
    pub(crate) fn now_at(&self, resource_version: u64) {
        self.resource_version.set(resource_version as f64);
    }

    /// Counts a change; actions are a closed set.
    pub(crate) fn changed(&self, action: &'static str) {
        counter!(INTENT_CHANGES, "action" => action).increment(1);
    }

    pub(crate) fn committed(&self, took: Duration) {
        self.commit.record(took.as_secs_f64());
    }
}
