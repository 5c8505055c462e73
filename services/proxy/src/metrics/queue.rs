//! What is measured per deployment.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use metrics::{
    Counter, Gauge, Histogram, SharedString, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use mobula_kit::metrics::ray;
use mobula_serving::affinity::Pick;

use crate::demand::Tally;

const QUEUE_IN: &str = "mobula_proxy_queue_entered_total";
const QUEUE_OUT: &str = "mobula_proxy_queue_left_total";
const QUEUE: &str = "mobula_proxy_queue_requests";
const REPLICAS: &str = "mobula_proxy_replicas";
const PICKS: &str = "mobula_proxy_model_picks_total";

// Ray Serve's, as router.py and request_router.py of 2.60 have them.
const QUEUED: &str = "serve_deployment_queued_queries";
const AT_REPLICAS: &str = "serve_num_ongoing_requests_at_replicas";
const HANDLE: &str = "serve_handle_request_counter_total";
const ROUTER: &str = "serve_num_router_requests_total";
const FULFILLMENT: &str = "serve_request_router_fulfillment_time_ms";
const REPLICA_QUEUE: &str = "serve_request_router_queue_len";

/// Who calls the deployments, in Ray's words.
const SOURCE: &str = "PROXY";

/// What is measured per deployment.
#[derive(Debug)]
pub(crate) struct QueueMetrics {
    pub(crate) entered: Counter,
    pub(crate) left: Counter,
    pub(crate) waiting: Gauge,
    pub(crate) replicas: Gauge,
    held: Counter,
    cold: Counter,
    spilled: Counter,
    queued: Gauge,
    at_replicas: Gauge,
    fulfillment: Histogram,
    application: String,
    deployment: String,
    inner: Mutex<Inner>,
}

/// Handles that change with the table.
#[derive(Debug)]
struct Inner {
    route: String,
    handle: Counter,
    router: Counter,
    /// Requests at each replica, by its slot.
    slots: Vec<Gauge>,
}

impl QueueMetrics {
    /// Looks the handles up; the labels are names from the configuration.
    pub(crate) fn new(application: &str, deployment: &str) -> Self {
        let labels = [
            ("application", application.to_owned()),
            ("deployment", deployment.to_owned()),
        ];
        let pick = |pick: &'static str| {
            let [application, deployment] = labels.clone();
            counter!(PICKS, &[application, deployment, ("pick", pick.to_owned())])
        };
        let handle = [
            ("application", application.to_owned()),
            ("deployment", deployment.to_owned()),
            ("handle", format!("{application}#{deployment}")),
        ];
        let source = [
            ("application", application.to_owned()),
            ("deployment", deployment.to_owned()),
            ("handle_source", SOURCE.to_owned()),
        ];
        Self {
            entered: counter!(QUEUE_IN, &labels),
            left: counter!(QUEUE_OUT, &labels),
            waiting: gauge!(QUEUE, &labels),
            replicas: gauge!(REPLICAS, &labels),
            held: pick("held"),
            cold: pick("cold"),
            spilled: pick("spilled"),
            queued: gauge!(ray(QUEUED), &handle),
            at_replicas: gauge!(ray(AT_REPLICAS), &handle),
            fulfillment: histogram!(ray(FULFILLMENT), &source),
            inner: Mutex::new(Inner::new(application, deployment, "")),
            application: application.to_owned(),
            deployment: deployment.to_owned(),
        }
    }

    /// The application is reached by this prefix from now on.
    pub(crate) fn route(&self, route: &str) {
        let mut inner = self.lock();
        if inner.route != route {
            let slots = std::mem::take(&mut inner.slots);
            *inner = Inner {
                slots,
                ..Inner::new(&self.application, &self.deployment, route)
            };
        }
    }

    /// Counts a request.
    pub(crate) fn requests(&self) {
        let inner = self.lock();
        inner.handle.increment(1);
        inner.router.increment(1);
    }

    /// Shows how many requests there are.
    pub(crate) fn show(&self, tally: &Tally) {
        self.queued.set(tally.queued());
        self.at_replicas.set(tally.running());
    }

    /// A request waited so long for a replica, or left after so long.
    pub(crate) fn fulfilled(&self, waited: Duration) {
        self.fulfillment.record(waited.as_secs_f64() * 1e3);
    }

    /// Counts how a replica was picked for a model on demand.
    pub(crate) fn picked(&self, pick: Pick) {
        match pick {
            Pick::Held(_) => self.held.increment(1),
            Pick::Cold(_) => self.cold.increment(1),
            Pick::Spilled(_) => self.spilled.increment(1),
        }
    }

    /// The replica in a slot has so many requests of this proxy.
    pub(crate) fn at_replica(&self, slot: usize, ongoing: u32) {
        let mut inner = self.lock();
        while inner.slots.len() <= slot {
            let labels: [(&str, SharedString); 4] = [
                ("application", self.application.clone().into()),
                ("deployment", self.deployment.clone().into()),
                // Not its name: names are new with every replica, and the page would grow for ever.
                ("replica_id", inner.slots.len().to_string().into()),
                ("handle_source", SOURCE.into()),
            ];
            inner.slots.push(gauge!(ray(REPLICA_QUEUE), &labels));
        }
        inner.slots[slot].set(ongoing);
    }

    /// Only these slots have replicas.
    pub(crate) fn slots(&self, taken: &[usize]) {
        for (slot, gauge) in self.lock().slots.iter().enumerate() {
            if !taken.contains(&slot) {
                gauge.set(0.0);
            }
        }
    }

    /// Nothing under this lock can panic half-way.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn new(application: &str, deployment: &str, route: &str) -> Self {
        let labels = [
            ("application", application.to_owned()),
            ("deployment", deployment.to_owned()),
            ("handle", format!("{application}#{deployment}")),
            ("route", route.to_owned()),
        ];
        Self {
            route: route.to_owned(),
            handle: counter!(ray(HANDLE), &labels),
            router: counter!(ray(ROUTER), &labels),
            slots: Vec::new(),
        }
    }
}

pub(super) fn describe() {
    describe_counter!(QUEUE_IN, "Requests that found no replica free and began to wait.");
    describe_counter!(QUEUE_OUT, "Requests that ended their wait, served or not.");
    describe_gauge!(QUEUE, "Requests that wait for a replica.");
    describe_gauge!(REPLICAS, "Replicas in the route table.");
    describe_counter!(
        PICKS,
        "Requests for models on demand, by whether their replica held the model, none did, or those that did were busy."
    );
    describe_gauge!(ray(QUEUED), "Requests to a deployment that have no replica yet.");
    describe_gauge!(ray(AT_REPLICAS), "Requests to a deployment that are at replicas.");
    describe_counter!(ray(HANDLE), "Requests to a deployment.");
    describe_counter!(ray(ROUTER), "Requests that the router of a deployment took.");
    describe_histogram!(
        ray(FULFILLMENT),
        "Milliseconds that a request waited for a replica."
    );
    describe_gauge!(
        ray(REPLICA_QUEUE),
        "Requests of this proxy at a replica, by the replica's slot in the pool."
    );
}
