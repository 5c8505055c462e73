//! Old names and formats of Ray Serve.

use mobula_serving::scale;
use serde_json::json;

use super::{app, parsed, pipeline, problems, said, wrong_one};
use crate::{Count, Verdict};

#[test]
fn an_old_name_means_its_current_one() {
    for (old, new, value) in [
        ("max_concurrent_queries", "max_ongoing_requests", json!(7)),
        (
            "autoscaling_config.target_num_ongoing_requests_per_replica",
            "autoscaling_config.target_ongoing_requests",
            json!(3),
        ),
        (
            "autoscaling_config.upscale_smoothing_factor",
            "autoscaling_config.upscaling_factor",
            json!(0.5),
        ),
        (
            "autoscaling_config.downscale_smoothing_factor",
            "autoscaling_config.downscaling_factor",
            json!(0.5),
        ),
    ] {
        let fields = |name: &str| match name.split_once('.') {
            Some((outer, inner)) => pipeline(json!({ outer: { inner: value } })),
            None => pipeline(json!({ name: value })),
        };
        let (old_one, new_one) = (parsed(&fields(old).to_string()), parsed(&fields(new).to_string()));
        assert_eq!(old_one.config, new_one.config, "{old}");
        assert_eq!(
            old_one.document, new_one.document,
            "{old}: the document has the current name"
        );
        let (verdict, why) = said(&old_one.notes, old);
        assert_eq!(verdict, Verdict::Translated);
        assert!(why.contains(new.rsplit('.').next().unwrap()), "{why}");
    }
}

#[test]
fn a_problem_with_an_old_name_is_told_under_it() {
    assert_eq!(
        wrong_one(json!({ "max_concurrent_queries": 0 })),
        "max_concurrent_queries: must be a whole number from 1 to 100000, not 0"
    );
}

#[test]
fn an_old_name_beside_its_current_one_is_refused() {
    assert_eq!(
        wrong_one(json!({ "max_concurrent_queries": 5, "max_ongoing_requests": 5 })),
        "max_concurrent_queries: is the old name of max_ongoing_requests, which is given as well; leave one out"
    );
}

#[test]
fn factors_have_rays_order() {
    for (fields, factors, said_of_both) in [
        (
            json!({ "smoothing_factor": 0.5 }),
            (Some(0.5), Some(0.5)),
            Some(Verdict::Translated),
        ),
        (
            json!({ "smoothing_factor": 0.5, "upscale_smoothing_factor": 0.7 }),
            (Some(0.7), Some(0.5)),
            Some(Verdict::Translated),
        ),
        (
            json!({ "smoothing_factor": 0.5, "upscaling_factor": 0.7, "downscaling_factor": 0.8 }),
            (Some(0.7), Some(0.8)),
            Some(Verdict::Ignored),
        ),
        (
            json!({ "upscale_smoothing_factor": 0.5, "upscaling_factor": 0.7 }),
            (Some(0.7), None),
            None,
        ),
    ] {
        let found = parsed(&pipeline(json!({ "autoscaling_config": fields })).to_string());
        let Count::Auto(scale::Config {
            upscaling_factor,
            downscaling_factor,
            ..
        }) = found.config.applications[0].deployments[1].count
        else {
            panic!("it scales")
        };
        assert_eq!((upscaling_factor, downscaling_factor), factors, "{fields}");
        if let Some(verdict) = said_of_both {
            assert_eq!(
                said(&found.notes, "autoscaling_config.smoothing_factor").0,
                verdict,
                "{fields}"
            );
        } else {
            assert_eq!(said(&found.notes, "upscale_smoothing_factor").0, Verdict::Ignored);
        }
    }
}

#[test]
fn the_format_of_one_application_is_a_list_of_one() {
    let old = "
import_path: mobula.image:text_to_image
runtime_env: {env_vars: {MOBULA_MODEL: m}}
host: 127.0.0.1
port: 8901
deployments:
- name: pipeline
  num_replicas: 2
  route_prefix: /draw
  max_concurrent_queries: 9
";
    let new = "
http_options: {host: 127.0.0.1, port: 8901}
applications:
- import_path: mobula.image:text_to_image
  runtime_env: {env_vars: {MOBULA_MODEL: m}}
  route_prefix: /draw
  deployments:
  - name: pipeline
    num_replicas: 2
    max_ongoing_requests: 9
";
    let (old, new) = (parsed(old), parsed(new));
    assert_eq!(old.config, new.config);
    assert_eq!(old.document, new.document);
    assert_eq!(said(&old.notes, "import_path").0, Verdict::Translated);
    assert_eq!(
        said(&old.notes, "deployments[0].route_prefix").0,
        Verdict::Translated
    );
    let port = old.notes.iter().find(|note| note.path == "port").unwrap();
    assert_eq!(port.line, Some(5));
}

#[test]
fn problems_of_the_old_format_have_its_paths() {
    assert_eq!(
        problems("import_path: mobula.image:text_to_image\ncolour: red\ndeployments: [{name: pipeline, num_replicas: 0}]\n")
            .iter()
            .map(|problem| problem.split(" (accepted").next().unwrap())
            .collect::<Vec<_>>(),
        [
            "line 2: colour: is not a known field",
            "line 3: deployments[0].num_replicas: must be a whole number from 1 to 10000, not 0",
        ]
    );
    let both = problems("import_path: mobula.image:text_to_image\nport: 1\nhttp_options: {port: 2}\n");
    assert_eq!(
        both,
        ["line 2: port: is given as http_options.port as well; leave one out"]
    );
}

#[test]
fn a_deployments_route_is_its_applications() {
    let with = |app_prefix: &str| {
        app(json!({
            "route_prefix": app_prefix, "deployments": [{ "name": "preprocess", "route_prefix": "/a" }],
        }))
        .to_string()
    };
    assert_eq!(
        parsed(&with("/a")).config.applications[0].route_prefix.as_deref(),
        Some("/a")
    );
    let found = problems(&with("/b"));
    assert!(
        found[0].contains("deployments[0].route_prefix: is the application's route_prefix now"),
        "{found:?}"
    );
}
