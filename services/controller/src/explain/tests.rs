//! Explanations of made-up meshes.

use mobula_proto::{common::v1::Timings, control::v1 as pb};

use super::*;

fn finished(id: &str, queue_us: u64, denoise_us: u64) -> pb::FinishedRequest {
    pb::FinishedRequest {
        request_id: id.into(),
        application: "sd".into(),
        total_ms: (queue_us + denoise_us) / 1000,
        timings: Some(Timings {
            queue_us,
            denoise_us,
            ticks: 20,
            ..Default::default()
        }),
        replica_ids: vec!["sd#pipeline#abc".into()],
        ahead: 4,
        width: 512,
        height: 512,
        steps: 20,
        pictures: 1,
        ..Default::default()
    }
}

fn mesh() -> pb::GetStatusResponse {
    let pipeline = pb::DeploymentStatus {
        name: "pipeline".into(),
        kind: pb::WorkerKind::Inference.into(),
        target_replicas: 2,
        state: pb::DeploymentState::Upscaling.into(),
        trigger: pb::DeploymentTrigger::Autoscaling.into(),
        replicas: vec![
            pb::ReplicaStatus {
                replica_id: "sd#pipeline#abc".into(),
                state: pb::ReplicaState::Running.into(),
                worker_id: "w1".into(),
                ..Default::default()
            },
            pb::ReplicaStatus {
                replica_id: "sd#pipeline#def".into(),
                state: pb::ReplicaState::Pending.into(),
                message: "no inference worker has 1 free GPU".into(),
                ..Default::default()
            },
        ],
        scaling: Some(pb::Scaling {
            state: pb::ScalingState::Stable.into(),
            desired_replicas: 3.0,
            message: "needs 3 replicas".into(),
            min_replicas: 1,
            max_replicas: 2,
            policy: "ongoing".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    pb::GetStatusResponse {
        applications: vec![pb::ApplicationStatus {
            name: "sd".into(),
            route_prefix: "/".into(),
            state: pb::ApplicationState::Running.into(),
            deployments: vec![pipeline],
            ..Default::default()
        }],
        workers: vec![pb::WorkerStatus {
            worker_id: "w1".into(),
            group: "gpu".into(),
            ..Default::default()
        }],
        worker_groups: vec![pb::WorkerGroupStatus {
            name: "gpu".into(),
            kind: pb::WorkerKind::Inference.into(),
            max: 1,
            wanted: 1,
            attached: 1,
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn ask(subject: Subject, records: &Records) -> Result<pb::ExplainResponse, Error> {
    let request = pb::ExplainRequest {
        subject: Some(subject),
    };
    explain(&request, &mesh(), records)
}

fn finding<'a>(explained: &'a pb::ExplainResponse, topic: &str) -> &'a str {
    let found = explained.findings.iter().find(|f| f.topic == topic);
    &found
        .unwrap_or_else(|| panic!("no finding {topic}: {explained:?}"))
        .text
}

#[test]
fn a_request_that_waited_is_told_so_with_what_would_have_helped() {
    let mut records = Records::default();
    records.add(
        (0..6)
            .map(|i| finished(&format!("other{i}"), 100_000, 1_000_000))
            .collect(),
    );
    records.add(vec![finished("slow", 3_000_000, 1_000_000)]);
    let explained = ask(Subject::RequestId("slow".into()), &records).unwrap();
    assert_eq!(
        explained.summary,
        "it took 4.0 s, most of it in waiting for a replica and for its first step"
    );
    assert!(finding(&explained, "queue").contains("75 %"), "{explained:?}");
    assert!(
        finding(&explained, "queue").contains("slower than the last 6 like it"),
        "{explained:?}"
    );
    assert!(
        finding(&explained, "denoise").contains("20 UNet calls, 50 ms each"),
        "{explained:?}"
    );
    assert!(explained.advice[0].contains("max_replicas of 2"), "{explained:?}");
}

#[test]
fn a_request_that_failed_is_told_with_its_error() {
    let mut records = Records::default();
    records.add(vec![pb::FinishedRequest {
        code: 8,
        message: "256 requests wait already".into(),
        no_replica_ms: 1500,
        ..finished("full", 0, 0)
    }]);
    let explained = ask(Subject::RequestId("full".into()), &records).unwrap();
    assert!(explained.summary.contains("ResourceExhausted"), "{explained:?}");
    assert!(explained.summary.contains("256 requests"), "{explained:?}");
    assert!(finding(&explained, "no replica").contains("1.5 s"));
    assert_eq!(explained.advice.len(), 2);
}

#[test]
fn a_pending_replica_leads_to_the_group_that_is_full() {
    let explained = ask(Subject::ReplicaId("def".into()), &Records::default()).unwrap();
    assert!(explained.summary.contains("no inference worker has 1 free GPU"));
    assert!(
        explained.advice[0].contains("raise max of worker group gpu"),
        "{explained:?}"
    );
}

#[test]
fn a_deployment_and_its_application_tell_of_scaling() {
    for subject in [
        Subject::Deployment("sd/pipeline".into()),
        Subject::Deployment("pipeline".into()),
        Subject::Application("sd".into()),
    ] {
        let explained = ask(subject, &Records::default()).unwrap();
        assert!(finding(&explained, "autoscaling").contains("needs 3"));
        assert!(
            explained.advice.iter().any(|a| a.contains("max_replicas")),
            "{explained:?}"
        );
    }
}

#[test]
fn replicas_that_a_proxy_spares_are_told_of_with_the_time() {
    let restrained = |id: &str, ejected_ms, ejections, slow_start_ms| pb::RestrainedReplica {
        replica_id: id.into(),
        ejected_ms,
        ejections,
        slow_start_ms,
    };
    let mut mesh = mesh();
    mesh.proxies = vec![pb::ProxyStatus {
        proxy_id: "p1".into(),
        restrained: vec![
            restrained("sd#pipeline#abc", 4_200, 3, 14_200),
            restrained("sd#pipeline#def", 0, 0, 9_000),
            restrained("other#pipeline#x", 5_000, 1, 5_000),
        ],
        ..Default::default()
    }];
    let ask = |subject| {
        let request = pb::ExplainRequest {
            subject: Some(subject),
        };
        explain(&request, &mesh, &Records::default()).unwrap()
    };
    let explained = ask(Subject::Deployment("sd/pipeline".into()));
    assert_eq!(
        finding(&explained, "ejected"),
        "sd#pipeline#abc is sent nothing by p1 for 4.2 s more, for the 3. time in a row: it failed requests that it took; \
         then it gets more and more, and all of its share in 14.2 s"
    );
    assert_eq!(
        finding(&explained, "slow start"),
        "sd#pipeline#def is new to p1, or came back: it gets more and more, and all of its share in 9.0 s"
    );
    assert!(!format!("{explained:?}").contains("other#"), "{explained:?}");
    let log = "see the log of the worker of sd#pipeline#abc for why its requests fail";
    assert!(explained.advice.iter().any(|a| a == log), "{explained:?}");
    let explained = ask(Subject::ReplicaId("def".into()));
    assert!(
        explained.findings.iter().all(|f| f.topic != "ejected"),
        "{explained:?}"
    );
    assert!(finding(&explained, "slow start").contains("9.0 s"));
}

#[test]
fn workers_and_groups_are_told() {
    let worker = ask(Subject::Worker("w1".into()), &Records::default()).unwrap();
    assert_eq!(worker.summary, "it is attached and holds one replica");
    let group = ask(Subject::Worker("gpu".into()), &Records::default()).unwrap();
    assert!(group.advice[0].contains("raise max of gpu"));
}

#[test]
fn figures_beyond_all_measure_are_told_of_as_any_other() {
    let most = u64::MAX;
    let mut lie = finished("lie", 0, 0);
    (lie.total_ms, lie.no_replica_ms) = (most, most);
    lie.timings = Some(Timings {
        queue_us: most,
        denoise_us: most,
        ..lie.timings.unwrap()
    });
    let mut records = Records::default();
    records.add(vec![lie]);
    let explained = ask(Subject::RequestId("lie".into()), &records).unwrap();
    assert!(finding(&explained, "queue").contains("100 %"), "{explained:?}");
}

#[test]
fn what_is_not_known_is_said_with_what_is() {
    let error = ask(Subject::Application("other".into()), &Records::default()).unwrap_err();
    assert!(error.to_string().contains("there are: sd"), "{error}");
    let error = ask(Subject::RequestId("x".into()), &Records::default()).unwrap_err();
    assert!(error.to_string().contains("there is none"), "{error}");
    let none = pb::ExplainRequest::default();
    assert!(explain(&none, &mesh(), &Records::default()).is_err());
}
