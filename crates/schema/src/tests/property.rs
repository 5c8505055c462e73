//! What holds of every document: valid ones survive being given back, others are refused without a panic.

use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Map, Value, json};

use super::parsed;

/// A mapping of those of these fields that are there.
fn some(fields: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    let each: Vec<_> = fields
        .into_iter()
        .map(|(name, value)| option::of(value).prop_map(move |value| (name, value)).boxed())
        .collect();
    each.prop_map(|fields| {
        let given = fields
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(given.collect::<Map<_, _>>())
    })
    .boxed()
}

fn number(range: std::ops::Range<f64>) -> BoxedStrategy<Value> {
    range.prop_map(|n| json!(n)).boxed()
}

fn whole(range: std::ops::RangeInclusive<i64>) -> BoxedStrategy<Value> {
    range.prop_map(|n| json!(n)).boxed()
}

fn one_of(words: &'static [&'static str]) -> BoxedStrategy<Value> {
    select(words).prop_map(|word| json!(word)).boxed()
}

fn scaling() -> BoxedStrategy<Value> {
    some(vec![
        ("min_replicas", whole(0..=2)),
        ("target_ongoing_requests", number(0.1..9.0)),
        ("metrics_interval_s", number(0.01..20.0)),
        ("look_back_period_s", number(0.01..60.0)),
        ("upscaling_factor", number(0.01..4.0)),
        ("downscaling_factor", number(0.01..4.0)),
        ("smoothing_factor", number(0.01..4.0)),
        ("upscale_delay_s", number(0.0..100.0)),
        ("downscale_delay_s", number(0.0..100.0)),
        ("downscale_to_zero_delay_s", number(0.0..100.0)),
        ("aggregation_function", one_of(&["mean", "max", "min", "MAX"])),
    ])
    .prop_map(|mut scaling| {
        scaling["max_replicas"] = json!(7);
        scaling["initial_replicas"] = json!(3);
        scaling
    })
    .boxed()
}

fn options() -> BoxedStrategy<Value> {
    some(vec![
        ("num_cpus", number(0.0..8.0)),
        ("num_gpus", number(0.0..1.0)),
        ("memory", whole(0..=1 << 40)),
        ("vram_bytes", one_of(&["10GiB", "1.5G", "0"])),
        (
            "resources",
            some(vec![("disk", number(0.0..2.0)), ("TPU", whole(0..=8))]),
        ),
        ("accelerator_type", one_of(&["L4", "H100"])),
        (
            "label_selector",
            some(vec![
                ("zone", one_of(&["a", "!a", "in(a, b)"])),
                ("disk", one_of(&["ssd", ""])),
            ]),
        ),
        (
            "fallback_strategy",
            Just(json!([{ "label_selector": { "zone": "b" } }])).boxed(),
        ),
        (
            "runtime_env",
            Just(json!({ "env_vars": { "MODEL_ID": "a/b" } })).boxed(),
        ),
    ])
}

fn deployment() -> BoxedStrategy<Value> {
    let fields = some(vec![
        ("max_ongoing_requests", whole(10..=1_000)),
        ("max_queued_requests", whole(1..=1_000)),
        ("max_queued_s", number(0.01..100.0)),
        ("user_config", Just(json!({ "a": [1, { "b": null }] })).boxed()),
        ("graceful_shutdown_timeout_s", number(0.0..100.0)),
        ("graceful_shutdown_wait_loop_s", number(0.0..100.0)),
        ("health_check_period_s", number(0.01..100.0)),
        ("health_check_timeout_s", number(0.01..100.0)),
        ("ray_actor_options", options()),
        (
            "placement_group_strategy",
            one_of(&["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]),
        ),
        ("max_replicas_per_node", whole(1..=100)),
        ("rolling_update_percentage", number(0.01..1.0)),
        ("max_surge_percent", whole(0..=100)),
        (
            "backpressure_config",
            some(vec![(
                "status_code",
                select(vec![json!(503), json!(429)]).boxed(),
            )]),
        ),
    ]);
    let count = prop_oneof![
        Just(json!({})),
        whole(1..=50).prop_map(|n| json!({ "num_replicas": n })),
        Just(json!({ "num_replicas": "auto" })),
        scaling().prop_map(|scaling| json!({ "autoscaling_config": scaling })),
        scaling().prop_map(|scaling| json!({ "num_replicas": "auto", "autoscaling_config": scaling })),
    ];
    (fields, count)
        .prop_map(|(mut fields, count)| {
            fields
                .as_object_mut()
                .unwrap()
                .extend(count.as_object().unwrap().clone());
            fields
        })
        .boxed()
}

fn document() -> impl Strategy<Value = Value> {
    let graph = select(vec![
        ("mobula.image:text_to_image", "pipeline"),
        ("stable_diffusion:entrypoint", "StableDiffusionV2"),
        ("ray_serve_sd:entrypoint", "stable-diffusion-v2"),
        ("stable_diffusion_tpu:deployment", "StableDiffusion"),
    ]);
    let application = (
        graph,
        deployment(),
        option::of(Just(json!({ "model": "m", "options": { "row_us": 5 } }))),
    );
    let top = some(vec![
        ("target_capacity", number(0.0..100.0)),
        ("proxy_location", one_of(&["EveryNode", "HeadOnly", "Disabled"])),
        (
            "http_options",
            some(vec![
                ("port", whole(1..=65_535)),
                ("request_timeout_s", number(0.1..10.0)),
            ]),
        ),
        (
            "worker_groups",
            Just(json!([{ "name": "g", "kind": "inference", "max": 3, "labels": { "a": "b" } }])).boxed(),
        ),
    ]);
    (vec(application, 0..3), top).prop_map(|(applications, mut top)| {
        let applications = applications.into_iter().enumerate().map(|(i, ((path, name), mut deployment, args))| {
            deployment["name"] = json!(name);
            let mut application = json!({
                "name": format!("a{i}"), "route_prefix": format!("/{i}"), "import_path": path, "deployments": [deployment],
            });
            if let Some(args) = args {
                application["args"] = args;
            }
            application
        });
        top["applications"] = applications.collect();
        top
    })
}

fn samples() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/samples");
    let entries = std::fs::read_dir(folder).unwrap();
    entries
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect()
}

/// Puts `value` in place of the n-th value of the document.
fn replace(document: &mut Value, n: &mut usize, value: &Value) {
    if *n == 0 {
        document.clone_from(value);
    }
    *n = n.wrapping_sub(1);
    match document {
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, n, value)),
        Value::Object(map) => map.values_mut().for_each(|item| replace(item, n, value)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// `parsed` reads what is given back and compares.
    #[test]
    fn a_valid_config_survives_being_given_back(document in document()) {
        let found = parsed(&document.to_string());
        prop_assert_eq!(found.config.applications.len(), document["applications"].as_array().unwrap().len());
        for application in &found.config.applications {
            let (alone, _) = crate::application(&application.document).unwrap();
            for deployment in &application.deployments {
                if let crate::Count::Auto(config) = &deployment.count {
                    prop_assert_eq!(config.check(), Ok(()));
                }
            }
            for (one, other) in alone.deployments.iter().zip(&application.deployments) {
                prop_assert_eq!(one.version(), other.version());
                prop_assert_eq!(one.light(), other.light());
            }
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in vec(any::<u8>(), 0..3_000)) {
        let _ = crate::parse(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_text_of_yamls_own_signs_makes_the_reader_panic(text in "[\\[\\]{}:,&*!|>'\"%@`#?<a-c0-2~ \n\t-]{0,400}") {
        let _ = crate::parse(&text);
    }

    #[test]
    fn a_sample_with_a_mistake_is_read_or_refused(
        which in 0..6_usize, at in 0.0..1.0_f64, length in 0..40_usize, put in "[\\[\\]{}:,&*!|>'\"# \n\ta0-]{0,8}",
    ) {
        let text = &samples()[which];
        let letters: Vec<char> = text.chars().collect();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let at = (at * letters.len() as f64) as usize;
        let end = (at + length).min(letters.len());
        let changed: String = letters[..at].iter().copied().chain(put.chars()).chain(letters[end..].iter().copied()).collect();
        let _ = crate::parse(&changed);
    }

    #[test]
    fn a_value_of_another_kind_anywhere_is_read_or_refused(
        mut document in document(), n in 0..60_usize, value in select(vec![
            json!(null), json!(true), json!(-1), json!(0), json!(1e300), json!(u64::MAX), json!(""), json!("a"), json!([]),
            json!([null]), json!({}), json!({ "": 0 }), json!("auto"), json!("{"),
        ]),
    ) {
        replace(&mut document, &mut n.clone(), &value);
        let _ = crate::parse(&document.to_string());
        let _ = crate::application(&document["applications"][0]);
    }
}
