//! What import paths stand for, and which model is drawn with.

use mobula_serving::place::Kind;
use serde_json::{Value, json};

use super::{app, application, parsed, problems, said};
use crate::{Config, Count, Verdict};

fn names(path: &str) -> Option<[String; 2]> {
    let parsed = crate::parse(&json!({ "applications": [{ "import_path": path }] }).to_string()).ok()?;
    let deployments = parsed.config.applications.into_iter().next()?.deployments;
    assert_eq!(
        (deployments[0].kind, deployments[1].kind),
        (Kind::Preprocess, Kind::Inference)
    );
    deployments
        .into_iter()
        .map(|d| d.name)
        .collect::<Vec<_>>()
        .try_into()
        .ok()
}

#[test]
fn samples_are_graphs_under_their_own_names() {
    let v2 = Some(["APIIngress", "StableDiffusionV2"]);
    let eks = Some(["APIIngress", "stable-diffusion-v2"]);
    let tpu = Some(["APIIngress", "StableDiffusion"]);
    let ours = Some(["preprocess", "pipeline"]);
    for (path, expected) in [
        ("mobula.image:text_to_image", ours),
        ("mobula.image.text_to_image", ours),
        ("stable_diffusion:entrypoint", v2),
        ("stable_diffusion.entrypoint", v2),
        ("stable_diffusion.stable_diffusion:entrypoint", v2),
        (
            "ai-ml.gke-ray.rayserve.stable-diffusion.stable_diffusion:entrypoint",
            v2,
        ),
        ("ray_serve_sd:entrypoint", eks),
        ("ray_serve_stablediffusion:entrypoint", eks),
        ("stable_diffusion_tpu:deployment", tpu),
        ("stable_diffusion.stable_diffusion_tpu:deployment", tpu),
        (
            "ai-ml.gke-ray.rayserve.stable-diffusion.stable_diffusion_tpu:deployment",
            tpu,
        ),
        ("stable_diffusion:deployment", None),
        ("other.image:text_to_image", None),
        ("image:text_to_image", None),
        ("fruit:app", None),
        ("entrypoint", None),
    ] {
        assert_eq!(
            names(path),
            expected.map(|names| names.map(str::to_owned)),
            "{path}"
        );
    }
}

#[test]
fn the_split_graph_has_a_deployment_for_each_part_of_the_model() {
    let parsed = parsed(
        &json!({ "applications": [{
        "import_path": "mobula.image:split", "args": { "model": "sd15", "options": { "bucket": 2 } },
        "deployments": [{ "name": "vae", "num_replicas": 3 }, { "name": "text_encoder", "autoscaling_config": {} }],
    }] })
        .to_string(),
    );
    let deployments = &parsed.config.applications[0].deployments;
    let parts: Vec<_> = deployments
        .iter()
        .map(|d| {
            (
                d.name.as_str(),
                d.stages.iter().map(|stage| stage.name()).collect::<Vec<_>>(),
            )
        })
        .collect();
    assert_eq!(
        parts,
        [
            ("preprocess", vec![]),
            ("text_encoder", vec!["encode_text"]),
            ("denoiser", vec!["denoise"]),
            ("vae", vec!["decode", "encode"]),
        ]
    );
    assert!(deployments.iter().all(|d| d.model == "sd15"));
    assert!(
        deployments[1..]
            .iter()
            .all(|d| d.engine == "onnx" && d.options["bucket"] == "2")
    );
    assert!(matches!(deployments[1].count, Count::Auto(_)));
    assert_eq!(deployments[2].count, Count::Fixed(1));
    assert_eq!(deployments[3].count, Count::Fixed(3));
    let versions: std::collections::BTreeSet<_> = deployments.iter().map(|d| d.version()).collect();
    assert_eq!(versions.len(), 4, "parts of one model are not each other");
}

#[test]
fn a_model_named_by_the_environment_of_another_part_than_the_denoiser_is_told() {
    let env = json!({ "runtime_env": { "env_vars": { "MOBULA_MODEL": "models/b" } } });
    let of = |name: &str| {
        let deployments = json!([{ "name": name, "ray_actor_options": env }]);
        let application = json!({ "import_path": "mobula.image:split", "deployments": deployments });
        parsed(&json!({ "applications": [application] }).to_string())
    };
    let denoiser = of("denoiser");
    assert!(
        denoiser.config.applications[0]
            .deployments
            .iter()
            .all(|d| d.model == "models/b")
    );
    let vae = of("vae");
    assert!(
        vae.config.applications[0]
            .deployments
            .iter()
            .all(|d| d.model.is_empty())
    );
    assert!(
        vae.notes.iter().any(|note| note.why.contains("denoiser")),
        "{:?}",
        vae.notes
    );
}

#[test]
fn a_path_that_is_nearly_one_is_named() {
    let found =
        problems(&json!({ "applications": [{ "import_path": "stable_difusion:entrypoint" }] }).to_string());
    assert!(
        found[0].contains("did you mean stable_diffusion:entrypoint?"),
        "{found:?}"
    );
    let found = problems(&json!({ "applications": [{ "import_path": "mobula.image:splitt" }] }).to_string());
    assert!(found[0].contains("did you mean mobula.image:split?"), "{found:?}");
    let found =
        problems(&json!({ "applications": [{ "import_path": "mobula.image:text_to_img" }] }).to_string());
    assert!(
        found[0].contains("did you mean mobula.image:text_to_image?"),
        "{found:?}"
    );
}

#[test]
fn a_deployment_that_is_none_of_the_graphs_is_refused_and_still_read() {
    let found =
        problems(&app(json!({ "deployments": [{ "name": "pipelin", "num_replicas": 0 }] })).to_string());
    assert_eq!(
        found,
        [
            "line 1: applications[0].deployments[0].name: is none of the graph's deployments (preprocess, pipeline): \
             \"pipelin\"; did you mean pipeline?",
            "line 1: applications[0].deployments[0].num_replicas: must be a whole number from 1 to 10000, not 0",
        ]
    );
    let twice = json!({ "deployments": [{ "name": "pipeline" }, { "name": "pipeline" }] });
    let found = problems(&app(twice).to_string());
    assert!(
        found[0].contains("another deployment is named \"pipeline\"; names must be unique"),
        "{found:?}"
    );
}

#[test]
fn arguments_arrive_at_the_deployments_that_they_are_for() {
    let found = application(json!({ "args": {
        "model": "sd15", "engine": "fake", "options": { "row_us": 200, "warm": true },
        "models": { "anime": "models/anime" }, "max_num_models_per_replica": 2,
    } }));
    let [preprocess, pipeline] = found.deployments.as_slice() else {
        panic!("two deployments")
    };
    for deployment in [preprocess, pipeline] {
        assert_eq!(deployment.model, "sd15");
        assert_eq!(
            deployment.models,
            [("anime".to_owned(), "models/anime".to_owned())].into()
        );
        assert_eq!(deployment.max_models, 2);
    }
    assert_eq!((preprocess.engine.as_str(), preprocess.options.len()), ("", 0));
    assert_eq!(pipeline.engine, "fake");
    let options =
        [("row_us", "200"), ("warm", "true")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(pipeline.options, options.into());
}

#[test]
fn arguments_that_cannot_be_are_refused() {
    for (args, problem) in [
        (
            json!({ "engine": "torch" }),
            "args.engine: must be one of onnx, fake, not \"torch\"",
        ),
        (
            json!({ "model": "fake", "engine": "onnx" }),
            "args.engine: must be fake for the model \"fake\", which has no files",
        ),
        (
            json!({ "model": "" }),
            "args.model: must be text that is not empty, not \"\"",
        ),
        (
            json!({ "modell": "a" }),
            "args.modell: is not a known field; did you mean model? (accepted here: model, engine, options, models, \
             max_num_models_per_replica, max_batch_size, batch_wait_timeout_s)",
        ),
        (
            json!({ "models": { "a": "" } }),
            "args: models must be folders by model id, none of them empty",
        ),
        (
            json!({ "max_num_models_per_replica": 0 }),
            "args.max_num_models_per_replica: must be a whole number from 1 to 1000, not 0",
        ),
    ] {
        let found = problems(&app(json!({ "args": args })).to_string());
        assert_eq!(found, [format!("line 1: applications[0].{problem}")]);
    }
}

#[test]
fn the_model_comes_from_the_arguments_then_from_the_pipelines_environment_then_from_the_applications() {
    let model = |args: Value, pipeline: Value, application: Value| {
        let text = app(json!({
            "args": args,
            "runtime_env": { "env_vars": application },
            "deployments": [{ "name": "pipeline", "ray_actor_options": { "runtime_env": { "env_vars": pipeline } } }],
        }));
        let parsed = parsed(&text.to_string());
        let deployments = &parsed.config.applications[0].deployments;
        assert_eq!(
            deployments[0].model, deployments[1].model,
            "texts and pictures are of one model"
        );
        deployments[1].model.clone()
    };
    let none = || json!({});
    assert_eq!(model(none(), none(), none()), "", "the worker's own");
    assert_eq!(model(none(), none(), json!({ "MOBULA_MODEL": "a/b" })), "a/b");
    assert_eq!(
        model(none(), none(), json!({ "MODEL_PATH": "/models/a" })),
        "/models/a"
    );
    assert_eq!(
        model(none(), none(), json!({ "MODEL_ID": "/models/a" })),
        "/models/a"
    );
    assert_eq!(model(none(), none(), json!({ "MODEL_ID": "fake" })), "fake");
    assert_eq!(
        model(
            none(),
            none(),
            json!({ "MODEL_ID": "stabilityai/stable-diffusion-2-1" })
        ),
        ""
    );
    let all = json!({ "MODEL_ID": "c", "MODEL_PATH": "b", "MOBULA_MODEL": "a" });
    assert_eq!(model(none(), none(), all.clone()), "a");
    assert_eq!(model(none(), json!({ "MODEL_ID": "p" }), all.clone()), "p");
    assert_eq!(
        model(json!({ "model": "m" }), json!({ "MODEL_ID": "p" }), all),
        "m"
    );
}

#[test]
fn every_variable_and_package_is_noted() {
    let text = app(json!({ "runtime_env": {
        "working_dir": "https://example.org/code.zip", "py_modules": ["s3://bucket/code.zip"], "pip": ["torch"],
        "conda": "env", "uv": ["a"], "image_uri": "a/b", "container": {}, "config": { "setup_timeout_seconds": 5 },
        "env_vars": { "MODEL_ID": "org/name", "MOBULA_MODEL": "m", "HF_HOME": "/cache" },
    } }));
    let notes = parsed(&text.to_string()).notes;
    for field in [
        "working_dir",
        "py_modules",
        "pip",
        "conda",
        "uv",
        "image_uri",
        "container",
        "config",
    ] {
        assert_eq!(
            said(&notes, &format!("runtime_env.{field}")).0,
            Verdict::Ignored,
            "{field}"
        );
    }
    assert_eq!(
        said(&notes, "env_vars.MOBULA_MODEL"),
        (Verdict::Honoured, "\"m\"")
    );
    assert_eq!(
        said(&notes, "env_vars.MODEL_ID"),
        (
            Verdict::Ignored,
            "the model is named by MOBULA_MODEL, which goes before it"
        )
    );
    assert_eq!(said(&notes, "env_vars.HF_HOME").0, Verdict::Ignored);
}

#[test]
fn a_model_of_the_ingress_alone_is_noted_and_not_taken() {
    let env = json!({ "runtime_env": { "env_vars": { "MODEL_ID": "a" } } });
    let found = parsed(
        &app(json!({ "deployments": [{ "name": "preprocess", "ray_actor_options": env }] })).to_string(),
    );
    assert!(
        found.config.applications[0]
            .deployments
            .iter()
            .all(|d| d.model.is_empty())
    );
    assert_eq!(said(&found.notes, "env_vars.MODEL_ID").0, Verdict::Ignored);
}

#[test]
fn code_on_this_machine_alone_is_refused_as_in_ray() {
    for env in [
        json!({ "working_dir": "./code" }),
        json!({ "py_modules": ["code"] }),
        json!({ "working_dir": "ftp://a/b.zip" }),
    ] {
        let found = problems(&app(json!({ "runtime_env": env })).to_string());
        assert!(found[0].contains("must be an URI such as https://"), "{found:?}");
    }
}

#[test]
fn batches_that_would_starve_are_refused() {
    for (place, fields) in [
        ("args", json!({ "args": { "max_batch_size": 64 } })),
        (
            "deployments[0].user_config",
            json!({ "deployments": [{ "name": "pipeline", "user_config": { "max_batch_size": 64 } }] }),
        ),
    ] {
        let found = problems(&app(fields).to_string());
        assert_eq!(
            found,
            [format!(
                "line 1: applications[0].{place}.max_batch_size: max_batch_size (64) is over max_ongoing_requests (32): a \
                 batch would never fill, and each would wait its batch_wait_timeout_s"
            )]
        );
    }
    let fits = json!({ "args": { "max_batch_size": 64 }, "deployments": [{ "name": "pipeline", "max_ongoing_requests": 64 }] });
    let notes = parsed(&app(fits).to_string()).notes;
    assert_eq!(said(&notes, "args.max_batch_size").0, Verdict::Ignored);
}

#[test]
fn batches_that_wait_longer_than_requests_may_take_are_refused() {
    for door in ["http_options", "grpc_options"] {
        let mut text = app(json!({ "args": { "batch_wait_timeout_s": 10 } }));
        text[door] = json!({ "request_timeout_s": 10 });
        let found = problems(&text.to_string());
        assert!(
            found[0].contains("batch_wait_timeout_s (10) is not below request_timeout_s (10)"),
            "{found:?}"
        );
        text[door] = json!({ "request_timeout_s": 11 });
        parsed(&text.to_string());
    }
}

#[test]
fn a_short_config_means_the_same_as_the_model_flag() {
    let text = "applications: [{import_path: 'mobula.image:text_to_image', args: {model: some/folder}}]";
    assert_eq!(parsed(text).config, Config::of_model("some/folder"));
    let fake = Config::of_model("fake");
    let pipeline = &fake.applications[0].deployments[1];
    assert_eq!(
        (pipeline.model.as_str(), pipeline.engine.as_str()),
        ("fake", "fake")
    );
    assert_eq!(Config::of_model("").applications[0].deployments[1].model, "");
}

#[test]
fn one_application_is_read_alone_as_among_others() {
    let value = json!({ "name": "a", "import_path": "mobula.image:text_to_image", "deployments": [
        { "name": "pipeline", "max_concurrent_queries": 7, "num_replicas": 2 },
    ] });
    let (alone, notes) = crate::application(&value).unwrap();
    let among = parsed(&json!({ "applications": [value] }).to_string())
        .config
        .applications
        .remove(0);
    assert_eq!(alone, among);
    assert_eq!(
        alone.document["deployments"][0]["max_ongoing_requests"], 7,
        "the current name"
    );
    let old = notes
        .iter()
        .find(|n| n.path == "deployments[0].max_concurrent_queries")
        .unwrap();
    assert_eq!((old.verdict, old.line), (Verdict::Translated, None));
    assert_eq!(crate::application(&alone.document).unwrap().0, alone);
    let found = crate::application(&json!({ "import_path": 5, "colour": "red" })).unwrap_err();
    let paths: Vec<&str> = found.iter().map(|p| p.path.as_str()).collect();
    assert_eq!(paths, ["import_path", "colour"]);
}
