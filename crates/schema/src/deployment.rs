//! One deployment: the fields of Ray's `DeploymentSchema` over what the graph has.

use std::time::Duration;

use crate::{
    Backpressure, Count, Deployment, env, graph,
    graph::{Device, Graph},
    logging,
    placing::{self, Actor},
    reader::{Bounds, Fields, Node},
    scaling::{self, Counted, seconds},
    tree::Tree,
};

/// The longest grace and the longest time between health checks, one day.
const MAX_GRACE_S: f64 = 86_400.0;
/// Requests that a replica can be allowed to have at a time.
const MAX_ONGOING: u32 = 100_000;
/// Requests that can be allowed to wait.
const MAX_QUEUED: i64 = 1_000_000;
/// The longest that one of them can be allowed to, one day.
const MAX_QUEUED_S: f64 = 86_400.0;

const NOT_POLLED: &str = "replicas report their load with every heartbeat, and proxies route by it";

/// Names that Ray's own routers of requests go by.
const ROUTERS: [&str; 4] = [
    "ray.serve._private.request_router:PowerOfTwoChoicesRequestRouter",
    "ray.serve._private.request_router.PowerOfTwoChoicesRequestRouter",
    "ray.serve._private.request_router.pow_2_router:PowerOfTwoChoicesRequestRouter",
    "PowerOfTwoChoicesRequestRouter",
];

/// What is asked of a deployment beside its own fields.
pub(crate) struct Asked<'a> {
    /// Where it stands.
    pub(crate) node: Node<'a>,
    /// The model that its environment names.
    pub(crate) model: Option<env::Named<'a>>,
    /// Where its number of replicas is said.
    pub(crate) counted: Option<Node<'a>>,
    /// Requests at a time and requests that wait are the graph's, not the document's.
    pub(crate) defaults: [bool; 2],
}

/// Reads the fields of a deployment over its defaults.
pub(crate) fn read<'a>(mut fields: Fields<'a>, graph: &Graph, into: &mut Deployment) -> Asked<'a> {
    let node = fields.node.clone();
    fields.get("name");
    let mut actor: Actor<'a> = placing::actor(&mut fields, &into.need, graph.device == Device::Tpu);
    into.placing = placing::read(&mut fields, &mut actor);
    into.need = actor.need;
    let gang = u32::try_from(into.placing.gang).unwrap_or(u32::MAX);
    let Counted { count, at, target } = scaling::read(&mut fields, &into.count, gang);
    into.count = count;
    if let Count::Fixed(count) = into.count
        && count % gang != 0
    {
        let at = at.as_ref().unwrap_or(&node);
        at.refuse(format!(
            "num_replicas ({count}) must be a multiple of gang_size ({gang})"
        ));
    }

    let defaults = ["max_ongoing_requests", "max_queued_requests"].map(|key| node.tree.given(key).is_none());
    into.max_ongoing_requests = fields
        .read("max_ongoing_requests", into.max_ongoing_requests, |n| {
            n.count(1..=MAX_ONGOING)
        })
        .honoured();
    into.max_queued_requests = fields
        .read("max_queued_requests", into.max_queued_requests, queued)
        .honoured();
    let patience = |n: &Node<'_>| seconds(n, Bounds::span(MAX_QUEUED_S)).map(Some);
    into.max_queued = fields.read("max_queued_s", into.max_queued, patience).honoured();
    aim(into, target.as_ref(), &node);
    into.user_config = fields
        .read("user_config", None, |n| object(n).map(Some))
        .honoured();
    let grace = |n: &Node<'_>| seconds(n, Bounds::from_zero(MAX_GRACE_S));
    into.grace = fields
        .read("graceful_shutdown_timeout_s", into.grace, grace)
        .honoured();
    let wait = fields.read("graceful_shutdown_wait_loop_s", Duration::from_secs(2), grace);
    let _ = wait.ignored("a replica stops as soon as its last request is done");
    let period = |n: &Node<'_>| seconds(n, Bounds::span(MAX_GRACE_S));
    into.health.period = fields
        .read("health_check_period_s", into.health.period, period)
        .honoured();
    into.health.timeout = fields
        .read("health_check_timeout_s", into.health.timeout, period)
        .honoured();
    rollout(&mut fields, into);
    if let Some(node) = fields.get("backpressure_config") {
        into.backpressure = backpressure(&node).unwrap_or_default();
    }
    if let Some(node) = fields.get("request_router_config") {
        router(&node);
    }
    if let Some(node) = fields.get("logging_config") {
        logging::logging(&node);
    }
    if let Some(node) = fields.get("deployment_actors")
        && node.list().is_some_and(|actors| !actors.is_empty())
    {
        node.refuse("are classes in Python, which cannot be run here; leave them out");
    }
    fields.ignore(
        "is_driver_deployment",
        "a proxy runs wherever mobula-proxy is started",
    );
    fields.finish(&[]);
    Asked {
        node,
        model: actor.model,
        counted: at,
        defaults,
    }
}

fn queued(node: &Node<'_>) -> Option<i32> {
    let n = node.whole(-1..=MAX_QUEUED)?;
    if n == 0 {
        node.refuse("must be -1 (no bound) or at least 1, as in Ray, not 0");
    }
    i32::try_from(n).ok()
}

/// A replica that is never given as much as it should have never asks for another.
#[allow(clippy::cast_precision_loss)] // Both are far below 2^53.
fn aim(into: &mut Deployment, target: Option<&Node<'_>>, node: &Node<'_>) {
    let most = f64::from(into.max_ongoing_requests);
    let Count::Auto(config) = &mut into.count else {
        return;
    };
    if config.target_ongoing <= most {
        return;
    }
    match target {
        Some(target) => target.refuse(format!(
            "target_ongoing_requests ({}) is over max_ongoing_requests ({most}), which a replica never has",
            config.target_ongoing
        )),
        None => {
            node.translated(format!(
                "target_ongoing_requests is {most} and not Ray's 2, because max_ongoing_requests is no more"
            ));
            config.target_ongoing = most;
        }
    }
}

fn object(node: &Node<'_>) -> Option<serde_json::Value> {
    node.fields()?;
    Some(Tree::to_json(node.tree))
}

fn rollout(fields: &mut Fields<'_>, into: &mut Deployment) {
    let share = |n: &Node<'_>| n.number(Bounds::above_zero(1.0));
    into.rollout.percentage = fields
        .read("rolling_update_percentage", into.rollout.percentage, share)
        .honoured();
    into.rollout.max_surge_percent = fields
        .read("max_surge_percent", None, |n| n.count(0..=100).map(Some))
        .honoured();
    let retries = fields
        .read(
            "max_constructor_retry_count",
            graph::MAX_CONSTRUCTOR_RETRIES,
            |n| n.count(1..=1_000_000),
        )
        .honoured();
    into.rollout.max_failures = graph::failures(&into.count, retries);
}

fn backpressure(node: &Node<'_>) -> Option<Backpressure> {
    let mut fields = node.fields()?;
    let status = |n: &Node<'_>| match n.whole(429..=503)? {
        429 => Some(429),
        503 => Some(503),
        other => {
            n.refuse(format!("must be 503 or 429, not {other}"));
            None
        }
    };
    let after = |n: &Node<'_>| seconds(n, Bounds::from_zero(MAX_GRACE_S)).map(Some);
    let found = Backpressure {
        status: fields.read("status_code", 503, status).honoured(),
        retry_after: fields.read("retry_after_s", None, after).honoured(),
    };
    fields.finish(&[]);
    Some(found)
}

fn router(node: &Node<'_>) {
    let Some(mut fields) = node.fields() else { return };
    if let Some(class) = fields.get("request_router_class")
        && let Some(name) = class.text()
    {
        if ROUTERS.contains(&name.as_str()) {
            class.honoured();
        } else {
            class.refuse(format!(
                "must be {}: proxies pick the better of two replicas by predicted wait, and a router in Python cannot be run \
                 here, not {name:?}",
                ROUTERS[0]
            ));
        }
    }
    if let Some(kwargs) = fields.get("request_router_kwargs")
        && kwargs.entries().is_some_and(|entries| !entries.is_empty())
    {
        kwargs.ignored("the router takes no arguments");
    }
    let number = |n: &Node<'_>| n.number(Bounds::above_zero(MAX_GRACE_S));
    for (key, default) in [
        ("request_routing_stats_period_s", 10.0),
        ("request_routing_stats_timeout_s", 30.0),
    ] {
        let _ = fields.read(key, default, number).ignored(NOT_POLLED);
    }
    for (key, default) in [
        ("initial_backoff_s", 0.025),
        ("backoff_multiplier", 2.0),
        ("max_backoff_s", 0.5),
    ] {
        let why =
            "a request that waits is sent as soon as a replica is free; nothing is tried again and again";
        let _ = fields.read(key, default, number).ignored(why);
    }
    fields.finish(&[]);
}
