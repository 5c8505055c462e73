//! What a replica needs and where it may be.

use mobula_serving::place::{Amounts, Match, Selector, Strategy};
use serde_json::{Value, json};

use super::{deployment, parsed, pipeline, said, wrong, wrong_one};
use crate::{Placing, Verdict};

fn selector(labels: &[(&str, &str)]) -> Selector {
    let entry = |(key, text): &(&str, &str)| ((*key).to_owned(), Match::parse(text).unwrap());
    Selector(labels.iter().map(entry).collect())
}

#[test]
fn every_amount_arrives() {
    let found = deployment(json!({ "ray_actor_options": {
        "num_cpus": 1.5, "num_gpus": 0.25, "memory": 1_048_576.0, "vram_bytes": "10GiB", "resources": { "disk": 2 },
        "accelerator_type": "L4",
    } }));
    let expected = Amounts {
        cpus: 15_000,
        gpus: 2_500,
        memory: 1 << 20,
        vram: 10 << 30,
        custom: [("disk".into(), 20_000), ("accelerator_type:L4".into(), 10)].into(),
    };
    assert_eq!(found.need, expected);
    assert_eq!(
        deployment(json!({ "ray_actor_options": { "vram_bytes": 5_000 } }))
            .need
            .vram,
        5_000
    );
}

#[test]
fn amounts_that_cannot_be_are_refused() {
    for (field, value, problem) in [
        (
            "num_cpus",
            json!(-1),
            "num_cpus: must be a number from 0 to 1000000, not -1",
        ),
        (
            "num_gpus",
            json!(1.5),
            "num_gpus: must be whole when it is over 1, as in Ray, not 1.5",
        ),
        (
            "memory",
            json!("lots"),
            "memory: must be a number of bytes up to 1 PiB, or text such as \"10GiB\", not \"lots\"",
        ),
        (
            "resources",
            json!({ "CPU": 1 }),
            "resources.CPU: has a field of its own: num_cpus",
        ),
        (
            "resources",
            json!({ "GPU": 1 }),
            "resources.GPU: has a field of its own: num_gpus",
        ),
        (
            "resources",
            json!({ "memory": 1 }),
            "resources.memory: has a field of its own: memory",
        ),
        (
            "resources",
            json!({ "vram": 1 }),
            "resources.vram: has a field of its own: vram_bytes",
        ),
        ("resources", json!({ "": 1 }), "resources.: has no name"),
        (
            "resources",
            json!({ "disk": "a" }),
            "resources.disk: must be a number from 0 to 1000000, not \"a\"",
        ),
        (
            "accelerator_type",
            json!(4),
            "accelerator_type: must be text, not 4",
        ),
    ] {
        let found = wrong_one(json!({ "ray_actor_options": { field: value } }));
        assert_eq!(found, format!("ray_actor_options.{problem}"));
    }
}

#[test]
fn labels_are_hard_and_those_to_fall_back_on_are_soft() {
    let placed = |options: Value| deployment(json!({ "ray_actor_options": options })).placing;
    let found = placed(json!({ "label_selector": { "ray.io/zone": "in(a, b)", "disk": "!hdd" } }));
    assert_eq!(
        found.selector,
        selector(&[("ray.io/zone", "in(a,b)"), ("disk", "!hdd")])
    );
    assert_eq!(found.prefer, []);

    let fallback = json!([{ "label_selector": { "gpu": "l4" } }, { "label_selector": { "gpu": "a10" } }]);
    let found = placed(json!({ "label_selector": { "gpu": "h100" }, "fallback_strategy": fallback }));
    assert_eq!(
        found.selector,
        selector(&[("gpu", "in(h100,l4,a10)")]),
        "one of the three"
    );
    let each = ["h100", "l4", "a10"].map(|gpu| selector(&[("gpu", gpu)]));
    assert_eq!(found.prefer, each, "best first");

    let anywhere = placed(
        json!({ "label_selector": { "gpu": "h100" }, "fallback_strategy": [{ "label_selector": {} }] }),
    );
    assert_eq!(
        (anywhere.selector, anywhere.prefer.len()),
        (Selector::default(), 1)
    );
}

#[test]
fn alternatives_by_several_labels_are_preferred_and_noted() {
    let options = json!({
        "label_selector": { "gpu": "h100", "zone": "a" },
        "fallback_strategy": [{ "label_selector": { "disk": "ssd" } }],
    });
    let found = parsed(&pipeline(json!({ "ray_actor_options": options })).to_string());
    let placing = &found.config.applications[0].deployments[1].placing;
    assert_eq!(
        (placing.selector.clone(), placing.prefer.len()),
        (Selector::default(), 2)
    );
    let (verdict, why) = said(&found.notes, "fallback_strategy");
    assert_eq!(verdict, Verdict::Translated);
    assert!(
        why.contains("a worker that none of them matches comes last instead of never"),
        "{why}"
    );
}

#[test]
fn labels_that_are_none_are_refused() {
    for labels in [
        json!({ "zone": "-a" }),
        json!({ "zone": "in()" }),
        json!({ "-zone": "a" }),
        json!({ "z": 5 }),
    ] {
        let found = wrong(json!({ "ray_actor_options": { "label_selector": labels } }));
        assert_eq!(found.len(), 1, "{labels}: {found:?}");
    }
    for strategy in [
        json!({}),
        json!({ "colour": "red" }),
        json!({ "label_selector": { "z": "-" } }),
    ] {
        let found = wrong(json!({ "ray_actor_options": { "fallback_strategy": [strategy] } }));
        assert!(!found.is_empty(), "{strategy}");
    }
}

#[test]
fn bundles_of_a_replica_are_one_need() {
    let found = parsed(
        &pipeline(json!({
            "placement_group_bundles": [{ "CPU": 2, "GPU": 1, "memory": 1_000, "disk": 1 }, { "CPU": 1, "GPU": 1 }],
            "placement_group_strategy": "PACK",
            "ray_actor_options": { "num_cpus": 2, "num_gpus": 1, "vram_bytes": 5_000 },
        }))
        .to_string(),
    );
    let deployment = &found.config.applications[0].deployments[1];
    let expected = Amounts {
        cpus: 30_000,
        gpus: 20_000,
        memory: 1_000,
        vram: 5_000,
        custom: [("disk".into(), 10_000)].into(),
    };
    assert_eq!(deployment.need, expected);
    assert_eq!(deployment.placing, Placing::default());
    assert_eq!(
        said(&found.notes, "placement_group_bundles").0,
        Verdict::Translated
    );
    assert_eq!(
        said(&found.notes, "placement_group_strategy").0,
        Verdict::Translated
    );
}

#[test]
fn bundles_that_would_be_apart_are_refused() {
    for strategy in ["SPREAD", "STRICT_SPREAD"] {
        let found = wrong_one(json!({
            "placement_group_bundles": [{ "CPU": 1 }, { "GPU": 1 }], "placement_group_strategy": strategy,
        }));
        assert!(
            found.contains("nothing would run in the other bundles"),
            "{found}"
        );
    }
}

#[test]
fn a_strategy_for_one_bundle_is_about_the_replicas() {
    for (name, strategy) in [
        ("PACK", Strategy::Pack),
        ("SPREAD", Strategy::Spread),
        ("STRICT_PACK", Strategy::StrictPack),
        ("STRICT_SPREAD", Strategy::StrictSpread),
    ] {
        let without = deployment(json!({ "placement_group_strategy": name }));
        let with = deployment(
            json!({ "placement_group_strategy": name, "placement_group_bundles": [{ "CPU": 1 }] }),
        );
        assert_eq!(
            (without.placing.strategy, with.placing.strategy),
            (strategy, strategy)
        );
    }
    let found = wrong_one(json!({ "placement_group_strategy": "PAKC" }));
    assert!(found.contains("did you mean PACK?"), "{found}");
}

#[test]
fn the_first_bundle_holds_the_replica() {
    for (bundle, options) in [
        (json!({ "CPU": 0.5 }), json!({})),
        (json!({ "CPU": 1 }), json!({ "num_gpus": 1 })),
        (json!({ "CPU": 1 }), json!({ "resources": { "disk": 1 } })),
    ] {
        let found = wrong_one(json!({ "placement_group_bundles": [bundle], "ray_actor_options": options }));
        assert!(
            found.starts_with("placement_group_bundles[0]: holds the replica"),
            "{found}"
        );
    }
    assert_eq!(
        wrong_one(json!({ "placement_group_bundles": [] })),
        "placement_group_bundles: must have at least one bundle; leave it out for none"
    );
}

#[test]
fn labels_of_bundles_are_all_asked_of_the_one_worker() {
    let found = deployment(json!({
        "placement_group_bundles": [{ "CPU": 1 }, { "GPU": 1 }],
        "placement_group_bundle_label_selector": [{ "zone": "a" }, { "gpu": "l4" }],
        "ray_actor_options": { "label_selector": { "disk": "ssd" } },
    }));
    assert_eq!(
        found.placing.selector,
        selector(&[("zone", "a"), ("gpu", "l4"), ("disk", "ssd")])
    );
    let apart = wrong_one(json!({
        "placement_group_bundles": [{ "CPU": 1 }, { "GPU": 1 }],
        "placement_group_bundle_label_selector": [{ "zone": "a" }, { "zone": "b" }],
    }));
    assert!(
        apart.contains("asks for another zone than another bundle"),
        "{apart}"
    );
    let many = json!([{ "zone": "a" }, { "zone": "a" }]);
    let found = wrong_one(
        json!({ "placement_group_bundles": [{ "CPU": 1 }], "placement_group_bundle_label_selector": many }),
    );
    assert!(found.contains("one for each of the 1 bundles"), "{found}");
    let found = wrong_one(json!({ "placement_group_bundle_label_selector": [{ "zone": "a" }] }));
    assert!(
        found.contains("needs placement_group_bundles, as in Ray"),
        "{found}"
    );
}

#[test]
fn gangs_and_machines_arrive() {
    let found = deployment(json!({ "num_replicas": 4, "max_replicas_per_node": 2 })).placing;
    assert_eq!(found.per_node, Some(2));
    let gang = json!({ "gang_size": 2, "gang_placement_strategy": "SPREAD", "runtime_failure_policy": "RESTART_REPLICA" });
    let found = deployment(json!({ "num_replicas": 4, "gang_scheduling_config": gang })).placing;
    assert_eq!(
        (found.gang, found.strategy, found.gang_restart),
        (2, Strategy::Spread, false)
    );
    let found =
        deployment(json!({ "num_replicas": 4, "gang_scheduling_config": { "gang_size": 2 } })).placing;
    assert_eq!(
        (found.gang, found.strategy, found.gang_restart),
        (2, Strategy::Pack, true)
    );
}

#[test]
fn what_ray_refuses_together_is_refused() {
    let gang = json!({ "gang_size": 2 });
    let bundles = json!([{ "CPU": 1 }]);
    for (fields, field) in [
        (
            json!({ "max_replicas_per_node": 1, "placement_group_bundles": bundles }),
            "max_replicas_per_node",
        ),
        (
            json!({ "num_replicas": 2, "max_replicas_per_node": 1, "gang_scheduling_config": gang }),
            "max_replicas_per_node",
        ),
        (
            json!({ "num_replicas": 2, "placement_group_strategy": "PACK", "gang_scheduling_config": gang }),
            "placement_group_strategy",
        ),
        (
            json!({ "gang_scheduling_config": {} }),
            "gang_scheduling_config.gang_size",
        ),
        (
            json!({ "gang_scheduling_config": { "gang_size": 0 } }),
            "gang_scheduling_config.gang_size",
        ),
        (json!({ "max_replicas_per_node": 101 }), "max_replicas_per_node"),
    ] {
        let found = wrong_one(fields);
        assert!(found.starts_with(&format!("{field}: ")), "{found}");
    }
}
