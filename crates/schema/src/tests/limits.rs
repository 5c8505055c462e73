//! No document costs more than its length.

use super::{parsed, problems};
use crate::MAX_BYTES;

fn refused(text: &str) -> String {
    let found = problems(text);
    let [one] = found.as_slice() else {
        panic!("{found:#?}")
    };
    one.clone()
}

#[test]
fn a_document_over_the_limit_is_refused_before_it_is_read() {
    let most = format!("applications: []\n#{}", "x".repeat(MAX_BYTES - 18));
    assert_eq!(most.len(), MAX_BYTES);
    parsed(&most);
    let over = format!("{most}x");
    assert_eq!(
        refused(&over),
        "(document): has 1048577 bytes; at most 1048576 are read"
    );
}

#[test]
fn a_key_that_is_written_twice_is_refused() {
    let twice = refused("applications: []\nproxy_location: HeadOnly\napplications: []\n");
    assert!(
        twice.starts_with("line 3: (document): is no YAML: the key \"applications\" is written twice"),
        "{twice}"
    );
    let json = refused("{\"applications\": [], \"applications\": []}");
    assert!(
        json.contains("the key \"applications\" is written twice"),
        "{json}"
    );
}

#[test]
fn aliases_that_multiply_are_refused() {
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, last) in ('b'..='i').zip('a'..) {
        let ten = vec![format!("*{last}"); 10].join(", ");
        bomb += &format!("{name}: &{name} [{ten}]\n");
    }
    let found = refused(&bomb);
    assert!(found.contains("is no YAML"), "{found}");
    let merges = format!("a: &a {{x: 1}}\nb:\n{}", "  <<: *a\n".repeat(5_000));
    assert!(crate::parse(&merges).is_err());
}

#[test]
fn an_alias_or_two_are_fine() {
    let text = "
applications:
- name: a
  import_path: mobula.image:text_to_image
  deployments:
  - &one {name: preprocess, num_replicas: 2}
  - {<<: *one, name: pipeline}
";
    let config = parsed(text).config;
    assert_eq!(
        config.applications[0].deployments[1].count,
        crate::Count::Fixed(2)
    );
}

#[test]
fn what_is_too_deep_is_refused() {
    for text in [
        format!("applications: {}{}", "[".repeat(100_000), "]".repeat(100_000)),
        "[".repeat(500_000),
        format!("{}1", "{\"a\":".repeat(100_000)),
        (0..2_000).fold(String::new(), |text, i| text + &" ".repeat(i) + "a:\n"),
        "- ".repeat(100_000),
    ] {
        assert!(crate::parse(&text).is_err());
    }
}

#[test]
fn what_has_too_many_values_is_refused() {
    let many = format!("applications: [{}]", "1,".repeat(300_000));
    assert!(refused(&many).contains("is no YAML"));
}

#[test]
fn very_long_words_are_told_of_in_short() {
    let long = "x".repeat(900_000);
    for text in [
        format!("applications: [{{import_path: '{long}:{long}'}}]"),
        format!("applications: []\nproxy_location: {long}"),
        format!("applications: []\n? {long}\n: 1"),
        format!("applications: [{{import_path: a, route_prefix: {long}}}]"),
    ] {
        for problem in crate::parse(&text).unwrap_err() {
            assert!(problem.path.len() + problem.why.len() < 3_100, "{problem}");
        }
    }
}

#[test]
fn a_long_word_is_not_multiplied_by_aliases() {
    let text = format!("a: &a {}\nb: [{}]", "x".repeat(500_000), "*a,".repeat(900));
    let found = refused(&text);
    assert!(
        found.contains("there are more than 50000 values, those of aliases included"),
        "{found}"
    );
}

#[test]
fn a_document_that_could_not_be_read_again_is_refused() {
    let deep = |levels: usize| {
        let (open, shut) = ("{a: ".repeat(levels), "}".repeat(levels));
        format!(
            "import_path: mobula.image:text_to_image\ndeployments: [{{name: pipeline, user_config: {open}1{shut}}}]"
        )
    };
    parsed(&deep(59));
    let found = refused(&deep(60));
    assert!(found.contains("has 65 levels with the current names"), "{found}");
    let long = format!(
        "applications: []\nhttp_options: {{root_path: \"{}\"}}",
        "\\x01".repeat(200_000)
    );
    let found = refused(&long);
    assert!(found.contains("has 1200"), "{found}");
}

#[test]
fn a_document_of_mistakes_alone_is_refused_soon_and_in_short() {
    let names: String = (0..20_000).map(|i| format!("field_{i}: 1\n")).collect();
    let found = problems(&names);
    assert_eq!(found.len(), 501);
    assert_eq!(
        found[500],
        "(document): has 19501 problems more, which are not listed"
    );
}

#[test]
fn a_list_of_very_many_alternatives_is_refused() {
    let many = "{label_selector: {a: b}},".repeat(101);
    let text = format!(
        "applications: [{{import_path: 'mobula.image:text_to_image', deployments: [{{name: pipeline, ray_actor_options: \
         {{fallback_strategy: [{many}]}}}}]}}]"
    );
    assert!(refused(&text).contains("must have at most 100 strategies, not 101"));
    let groups = "{name: a, kind: inference},".repeat(101);
    let found = refused(&format!("applications: []\nworker_groups: [{groups}]"));
    assert!(found.contains("must have at most 100 groups, not 101"), "{found}");
}

#[test]
fn numbers_beyond_every_type_are_refused_and_not_wrapped() {
    for number in [
        "1e999",
        ".nan",
        ".inf",
        "-.inf",
        "99999999999999999999999999",
        "18446744073709551617",
    ] {
        let text = format!("applications: []\ntarget_capacity: {number}");
        assert!(crate::parse(&text).is_err(), "{number}");
    }
}

#[test]
fn json_that_is_no_yaml_is_read_as_json() {
    let text = "{\n\t\"applications\": [\n\t\t{\"name\": \"\\ud83d\\ude00\", \"import_path\": \"mobula.image:text_to_image\"}\n\t]\n}";
    assert_eq!(parsed(text).config.applications[0].name, "😀");
}

#[test]
fn tags_are_refused() {
    for text in [
        "applications: !!python/object:os.system []",
        "applications: !custom []",
        "applications: !!binary aGk=",
    ] {
        assert!(crate::parse(text).is_err(), "{text}");
    }
}

#[test]
fn more_replicas_than_any_mesh_has_are_refused_however_they_are_spread() {
    let apps = |count: usize, scaling: &str| {
        let apps: Vec<String> = (0..count)
            .map(|i| {
                format!(
                    "{{name: a{i}, route_prefix: /a{i}, import_path: 'mobula.image:text_to_image', deployments: [{{name: \
                     pipeline, {scaling}}}]}}"
                )
            })
            .collect();
        format!("applications: [{}]", apps.join(", "))
    };
    // Each has one replica to prepare inputs.
    parsed(&apps(9, "num_replicas: 10000"));
    let found = refused(&apps(10, "num_replicas: 10000"));
    assert!(
        found.contains("applications: have 100010 replicas together"),
        "{found}"
    );
    let scaled = "autoscaling_config: {min_replicas: 0, initial_replicas: 10000, max_replicas: 10000}";
    assert!(refused(&apps(10, scaled)).contains("100010 replicas"));
    parsed(&apps(
        10,
        "autoscaling_config: {min_replicas: 0, max_replicas: 10000}",
    ));
    let groups: Vec<String> = (0..2)
        .map(|i| format!("{{name: g{i}, kind: inference, min: 5001, max: 9000}}"))
        .collect();
    let found = refused(&format!(
        "applications: []\nworker_groups: [{}]",
        groups.join(", ")
    ));
    assert!(
        found.contains("worker_groups: have a min of 10002 workers"),
        "{found}"
    );
}

#[test]
fn a_prefix_that_clients_write_in_several_ways_is_refused() {
    let of = |prefix: &str| {
        let prefix = serde_json::to_string(prefix).unwrap();
        format!("applications: [{{import_path: 'mobula.image:text_to_image', route_prefix: {prefix}}}]")
    };
    for prefix in [
        "/a/../b",
        "/..",
        "/.",
        "/a//b",
        "/%2F",
        "/a%41",
        "/é",
        "/a\\b",
        "/a b",
        "/\u{2028}",
    ] {
        let found = refused(&of(prefix));
        assert!(found.contains("must be a plain path"), "{prefix}: {found}");
    }
    for prefix in ["/", "/a", "/a/b.c", "/...", "/~me/(1)", "/v1:draw", "/a@b,c;d=e"] {
        parsed(&of(prefix));
    }
    let long = format!("/{}", "x".repeat(1_000));
    assert!(refused(&of(&long)).contains("at most 1000 letters"));
}
