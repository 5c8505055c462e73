//! What a worker says about replicas: models that run, and models that do not.

use std::time::Duration;

use mobula_inference::{Config, model};
use mobula_kit::worker::{ReplicaSpec, ReplicaState};
use mobula_proto::inference::v1::GenerateRequest;

use crate::support::{Worker, plain, spec, tiny};

#[tokio::test]
async fn a_running_replica_tells_what_proxies_must_know() {
    let worker = Worker::with_model(tiny("sd21")).await;
    let info = worker.model();
    assert_eq!(info.digest, model::digest(&tiny("sd21")).unwrap());
    assert_eq!(info.pipeline_class, "StableDiffusionPipeline");
    assert_eq!(
        (info.default_width, info.default_height, info.size_multiple),
        (32, 32, 16)
    );
    assert_eq!((info.default_steps, info.default_guidance_scale), (50, 7.5));
    assert_eq!(info.default_scheduler, "ddim");
    assert!(
        info.schedulers.contains(&"dpmpp_2m_karras".to_owned()),
        "{:?}",
        info.schedulers
    );
    assert_eq!((info.max_size, info.max_steps), (512, 1000));
    // Its configuration does not leave out PNDM's Runge-Kutta steps.
    let extra = |name: &str| info.extra_calls.get(name).copied();
    assert_eq!(
        (extra("pndm"), extra("heun"), extra("ddim")),
        (Some(9), Some(-1), None)
    );
    worker.stop().await;
}

#[tokio::test]
async fn what_cannot_be_loaded_is_reported_with_the_reason() {
    let worker = Worker::start(Config {
        models_dir: Some(tiny("")),
        ..Config::default()
    })
    .await;
    let cases: [(&str, ReplicaSpec, &str); 6] = [
        (
            "a",
            spec("a", "no-such-model", "onnx", &[]),
            "no-such-model: is no folder",
        ),
        (
            "b",
            spec("b", "sd15", "torch", &[]),
            "option engine: \"torch\" is none of onnx, fake",
        ),
        (
            "c",
            spec("c", "sd15", "onnx", &[("row_us", "1")]),
            "option row_us: is unknown; known are max_batch_rows",
        ),
        (
            "d",
            spec("d", "fake", "fake", &[("row_us", "x")]),
            "option row_us: \"x\" is no whole number",
        ),
        (
            "e",
            spec("e", "sd15", "onnx", &[("max_batch_rows", "0")]),
            "option max_batch_rows",
        ),
        (
            "f",
            spec("f", "sd15/unet", "onnx", &[]),
            "has no model_index.json",
        ),
    ];
    for (id, spec, why) in cases {
        let report = worker.assign(spec).await;
        assert_eq!(report.state(), ReplicaState::Failed, "{id}");
        assert!(report.message.contains(why), "{id}: {}", report.message);
    }
    // One beside them is served from the same folder of models.
    let report = worker.assign(spec("r", "sd15", "", &[])).await;
    assert_eq!(report.state(), ReplicaState::Running, "{}", report.message);
    worker.stop().await;
}

#[tokio::test]
async fn a_model_that_does_not_fit_the_workers_memory_is_refused_with_what_is_left() {
    let mut config = Config::default();
    config.worker.memory_bytes = Some(1 << 20);
    let worker = Worker::start(config).await;
    let model = tiny("../../../../models/demo").display().to_string();
    let report = worker.assign(spec("a", &model, "", &[])).await;
    assert_eq!(report.state(), ReplicaState::Failed);
    assert!(
        report.message.contains("of the 1 MiB of this worker are left")
            && report.message.contains("--memory-bytes"),
        "{}",
        report.message
    );
    worker.stop().await;
}

#[tokio::test]
async fn replicas_of_one_model_share_it_until_the_last_one_goes() {
    let worker = Worker::with_model(tiny("sd15")).await;
    let model = tiny("sd15").display().to_string();
    let report = worker.assign(spec("s", &model, "onnx", &[])).await;
    assert_eq!(report.state(), ReplicaState::Running, "{}", report.message);
    let request = |replica: &str| GenerateRequest {
        replica_id: replica.into(),
        prompt: plain(&[7; 77]),
        negative_prompt: plain(&[0; 77]),
        width: 32,
        height: 32,
        steps: 900,
        guidance_scale: 3.0,
        seeds: vec![1],
        ..GenerateRequest::default()
    };
    // One loop: what runs for one replica is load of both.
    let mut running = worker.open(request("r")).await.unwrap();
    assert!(running.message().await.unwrap().is_some());
    let mut other = worker.open(request("s")).await.unwrap();
    let first = other.message().await.unwrap().unwrap();
    assert_eq!(first.load.unwrap().ongoing_requests, 2);
    drop((running, other));
    worker.replicas.drain("r", Duration::ZERO);
    worker.gone("r").await;
    let short = GenerateRequest {
        steps: 2,
        ..request("s")
    };
    assert_eq!(worker.draw(short).await.unwrap().images().len(), 1);
    worker.stop().await;
}
