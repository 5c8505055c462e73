//! What is measured per deployment, ours and what Ray Serve has too (router.py and request_router.py of 2.60).
//!
//! Invariant: series end with the deployment's pool, which is when the deployment has left the route table and its last
//! request has ended; a replica's end with the replica.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mobula_kit::metrics::{Family, Kind, MILLIS, Series};
use mobula_serving::{admission::Bound, affinity::Pick};

use crate::demand::Tally;

/// Who calls the deployments, in Ray's words.
const SOURCE: &str = "PROXY";

const DEPLOYMENT: &[&str] = &["application", "deployment"];
const HANDLE: &[&str] = &["application", "deployment", "handle", "actor_id"];

static ENTERED: Family = Family {
    name: "mobula_proxy_queue_entered_total",
    kind: Kind::Counter,
    labels: DEPLOYMENT,
    help: "Requests that found no replica free and began to wait.",
};
static LEFT: Family = Family {
    name: "mobula_proxy_queue_left_total",
    kind: Kind::Counter,
    labels: DEPLOYMENT,
    help: "Requests that ended their wait, served or not.",
};
static WAITING: Family = Family {
    name: "mobula_proxy_queue_requests",
    kind: Kind::Gauge,
    labels: DEPLOYMENT,
    help: "Requests that wait for a replica.",
};
static BYTES: Family = Family {
    name: "mobula_proxy_queue_bytes",
    kind: Kind::Gauge,
    labels: DEPLOYMENT,
    help: "Bytes of prompts and pictures of requests that have no replica yet.",
};
static REFUSED: Family = Family {
    name: "mobula_proxy_refused_total",
    kind: Kind::Counter,
    labels: &["application", "deployment", "reason"],
    help: "Requests that were refused at the door or in line, by what there was no room for: requests, low (priority), share (of a tenant), bytes, age, deadline.",
};
static LEFT_OUT: Family = Family {
    name: "mobula_proxy_ejections_total",
    kind: Kind::Counter,
    labels: DEPLOYMENT,
    help: "Times that a replica was left out because it failed what it took.",
};
static OUT: Family = Family {
    name: "mobula_proxy_replicas_ejected",
    kind: Kind::Gauge,
    labels: DEPLOYMENT,
    help: "Replicas that are left out because they failed what they took.",
};
static SLOW: Family = Family {
    name: "mobula_proxy_replicas_slow_start",
    kind: Kind::Gauge,
    labels: DEPLOYMENT,
    help: "Replicas that get only a part of their share, because they are new or come back.",
};
static REPLICAS: Family = Family {
    name: "mobula_proxy_replicas",
    kind: Kind::Gauge,
    labels: DEPLOYMENT,
    help: "Replicas in the route table.",
};
static PICKS: Family = Family {
    name: "mobula_proxy_model_picks_total",
    kind: Kind::Counter,
    labels: &["application", "deployment", "pick"],
    help: "Requests for models on demand, by whether their replica held the model, none did, or those that did were busy.",
};
static QUEUED: Family = Family {
    name: "serve_deployment_queued_queries",
    kind: Kind::Gauge,
    labels: HANDLE,
    help: "Requests to a deployment that have no replica yet.",
};
static AT_REPLICAS: Family = Family {
    name: "serve_num_ongoing_requests_at_replicas",
    kind: Kind::Gauge,
    labels: HANDLE,
    help: "Requests to a deployment that are at replicas.",
};
static HANDLE_REQUESTS: Family = Family {
    name: "serve_handle_request_counter_total",
    kind: Kind::Counter,
    labels: &["application", "deployment", "handle", "route"],
    help: "Requests to a deployment.",
};
static ROUTER_REQUESTS: Family = Family {
    name: "serve_num_router_requests_total",
    kind: Kind::Counter,
    labels: &["application", "deployment", "handle", "route", "actor_id"],
    help: "Requests that the router of a deployment took.",
};
static FULFILLMENT: Family = Family {
    name: "serve_request_router_fulfillment_time_ms",
    kind: Kind::Histogram(&MILLIS),
    labels: &["application", "deployment", "handle_source", "actor_id"],
    help: "Milliseconds that a request waited for a replica.",
};
static AT_REPLICA: Family = Family {
    name: "serve_request_router_queue_len",
    kind: Kind::Gauge,
    labels: &[
        "application",
        "deployment",
        "replica_id",
        "handle_source",
        "actor_id",
    ],
    help: "Requests of this proxy at a replica.",
};

/// What there was no room for.
const REASONS: [&str; 6] = ["requests", "low", "share", "bytes", "age", "deadline"];

/// Ray's among them.
#[cfg(test)]
pub(super) static RAYS: [&Family; 6] = [
    &QUEUED,
    &AT_REPLICAS,
    &HANDLE_REQUESTS,
    &ROUTER_REQUESTS,
    &FULFILLMENT,
    &AT_REPLICA,
];

/// What is measured per deployment.
#[derive(Debug)]
pub(crate) struct QueueMetrics {
    pub(crate) entered: Series,
    pub(crate) left: Series,
    pub(crate) waiting: Series,
    pub(crate) replicas: Series,
    pub(crate) bytes: Series,
    pub(crate) left_out: Series,
    pub(crate) out: Series,
    pub(crate) slow: Series,
    /// By [`Bound`], then those whose deadline was too near.
    refused: [Series; 6],
    held: Series,
    cold: Series,
    spilled: Series,
    queued: Series,
    at_replicas: Series,
    fulfillment: Series,
    names: Names,
    routed: Mutex<Routed>,
}

/// Values of the labels.
#[derive(Debug)]
struct Names {
    application: String,
    deployment: String,
    handle: String,
    proxy_id: String,
}

/// Handles that change with the application's path.
#[derive(Debug)]
struct Routed {
    route: String,
    handle: Series,
    router: Series,
}

impl QueueMetrics {
    /// Looks the handles up; the labels are names from the configuration, and this proxy's, which is the actor in Ray's
    /// words.
    pub(crate) fn new(application: &str, deployment: &str, proxy_id: &str) -> Self {
        let of = [application, deployment];
        let pick = |pick| PICKS.series(&[application, deployment, pick]);
        let handle = format!("{application}#{deployment}");
        let of_handle = [application, deployment, &handle, proxy_id];
        let names = Names {
            application: application.to_owned(),
            deployment: deployment.to_owned(),
            handle: handle.clone(),
            proxy_id: proxy_id.to_owned(),
        };
        Self {
            entered: ENTERED.series(&of),
            left: LEFT.series(&of),
            waiting: WAITING.series(&of),
            replicas: REPLICAS.series(&of),
            bytes: BYTES.series(&of),
            left_out: LEFT_OUT.series(&of),
            out: OUT.series(&of),
            slow: SLOW.series(&of),
            refused: REASONS.map(|reason| REFUSED.series(&[application, deployment, reason])),
            held: pick("held"),
            cold: pick("cold"),
            spilled: pick("spilled"),
            queued: QUEUED.series(&of_handle),
            at_replicas: AT_REPLICAS.series(&of_handle),
            fulfillment: FULFILLMENT.series(&[application, deployment, SOURCE, proxy_id]),
            routed: Mutex::new(names.routed("")),
            names,
        }
    }

    /// The application is reached by this prefix from now on.
    pub(crate) fn route(&self, route: &str) {
        let mut routed = self.lock();
        if routed.route != route {
            *routed = self.names.routed(route);
        }
    }

    /// Counts a request.
    pub(crate) fn requests(&self) {
        let routed = self.lock();
        routed.handle.add(1);
        routed.router.add(1);
    }

    /// Shows how many requests there are.
    pub(crate) fn show(&self, tally: &Tally) {
        self.queued.set(tally.queued().into());
        self.at_replicas.set(tally.running().into());
    }

    /// A request waited so long for a replica, or left after so long.
    pub(crate) fn fulfilled(&self, waited: Duration) {
        self.fulfillment.record_ms(waited);
    }

    /// Counts a request for which there was no room.
    pub(crate) fn refused(&self, bound: Bound) {
        let at = match bound {
            Bound::Requests => 0,
            Bound::Low => 1,
            Bound::Share => 2,
            Bound::Bytes => 3,
            Bound::Age => 4,
        };
        self.refused[at].add(1);
    }

    /// Counts a request whose deadline cannot be met.
    pub(crate) fn refused_late(&self) {
        self.refused[5].add(1);
    }

    /// Counts how a replica was picked for a model on demand.
    pub(crate) fn picked(&self, pick: Pick) {
        match pick {
            Pick::Held(_) => self.held.add(1),
            Pick::Cold(_) => self.cold.add(1),
            Pick::Spilled(_) => self.spilled.add(1),
        }
    }

    /// Where a replica shows how many requests of this proxy it has.
    pub(crate) fn at_replica(&self, replica_id: &str) -> Series {
        let Names {
            application,
            deployment,
            proxy_id,
            ..
        } = &self.names;
        AT_REPLICA.series(&[application, deployment, replica_id, SOURCE, proxy_id])
    }

    /// Nothing under this lock can panic half-way.
    fn lock(&self) -> MutexGuard<'_, Routed> {
        self.routed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Names {
    fn routed(&self, route: &str) -> Routed {
        let Self {
            application,
            deployment,
            handle,
            proxy_id,
        } = self;
        Routed {
            route: route.to_owned(),
            handle: HANDLE_REQUESTS.series(&[application, deployment, handle, route]),
            router: ROUTER_REQUESTS.series(&[application, deployment, handle, route, proxy_id]),
        }
    }
}
