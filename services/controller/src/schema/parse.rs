//! From a document in the shape of Ray Serve's `ServeDeploySchema` to [`Schema`].

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mobula_serving::place::{Amounts, units};
use serde_json::Value;

use super::{
    Application, Deployment, Schema,
    graph::{self, Args, TEXT_TO_IMAGE},
    reader::{Fields, Node, Problem, Problems},
};

/// Replicas of one deployment; beyond this somebody slipped on a key.
const MAX_REPLICAS: i64 = 10_000;
/// The longest grace, one day.
const MAX_GRACE_S: f64 = 86_400.0;
/// More CPUs, GPUs or custom units than any machine has.
const MAX_AMOUNT: f64 = 1_000_000.0;

const BY_FLAGS: &str = "set it by the flags of the binary it concerns";
const FIXED_COUNT: &str = "the number of replicas is fixed, give num_replicas";

const OTHER_TOP: [(&str, &str); 6] = [
    ("proxy_location", "a proxy runs wherever mobula-proxy is started"),
    (
        "http_options",
        "the HTTP door is set by the flags of mobula-proxy",
    ),
    (
        "grpc_options",
        "the gRPC door is set by the flags of mobula-proxy",
    ),
    ("logging_config", BY_FLAGS),
    ("target_capacity", FIXED_COUNT),
    ("controller_options", BY_FLAGS),
];

const OTHER_APPLICATION: [(&str, &str); 6] = [
    (
        "runtime_env",
        "graphs are built in and need no Python environment",
    ),
    ("autoscaling_policy", FIXED_COUNT),
    ("external_scaler_enabled", FIXED_COUNT),
    ("logging_config", BY_FLAGS),
    ("host", "the address is set by the flags of mobula-proxy"),
    ("port", "the address is set by the flags of mobula-proxy"),
];

const HEARTBEATS: &str = "health comes with every heartbeat, whose period is the controller's --heartbeat-ms";
const SPREAD: &str = "replicas are spread over the workers with the fewest of their deployment";

const OTHER_DEPLOYMENT: [(&str, &str); 17] = [
    ("max_concurrent_queries", "its name is max_ongoing_requests"),
    ("user_config", "arguments are given in the application's args"),
    ("autoscaling_config", FIXED_COUNT),
    (
        "graceful_shutdown_wait_loop_s",
        "a replica stops as soon as its last request is done",
    ),
    ("health_check_period_s", HEARTBEATS),
    ("health_check_timeout_s", HEARTBEATS),
    ("placement_group_bundles", SPREAD),
    ("placement_group_strategy", SPREAD),
    ("max_replicas_per_node", SPREAD),
    ("logging_config", BY_FLAGS),
    (
        "request_router_config",
        "the proxy routes by two choices on predicted wait",
    ),
    (
        "rolling_update_percentage",
        "a change is applied when the controller starts",
    ),
    (
        "max_constructor_retry_count",
        "a replica that fails is tried again after 1 s, doubling to 30 s",
    ),
    ("backpressure_config", "a full queue answers 503 with Retry-After"),
    ("gang_scheduling_config", "a replica is one worker's"),
    ("deployment_actors", "graphs are built in"),
    (
        "is_driver_deployment",
        "a proxy runs wherever mobula-proxy is started",
    ),
];

const OTHER_OPTIONS: [(&str, &str); 4] = [
    (
        "accelerator_type",
        "ask for the accelerator as a custom resource in resources",
    ),
    (
        "runtime_env",
        "graphs are built in and need no Python environment",
    ),
    ("object_store_memory", "there is no object store"),
    (
        "label_selector",
        "ask for the worker as a custom resource in resources",
    ),
];

/// Reads a whole document.
///
/// # Errors
///
/// Everything that is wrong with it, in the order of the document.
pub(super) fn schema(document: &Value) -> Result<Schema, Vec<Problem>> {
    let problems = Problems::default();
    let schema = top(&Node::root(document, &problems));
    let problems = problems.into_inner();
    if problems.is_empty() {
        Ok(schema.unwrap_or_default())
    } else {
        Err(problems)
    }
}

fn top(node: &Node<'_>) -> Option<Schema> {
    let mut fields = node.fields()?;
    let nodes = fields
        .need("applications", "a list of what to serve")
        .and_then(|n| n.list());
    let mut applications = Vec::new();
    let (mut names, mut prefixes) = (BTreeSet::new(), BTreeSet::new());
    for node in nodes.iter().flatten() {
        let Some(application) = application(node) else {
            continue;
        };
        if !names.insert(application.name.clone()) {
            node.refuse(format!(
                "another application is named {:?}; names must be unique",
                application.name
            ));
        }
        if let Some(prefix) = &application.route_prefix
            && !prefixes.insert(prefix.clone())
        {
            node.refuse(format!(
                "another application has the route_prefix {prefix:?}; prefixes must be unique (\"/\" when not given, null for no route)"
            ));
        }
        applications.push(application);
    }
    fields.finish(&OTHER_TOP);
    Some(Schema { applications })
}

fn application(node: &Node<'_>) -> Option<Application> {
    let mut fields = node.fields()?;
    let name = match fields.get("name") {
        Some(node) => name(&node),
        None => Some("default".to_owned()),
    };
    let route_prefix = match fields.get("route_prefix") {
        Some(node) => prefix(&node),
        None if fields.is_null("route_prefix") => None,
        None => Some("/".to_owned()),
    };
    let known = fields.need("import_path", TEXT_TO_IMAGE).and_then(|node| {
        let path = node.text()?;
        // Ray takes "module.object" as well as "module:object".
        let known = path == TEXT_TO_IMAGE || path == TEXT_TO_IMAGE.replace(':', ".");
        if !known {
            node.refuse(format!(
                "must name a built-in graph ({TEXT_TO_IMAGE}), not {path:?}"
            ));
        }
        known.then_some(())
    });
    let args = fields
        .need("args", "at least {model: FOLDER}")
        .and_then(|node| Args::read(&node));
    // The deployments are read against the graph even when its arguments are wrong, so that all problems are found.
    let mut deployments = graph::deployments(&args.clone().unwrap_or_else(|| Args::of("fake")));
    let mut seen = BTreeSet::new();
    for node in fields.get("deployments").and_then(|n| n.list()).iter().flatten() {
        deployment(node, &mut deployments, &mut seen);
    }
    fields.finish(&OTHER_APPLICATION);
    known?;
    args?;
    Some(Application {
        name: name?,
        route_prefix,
        import_path: TEXT_TO_IMAGE.to_owned(),
        deployments,
    })
}

fn name(node: &Node<'_>) -> Option<String> {
    let name = node.text()?;
    if name.len() > 100 || name.contains(|c: char| c == '#' || c.is_control()) {
        node.refuse("must have at most 100 bytes, none of them # or a control character");
        return None;
    }
    Some(name)
}

/// Ray's rule: starts with `/`, ends with none unless it is `/`, holds no pattern.
fn prefix(node: &Node<'_>) -> Option<String> {
    let prefix = node.text()?;
    let why = if !prefix.starts_with('/') {
        "must start with \"/\""
    } else if prefix.len() > 1 && prefix.ends_with('/') {
        "must not end with \"/\" unless it is \"/\""
    } else if prefix.contains(['{', '}']) {
        "must hold no pattern: { and } are not accepted"
    } else if prefix == "/-" || prefix.starts_with("/-/") {
        "must not be below \"/-\", which is the proxy's own"
    } else if prefix.contains("//")
        || prefix.contains(|c: char| c.is_control() || matches!(c, ' ' | '?' | '#'))
    {
        "must be a plain path: no empty part, space, ? or #"
    } else {
        return Some(prefix);
    };
    node.refuse(format!("{why}, not {prefix:?}"));
    None
}

fn deployment(node: &Node<'_>, deployments: &mut [Deployment], seen: &mut BTreeSet<String>) {
    let Some(mut fields) = node.fields() else { return };
    let names = deployments
        .iter()
        .map(|d| d.name.as_str())
        .collect::<Vec<_>>()
        .join(", ");
    let named = fields
        .need("name", &names)
        .and_then(|node| Some((node.text()?, node)));
    let target = named.and_then(|(name, at)| {
        let target = deployments.iter_mut().find(|d| d.name == name);
        if target.is_none() {
            at.refuse(format!("is none of the graph's deployments ({names}): {name:?}"));
        } else if !seen.insert(name) {
            at.refuse("is described twice");
        }
        target
    });
    // A deployment of the wrong name is still read, into nothing.
    let mut nowhere = graph::deployments(&Args::of("fake")).remove(0);
    overrides(&mut fields, target.unwrap_or(&mut nowhere));
    fields.finish(&OTHER_DEPLOYMENT);
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // The ranges given to `whole` fit.
fn overrides(fields: &mut Fields<'_>, into: &mut Deployment) {
    if let Some(n) = fields.get("num_replicas").and_then(|n| n.whole(1..=MAX_REPLICAS)) {
        into.replicas = n as usize;
    }
    if let Some(n) = fields
        .get("max_ongoing_requests")
        .and_then(|n| n.whole(1..=100_000))
    {
        into.max_ongoing_requests = n as u32;
    }
    if let Some(n) = fields
        .get("max_queued_requests")
        .and_then(|n| n.whole(-1..=1_000_000))
    {
        into.max_queued_requests = n as i32;
    }
    if let Some(s) = fields
        .get("graceful_shutdown_timeout_s")
        .and_then(|n| n.number(MAX_GRACE_S))
    {
        into.grace = Duration::from_secs_f64(s);
    }
    if let Some(options) = fields.get("ray_actor_options").and_then(|n| n.fields()) {
        into.need = need(options, &into.need);
    }
}

#[allow(clippy::cast_sign_loss)] // The range given to `whole` has no negative numbers.
fn need(mut fields: Fields<'_>, default: &Amounts) -> Amounts {
    let mut need = default.clone();
    if let Some(cpus) = fields.get("num_cpus").and_then(|n| n.number(MAX_AMOUNT)) {
        need.cpus = units(cpus);
    }
    if let Some(node) = fields.get("num_gpus")
        && let Some(gpus) = node.number(MAX_AMOUNT)
    {
        if gpus > 1.0 && gpus.fract() != 0.0 {
            node.refuse(format!("must be whole when it is over 1, as in Ray, not {gpus}"));
        }
        need.gpus = units(gpus);
    }
    if let Some(bytes) = fields.get("memory").and_then(|n| n.whole(0..=i64::MAX)) {
        need.memory = bytes as u64;
    }
    let mut custom = BTreeMap::new();
    for (name, node) in fields
        .get("resources")
        .and_then(|n| n.entries())
        .unwrap_or_default()
    {
        if matches!(name.as_str(), "CPU" | "GPU" | "memory") {
            node.refuse("has a field of its own: num_cpus, num_gpus or memory");
        } else if let Some(amount) = node.number(MAX_AMOUNT) {
            custom.insert(name, units(amount));
        }
    }
    need.custom = custom;
    fields.finish(&OTHER_OPTIONS);
    need
}
