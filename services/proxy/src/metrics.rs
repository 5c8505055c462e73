//! The proxy's metrics: names, labels from closed sets, and handles that are looked up once. Those that Ray Serve has too
//! stand beside ours, in [`ray`] and [`queue`].

mod queue;
mod ray;
mod tenants;

use std::sync::Arc;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use mobula_kit::{metrics::Series, status::CODES};
use mobula_proto::{common::v1::Timings, control::v1::WatchRoutesRequest};
use tonic::Code;

pub(crate) use self::{
    queue::QueueMetrics,
    ray::{Ingress, Method, Seen},
    tenants::{KeyMetrics, Tenant, Turned},
};

const REQUESTS: &str = "mobula_proxy_requests_total";
const IN_FLIGHT: &str = "mobula_proxy_requests_in_flight";
const STAGE: &str = "mobula_proxy_stage_seconds";
const IMAGES: &str = "mobula_proxy_images_total";
const RESTARTS: &str = "mobula_proxy_restarts_total";
const HANDOVERS: &str = "mobula_proxy_handovers_total";
const TOKENS: &str = "mobula_proxy_tokenized_total";
const HELD: &str = "mobula_proxy_held_image_bytes";
const KEPT: &str = "mobula_proxy_kept_image_bytes";
const DROPPED: &str = "mobula_proxy_kept_images_dropped_total";
const REROUTES: &str = "mobula_proxy_reroutes_total";
const REPORTS: &str = "mobula_proxy_demand_reports_total";
const UNTOLD: &str = "mobula_proxy_finished_untold_total";
const TABLE: &str = "mobula_proxy_route_table_version";
const CONTROLLER: &str = "mobula_proxy_controller_connected";

/// Which door a request came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// gRPC.
    Grpc,
    /// HTTP.
    Http,
}

/// Why a request went to another replica before any took it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reroute {
    /// The replica was full.
    Full,
    /// The replica could not be reached, or did not serve.
    Unreachable,
    /// The replica does not have the model.
    Lacking,
}

/// What is measured per request.
#[derive(Debug)]
pub(crate) struct Metrics {
    outcomes: [[Counter; CODES.len()]; 2],
    stages: [Histogram; 7],
    pub(crate) in_flight: Gauge,
    pub(crate) images: Counter,
    pub(crate) restarts: Counter,
    pub(crate) handovers: Counter,
    /// Prompts of requests whose tokens were kept from before.
    pub(crate) tokens_kept: Counter,
    /// Those that a replica was asked for.
    pub(crate) tokens_asked: Counter,
    pub(crate) held: Gauge,
    /// Bytes of pictures behind links.
    pub(crate) kept: Gauge,
    /// Pictures that went before their links' time.
    pub(crate) dropped: Counter,
    full: Counter,
    unreachable: Counter,
    lacking: Counter,
    pub(crate) table: Gauge,
    pub(crate) controller: Gauge,
    /// Reports of demand.
    pub(crate) reports: Counter,
    /// Requests that ended and of which the controller never hears.
    pub(crate) untold: Counter,
    /// Requests that belong to no application.
    pub(crate) nowhere: Arc<Ingress>,
    /// `/-/healthz`.
    pub(crate) healthz: Arc<Ingress>,
    /// `/-/routes`.
    pub(crate) routes: Arc<Ingress>,
    /// Requests under way by door, as Ray Serve counts them; indexed by [`Door`].
    ongoing: [Series; 2],
}

impl Metrics {
    /// Looks the handles up, for a proxy that is introduced so. The process's recorder must be installed before.
    pub(crate) fn new(proxy: &WatchRoutesRequest) -> Self {
        describe();
        let outcomes = ["grpc", "http"].map(|door| {
            CODES.map(|code| counter!(REQUESTS, "door" => door, "outcome" => code.to_lowercase()))
        });
        let stages = [
            "queue",
            "preprocess",
            "encode",
            "denoise",
            "decode",
            "image",
            "total",
        ]
        .map(|stage| histogram!(STAGE, "stage" => stage));
        Self {
            outcomes,
            stages,
            in_flight: gauge!(IN_FLIGHT),
            images: counter!(IMAGES),
            restarts: counter!(RESTARTS),
            handovers: counter!(HANDOVERS),
            tokens_kept: counter!(TOKENS, "from" => "kept"),
            tokens_asked: counter!(TOKENS, "from" => "replica"),
            held: gauge!(HELD),
            kept: gauge!(KEPT),
            dropped: counter!(DROPPED),
            full: counter!(REROUTES, "reason" => "full"),
            unreachable: counter!(REROUTES, "reason" => "unreachable"),
            lacking: counter!(REROUTES, "reason" => "no_model"),
            table: gauge!(TABLE),
            controller: gauge!(CONTROLLER),
            reports: counter!(REPORTS),
            untold: counter!(UNTOLD),
            nowhere: Arc::new(Ingress::new("", "", "")),
            healthz: Arc::new(Ingress::new("", "", "/-/healthz")),
            routes: Arc::new(Ingress::new("", "", "/-/routes")),
            ongoing: ray::ongoing(proxy),
        }
    }

    /// Requests under way at a door.
    pub(crate) fn ongoing(&self, door: Door) -> &Series {
        &self.ongoing[door as usize]
    }

    /// Counts a request that ended.
    pub(crate) fn ended(&self, door: Door, code: Code) {
        if let Some(outcome) = self.outcomes[door as usize].get(code as usize) {
            outcome.increment(1);
        }
    }

    /// Counts a request that had to go elsewhere before it was taken.
    pub(crate) fn rerouted(&self, why: Reroute) {
        match why {
            Reroute::Full => self.full.increment(1),
            Reroute::Unreachable => self.unreachable.increment(1),
            Reroute::Lacking => self.lacking.increment(1),
        }
    }

    /// Records where the time of a request went.
    pub(crate) fn timed(&self, t: &Timings) {
        let micros = [
            t.queue_us,
            t.preprocess_us,
            t.encode_us,
            t.denoise_us,
            t.decode_us,
            t.image_us,
            t.total_us,
        ];
        for (stage, micros) in self.stages.iter().zip(micros) {
            stage.record(micros as f64 / 1e6);
        }
    }
}

fn describe() {
    describe_counter!(REQUESTS, "Requests that ended, by door and outcome.");
    describe_gauge!(
        IN_FLIGHT,
        "Requests that were admitted or are about to be, and have not ended."
    );
    describe_histogram!(STAGE, "Where the time of finished requests went.");
    describe_counter!(IMAGES, "Pictures that were sent to callers.");
    describe_counter!(
        RESTARTS,
        "Requests that started again because their replica was lost."
    );
    describe_counter!(HANDOVERS, "Requests whose latents were handed over to a refiner.");
    describe_counter!(
        TOKENS,
        "Prompts of requests, by where their tokens came from: a replica, or kept from before."
    );
    describe_gauge!(HELD, "Bytes of pictures that requests hold to draw from.");
    describe_gauge!(KEPT, "Bytes of pictures that are kept behind links.");
    describe_counter!(
        DROPPED,
        "Pictures behind links that made room for newer ones before their time."
    );
    describe_counter!(
        REROUTES,
        "Calls that a replica did not take, by reason; the request went elsewhere."
    );
    describe_counter!(REPORTS, "Reports of demand to the controller.");
    describe_counter!(
        UNTOLD,
        "Requests that ended and were left out of the reports, since too many did."
    );
    describe_gauge!(TABLE, "Version of the route table in use.");
    describe_gauge!(CONTROLLER, "1 while the controller is heard.");
}
