//! Shapes and codes; that Ray's own models take the shapes is tested with Ray's own command (scripts/ray-cli.sh).

mod door;

use mobula_proto::control::v1 as pb;
use serde_json::{Value, json};

use super::{answer, details};
use crate::Error;

fn mesh() -> pb::GetStatusResponse {
    let deployment = |name: &str, kind: pb::WorkerKind| pb::DeploymentStatus {
        name: name.into(),
        kind: kind.into(),
        state: pb::DeploymentState::Healthy.into(),
        trigger: pb::DeploymentTrigger::ConfigUpdateCompleted.into(),
        target_replicas: 1,
        config: json!({"name": name, "num_replicas": 1}).to_string(),
        resources: Some(pb::Resources {
            cpus: 1.0,
            ..Default::default()
        }),
        replicas: vec![pb::ReplicaStatus {
            replica_id: format!("sd#{name}#abc"),
            state: pb::ReplicaState::Running.into(),
            worker_id: "w".into(),
            started_unix_ms: 2_000,
            ..Default::default()
        }],
        ..Default::default()
    };
    pb::GetStatusResponse {
        controller_id: "c".into(),
        applications: vec![pb::ApplicationStatus {
            name: "sd".into(),
            route_prefix: "/".into(),
            state: pb::ApplicationState::Running.into(),
            deployed_unix_ms: 1_500,
            source: pb::ApplicationSource::Declarative.into(),
            resource_version: 3,
            deployments: vec![
                deployment("preprocess", pb::WorkerKind::Preprocess),
                deployment("pipeline", pb::WorkerKind::Inference),
            ],
            ..Default::default()
        }],
        workers: vec![pb::WorkerStatus {
            worker_id: "w".into(),
            address: "10.0.0.7:7200".into(),
            pid: 42,
            ..Default::default()
        }],
        proxies: vec![pb::ProxyStatus {
            proxy_id: "p".into(),
            http_address: "10.0.0.5:8000".into(),
            grpc_address: "10.0.0.5:9000".into(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn instance(status: &pb::GetStatusResponse, only: Option<pb::ApplicationSource>) -> Value {
    let source = details::Source {
        status,
        config: &json!({"http_options": {"port": 8000}}),
        address: "10.0.0.1:8265",
        all: false,
    };
    details::instance(&source, only)
}

#[test]
fn without_applications_it_looks_like_ray_without_serve() {
    let empty = instance(&pb::GetStatusResponse::default(), None);
    assert_eq!(empty["controller_info"], json!({}));
    assert_eq!(empty["applications"], json!({}));
}

#[test]
fn details_have_rays_words() {
    let details = instance(&mesh(), None);
    let application = &details["applications"]["sd"];
    assert_eq!(application["status"], "RUNNING");
    assert_eq!(application["last_deployed_time_s"], 1.5);
    assert_eq!(application["source"], "declarative");
    assert_eq!(
        application["deployment_topology"]["ingress_deployment"],
        "preprocess"
    );
    let pipeline = &application["deployments"]["pipeline"];
    assert_eq!(pipeline["status"], "HEALTHY");
    assert_eq!(pipeline["status_trigger"], "CONFIG_UPDATE_COMPLETED");
    assert_eq!(pipeline["required_resources"], json!({"CPU": 1.0}));
    assert_eq!(pipeline["deployment_config"]["num_replicas"], 1);
    let replica = &pipeline["replicas"][0];
    assert_eq!(
        (&replica["state"], &replica["pid"]),
        (&json!("RUNNING"), &json!(42))
    );
    assert_eq!(replica["node_ip"], "10.0.0.7");
    assert_eq!(details["proxies"]["p"]["status"], "HEALTHY");
    assert_eq!(details["http_options"]["port"], 8000);
    let groups = details["target_groups"].as_array().unwrap();
    assert_eq!(groups.len(), 2);
    assert_eq!(groups[0]["targets"][0]["port"], 8000);
    assert_eq!(details["controller_info"]["node_ip"], "10.0.0.1");
}

#[test]
fn what_rays_models_refuse_is_told_only_when_it_is_asked_for() {
    let (status, config) = (mesh(), json!({}));
    let of = |all| {
        let source = details::Source {
            status: &status,
            config: &config,
            address: "10.0.0.1:8265",
            all,
        };
        details::instance(&source, None)
    };
    for (all, instance) in [(false, of(false)), (true, of(true))] {
        let application = &instance["applications"]["sd"];
        let pipeline = &application["deployments"]["pipeline"];
        assert_eq!(instance.get("worker_groups").is_some(), all);
        assert_eq!(instance.get("resource_version").is_some(), all);
        assert_eq!(application.get("resource_version").is_some(), all);
        assert_eq!(pipeline.get("rollout").is_some(), all);
        assert!(instance.get("deploy_mode").is_none(), "Ray has it no more");
    }
}

#[test]
fn a_source_can_be_asked_for() {
    let imperative = instance(&mesh(), Some(pb::ApplicationSource::Imperative));
    assert_eq!(imperative["applications"], json!({}));
    let declarative = instance(&mesh(), Some(pb::ApplicationSource::Declarative));
    assert!(declarative["applications"]["sd"].is_object());
}

#[test]
fn a_replica_without_a_place_is_starting_and_says_why() {
    let mut status = mesh();
    let replica = &mut status.applications[0].deployments[1].replicas[0];
    replica.set_state(pb::ReplicaState::Pending);
    replica.worker_id = String::new();
    replica.message = "no worker".into();
    let details = instance(&status, None);
    let replica = &details["applications"]["sd"]["deployments"]["pipeline"]["replicas"][0];
    assert_eq!(replica["state"], "STARTING");
    assert_eq!(replica["message"], "no worker");
    assert_eq!(replica["pid"], Value::Null);
}

#[test]
fn people_are_told_one_problem_a_line() {
    let problem = |path: &str| mobula_schema::Problem {
        path: path.into(),
        line: Some(3),
        why: "must not be".into(),
    };
    let problems = Error::Invalid(vec![problem("a"), problem("b")]);
    assert_eq!(
        answer::plain(&problems),
        "line 3: a: must not be\nline 3: b: must not be\n"
    );
    assert_eq!(answer::plain(&Error::Unknown("no x".into())), "no x\n");
}

#[test]
fn errors_have_the_codes_that_rays_clients_know() {
    let of = |error: Error| answer::status(&error).as_u16();
    assert_eq!(of(Error::Invalid(Vec::new())), 400);
    assert_eq!(of(Error::Unknown("x".into())), 404);
    let conflict = Error::Conflict {
        why: "x".into(),
        current: 3,
    };
    assert_eq!(of(conflict), 409);
    assert_eq!(of(Error::ScalesItself("x".into())), 412);
    assert_eq!(of(Error::Stopping), 503);
}
