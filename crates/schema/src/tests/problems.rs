//! Everything that is wrong is told at once, where it stands.

use super::problems;

#[test]
fn all_problems_are_listed_with_line_path_and_reason_in_the_order_of_the_document() {
    let found = problems(
        "
http_options: {port: http}
applications:
- name: a
  import_path: fruit:app
  args: {model: m, engine: torch, colour: red}
  host: 0.0.0.0
  deployments:
  - name: pipeline
    num_replicas: many
    ray_actor_options:
      num_gpus: 1.5
      accelerator_typ: T4
  - num_replicas: 2
colour: red
",
    );
    let expected = [
        "line 2: http_options.port: must be a whole number from 1 to 65535, not \"http\"",
        "line 5: applications[0].import_path: must name a built-in graph (mobula.image:text_to_image, mobula.image:split, or \
         a Stable Diffusion sample of Ray), not \"fruit:app\": applications in Python cannot be run here",
        "line 6: applications[0].args.engine: must be one of onnx, fake, not \"torch\"",
        "line 6: applications[0].args.colour: is not a known field (accepted here: model, engine, options, models, \
         max_num_models_per_replica, max_batch_size, batch_wait_timeout_s)",
        "line 7: applications[0].host: is not supported: the address is the proxy's for all applications; give it in \
         http_options",
        "line 10: applications[0].deployments[0].num_replicas: must be a whole number from 1 to 10000, or \"auto\", not \
         \"many\"",
        "line 12: applications[0].deployments[0].ray_actor_options.num_gpus: must be whole when it is over 1, as in Ray, not \
         1.5",
        "line 13: applications[0].deployments[0].ray_actor_options.accelerator_typ: is not a known field; did you mean \
         accelerator_type? (accepted here: num_cpus, num_gpus, memory, vram_bytes, resources, accelerator_type, runtime_env, \
         label_selector, fallback_strategy, object_store_memory)",
        "line 14: applications[0].deployments[1].name: is required: preprocess or pipeline",
        "line 15: colour: is not a known field (accepted here: proxy_location, http_options, grpc_options, logging_config, \
         tracing_config, controller_options, target_capacity, worker_groups, applications)",
    ];
    assert_eq!(found, expected);
}

#[test]
fn names_and_routes_that_are_taken_are_told_beside_what_else_is_wrong() {
    let found = problems(
        "
applications:
- name: a
  import_path: mobula.image:text_to_image
  args: {model: m}
  deployments:
  - {name: pipeline, max_ongoing_requests: 2, user_config: {max_batch_size: 8}}
  - name: pipeline
- name: a
  import_path: fruit:app
",
    );
    let has = |text: &str| {
        assert!(
            found.iter().any(|problem| problem.contains(text)),
            "{text}: {found:?}"
        )
    };
    has("applications[1]: another application is named \"a\"");
    has("applications[1]: another application has the route_prefix \"/\"");
    has("applications[1].import_path: must name");
    has("deployments[1].name: another deployment is named \"pipeline\"");
    has("max_batch_size (8) is over max_ongoing_requests (2)");
    assert_eq!(found.len(), 5, "{found:?}");
}

#[test]
fn lines_are_those_of_json_too() {
    let text = "{\n  \"applications\": [\n    {\n      \"import_path\": \"fruit:app\",\n      \"colour\": 1\n    }\n  ]\n}";
    let lines: Vec<Option<u64>> = crate::parse(text).unwrap_err().iter().map(|p| p.line).collect();
    assert_eq!(lines, [Some(4), Some(5)]);
}

#[test]
fn what_an_alias_stands_for_is_told_of_where_it_is_used() {
    let text = "
applications:
- {name: a, route_prefix: /a, import_path: &path 'fruit:app'}
- name: b
  route_prefix: /b
  import_path: *path
";
    let lines: Vec<Option<u64>> = crate::parse(text).unwrap_err().iter().map(|p| p.line).collect();
    assert_eq!(lines, [Some(3), Some(6)]);
}

#[test]
fn what_is_no_mapping_is_refused_in_words() {
    assert_eq!(
        problems("just text"),
        ["line 1: (document): must be a mapping of names to values, not \"just text\""]
    );
    assert_eq!(
        problems("{}"),
        ["line 1: applications: is required: a list of what to serve"]
    );
    assert_eq!(
        problems(""),
        ["(document): is empty; give at least `applications: []`"]
    );
    let broken = problems("a:\n  - [1\nb: 2");
    assert!(broken[0].starts_with("line "), "{broken:?}");
    assert!(broken[0].contains("(document): is no YAML: "), "{broken:?}");
}
