//! The samples that people start from deploy as they are.

use std::time::Duration;

use mobula_serving::{
    place::{Amounts, Kind},
    scale::{self, Policy},
};

use super::{parsed, said};
use crate::{Application, Count, Parsed, Verdict};

fn sample(name: &str) -> Parsed {
    let path = format!("{}/tests/samples/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    parsed(&std::fs::read_to_string(path).unwrap())
}

fn names(application: &Application) -> Vec<(&str, Kind)> {
    application
        .deployments
        .iter()
        .map(|d| (d.name.as_str(), d.kind))
        .collect()
}

#[test]
fn kuberays_sample_scales_to_two_replicas_with_a_gpu_each() {
    let found = sample("kuberay-stable-diffusion");
    let [application] = found.config.applications.as_slice() else {
        panic!("one application")
    };
    assert_eq!(application.name, "stable_diffusion");
    assert_eq!(application.route_prefix.as_deref(), Some("/"));
    assert_eq!(
        application.import_path,
        "stable_diffusion.stable_diffusion:entrypoint"
    );
    assert_eq!(application.img_size, Some(512));
    assert_eq!(
        names(application),
        [
            ("APIIngress", Kind::Preprocess),
            ("StableDiffusionV2", Kind::Inference)
        ]
    );
    let [ingress, pipeline] = application.deployments.as_slice() else {
        panic!("two deployments")
    };
    assert_eq!((&ingress.count, ingress.need.gpus), (&Count::Fixed(1), 0));
    let expected = scale::Config {
        max: 2,
        ..crate::scaling::defaults(2)
    };
    assert_eq!(pipeline.count, Count::Auto(expected));
    assert_eq!((pipeline.need.cpus, pipeline.need.gpus), (10_000, 10_000));
    assert_eq!(
        (pipeline.model.as_str(), pipeline.engine.as_str()),
        ("", "onnx"),
        "the worker's own model folder"
    );
    let [group] = found.config.worker_groups.as_slice() else {
        panic!("one group")
    };
    assert_eq!((group.name.as_str(), group.kind), ("gpu-group", Kind::Inference));
    assert_eq!(
        (group.min, group.max),
        (1, 1),
        "KubeRay keeps the number without its autoscaler"
    );
    let expected = Amounts {
        cpus: 40_000,
        gpus: 10_000,
        memory: 16_000_000_000,
        ..Amounts::default()
    };
    assert_eq!(group.resources, expected);
    assert_eq!(said(&found.notes, "runtime_env.pip").0, Verdict::Ignored);
    assert_eq!(said(&found.notes, "runtime_env.working_dir").0, Verdict::Ignored);
}

#[test]
fn gkes_sample_has_one_replica_and_a_label_for_its_gpus() {
    let found = sample("gke-stable-diffusion");
    let pipeline = &found.config.applications[0].deployments[1];
    assert_eq!(
        (pipeline.name.as_str(), &pipeline.count),
        ("StableDiffusionV2", &Count::Fixed(1))
    );
    assert_eq!(pipeline.need.gpus, 10_000);
    let labels = [(
        "cloud.google.com/gke-accelerator".to_owned(),
        "nvidia-l4".to_owned(),
    )];
    assert_eq!(found.config.worker_groups[0].labels, labels.into());
}

#[test]
fn the_tpu_samples_deploy_without_tpus_and_say_why_no_batch_waits() {
    for name in ["gke-stable-diffusion-tpu", "kuberay-stable-diffusion-tpu"] {
        let found = sample(name);
        let application = &found.config.applications[0];
        assert_eq!(
            names(application),
            [
                ("APIIngress", Kind::Preprocess),
                ("StableDiffusion", Kind::Inference)
            ]
        );
        let pipeline = &application.deployments[1];
        let one_cpu = Amounts {
            cpus: 10_000,
            ..Amounts::default()
        };
        assert_eq!((&pipeline.count, &pipeline.need), (&Count::Fixed(1), &one_cpu));
        let group = &found.config.worker_groups[0];
        assert_eq!((group.name.as_str(), group.kind), ("tpu-group", Kind::Inference));
        assert_eq!(group.resources.custom, [("TPU".to_owned(), 40_000)].into());
        assert_eq!(group.labels["cloud.google.com/gke-tpu-topology"], "2x2x1");
        let (verdict, why) = said(&found.notes, "import_path");
        assert_eq!(verdict, Verdict::Translated);
        for words in [
            "4 TPU chips, which cannot be had here",
            "nothing waits up to 10 s",
            "max_ongoing_requests below 64",
        ] {
            assert!(why.contains(words), "{why}");
        }
    }
    let asked = sample("kuberay-stable-diffusion-tpu");
    let (verdict, why) = said(&asked.notes, "ray_actor_options.resources.TPU");
    assert_eq!(verdict, Verdict::Translated);
    assert!(why.contains("no TPU is asked for"), "{why}");
}

#[test]
fn the_sample_of_data_on_eks_keeps_its_scaling_by_its_old_names() {
    let found = sample("eks-stable-diffusion");
    let application = &found.config.applications[0];
    assert_eq!(application.name, "stable-diffusion-deployment");
    assert_eq!(application.img_size, Some(768));
    assert_eq!(
        names(application),
        [
            ("APIIngress", Kind::Preprocess),
            ("stable-diffusion-v2", Kind::Inference)
        ]
    );
    let pipeline = &application.deployments[1];
    let expected = scale::Config {
        min: 1,
        initial: None,
        max: 4,
        target_ongoing: 1.0,
        metrics_interval: Duration::from_millis(200),
        look_back: Duration::from_secs(2),
        upscale_delay: Duration::from_secs(30),
        downscale_delay: Duration::from_secs(600),
        policy: Policy::Ongoing,
        ..crate::scaling::defaults(4)
    };
    assert_eq!(pipeline.count, Count::Auto(expected));
    assert_eq!(pipeline.max_ongoing_requests, 100);
    assert_eq!(pipeline.grace, Duration::from_secs(5));
    assert_eq!((pipeline.need.cpus, pipeline.need.gpus), (30_000, 10_000));
    assert_eq!(pipeline.model, "");
    let (_, why) = said(&found.notes, "import_path");
    assert!(
        why.contains("GET /imagine without a size draws 768 x 768 pixels"),
        "{why}"
    );
    let (verdict, why) = said(&found.notes, "env_vars.MODEL_ID");
    assert_eq!(verdict, Verdict::Translated);
    assert!(why.contains("is a model of a hub and no folder"), "{why}");
    let group = &found.config.worker_groups[0];
    assert_eq!((group.name.as_str(), group.min, group.max), ("gpu", 1, 4));
    for (field, verdict) in [
        ("max_concurrent_queries", Verdict::Translated),
        ("target_num_ongoing_requests_per_replica", Verdict::Translated),
        ("serviceUnhealthySecondThreshold", Verdict::Ignored),
        ("document 1", Verdict::Ignored),
        ("document 3", Verdict::Ignored),
    ] {
        assert_eq!(said(&found.notes, field).0, verdict, "{field}");
    }
    assert!(
        found.notes.iter().all(|note| note.line.is_some()),
        "{:#?}",
        found.notes
    );
}

#[test]
fn the_document_of_a_manifest_is_a_config_of_ray_serve() {
    let document = sample("eks-stable-diffusion").document;
    let fields: Vec<&String> = document.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["applications", "worker_groups"]);
    assert_eq!(
        document["applications"][0]["deployments"][0]["max_ongoing_requests"],
        100
    );
    assert_eq!(document["worker_groups"][0]["kind"], "inference");
}

#[test]
fn the_config_with_every_field_is_read() {
    let found = sample("serve-config");
    assert_eq!(found.config.applications.len(), 2);
    assert_eq!(found.config.applications[1].deployments[1].placing.gang, 2);
    assert!(found.notes.iter().any(|note| note.verdict == Verdict::Honoured));
    assert!(found.notes.iter().all(|note| !note.why.is_empty()));
}

#[test]
fn the_shipped_applications_are_accepted() {
    for (file, engine) in [("demo", "onnx"), ("fake", "fake"), ("split", "onnx")] {
        let path = format!("{}/../../deploy/apps/{file}.yaml", env!("CARGO_MANIFEST_DIR"));
        let config = parsed(&std::fs::read_to_string(path).unwrap()).config;
        assert_eq!(config.applications[0].deployments[1].engine, engine);
    }
}
