use proptest::prelude::*;

use super::*;

fn problems(text: &str) -> Vec<String> {
    Schema::parse(text)
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn the_shipped_applications_are_accepted() {
    for (file, engine) in [("demo", "onnx"), ("fake", "fake")] {
        let path = format!("{}/../../deploy/apps/{file}.yaml", env!("CARGO_MANIFEST_DIR"));
        let schema = Schema::parse(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(schema.applications[0].deployments[1].engine, engine);
    }
}

#[test]
fn a_short_file_means_the_same_as_the_model_flag() {
    let text = "applications: [{import_path: 'mobula.image:text_to_image', args: {model: some/folder}}]";
    assert_eq!(Schema::parse(text).unwrap(), Schema::of_model("some/folder"));
}

#[test]
fn every_field_that_is_honoured_arrives() {
    let schema = Schema::parse(
        "
applications:
- name: art
  route_prefix: /art
  import_path: mobula.image.text_to_image
  args: {model: sd15, engine: fake, options: {row_us: 200, warm: true}}
  deployments:
  - name: pipeline
    num_replicas: 3
    max_ongoing_requests: 8
    max_queued_requests: -1
    graceful_shutdown_timeout_s: 2.5
    ray_actor_options: {num_cpus: 1.5, num_gpus: 0.25, memory: 1048576, resources: {tpu: 2}}
",
    )
    .unwrap();
    let application = &schema.applications[0];
    assert_eq!(
        (application.name.as_str(), application.route_prefix.as_deref()),
        ("art", Some("/art"))
    );
    let [preprocess, pipeline] = application.deployments.as_slice() else {
        panic!("two deployments")
    };
    assert_eq!((preprocess.replicas, preprocess.engine.as_str()), (1, ""));
    assert_eq!(
        *pipeline,
        Deployment {
            name: "pipeline".into(),
            kind: Kind::Inference,
            replicas: 3,
            max_ongoing_requests: 8,
            max_queued_requests: -1,
            need: Amounts {
                cpus: 15_000,
                gpus: 2_500,
                memory: 1 << 20,
                custom: [("tpu".into(), 20_000)].into()
            },
            grace: Duration::from_millis(2_500),
            model: "sd15".into(),
            engine: "fake".into(),
            options: [("row_us".into(), "200".into()), ("warm".into(), "true".into())].into(),
        }
    );
}

#[test]
fn all_problems_are_listed_at_once_with_path_reason_and_what_is_accepted() {
    let found = problems(
        "
http_options: {port: 8000}
applications:
- name: a
  import_path: fruit:app
  args: {model: m, engine: torch, colour: red}
  runtime_env: {}
  deployments:
  - name: pipeline
    num_replicas: auto
    max_concurrent_queries: 3
    ray_actor_options: {num_gpus: 1.5, accelerator_type: T4}
  - name: pipelin
",
    );
    let expected = [
        "applications[0].import_path: must name a built-in graph (mobula.image:text_to_image), not \"fruit:app\"",
        "applications[0].args.engine: must be onnx or fake, not \"torch\"",
        "applications[0].args.colour: is not a known field (accepted here: model, engine, options)",
        "applications[0].deployments[0].num_replicas: must be a whole number from 1 to 10000, not \"auto\"",
        "applications[0].deployments[0].ray_actor_options.num_gpus: must be whole when it is over 1, as in Ray, not 1.5",
        "applications[0].deployments[0].ray_actor_options.accelerator_type: is not supported: ask for the accelerator \
         as a custom resource in resources (accepted here: num_cpus, num_gpus, memory, resources)",
        "applications[0].deployments[0].max_concurrent_queries: is not supported: its name is max_ongoing_requests \
         (accepted here: name, num_replicas, max_ongoing_requests, max_queued_requests, graceful_shutdown_timeout_s, \
         ray_actor_options)",
        "applications[0].deployments[1].name: is none of the graph's deployments (preprocess, pipeline): \"pipelin\"",
        "applications[0].runtime_env: is not supported: graphs are built in and need no Python environment \
         (accepted here: name, route_prefix, import_path, args, deployments)",
        "http_options: is not supported: the HTTP door is set by the flags of mobula-proxy (accepted here: applications)",
    ];
    assert_eq!(found, expected);
}

#[test]
fn names_and_prefixes_are_unique() {
    let app = "{name: a, import_path: 'mobula.image:text_to_image', args: {model: fake}}";
    let found = problems(&format!("applications: [{app}, {app}]"));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("applications[1]: another application is named \"a\""));
    assert!(found[1].contains("another application has the route_prefix \"/\""));
}

#[test]
fn two_applications_may_have_no_route() {
    let app = |name| {
        format!(
            "{{name: {name}, route_prefix: null, import_path: 'mobula.image:text_to_image', args: {{model: fake}}}}"
        )
    };
    let schema = Schema::parse(&format!("applications: [{}, {}]", app("a"), app("b"))).unwrap();
    assert!(schema.applications.iter().all(|a| a.route_prefix.is_none()));
}

#[test]
fn prefixes_follow_rays_rules() {
    for (prefix, accepted) in [
        ("/", true),
        ("/a/b", true),
        ("a", false),
        ("/a/", false),
        ("/{a}", false),
        ("/-/x", false),
        ("//", false),
    ] {
        let text = format!(
            "applications: [{{route_prefix: '{prefix}', import_path: 'mobula.image:text_to_image', args: {{model: fake}}}}]"
        );
        assert_eq!(Schema::parse(&text).is_ok(), accepted, "{prefix}");
    }
}

#[test]
fn what_is_no_mapping_is_refused_in_words() {
    assert_eq!(
        problems("just text"),
        ["(document): must be a mapping of names to values, not \"just text\""]
    );
    assert_eq!(
        problems("{}"),
        ["applications: is required: a list of what to serve"]
    );
    assert!(problems("a: [1")[0].starts_with("(document): is no YAML"));
    assert!(
        !problems("applications: []\napplications: []").is_empty(),
        "a key written twice"
    );
}

#[test]
fn the_version_changes_with_what_needs_a_restart_and_with_nothing_else() {
    let base = Schema::of_model("m").applications[0].deployments[1].clone();
    let mut light = base.clone();
    (light.replicas, light.max_queued_requests, light.grace) = (9, -1, Duration::ZERO);
    assert_eq!(light.version(), base.version());
    for change in [
        |d: &mut Deployment| d.model = "n".into(),
        |d: &mut Deployment| d.engine = "fake".into(),
        |d: &mut Deployment| d.max_ongoing_requests += 1,
        |d: &mut Deployment| d.need.cpus += 1,
        |d: &mut Deployment| drop(d.options.insert("row_us".into(), "1".into())),
    ] {
        let mut other = base.clone();
        change(&mut other);
        assert_ne!(other.version(), base.version());
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,200}") {
        let _ = Schema::parse(&text);
    }
}
