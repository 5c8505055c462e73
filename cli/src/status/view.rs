//! The state as people and scripts see it: enums as words, absent messages as empty ones. The JSON names are a contract.

use std::collections::BTreeMap;

use mobula_proto::common::v1::Load;
use mobula_proto::control::v1 as pb;
use serde::Serialize;

/// Everything, in the order in which it is shown.
#[derive(Debug, Serialize)]
pub(crate) struct View {
    pub(crate) version: String,
    pub(crate) uptime_ms: u64,
    pub(crate) applications: Vec<Application>,
    pub(crate) workers: Vec<Worker>,
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) worker_groups: Vec<WorkerGroup>,
    pub(crate) resource_version: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Application {
    pub(crate) name: String,
    pub(crate) route_prefix: String,
    pub(crate) state: &'static str,
    pub(crate) message: String,
    pub(crate) deployments: Vec<Deployment>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Deployment {
    pub(crate) name: String,
    pub(crate) state: &'static str,
    pub(crate) trigger: &'static str,
    pub(crate) message: String,
    pub(crate) target_replicas: u32,
    pub(crate) running_replicas: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scaling: Option<Scaling>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rollout: Option<Rollout>,
    pub(crate) replicas: Vec<Replica>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Scaling {
    pub(crate) state: &'static str,
    pub(crate) message: String,
    pub(crate) min_replicas: u32,
    pub(crate) max_replicas: u32,
    pub(crate) total_requests: f64,
    pub(crate) work_s: f64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Rollout {
    pub(crate) state: &'static str,
    pub(crate) updated: u32,
    pub(crate) target: u32,
    pub(crate) outdated: u32,
    pub(crate) message: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct WorkerGroup {
    pub(crate) name: String,
    pub(crate) min: u32,
    pub(crate) max: u32,
    pub(crate) wanted: u32,
    pub(crate) attached: u32,
    pub(crate) starting: u32,
    pub(crate) message: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Replica {
    pub(crate) replica_id: String,
    pub(crate) state: &'static str,
    pub(crate) message: String,
    pub(crate) worker_id: String,
    pub(crate) ongoing_requests: u32,
    pub(crate) queued_rows: u64,
    pub(crate) row_ns: u64,
    /// As ONNX Runtime names it; empty where no network is run.
    pub(crate) execution_provider: String,
    /// GPUs of its worker that it has or shares.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) gpus: Vec<u32>,
    /// Sessions that share the rows of a UNet call; 0 where no network is run.
    pub(crate) lanes: u32,
}

#[derive(Debug, Serialize)]
pub(crate) struct Worker {
    pub(crate) worker_id: String,
    pub(crate) kind: &'static str,
    pub(crate) alive: bool,
    pub(crate) address: String,
    pub(crate) pid: u32,
    pub(crate) resources: Resources,
    pub(crate) used: Resources,
    pub(crate) resident_bytes: u64,
    pub(crate) heartbeat_age_ms: u64,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Resources {
    pub(crate) cpus: f64,
    pub(crate) gpus: f64,
    pub(crate) memory_bytes: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) custom: BTreeMap<String, f64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Proxy {
    pub(crate) proxy_id: String,
    pub(crate) http_address: String,
    pub(crate) grpc_address: String,
}

impl From<pb::GetStatusResponse> for View {
    fn from(status: pb::GetStatusResponse) -> Self {
        Self {
            version: status.version,
            uptime_ms: status.uptime_ms,
            applications: status.applications.into_iter().map(Application::from).collect(),
            workers: status.workers.into_iter().map(Worker::from).collect(),
            proxies: status.proxies.into_iter().map(Proxy::from).collect(),
            worker_groups: status.worker_groups.into_iter().map(WorkerGroup::from).collect(),
            resource_version: status.resource_version,
        }
    }
}

impl From<pb::ApplicationStatus> for Application {
    fn from(application: pb::ApplicationStatus) -> Self {
        Self {
            state: word(application.state().as_str_name(), "APPLICATION_STATE_"),
            name: application.name,
            route_prefix: application.route_prefix,
            message: application.message,
            deployments: application
                .deployments
                .into_iter()
                .map(Deployment::from)
                .collect(),
        }
    }
}

impl From<pb::DeploymentStatus> for Deployment {
    fn from(deployment: pb::DeploymentStatus) -> Self {
        let running = deployment
            .replicas
            .iter()
            .filter(|r| r.state() == pb::ReplicaState::Running)
            .count();
        Self {
            state: word(deployment.state().as_str_name(), "DEPLOYMENT_STATE_"),
            trigger: word(deployment.trigger().as_str_name(), "DEPLOYMENT_TRIGGER_"),
            name: deployment.name,
            message: deployment.message,
            scaling: deployment.scaling.map(Scaling::from),
            rollout: deployment.rollout.map(Rollout::from),
            target_replicas: deployment.target_replicas,
            running_replicas: u32::try_from(running).unwrap_or(u32::MAX),
            replicas: deployment.replicas.into_iter().map(Replica::from).collect(),
        }
    }
}

impl From<pb::Scaling> for Scaling {
    fn from(scaling: pb::Scaling) -> Self {
        Self {
            state: word(scaling.state().as_str_name(), "SCALING_STATE_"),
            message: scaling.message,
            min_replicas: scaling.min_replicas,
            max_replicas: scaling.max_replicas,
            total_requests: scaling.total_requests,
            work_s: scaling.work_s,
        }
    }
}

impl From<pb::Rollout> for Rollout {
    fn from(rollout: pb::Rollout) -> Self {
        Self {
            state: word(rollout.state().as_str_name(), "ROLLOUT_STATE_"),
            updated: rollout.updated,
            target: rollout.target,
            outdated: rollout.outdated,
            message: rollout.message,
        }
    }
}

impl From<pb::WorkerGroupStatus> for WorkerGroup {
    fn from(group: pb::WorkerGroupStatus) -> Self {
        Self {
            name: group.name,
            min: group.min,
            max: group.max,
            wanted: group.wanted,
            attached: group.attached,
            starting: group.starting,
            message: group.message,
        }
    }
}

impl From<pb::ReplicaStatus> for Replica {
    fn from(replica: pb::ReplicaStatus) -> Self {
        let Load {
            ongoing_requests,
            queued_rows,
            row_ns,
        } = replica.load.unwrap_or_default();
        Self {
            state: word(replica.state().as_str_name(), "REPLICA_STATE_"),
            replica_id: replica.replica_id,
            message: replica.message,
            worker_id: replica.worker_id,
            execution_provider: replica.execution_provider,
            gpus: replica.gpus,
            lanes: replica.lanes,
            ongoing_requests,
            queued_rows,
            row_ns,
        }
    }
}

impl From<pb::WorkerStatus> for Worker {
    fn from(worker: pb::WorkerStatus) -> Self {
        Self {
            kind: match worker.kind() {
                pb::WorkerKind::Unspecified => "unknown",
                pb::WorkerKind::Preprocess => "preprocess",
                pb::WorkerKind::Inference => "inference",
            },
            worker_id: worker.worker_id,
            alive: worker.alive,
            address: worker.address,
            pid: worker.pid,
            resources: worker.resources.map(Resources::from).unwrap_or_default(),
            used: worker.used.map(Resources::from).unwrap_or_default(),
            resident_bytes: worker.resident_bytes,
            heartbeat_age_ms: worker.heartbeat_age_ms,
        }
    }
}

impl From<pb::Resources> for Resources {
    fn from(resources: pb::Resources) -> Self {
        Self {
            cpus: resources.cpus,
            gpus: resources.gpus,
            memory_bytes: resources.memory_bytes,
            custom: resources.custom.into_iter().collect(),
        }
    }
}

impl From<pb::ProxyStatus> for Proxy {
    fn from(proxy: pb::ProxyStatus) -> Self {
        Self {
            proxy_id: proxy.proxy_id,
            http_address: proxy.http_address,
            grpc_address: proxy.grpc_address,
        }
    }
}

/// `REPLICA_STATE_RUNNING` is `RUNNING` to people, as in Ray Serve; what was not said is `UNKNOWN`.
fn word(name: &'static str, prefix: &str) -> &'static str {
    match name.strip_prefix(prefix) {
        None | Some("UNSPECIFIED") => "UNKNOWN",
        Some(word) => word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_the_words_of_ray_serve() {
        let application = Application::from(pb::ApplicationStatus {
            state: pb::ApplicationState::DeployFailed.into(),
            ..Default::default()
        });
        assert_eq!(application.state, "DEPLOY_FAILED");
        assert_eq!(
            Application::from(pb::ApplicationStatus::default()).state,
            "UNKNOWN"
        );
    }

    #[test]
    fn json_has_the_running_count_and_the_reason_of_what_waits() {
        let deployment = pb::DeploymentStatus {
            name: "pipeline".into(),
            target_replicas: 2,
            replicas: vec![
                pb::ReplicaStatus {
                    state: pb::ReplicaState::Running.into(),
                    ..Default::default()
                },
                pb::ReplicaStatus {
                    state: pb::ReplicaState::Pending.into(),
                    message: "no worker has 4 CPUs free".into(),
                    ..Default::default()
                },
            ],
            ..Default::default()
        };
        let json = serde_json::to_value(Deployment::from(deployment)).unwrap();
        assert_eq!(json["running_replicas"], 1);
        assert_eq!(json["replicas"][1]["state"], "PENDING");
        assert_eq!(json["replicas"][1]["message"], "no worker has 4 CPUs free");
    }
}
