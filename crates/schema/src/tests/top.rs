//! The top of the document, names and routes.

use std::time::Duration;

use serde_json::{Value, json};

use super::{app, parsed, problems, said};
use crate::{ProxyLocation, Verdict};

fn top(fields: Value) -> String {
    let mut document = json!({ "applications": [] });
    document
        .as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    document.to_string()
}

#[test]
fn every_option_arrives_as_it_was_read() {
    let found = parsed(&top(json!({
        "target_capacity": 50.5,
        "proxy_location": "HeadOnly",
        "http_options": {
            "host": "127.0.0.1", "port": 8901, "root_path": "/x", "request_timeout_s": 1.5, "keep_alive_timeout_s": 60,
        },
        "grpc_options": {
            "port": 9001, "grpc_servicer_functions": ["a:b"], "request_timeout_s": 2, "enable_reflection": false,
        },
        "logging_config": { "log_level": "DEBUG" },
        "tracing_config": { "enabled": true, "exporter_import_path": "a:b", "sampling_ratio": 0.5 },
        "controller_options": { "runtime_env": { "env_vars": { "A": "b" } } },
    })));
    let options = &found.config.options;
    assert_eq!(options.target_capacity, Some(50.5));
    assert_eq!(options.proxy_location, ProxyLocation::HeadOnly);
    assert_eq!(options.logging, Some(json!({ "log_level": "DEBUG" })));
    let (http, grpc) = (&options.http, &options.grpc);
    assert_eq!(
        (http.host.as_str(), http.port, http.root_path.as_str()),
        ("127.0.0.1", 8901, "/x")
    );
    assert_eq!(http.request_timeout, Some(Duration::from_millis(1_500)));
    assert_eq!(http.keep_alive, Duration::from_secs(60));
    assert_eq!(
        (grpc.port, grpc.servicer_functions.as_slice()),
        (9001, ["a:b".to_owned()].as_slice())
    );
    assert_eq!(
        (grpc.request_timeout, grpc.reflection),
        (Some(Duration::from_secs(2)), false)
    );
    assert_eq!(said(&found.notes, "target_capacity"), (Verdict::Honoured, "50.5"));
    let others: Vec<_> = found
        .notes
        .iter()
        .filter(|note| note.path != "target_capacity")
        .collect();
    assert_eq!(others.len(), 15, "{others:#?}");
    for note in others {
        let held = note.path.ends_with("request_timeout_s");
        let verdict = if held { Verdict::Honoured } else { Verdict::Ignored };
        assert_eq!(note.verdict, verdict, "{note}");
    }
}

#[test]
fn nothing_said_is_rays_default() {
    let options = parsed(&top(json!({}))).config.options;
    assert_eq!(options.target_capacity, None);
    assert_eq!(options.proxy_location, ProxyLocation::EveryNode);
    assert_eq!(
        (options.http.port, options.http.keep_alive),
        (8000, Duration::from_secs(90))
    );
    assert_eq!((options.grpc.port, options.grpc.reflection), (9000, true));
}

#[test]
fn options_that_cannot_be_are_refused() {
    for (fields, problem) in [
        (
            json!({ "target_capacity": 101 }),
            "target_capacity: must be a number from 0 to 100, not 101",
        ),
        (
            json!({ "proxy_location": "HeadOnl" }),
            "proxy_location: must be one of EveryNode, HeadOnly, Disabled (did you mean HeadOnly?), not \"HeadOnl\"",
        ),
        (
            json!({ "http_options": { "port": 70_000 } }),
            "http_options.port: must be a whole number from 1 to 65535, not 70000",
        ),
        (
            json!({ "http_options": { "ssl_certfile": "a" } }),
            "http_options.ssl_certfile: is not supported: the HTTP door speaks no TLS; put something before it that does, \
             and leave this out",
        ),
        (
            json!({ "http_options": { "middlewares": [] } }),
            "http_options.middlewares: is not supported: they are Python, which cannot be run here",
        ),
        (
            json!({ "tracing_config": { "sampling_ratio": 2 } }),
            "tracing_config.sampling_ratio: must be a number from 0 to 1, not 2",
        ),
        (
            json!({ "controller_options": { "runtime_env": { "pip": [] } } }),
            "controller_options.runtime_env.pip: is not a known field (accepted here: env_vars)",
        ),
        (
            json!({ "applications": {} }),
            "applications: must be a list, not a mapping of 0",
        ),
        (
            json!({ "applications": null }),
            "applications: is required: a list of what to serve",
        ),
    ] {
        let found = problems(&top(fields));
        assert_eq!(found, [format!("line 1: {problem}")]);
    }
}

#[test]
fn names_and_routes_are_unique() {
    let one = json!({ "name": "a", "import_path": "mobula.image:text_to_image" });
    let found = problems(&json!({ "applications": [one, one] }).to_string());
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].contains("applications[1]: another application is named \"a\""),
        "{found:?}"
    );
    assert!(
        found[1].contains("another application has the route_prefix \"/\""),
        "{found:?}"
    );
    let apart =
        |name| json!({ "name": name, "route_prefix": null, "import_path": "mobula.image:text_to_image" });
    let found = parsed(&json!({ "applications": [apart("a"), apart("b")] }).to_string()).config;
    assert!(found.applications.iter().all(|a| a.route_prefix.is_none()));
}

#[test]
fn routes_follow_rays_rules() {
    for (prefix, accepted) in [
        ("/", true),
        ("/a/b", true),
        ("a", false),
        ("/a/", false),
        ("/{a}", false),
        ("/-/x", false),
        ("//", false),
        ("/a b", false),
        ("/a?b", false),
    ] {
        let text = app(json!({ "route_prefix": prefix })).to_string();
        assert_eq!(crate::parse(&text).is_ok(), accepted, "{prefix}");
    }
}

#[test]
fn names_are_what_an_id_can_hold() {
    for (name, accepted) in [
        ("a b", true),
        ("ä", true),
        ("a#b", false),
        ("a\nb", false),
        ("", false),
    ] {
        assert_eq!(
            crate::parse(&app(json!({ "name": name })).to_string()).is_ok(),
            accepted,
            "{name:?}"
        );
    }
    assert!(crate::parse(&app(json!({ "name": "n".repeat(101) })).to_string()).is_err());
}
