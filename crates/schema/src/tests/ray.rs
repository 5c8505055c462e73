//! Ray Serve is the judge: what it accepts is accepted, what it refuses is refused, but for what is listed here with a reason.

use std::collections::BTreeSet;

use serde::Deserialize;

/// What Ray itself said of a config (tools/reference/serve_schema.py).
#[derive(Debug, Deserialize)]
struct Case {
    name: String,
    document: serde_json::Value,
    /// Its schema and its controller take it.
    deploy: bool,
}

/// What Ray accepts and we refuse, and why.
const STRICTER: [(&str, &str); 16] = [
    (
        "a field that nobody knows",
        "Ray passes over it; a slip of a finger is told of here",
    ),
    ("a field of an application that nobody knows", "as above"),
    ("a field of a deployment that nobody knows", "as above"),
    (
        "a target above what a replica takes",
        "Ray warns that it will never scale",
    ),
    ("a policy in Python", "no Python runs here"),
    ("a router in Python", "no Python runs here"),
    ("a helper in Python", "no Python runs here"),
    ("import_path: \"fruit:app\"", "no Python runs here"),
    ("bundles apart", "a replica is one process of one worker"),
    ("a certificate and a key", "the HTTP door speaks no TLS"),
    (
        "route_prefix: \"/-/a\"",
        "paths below /- are the proxy's own, in Ray too: the application could not be reached",
    ),
    (
        "route_prefix: \"/a b\"",
        "no client can ask for it as it is written",
    ),
    ("num_replicas: 10001", "somebody slipped on a key"),
    (
        "max_ongoing_requests: \"5\"",
        "text is no number; Ray's library reads it as one",
    ),
    (
        "max_ongoing_requests: true",
        "true is no number; Ray's library reads it as 1",
    ),
    ("num_gpus: 1.5", "Ray refuses it when it starts the replica"),
];

/// What Ray refuses and we accept, and why.
const LAXER: [(&str, &str); 12] = [
    (
        "a strategy without bundles",
        "it says how the replicas stand to each other, which Ray has no word for",
    ),
    ("a gang that restarts alone", "Ray has the word and not the thing"),
    (
        "name: null",
        "null is not given, as Ray's own text says of most fields",
    ),
    ("args: null", "as above"),
    ("external_scaler_enabled: null", "as above"),
    ("max_ongoing_requests: null", "as above"),
    ("max_queued_requests: null", "as above"),
    ("graceful_shutdown_timeout_s: null", "as above"),
    ("ray_actor_options: null", "as above"),
    ("max_replicas: null", "as above"),
    (
        "max_queued_requests: 5.0",
        "a whole number, however it is written, as in Ray's other fields",
    ),
    (
        "num_replicas: 3.0",
        "a whole number, however it is written, as in Ray's other fields",
    ),
];

#[test]
fn the_verdict_is_rays_but_for_what_is_listed() {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/ray.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_str(&text).unwrap();
    assert!(cases.len() > 250 && cases.iter().filter(|case| case.deploy).count() > 100);
    let (mut stricter, mut laxer) = (BTreeSet::new(), BTreeSet::new());
    for case in &cases {
        match (case.deploy, crate::parse(&case.document.to_string()).is_ok()) {
            (true, false) => drop(stricter.insert(case.name.as_str())),
            (false, true) => drop(laxer.insert(case.name.as_str())),
            (true, true) | (false, false) => {}
        }
    }
    let listed = |list: &[(&'static str, &str)]| list.iter().map(|(name, _)| *name).collect::<BTreeSet<_>>();
    assert_eq!(stricter, listed(&STRICTER));
    assert_eq!(laxer, listed(&LAXER));
}
