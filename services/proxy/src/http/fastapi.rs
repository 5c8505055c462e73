//! Problems as FastAPI with pydantic 2 tells them: status 422 and `{"detail": [{"type", "loc", "msg", "input", "ctx"}]}`.
//!
//! Pure. Clients of the Ray sample that look into the body find what they find there.

use serde_json::{Value, json};

use crate::problem::{Problem, Rule};

/// Characters of a wrong value that are given back; FastAPI gives back all, which for a prompt may be 64 KiB.
const INPUT_SHOWN: usize = 256;

/// Where a field was given and what it was.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given<'a> {
    /// `query` or `header`.
    pub place: &'static str,
    /// Name under which it was given.
    pub name: &'a str,
    /// Its value; `None` when it was not given.
    pub value: Option<&'a str>,
}

/// One entry of `detail`.
pub(super) fn detail(problem: &Problem, given: Given<'_>) -> Value {
    let (kind, message, context) = words(&problem.rule);
    let shown = given
        .value
        .map(|value| match value.char_indices().nth(INPUT_SHOWN) {
            Some((end, _)) => format!("{}…", &value[..end]),
            None => value.to_owned(),
        });
    let mut entry = json!({
        "type": kind,
        "loc": [given.place, given.name],
        "msg": message,
        "input": shown,
    });
    if let (Some(context), Some(entry)) = (context, entry.as_object_mut()) {
        entry.insert("ctx".to_owned(), context);
    }
    entry
}

/// pydantic's name of the error, its words, and what they were made from.
fn words(rule: &Rule) -> (&'static str, String, Option<Value>) {
    match rule {
        Rule::Missing => ("missing", "Field required".to_owned(), None),
        Rule::TooShort { min } => (
            "string_too_short",
            format!("String should have at least {min} character{}", plural(*min)),
            Some(json!({ "min_length": min })),
        ),
        Rule::TooLong { max, .. } => (
            "string_too_long",
            format!("String should have at most {max} characters"),
            Some(json!({ "max_length": max })),
        ),
        Rule::NotInteger => (
            "int_parsing",
            "Input should be a valid integer, unable to parse string as an integer".to_owned(),
            None,
        ),
        Rule::NotNumber => (
            "float_parsing",
            "Input should be a valid number, unable to parse string as a number".to_owned(),
            None,
        ),
        Rule::NotFinite => (
            "finite_number",
            "Input should be a finite number".to_owned(),
            None,
        ),
        Rule::NotUnicode => (
            "string_unicode",
            "Input should be a valid string, unable to parse raw data as a unicode string".to_owned(),
            None,
        ),
        Rule::NotPrintable => (
            "string_pattern_mismatch",
            "String should match pattern '^[ -~]*$'".to_owned(),
            Some(json!({ "pattern": "^[ -~]*$" })),
        ),
        Rule::AtLeast { min, .. } => (
            "greater_than_equal",
            format!("Input should be greater than or equal to {min}"),
            Some(json!({ "ge": min })),
        ),
        Rule::AtMost { max, .. } => (
            "less_than_equal",
            format!("Input should be less than or equal to {max}"),
            Some(json!({ "le": max })),
        ),
        Rule::MultipleOf { of, .. } => (
            "multiple_of",
            format!("Input should be a multiple of {of}"),
            Some(json!({ "multiple_of": of })),
        ),
        Rule::OneOf(names) => {
            let expected = expected(names);
            (
                "literal_error",
                format!("Input should be {expected}"),
                Some(json!({ "expected": expected })),
            )
        }
        Rule::OneOfMany { meant, some, more } => {
            let mut expected = expected(some);
            if *more > 0 {
                expected = format!("{expected} or one of {more} others, which GetModel lists");
            }
            let meant = meant.iter().map(|meant| format!("; did you mean '{meant}'?"));
            (
                "literal_error",
                format!("Input should be {expected}{}", meant.collect::<String>()),
                Some(json!({ "expected": expected })),
            )
        }
        Rule::Unexpected(names) => (
            "extra_forbidden",
            format!(
                "Extra inputs are not permitted; accepted are {}",
                names.join(", ")
            ),
            None,
        ),
        Rule::Wrong(why) => ("value_error", format!("Value error, {why}"), None),
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// `'a', 'b' or 'c'`.
fn expected(names: &[String]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("'{name}'")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((only, _)) => only.clone(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(name: &'static str, value: Option<&str>, rule: Rule) -> Value {
        detail(
            &Problem::new(name, rule),
            Given {
                place: "query",
                name,
                value,
            },
        )
    }

    #[test]
    fn a_missing_prompt_is_told_as_fastapi_tells_it() {
        let expected =
            json!({ "type": "missing", "loc": ["query", "prompt"], "msg": "Field required", "input": null });
        assert_eq!(told("prompt", None, Rule::Missing), expected);
    }

    #[test]
    fn a_size_that_is_no_integer_is_told_as_fastapi_tells_it() {
        let expected = json!({
            "type": "int_parsing",
            "loc": ["query", "img_size"],
            "msg": "Input should be a valid integer, unable to parse string as an integer",
            "input": "abc",
        });
        assert_eq!(told("img_size", Some("abc"), Rule::NotInteger), expected);
    }

    #[test]
    fn limits_are_told_with_their_context() {
        let entry = told("img_size", Some("100"), Rule::MultipleOf { is: 100, of: 8 });
        assert_eq!(entry["ctx"], json!({ "multiple_of": 8 }));
        assert_eq!(entry["input"], "100");
        let entry = told(
            "scheduler",
            Some("x"),
            Rule::OneOf(vec!["pndm".into(), "ddim".into(), "euler".into()]),
        );
        assert_eq!(entry["msg"], "Input should be 'pndm', 'ddim' or 'euler'");
        let many = Rule::OneOfMany {
            meant: Some("euler_a".into()),
            some: vec!["ddim".into(), "euler".into()],
            more: 238,
        };
        let entry = told("scheduler", Some("euler_q"), many);
        assert_eq!(
            entry["msg"],
            "Input should be 'ddim' or 'euler' or one of 238 others, which GetModel lists; did you mean 'euler_a'?"
        );
    }

    #[test]
    fn a_long_value_is_given_back_in_part() {
        let entry = told(
            "prompt",
            Some(&"ä".repeat(100_000)),
            Rule::TooLong {
                has: 200_000,
                max: 65_536,
            },
        );
        assert_eq!(entry["input"].as_str().unwrap().chars().count(), INPUT_SHOWN + 1);
    }
}
