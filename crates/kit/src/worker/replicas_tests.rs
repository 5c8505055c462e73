use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use mobula_proto::{
    common::v1::Load,
    control::v1::{ModelInfo, ReplicaState},
};

use super::*;
use crate::{Drained, Readiness};

#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) broken: AtomicBool,
    pub(crate) retired: AtomicU32,
}

/// A replica whose other end the test holds.
#[derive(Clone, Default)]
pub(crate) struct Handle(pub(crate) Arc<Fake>);

impl Replica for Handle {
    fn load(&self) -> Load {
        Load {
            queued_rows: 7,
            ..Load::default()
        }
    }

    fn model(&self) -> Option<ModelInfo> {
        Some(ModelInfo {
            digest: "d".to_owned(),
            ..ModelInfo::default()
        })
    }

    fn health(&self) -> Result<(), String> {
        if self.0.broken.load(Ordering::SeqCst) {
            Err("device lost".to_owned())
        } else {
            Ok(())
        }
    }

    fn retire(&self) {
        self.0.retired.fetch_add(1, Ordering::SeqCst);
    }
}

/// Loads a clone of one handle, fails for the model `broken`, panics for the model `panic`.
pub(crate) struct Shelf(pub(crate) Handle);

#[async_trait::async_trait]
impl Loader for Shelf {
    type Replica = Handle;

    async fn load(&self, spec: &ReplicaSpec) -> Result<Handle, Failure> {
        match spec.model.as_str() {
            "broken" => Err(Failure::permanent("unet/model.onnx is missing")),
            "panic" => panic!("loader bug"),
            _ => Ok(self.0.clone()),
        }
    }
}

pub(crate) fn spec(id: &str, model: &str) -> ReplicaSpec {
    ReplicaSpec {
        replica_id: id.to_owned(),
        model: model.to_owned(),
        max_ongoing_requests: 2,
        ..ReplicaSpec::default()
    }
}

/// Waits until the only replica is in this state; gives its report.
pub(crate) async fn until(replicas: &Replicas<Shelf>, state: ReplicaState) -> ReplicaReport {
    loop {
        let changed = replicas.changed();
        if let Some(report) = replicas
            .reports()
            .into_iter()
            .find(|report| report.state() == state)
        {
            return report;
        }
        changed.await;
    }
}

async fn until_gone(replicas: &Replicas<Shelf>) {
    loop {
        let changed = replicas.changed();
        if replicas.is_empty() {
            return;
        }
        changed.await;
    }
}

fn shelf(stop: &Stop) -> (Arc<Fake>, Replicas<Shelf>) {
    let handle = Handle::default();
    (handle.0.clone(), Replicas::new(Shelf(handle), stop.clone()))
}

#[tokio::test(start_paused = true)]
async fn an_assigned_replica_runs_and_reports_its_load_and_model() {
    let (_, replicas) = shelf(&Stop::new(Duration::from_secs(5)));
    replicas.assign(spec("a", "demo"));
    until(&replicas, ReplicaState::Running).await;
    let lease = replicas.lease("a").unwrap();
    assert_eq!(lease.replica_id(), "a");
    let report = replicas.reports().remove(0);
    assert_eq!(
        report.load,
        Some(Load {
            ongoing_requests: 1,
            queued_rows: 7,
            row_ns: 0
        })
    );
    assert_eq!(report.model.unwrap().digest, "d");
    assert_eq!(report.spec.unwrap(), spec("a", "demo"));
}

#[tokio::test(start_paused = true)]
async fn a_model_that_cannot_be_loaded_is_reported_with_the_reason_and_a_panic_too() {
    let (_, replicas) = shelf(&Stop::new(Duration::from_secs(5)));
    replicas.assign(spec("a", "broken"));
    let report = until(&replicas, ReplicaState::Failed).await;
    assert_eq!(report.message, "unet/model.onnx is missing");
    assert!(report.permanent, "as the loader says");
    replicas.drain("a", Duration::ZERO);
    replicas.assign(spec("b", "panic"));
    let report = until(&replicas, ReplicaState::Failed).await;
    assert!(report.message.contains("panicked"), "{}", report.message);
    assert!(!report.permanent, "nobody knows");
}

#[tokio::test(start_paused = true)]
async fn a_drained_replica_waits_for_its_last_request_and_is_retired_once() {
    let (fake, replicas) = shelf(&Stop::new(Duration::from_secs(5)));
    replicas.assign(spec("a", "demo"));
    until(&replicas, ReplicaState::Running).await;
    let lease = replicas.lease("a").unwrap();
    replicas.drain("a", Duration::from_secs(60));
    until(&replicas, ReplicaState::Stopping).await;
    assert!(matches!(replicas.lease("a"), Err(Refused::Draining)));
    assert_eq!(fake.retired.load(Ordering::SeqCst), 0);
    drop(lease);
    until_gone(&replicas).await;
    assert_eq!(fake.retired.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_fails_is_reported_and_retired() {
    let (fake, replicas) = shelf(&Stop::new(Duration::from_secs(5)));
    replicas.assign(spec("a", "demo"));
    until(&replicas, ReplicaState::Running).await;
    fake.broken.store(true, Ordering::SeqCst);
    assert_eq!(
        until(&replicas, ReplicaState::Failed).await.message,
        "device lost"
    );
    assert!(!replicas.reports()[0].permanent);
    assert!(matches!(replicas.lease("a"), Err(Refused::Failed(_))));
}

#[tokio::test(start_paused = true)]
async fn stopping_drains_every_replica_within_the_one_deadline() {
    let stop = Stop::new(Duration::from_secs(5));
    let (fake, replicas) = shelf(&stop);
    replicas.assign(spec("a", "demo"));
    until(&replicas, ReplicaState::Running).await;
    let held = replicas.lease("a").unwrap();
    let start = Instant::now();
    stop.trigger();
    assert_eq!(stop.wait().await, Drained::Clean);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(fake.retired.load(Ordering::SeqCst), 1);
    drop(held);
    replicas.assign(spec("b", "demo"));
    assert!(replicas.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_first_running_replica_makes_the_worker_ready() {
    let (_, replicas) = shelf(&Stop::new(Duration::from_secs(5)));
    let readiness = Readiness::new();
    replicas.ready_with(readiness.latch("attached"));
    assert!(!readiness.is_ready());
    replicas.assign(spec("a", "demo"));
    readiness.ready().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_measured_of_a_replica_has_rays_names_and_ends_with_it() {
    let handle = crate::metrics::install();
    let page = || crate::metrics::render(&handle);
    let stop = Stop::new(Duration::from_secs(1));
    let replicas = Replicas::new(Shelf(Handle::default()), stop);
    let named = |id: &str| ReplicaSpec {
        application: "measured".to_owned(),
        deployment: "pipeline".to_owned(),
        ..spec(id, "fine")
    };
    replicas.assign(named("measured#1"));
    until(&replicas, ReplicaState::Running).await;
    let (done, failed) = (
        replicas.lease("measured#1").unwrap(),
        replicas.lease("measured#1").unwrap(),
    );
    let of = r#"application="measured",deployment="pipeline",replica="measured#1""#;
    let routed = format!(r#"{of},route="measured""#);
    let shown = page();
    let busy = format!("serve_replica_processing_queries{{{of}}} 2\n");
    assert!(shown.contains(&busy), "{busy} in {shown}");
    failed.fails("RUN_FAILED");
    failed.fails("LATER");
    drop((done, failed));
    replicas.reconfigure(
        "measured#1",
        LightConfig {
            version: "2".to_owned(),
            max_ongoing_requests: 2,
            ..LightConfig::default()
        },
    );
    let shown = page();
    let deployment = r#"application="measured",deployment="pipeline""#;
    for line in [
        format!("serve_deployment_replica_starts_total{{{of}}} 1\n"),
        format!("serve_deployment_request_counter_total{{{routed}}} 2\n"),
        format!("serve_deployment_error_counter_total{{{routed},exception_type=\"RUN_FAILED\"}} 1\n"),
        format!("serve_deployment_processing_latency_ms_count{{{routed}}} 2\n"),
        format!("serve_replica_processing_queries{{{of}}} 0\n"),
        format!("serve_replica_initialization_latency_ms_count{{{deployment}}} 1\n"),
        format!("serve_replica_reconfigure_latency_ms_count{{{deployment}}} 1\n"),
    ] {
        assert!(shown.contains(&line), "{line} in {shown}");
    }
    assert!(!shown.contains("LATER"), "{shown}");

    replicas.drain("measured#1", Duration::ZERO);
    until_gone(&replicas).await;
    // The keeper ends the series in the same turn or the next.
    while page().contains("measured#1") {
        tokio::time::sleep(HEALTH_INTERVAL).await;
    }
    let shown = page();
    let stopped = format!("serve_replica_shutdown_duration_ms_count{{{deployment}}} 1\n");
    assert!(shown.contains(&stopped), "{stopped} in {shown}");
    assert!(
        !shown.contains("serve_replica_utilization_percent{application=\"measured\""),
        "{shown}"
    );
    while page().contains("measured") {
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
}
