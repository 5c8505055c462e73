//! Our own field: worker groups.

use std::time::Duration;

use mobula_serving::place::{Amounts, Kind};
use serde_json::{Value, json};

use super::{parsed, problems};
use crate::WorkerGroup;

fn groups(groups: Value) -> String {
    json!({ "worker_groups": groups, "applications": [] }).to_string()
}

#[test]
fn every_field_arrives() {
    let found = parsed(&groups(json!([
        {
            "name": "gpu", "kind": "inference", "min": 1, "max": 4, "idle_timeout_s": 90, "replicas_per_worker": 2,
            "resources": {
                "num_cpus": 8, "num_gpus": 1, "memory": "16GiB", "vram_bytes": "24GiB", "resources": { "disk": 0.5 },
            },
            "labels": { "gpu": "l4", "spot": true },
        },
        { "name": "cpu", "kind": "preprocess" },
    ])));
    let expected = [
        WorkerGroup {
            name: "gpu".into(),
            kind: Kind::Inference,
            min: 1,
            max: 4,
            idle_timeout: Duration::from_secs(90),
            resources: Amounts {
                cpus: 80_000,
                gpus: 10_000,
                memory: 16 << 30,
                vram: 24 << 30,
                custom: [("disk".into(), 5_000)].into(),
            },
            labels: [("gpu".into(), "l4".into()), ("spot".into(), "true".into())].into(),
            replicas_per_worker: Some(2),
        },
        WorkerGroup {
            name: "cpu".into(),
            kind: Kind::Preprocess,
            min: 0,
            max: 1,
            idle_timeout: Duration::from_secs(60),
            resources: Amounts::default(),
            labels: [].into(),
            replicas_per_worker: None,
        },
    ];
    assert_eq!(found.config.worker_groups, expected);
}

#[test]
fn what_cannot_be_is_refused() {
    for (group, problem) in [
        (
            json!({ "kind": "inference" }),
            ".name: is required: what the group is called",
        ),
        (
            json!({ "name": "a" }),
            ".kind: is required: preprocess or inference",
        ),
        (
            json!({ "name": "a", "kind": "gpu" }),
            ".kind: must be one of preprocess, inference, not \"gpu\"",
        ),
        (
            json!({ "name": "a", "kind": "inference", "min": 3, "max": 2 }),
            ".min: min (3) is over max (2)",
        ),
        (
            json!({ "name": "a", "kind": "inference", "max": 0 }),
            ".max: must be a whole number from 1 to 10000, not 0",
        ),
        (
            json!({ "name": "a", "kind": "inference", "idle_timeout_s": -1 }),
            ".idle_timeout_s: must be a number from 0 to 604800, not -1",
        ),
        (
            json!({ "name": "a", "kind": "inference", "replicas_per_worker": 0 }),
            ".replicas_per_worker: must be a whole number from 1 to 1000, not 0",
        ),
        (
            json!({ "name": "a", "kind": "inference", "resources": { "cpu": 1 } }),
            ".resources.cpu: is not a known field (accepted here: num_cpus, num_gpus, memory, vram_bytes, resources)",
        ),
        (
            json!({ "name": "a", "kind": "inference", "labels": { "zone": "-" } }),
            ".labels.zone: must be at most 63 letters, digits, -, _ and ., with a letter or digit at both ends, not \"-\"",
        ),
        (
            json!({ "name": "--help", "kind": "inference" }),
            ".name: must be at most 63 letters, digits, -, _ and ., with a letter or digit at both ends, not \"--help\"",
        ),
        (
            json!({ "name": "a", "kind": "inference", "resources": { "resources": { "x=1,y": 1 } } }),
            ".resources.resources.x=1,y: has a name that no worker can offer: it may have no comma, = or space, and no - at \
             its begin",
        ),
    ] {
        let found = problems(&groups(json!([group])));
        assert_eq!(found, [format!("line 1: worker_groups[0]{problem}")]);
    }
    let one = json!({ "name": "a", "kind": "inference" });
    let found = problems(&groups(json!([one, one])));
    assert!(
        found[0].contains("worker_groups[1]: another group is named \"a\""),
        "{found:?}"
    );
}

#[test]
fn a_replica_that_no_declared_worker_can_hold_is_refused() {
    let document = |gpus: f64, kind: &str, resources: Value| {
        json!({
            "worker_groups": [{ "name": "g", "kind": kind, "resources": resources }],
            "applications": [{ "import_path": "mobula.image:text_to_image", "deployments": [
                { "name": "pipeline", "ray_actor_options": { "num_gpus": gpus } },
            ] }],
        })
        .to_string()
    };
    let small = json!({ "num_cpus": 4, "num_gpus": 1 });
    let found = problems(&document(2.0, "inference", small.clone()));
    assert_eq!(
        found,
        [
            "line 1: applications[0]: a replica of pipeline needs 1 CPU, 2 GPUs, which no worker of a group of kind inference \
          has (g: 4 CPUs, 1 GPU)"
        ]
    );
    parsed(&document(1.0, "inference", small.clone()));
    // Workers of the other kind, and those of which nothing is known, say nothing of it.
    parsed(&document(2.0, "preprocess", small));
    parsed(&document(2.0, "inference", json!({})));
}
