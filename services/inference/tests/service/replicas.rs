//! What a worker says about replicas: models that run, and models that do not.

use mobula_inference::{Config, model};
use mobula_kit::worker::{ReplicaSpec, ReplicaState};

use crate::support::{Worker, spec, tiny};

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
            "model_index.json: is missing",
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
