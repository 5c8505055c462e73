//! The state of everything in the shape of Ray's `ServeInstanceDetails` (ray/serve/schema.py), checked against Ray's own
//! pydantic models.
//!
//! Ray's models of the whole, of an application and of a deployment refuse fields that they do not know, so what Mobula
//! has beyond them (`resource_version`, `worker_groups`, `rollout`) is told only to who asks for all. Where Ray takes more,
//! as in a replica, more is always told. What has no counterpart here is null: log files, cloud instance ids.

use std::collections::HashMap;

use mobula_proto::control::v1 as pb;
use serde_json::{Map, Value, json};

/// What the details are made of.
pub(super) struct Source<'a> {
    pub(super) status: &'a pb::GetStatusResponse,
    /// The config that was accepted last.
    pub(super) config: &'a Value,
    /// Where this door is reached, `host:port`.
    pub(super) address: &'a str,
    /// Whether fields that Ray's models refuse are wanted too.
    pub(super) all: bool,
}

/// Reports of demand older than this are late: ten report intervals of Ray's default.
const DELAYED_MS: u64 = 2_500;
/// And older than this they count no more (Ray: `RAY_SERVE_MIN_HANDLE_METRICS_TIMEOUT_S`).
const UNAVAILABLE_MS: u64 = 10_000;

/// Workers by id.
pub(super) type Workers<'a> = HashMap<&'a str, &'a pb::WorkerStatus>;

/// All workers: replicas name theirs, and there may be as many of the one as of the other.
pub(super) fn workers(status: &pb::GetStatusResponse) -> Workers<'_> {
    let workers = status.workers.iter();
    workers.map(|worker| (&*worker.worker_id, worker)).collect()
}

/// Everything. `only` keeps applications of one source, as Ray's `api_type`.
pub(super) fn instance(source: &Source<'_>, only: Option<pb::ApplicationSource>) -> Value {
    let status = source.status;
    if status.applications.is_empty() && !source.all {
        // What Ray answers when Serve does not run; KubeRay puts its config again on it.
        return json!({
            "controller_info": {},
            "proxies": {},
            "applications": {},
            "target_capacity": null,
        });
    }
    let workers = workers(status);
    let applications: Map<String, Value> = status
        .applications
        .iter()
        .filter(|application| only.is_none_or(|only| application.source() == only))
        .map(|application| {
            (
                application.name.clone(),
                details(application, &workers, source.all),
            )
        })
        .collect();
    let mut instance = json!({
        "controller_info": actor(&status.controller_id, source.address, "SERVE_CONTROLLER_ACTOR"),
        "proxies": proxies(status),
        "applications": applications,
        "target_capacity": status.target_capacity,
        "target_groups": target_groups(status),
    });
    if source.all {
        let groups: Vec<Value> = status.worker_groups.iter().map(group).collect();
        let more = json!({"resource_version": status.resource_version, "worker_groups": groups});
        merge(&mut instance, more);
    }
    for field in ["proxy_location", "http_options", "grpc_options"] {
        if let Some(value) = source.config.get(field) {
            instance[field] = value.clone();
        }
    }
    instance
}

/// One application.
pub(super) fn details(application: &pb::ApplicationStatus, workers: &Workers<'_>, all: bool) -> Value {
    let deployments: Map<String, Value> = application
        .deployments
        .iter()
        .map(|d| {
            let mut details = deployment(d, application, workers);
            if all {
                details["rollout"] = json!(d.rollout.as_ref().map(rollout));
            }
            (d.name.clone(), details)
        })
        .collect();
    let mut details = json!({
        "name": application.name,
        "route_prefix": (!application.route_prefix.is_empty()).then_some(&application.route_prefix),
        "docs_path": null,
        "status": word(application.state().as_str_name(), "APPLICATION_STATE_"),
        "message": application.message,
        "last_deployed_time_s": seconds(application.deployed_unix_ms),
        "deployed_app_config": parsed(&application.config),
        "source": source_word(application.source()),
        "deployments": deployments,
        "external_scaler_enabled": application.external_scaler,
        "deployment_topology": topology(application),
    });
    if all {
        details["resource_version"] = json!(application.resource_version);
    }
    details
}

fn deployment(
    deployment: &pb::DeploymentStatus,
    application: &pb::ApplicationStatus,
    workers: &Workers<'_>,
) -> Value {
    let mut config = parsed(&deployment.config);
    if config.is_null() {
        config = json!({"name": deployment.name});
    }
    let replicas: Vec<Value> = deployment
        .replicas
        .iter()
        .map(|r| replica(r, application, workers))
        .collect();
    json!({
        "name": deployment.name,
        "status": said(deployment.state().as_str_name(), "DEPLOYMENT_STATE_", "UPDATING"),
        "status_trigger": word(deployment.trigger().as_str_name(), "DEPLOYMENT_TRIGGER_"),
        "message": deployment.message,
        "deployment_config": config,
        "target_num_replicas": deployment.target_replicas,
        "required_resources": deployment.resources.as_ref().map_or_else(|| json!({}), resources),
        "replicas": replicas,
        "autoscaling_detail": deployment.scaling.as_ref().map(scaling),
    })
}

fn replica(replica: &pb::ReplicaStatus, application: &pb::ApplicationStatus, workers: &Workers<'_>) -> Value {
    let worker = workers.get(&*replica.worker_id);
    let address = worker.map_or("", |worker| worker.address.as_str());
    // Ray has no state for a replica without a place, or for one that is tried again: it is on its way.
    let state = match replica.state() {
        pb::ReplicaState::Running => "RUNNING",
        pb::ReplicaState::Stopping => "STOPPING",
        pb::ReplicaState::Unspecified
        | pb::ReplicaState::Pending
        | pb::ReplicaState::Starting
        | pb::ReplicaState::Failed => "STARTING",
    };
    let mut details = actor(
        &replica.worker_id,
        address,
        &format!("SERVE_REPLICA::{}", replica.replica_id),
    );
    let more = json!({
        "replica_id": replica.replica_id,
        "state": state,
        "pid": worker.map(|worker| worker.pid),
        "start_time_s": seconds(replica.started_unix_ms.max(application.deployed_unix_ms)),
        "message": replica.message,
        "version": replica.version,
        "outdated": replica.outdated,
    });
    merge(&mut details, more);
    details
}

/// Ray's `ServeActorDetails`: a worker stands for the node and for the actor's process.
fn actor(worker: &str, address: &str, name: &str) -> Value {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "node_id": some(worker),
        "node_ip": some(host(address)),
        "node_instance_id": null,
        "actor_id": some(worker),
        "actor_name": name,
        "worker_id": some(worker),
        "log_file_path": null,
    })
}

fn proxies(status: &pb::GetStatusResponse) -> Value {
    let proxies: Map<String, Value> = status
        .proxies
        .iter()
        .map(|proxy| {
            let name = format!("SERVE_PROXY_ACTOR-{}", proxy.proxy_id);
            let mut details = actor(&proxy.proxy_id, &proxy.http_address, &name);
            // One that does not watch is not in the list.
            details["status"] = json!("HEALTHY");
            (proxy.proxy_id.clone(), details)
        })
        .collect();
    Value::Object(proxies)
}

/// Where balancers send requests: to the proxies, by either door.
fn target_groups(status: &pb::GetStatusResponse) -> Value {
    let targets = |address: fn(&pb::ProxyStatus) -> &str| -> Vec<Value> {
        let target = |proxy: &pb::ProxyStatus| {
            let (host, port) = address(proxy).rsplit_once(':')?;
            let port: u16 = port.parse().ok()?;
            Some(json!({"ip": host, "port": port, "instance_id": "", "name": proxy.proxy_id}))
        };
        status.proxies.iter().filter_map(target).collect()
    };
    let http = targets(|proxy| &proxy.http_address);
    let grpc = targets(|proxy| &proxy.grpc_address);
    let groups: Vec<Value> = status
        .applications
        .iter()
        .filter(|application| !application.route_prefix.is_empty())
        .flat_map(|application| {
            [("HTTP", &http), ("gRPC", &grpc)].map(|(protocol, targets)| {
                json!({
                    "route_prefix": application.route_prefix,
                    "protocol": protocol,
                    "targets": targets,
                    "app_name": application.name,
                })
            })
        })
        .collect();
    Value::Array(groups)
}

fn topology(application: &pb::ApplicationStatus) -> Value {
    let is_ingress = |d: &pb::DeploymentStatus| d.kind() == pb::WorkerKind::Preprocess;
    let ingress = application.deployments.iter().find(|d| is_ingress(d));
    let node = |d: &pb::DeploymentStatus| {
        let outbound: Vec<Value> = application
            .deployments
            .iter()
            .filter(|other| is_ingress(d) && !is_ingress(other))
            .map(|other| json!({"name": other.name, "app_name": application.name}))
            .collect();
        let node = json!({
            "name": d.name,
            "app_name": application.name,
            "outbound_deployments": outbound,
            "is_ingress": is_ingress(d),
        });
        (d.name.clone(), node)
    };
    json!({
        "app_name": application.name,
        "nodes": application.deployments.iter().map(node).collect::<Map<_, _>>(),
        "ingress_deployment": ingress.map(|d| &d.name),
    })
}

fn scaling(scaling: &pb::Scaling) -> Value {
    let health = match scaling.metrics_age_ms {
        Some(age) if age > UNAVAILABLE_MS => "unavailable",
        Some(age) if age > DELAYED_MS && scaling.total_requests > 0.0 => "delayed",
        Some(_) | None => "healthy",
    };
    json!({
        "scaling_status": said(scaling.state().as_str_name(), "SCALING_STATE_", "STABLE"),
        "decisions": scaling.decisions.iter().map(decision).collect::<Vec<_>>(),
        "metrics": {"total_requests": scaling.total_requests, "work_s": scaling.work_s},
        "metrics_health": health,
        "errors": [],
        "message": scaling.message,
        "min_replicas": scaling.min_replicas,
        "max_replicas": scaling.max_replicas,
    })
}

/// One decision of a scaler.
pub(super) fn decision(decision: &pb::Decision) -> Value {
    json!({
        "timestamp_s": seconds(decision.at_unix_ms),
        "reason": decision.reason,
        "prev_num_replicas": decision.from,
        "curr_num_replicas": decision.to,
        "policy": decision.policy,
        "inputs": decision.inputs,
    })
}

fn rollout(rollout: &pb::Rollout) -> Value {
    json!({
        "status": word(rollout.state().as_str_name(), "ROLLOUT_STATE_"),
        "updated_replicas": rollout.updated,
        "target_replicas": rollout.target,
        "outdated_replicas": rollout.outdated,
        "message": rollout.message,
        "began_time_s": seconds(rollout.began_unix_ms),
    })
}

fn group(group: &pb::WorkerGroupStatus) -> Value {
    json!({
        "name": group.name,
        "kind": word(group.kind().as_str_name(), "WORKER_KIND_").to_lowercase(),
        "min": group.min,
        "max": group.max,
        "wanted": group.wanted,
        "attached": group.attached,
        "starting": group.starting,
        "message": group.message,
    })
}

/// Ray's names of resources.
fn resources(resources: &pb::Resources) -> Value {
    let mut all = Map::new();
    let mut put = |name: &str, amount: f64| {
        if amount > 0.0 {
            all.insert(name.to_owned(), json!(amount));
        }
    };
    put("CPU", resources.cpus);
    put("GPU", resources.gpus);
    #[allow(clippy::cast_precision_loss, reason = "Ray's amounts are floats")]
    {
        put("memory", resources.memory_bytes as f64);
        put("vram_bytes", resources.vram_bytes as f64);
    }
    for (name, amount) in &resources.custom {
        put(name, *amount);
    }
    Value::Object(all)
}

fn source_word(source: pb::ApplicationSource) -> &'static str {
    match source {
        pb::ApplicationSource::Unspecified => "unknown",
        pb::ApplicationSource::Declarative => "declarative",
        pb::ApplicationSource::Imperative => "imperative",
    }
}

/// A contract's enum value without its prefix, which is Ray's word.
pub(super) fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_owned()
}

/// The same, where Ray has no word for what was not said.
fn said(name: &str, prefix: &str, otherwise: &str) -> String {
    match word(name, prefix).as_str() {
        "UNSPECIFIED" => otherwise.to_owned(),
        word => word.to_owned(),
    }
}

/// Unix seconds, as Ray gives times.
#[allow(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit a double")]
pub(super) fn seconds(unix_ms: u64) -> f64 {
    unix_ms as f64 / 1000.0
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}

fn host(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}
