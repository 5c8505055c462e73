//! Which change restarts a replica and which does not.

use std::time::Duration;

use mobula_serving::{
    place::{Match, Selector, Strategy},
    scale::Policy,
};
use serde_json::json;

use crate::{Config, Count, Deployment, scaling};

fn base() -> Deployment {
    Config::of_model("m").applications.remove(0).deployments.remove(1)
}

fn labels(key: &str, value: &str) -> Selector {
    Selector([(key.to_owned(), Match::parse(value).unwrap())].into())
}

fn changes(list: &[fn(&mut Deployment)]) -> Vec<Deployment> {
    let changed = |change: &fn(&mut Deployment)| {
        let mut deployment = base();
        change(&mut deployment);
        deployment
    };
    list.iter().map(changed).collect()
}

#[test]
fn what_a_replica_cannot_change_about_itself_is_in_the_version_and_nothing_else_is() {
    let restart = changes(&[
        |d| d.kind = mobula_serving::place::Kind::Preprocess,
        |d| d.model = "n".into(),
        |d| drop(d.models.insert("a".into(), "b".into())),
        |d| drop(d.models.insert("ab".into(), String::new())),
        |d| d.max_models += 1,
        |d| d.engine = "fake".into(),
        |d| drop(d.options.insert("row_us".into(), "1".into())),
        |d| d.need.cpus += 1,
        |d| d.need.gpus += 1,
        |d| d.need.memory += 1,
        |d| d.need.vram += 1,
        |d| d.need.custom = [("disk".into(), 1)].into(),
        |d| d.placing.gang = 2,
        |d| d.placing.selector = labels("zone", "a"),
        |d| d.placing.selector = labels("zone", "!a"),
        |d| d.stages = &[crate::Stage::Decode],
        |d| d.stages = &[crate::Stage::Decode, crate::Stage::Encode],
    ]);
    let light = changes(&[
        |d| d.count = Count::Fixed(2),
        |d| d.count = Count::Auto(scaling::defaults(1)),
        |d| d.count = Count::Auto(scaling::defaults(2)),
        |d| {
            let mut config = scaling::defaults(2);
            config.policy = Policy::Work { target_s: 1.0 };
            d.count = Count::Auto(config);
        },
        |d| d.max_ongoing_requests += 1,
        |d| d.max_queued_requests = -1,
        |d| d.max_queued = Some(Duration::ZERO),
        |d| d.max_queued = Some(Duration::from_secs(1)),
        |d| d.grace = Duration::ZERO,
        |d| d.health.period = Duration::ZERO,
        |d| d.health.timeout = Duration::ZERO,
        |d| d.health.threshold = 5,
        |d| d.user_config = Some(json!({ "a": 1 })),
        |d| d.user_config = Some(json!({})),
        |d| d.rollout.percentage = 0.5,
        |d| d.rollout.max_surge_percent = Some(0),
        |d| d.rollout.max_failures = 1,
        |d| d.backpressure.status = 429,
        |d| d.backpressure.retry_after = Some(Duration::ZERO),
        |d| d.placing.strategy = Strategy::Spread,
        |d| d.placing.gang_restart = false,
        |d| d.placing.per_node = Some(1),
        |d| d.placing.prefer = vec![labels("zone", "a")],
    ]);
    let base = base();
    for deployment in &restart {
        assert_ne!(deployment.version(), base.version(), "{deployment:#?}");
        assert_eq!(deployment.light(), base.light(), "{deployment:#?}");
    }
    for deployment in &light {
        assert_eq!(deployment.version(), base.version(), "{deployment:#?}");
        assert_ne!(deployment.light(), base.light(), "{deployment:#?}");
    }
    for list in [restart, light] {
        let mut digests: Vec<String> = list.iter().map(|d| d.version() + &d.light()).collect();
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), list.len(), "no two changes look alike");
    }
}

#[test]
fn digests_are_the_same_whatever_order_a_document_has() {
    let one = json!({ "applications": [{ "import_path": "mobula.image:text_to_image", "deployments": [
        { "name": "pipeline", "user_config": { "a": 1, "b": 2 }, "ray_actor_options": { "resources": { "x": 1, "y": 2 } } },
    ] }] });
    let other = r#"{"applications": [{"deployments": [{"ray_actor_options": {"resources": {"y": 2, "x": 1}},
        "user_config": {"b": 2, "a": 1}, "name": "pipeline"}], "import_path": "mobula.image:text_to_image"}]}"#;
    let of = |text: &str| {
        crate::parse(text)
            .unwrap()
            .config
            .applications
            .remove(0)
            .deployments
            .remove(1)
    };
    let (one, other) = (of(&one.to_string()), of(other));
    assert_eq!((one.version(), one.light()), (other.version(), other.light()));
    assert_eq!(one.version().len(), 16);
}

#[test]
fn a_name_is_in_no_digest() {
    let mut named = base();
    named.name = "other".into();
    assert_eq!(
        (named.version(), named.light()),
        (base().version(), base().light())
    );
}
