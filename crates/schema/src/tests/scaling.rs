//! How many replicas there are, and by which rule.

use std::time::Duration;

use mobula_serving::scale::{self, Aggregation, Policy};
use serde_json::{Value, json};

use super::{app, application, deployment, parsed, pipeline, said, wrong, wrong_one};
use crate::{Count, Verdict};

fn auto(fields: Value) -> scale::Config {
    match deployment(fields).count {
        Count::Auto(config) => config,
        Count::Fixed(count) => panic!("{count} replicas"),
    }
}

#[test]
fn every_number_of_the_scaler_arrives() {
    let found = auto(json!({ "autoscaling_config": {
        "min_replicas": 0, "initial_replicas": 1, "max_replicas": 8, "target_ongoing_requests": 12.5,
        "metrics_interval_s": 5, "look_back_period_s": 20, "upscaling_factor": 0.8, "downscaling_factor": 0.6,
        "upscale_delay_s": 3, "downscale_delay_s": 0, "downscale_to_zero_delay_s": 900, "aggregation_function": "MAX",
        "policy": { "policy_function": "mobula.autoscaling:work", "policy_kwargs": { "target_s": 7.5 } },
    } }));
    let expected = scale::Config {
        min: 0,
        initial: Some(1),
        max: 8,
        target_ongoing: 12.5,
        metrics_interval: Duration::from_secs(5),
        look_back: Duration::from_secs(20),
        upscaling_factor: Some(0.8),
        downscaling_factor: Some(0.6),
        upscale_delay: Duration::from_secs(3),
        downscale_delay: Duration::ZERO,
        downscale_to_zero_delay: Some(Duration::from_secs(900)),
        aggregation: Aggregation::Max,
        policy: Policy::Work { target_s: 7.5 },
    };
    assert_eq!(found, expected);
}

#[test]
fn nothing_said_is_rays_default() {
    let expected = scale::Config {
        min: 1,
        initial: None,
        max: 1,
        target_ongoing: 2.0,
        metrics_interval: Duration::from_secs(10),
        look_back: Duration::from_secs(30),
        upscaling_factor: None,
        downscaling_factor: None,
        upscale_delay: Duration::from_secs(30),
        downscale_delay: Duration::from_secs(600),
        downscale_to_zero_delay: None,
        aggregation: Aggregation::Mean,
        policy: Policy::Ongoing,
    };
    assert_eq!(auto(json!({ "autoscaling_config": {} })), expected);
    let to_100 = scale::Config { max: 100, ..expected };
    assert_eq!(auto(json!({ "num_replicas": "auto" })), to_100);
    let from_2 = scale::Config { min: 2, ..to_100 };
    let fields = json!({ "num_replicas": "auto", "autoscaling_config": { "min_replicas": 2 } });
    assert_eq!(auto(fields), from_2);
}

#[test]
fn auto_alone_is_over_what_a_samples_code_has() {
    let count = |number: Value| {
        let mut app = application(json!({
            "import_path": "stable_diffusion:entrypoint",
            "deployments": [{ "name": "StableDiffusionV2", "num_replicas": number }],
        }));
        app.deployments.remove(1).count
    };
    assert!(matches!(
        count(json!("auto")),
        Count::Auto(scale::Config { max: 2, .. })
    ));
    assert!(matches!(
        count(json!(null)),
        Count::Auto(scale::Config { max: 2, .. })
    ));
    assert_eq!(count(json!(1)), Count::Fixed(1));
}

#[test]
fn a_number_and_a_scaler_exclude_each_other() {
    assert_eq!(
        wrong_one(json!({ "num_replicas": 2, "autoscaling_config": { "max_replicas": 3 } })),
        "num_replicas: is a number and excludes autoscaling_config, as in Ray; give \"auto\" or leave it out"
    );
}

#[test]
fn bounds_that_contradict_each_other_are_refused() {
    for (fields, problem) in [
        (
            json!({ "min_replicas": 2 }),
            "min_replicas: min_replicas (2) is over max_replicas (1)",
        ),
        (
            json!({ "min_replicas": 3, "max_replicas": 2 }),
            "min_replicas: min_replicas (3) is over max_replicas (2)",
        ),
        (
            json!({ "min_replicas": 2, "initial_replicas": 1, "max_replicas": 3 }),
            "initial_replicas: initial_replicas (1) must be from min_replicas (2) to max_replicas (3)",
        ),
        (
            json!({ "initial_replicas": 4, "max_replicas": 3 }),
            "initial_replicas: initial_replicas (4) must be from min_replicas (1) to max_replicas (3)",
        ),
        (
            json!({ "max_replicas": 0 }),
            "max_replicas: must be a whole number from 1 to 10000, not 0",
        ),
        (
            json!({ "target_ongoing_requests": 0 }),
            "target_ongoing_requests: must be a number over 0, at most 100000, not 0",
        ),
        (
            json!({ "aggregation_function": "median" }),
            "aggregation_function: must be one of mean, max, min, not \"median\"",
        ),
        (
            json!({ "upscale_delay_s": -1 }),
            "upscale_delay_s: must be a number from 0 to 604800, not -1",
        ),
        (
            json!({ "look_back_period_s": 0 }),
            "look_back_period_s: must be a number from 0.001 to 604800, not 0",
        ),
        (
            json!({ "upscaling_factor": 0 }),
            "upscaling_factor: must be a number over 0, at most 1000, not 0",
        ),
    ] {
        let found = wrong_one(json!({ "autoscaling_config": fields }));
        assert_eq!(found, format!("autoscaling_config.{problem}"));
    }
}

#[test]
fn a_target_above_what_a_replica_takes_is_refused_when_given_and_lowered_when_not() {
    let fields = json!({ "max_ongoing_requests": 4, "autoscaling_config": { "target_ongoing_requests": 5 } });
    assert_eq!(
        wrong_one(fields),
        "autoscaling_config.target_ongoing_requests: target_ongoing_requests (5) is over max_ongoing_requests (4), which a \
         replica never has"
    );
    let text = pipeline(json!({ "max_ongoing_requests": 1, "autoscaling_config": { "max_replicas": 3 } }))
        .to_string();
    let found = parsed(&text);
    let Count::Auto(config) = &found.config.applications[0].deployments[1].count else {
        panic!("it scales")
    };
    assert_eq!(config.target_ongoing, 1.0);
    let (verdict, why) = said(&found.notes, "deployments[0]");
    assert_eq!(verdict, Verdict::Translated);
    assert!(
        why.contains("target_ongoing_requests is 1 and not Ray's 2"),
        "{why}"
    );
}

#[test]
fn policies_in_python_are_refused_and_the_one_by_work_needs_its_target() {
    let policy = |fields| wrong_one(json!({ "autoscaling_config": { "policy": fields } }));
    let python = policy(json!({ "policy_function": "module:policy" }));
    assert!(
        python.contains("a policy in Python cannot be run here"),
        "{python}"
    );
    let bare = policy(json!({ "policy_function": "mobula.autoscaling:work" }));
    assert!(
        bare.contains("needs policy_kwargs: {target_s: SECONDS}"),
        "{bare}"
    );
    let empty = policy(json!({ "policy_function": "mobula.autoscaling:work", "policy_kwargs": {} }));
    assert!(empty.contains("policy_kwargs.target_s: is required"), "{empty}");
}

#[test]
fn an_applications_policy_goes_before_those_of_its_deployments() {
    let work = json!({ "policy_function": "mobula.autoscaling:work", "policy_kwargs": { "target_s": 4 } });
    let scaled = json!([{ "name": "pipeline", "autoscaling_config": { "max_replicas": 3 } }]);
    let found = application(json!({ "autoscaling_policy": work, "deployments": scaled }));
    let Count::Auto(config) = &found.deployments[1].count else {
        panic!("it scales")
    };
    assert_eq!(config.policy, Policy::Work { target_s: 4.0 });
    let notes = parsed(&app(json!({ "autoscaling_policy": work })).to_string()).notes;
    let why = notes
        .iter()
        .find(|n| n.verdict == Verdict::Ignored)
        .map(|n| n.why.as_str());
    assert_eq!(
        why,
        Some("no deployment of the application has autoscaling_config")
    );
}

#[test]
fn an_external_scaler_excludes_ours() {
    let found = application(json!({ "external_scaler_enabled": true }));
    assert!(found.external_scaler);
    for fields in [
        json!({ "num_replicas": "auto" }),
        json!({ "autoscaling_config": {} }),
    ] {
        let mut deployment = fields;
        deployment["name"] = json!("pipeline");
        let text = app(json!({ "external_scaler_enabled": true, "deployments": [deployment] })).to_string();
        let found = super::problems(&text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].contains("excludes external_scaler_enabled, as in Ray"),
            "{found:?}"
        );
    }
    // What only a sample's code says is no wish of the document.
    let sample = json!({ "external_scaler_enabled": true, "import_path": "stable_diffusion:entrypoint" });
    assert_eq!(application(sample).deployments[1].count, Count::Fixed(1));
}

#[test]
fn gangs_divide_every_number() {
    let gang = |fields: Value| {
        let mut fields = fields;
        fields["gang_scheduling_config"] = json!({ "gang_size": 3 });
        fields
    };
    assert_eq!(
        wrong(gang(json!({ "num_replicas": 4 }))),
        ["num_replicas: num_replicas (4) must be a multiple of gang_size (3)"]
    );
    let alone = wrong(gang(json!({})));
    assert!(
        alone[0].contains("num_replicas (1) must be a multiple of gang_size (3)"),
        "{alone:?}"
    );
    let bounds = json!({ "min_replicas": 1, "initial_replicas": 4, "max_replicas": 7 });
    let found = wrong(gang(json!({ "autoscaling_config": bounds })));
    assert_eq!(found.len(), 3, "{found:?}");
    let found = auto(gang(json!({ "num_replicas": "auto" })));
    assert_eq!(
        (found.min, found.max),
        (3, 99),
        "what is not given is whole gangs"
    );
}
