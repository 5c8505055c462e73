//! JSON that is small and unpacks to much, or is none.

use serde_json::{Value, json};

/// Texts with something wrong as the value of a field; each with what it is.
#[must_use]
pub fn bombs(field: &str) -> Vec<(&'static str, String)> {
    let within = |value: &str| format!("{{{}: {value}}}", Value::from(field));
    let nested = |open: &str, inner: &str, close: &str| {
        within(&format!("{}{inner}{}", open.repeat(20_000), close.repeat(20_000)))
    };
    vec![
        ("lists in lists", nested("[", "", "]")),
        ("objects in objects", nested("{\"a\":", "1", "}")),
        ("lists without an end", within(&"[".repeat(100_000))),
        ("half a pair", within(r#""\ud800""#)),
        ("no end", within("\"a").trim_end_matches('}').to_owned()),
        (
            "more behind the end",
            format!("{} {}", json!({field: "a"}), json!({field: "b"})),
        ),
        ("a list", "[1]".to_owned()),
        ("nothing", String::new()),
    ]
}
