//! Every field of a deployment that has an effect arrives, and every one that has none is noted.

use std::time::Duration;

use mobula_serving::place::{Amounts, Kind};
use serde_json::json;

use super::{application, deployment, parsed, pipeline, said, wrong_one};
use crate::{Backpressure, Count, Deployment, Health, Placing, Rollout, Verdict};

#[test]
fn nothing_said_is_rays_default_but_for_what_is_noted() {
    let application = application(json!({}));
    assert_eq!(application.name, "default");
    assert_eq!(application.route_prefix.as_deref(), Some("/"));
    assert!(!application.external_scaler);
    let [preprocess, pipeline] = application.deployments.as_slice() else {
        panic!("two deployments")
    };
    let expected = Deployment {
        name: "pipeline".into(),
        kind: Kind::Inference,
        count: Count::Fixed(1),
        max_ongoing_requests: 32,
        max_queued_requests: 256,
        max_queued: None,
        need: Amounts {
            cpus: 10_000,
            ..Amounts::default()
        },
        placing: Placing::default(),
        grace: Duration::from_secs(20),
        health: Health {
            period: Duration::from_secs(10),
            timeout: Duration::from_secs(30),
            threshold: 3,
        },
        user_config: None,
        rollout: Rollout {
            percentage: 0.2,
            max_surge_percent: None,
            max_failures: 3,
        },
        backpressure: Backpressure {
            status: 503,
            retry_after: None,
        },
        model: String::new(),
        models: [].into(),
        max_models: 3,
        engine: "onnx".into(),
        options: [].into(),
        stages: &[],
    };
    assert_eq!(*pipeline, expected);
    let other = Deployment {
        name: "preprocess".into(),
        kind: Kind::Preprocess,
        max_ongoing_requests: 100,
        engine: String::new(),
        ..expected
    };
    assert_eq!(*preprocess, other);
}

#[test]
fn a_note_says_which_numbers_are_not_rays() {
    let notes = parsed(&pipeline(json!({ "max_ongoing_requests": 8 })).to_string()).notes;
    let usual = notes
        .iter()
        .find(|note| note.why.starts_with("where nothing is said"))
        .unwrap();
    assert_eq!(usual.verdict, Verdict::Translated);
    assert_eq!(
        usual.why,
        "where nothing is said, max_ongoing_requests is 100 for preprocess (Ray: 5, which would starve batches), \
         max_queued_requests is 256 (Ray: no bound, which lets requests wait for ever)"
    );
}

#[test]
fn numbers_of_a_deployment_arrive() {
    let found = deployment(json!({
        "num_replicas": 3,
        "max_ongoing_requests": 8,
        "max_queued_requests": -1,
        "max_queued_s": 12.5,
        "graceful_shutdown_timeout_s": 2.5,
        "health_check_period_s": 5,
        "health_check_timeout_s": 1.5,
        "rolling_update_percentage": 0.5,
        "max_surge_percent": 25,
        "max_constructor_retry_count": 7,
        "backpressure_config": { "status_code": 429, "retry_after_s": 2.5 },
        "user_config": { "a": { "b": [1, null, "c"] } },
    }));
    assert_eq!(found.count, Count::Fixed(3));
    assert_eq!((found.max_ongoing_requests, found.max_queued_requests), (8, -1));
    assert_eq!(found.max_queued, Some(Duration::from_millis(12_500)));
    assert_eq!(found.grace, Duration::from_millis(2_500));
    let (period, timeout) = (Duration::from_secs(5), Duration::from_millis(1_500));
    assert_eq!((found.health.period, found.health.timeout), (period, timeout));
    assert_eq!(
        (found.rollout.percentage, found.rollout.max_surge_percent),
        (0.5, Some(25))
    );
    assert_eq!(found.rollout.max_failures, 7);
    assert_eq!(found.backpressure.status, 429);
    assert_eq!(found.backpressure.retry_after, Some(Duration::from_millis(2_500)));
    assert_eq!(found.user_config, Some(json!({ "a": { "b": [1, null, "c"] } })));
}

#[test]
fn failures_are_three_for_each_replica_up_to_the_limit() {
    let failures = |fields| deployment(fields).rollout.max_failures;
    assert_eq!(failures(json!({ "num_replicas": 4 })), 12);
    assert_eq!(failures(json!({ "num_replicas": 40 })), 20);
    assert_eq!(
        failures(json!({ "autoscaling_config": { "min_replicas": 0, "max_replicas": 9 } })),
        3
    );
    let from_two = json!({ "min_replicas": 0, "initial_replicas": 2, "max_replicas": 9 });
    assert_eq!(failures(json!({ "autoscaling_config": from_two })), 6);
}

#[test]
fn null_is_not_given() {
    let fields = [
        "num_replicas",
        "max_ongoing_requests",
        "max_queued_requests",
        "max_queued_s",
        "user_config",
        "autoscaling_config",
        "graceful_shutdown_timeout_s",
        "ray_actor_options",
        "placement_group_bundles",
        "gang_scheduling_config",
        "backpressure_config",
        "logging_config",
        "request_router_config",
        "deployment_actors",
    ];
    let null = fields
        .iter()
        .map(|field| ((*field).to_owned(), json!(null)))
        .collect();
    assert_eq!(deployment(serde_json::Value::Object(null)), deployment(json!({})));
}

#[test]
fn what_is_honoured_is_noted_with_its_value_and_defaults_are_not() {
    let notes =
        parsed(&pipeline(json!({ "num_replicas": 3, "graceful_shutdown_timeout_s": 20 })).to_string()).notes;
    assert_eq!(said(&notes, ".num_replicas"), (Verdict::Honoured, "3"));
    assert!(
        !notes
            .iter()
            .any(|note| note.path.ends_with("graceful_shutdown_timeout_s"))
    );
}

#[test]
fn what_has_no_effect_is_noted_with_the_reason() {
    for (field, value) in [
        ("graceful_shutdown_wait_loop_s", json!(5)),
        ("logging_config.log_level", json!("DEBUG")),
        ("logging_config.encoding", json!("JSON")),
        ("logging_config.logs_dir", json!("/logs")),
        ("logging_config.enable_access_log", json!(false)),
        ("logging_config.additional_log_standard_attrs", json!(["name"])),
        ("request_router_config.request_routing_stats_period_s", json!(5)),
        ("request_router_config.request_routing_stats_timeout_s", json!(5)),
        ("request_router_config.initial_backoff_s", json!(5)),
        ("request_router_config.backoff_multiplier", json!(5)),
        ("request_router_config.max_backoff_s", json!(5)),
        ("request_router_config.request_router_kwargs", json!({ "a": 1 })),
        ("ray_actor_options.object_store_memory", json!(5)),
        ("is_driver_deployment", json!(true)),
    ] {
        let fields = match field.split_once('.') {
            Some((outer, inner)) => json!({ outer: { inner: value } }),
            None => json!({ field: value }),
        };
        let text = pipeline(fields).to_string();
        let found = parsed(&text);
        let (verdict, why) = said(&found.notes, field);
        assert_eq!(verdict, Verdict::Ignored, "{field}");
        assert!(why.len() > 20, "{field}: {why}");
        assert_eq!(
            found.config.applications[0].deployments[1],
            deployment(json!({})),
            "{field}"
        );
    }
}

#[test]
fn numbers_out_of_range_are_refused_with_the_range() {
    for (field, value, range) in [
        ("num_replicas", json!(0), "a whole number from 1 to 10000, not 0"),
        (
            "num_replicas",
            json!(2.5),
            "a whole number from 1 to 10000, not 2.5",
        ),
        (
            "num_replicas",
            json!("many"),
            "a whole number from 1 to 10000, or \"auto\", not \"many\"",
        ),
        (
            "max_ongoing_requests",
            json!(0),
            "a whole number from 1 to 100000, not 0",
        ),
        (
            "max_ongoing_requests",
            json!("5"),
            "a whole number from 1 to 100000, not \"5\"",
        ),
        (
            "max_queued_requests",
            json!(-2),
            "a whole number from -1 to 1000000, not -2",
        ),
        (
            "max_queued_requests",
            json!(0),
            "-1 (no bound) or at least 1, as in Ray, not 0",
        ),
        ("max_queued_s", json!(0), "a number from 0.001 to 86400, not 0"),
        (
            "graceful_shutdown_timeout_s",
            json!(-1),
            "a number from 0 to 86400, not -1",
        ),
        (
            "health_check_period_s",
            json!(0),
            "a number from 0.001 to 86400, not 0",
        ),
        (
            "health_check_timeout_s",
            json!(true),
            "a number from 0.001 to 86400, not true",
        ),
        (
            "rolling_update_percentage",
            json!(0),
            "a number over 0, at most 1, not 0",
        ),
        (
            "max_surge_percent",
            json!(101),
            "a whole number from 0 to 100, not 101",
        ),
        (
            "max_constructor_retry_count",
            json!(0),
            "a whole number from 1 to 1000000, not 0",
        ),
        (
            "user_config",
            json!([1]),
            "a mapping of names to values, not a list of 1",
        ),
    ] {
        assert_eq!(
            wrong_one(json!({ field: value })),
            format!("{field}: must be {range}")
        );
    }
}

#[test]
fn pushing_back_is_by_503_or_429() {
    assert_eq!(
        wrong_one(json!({ "backpressure_config": { "status_code": 500 } })),
        "backpressure_config.status_code: must be 503 or 429, not 500"
    );
    assert_eq!(
        wrong_one(json!({ "backpressure_config": { "retry_after": 5 } })),
        "backpressure_config.retry_after: is not a known field; did you mean retry_after_s? (accepted here: status_code, \
         retry_after_s)"
    );
}

#[test]
fn a_log_is_checked_although_it_has_no_effect() {
    let wrong = |fields| wrong_one(json!({ "logging_config": fields }));
    let colour = wrong(json!({ "colour": true }));
    assert!(
        colour.starts_with("logging_config.colour: is not a known field"),
        "{colour}"
    );
    assert!(wrong(json!({ "log_level": "LOUD" })).contains("must be one of CRITICAL, FATAL"));
    assert!(wrong(json!({ "log_level": 15 })).contains("must be one of 0, 10, 20, 30, 40 and 50, not 15"));
    assert!(wrong(json!({ "encoding": "XML" })).contains("must be one of TEXT, JSON"));
}

#[test]
fn python_is_refused() {
    let router = wrong_one(json!({ "request_router_config": { "request_router_class": "module:Router" } }));
    assert!(
        router.contains("a router in Python cannot be run here"),
        "{router}"
    );
    let helper = wrong_one(json!({ "deployment_actors": [{ "name": "a", "actor_class": "module:Class" }] }));
    assert!(
        helper.starts_with("deployment_actors: are classes in Python"),
        "{helper}"
    );
    assert_eq!(
        deployment(json!({ "deployment_actors": [] })),
        deployment(json!({}))
    );
}

#[test]
fn a_field_that_nobody_knows_is_refused_with_what_may_be_meant() {
    let found = wrong_one(json!({ "max_ongoing_request": 5 }));
    assert!(found.contains("did you mean max_ongoing_requests?"), "{found}");
    let found = wrong_one(json!({ "max_queued": 5 }));
    assert!(found.contains("did you mean max_queued_s?"), "{found}");
    let found = wrong_one(json!({ "maxOngoingRequests": 5 }));
    assert!(found.contains("did you mean max_ongoing_requests?"), "{found}");
    let found = wrong_one(json!({ "colour": 5 }));
    assert!(
        found.starts_with("colour: is not a known field (accepted here: name, "),
        "{found}"
    );
    let found = wrong_one(json!({ "ray_actor_options": { "max_restarts": 5 } }));
    assert_eq!(
        found,
        "ray_actor_options.max_restarts: is not supported: a replica is no Ray actor"
    );
}
