//! The fields of a request, from JSON or from a form, read by their types. Pure.
//!
//! In JSON values have types, in a form they are text; `null` and an empty text of a form are as good as absent.
//! Invariant: no input panics, and a field with a problem leaves the others readable.

use std::ops::RangeInclusive;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::super::read::{Integer, integer};
use crate::problem::{Problem, Rule};

/// So many unknown names are told of.
const UNKNOWN_TOLD: usize = 16;

#[derive(Debug)]
enum Given {
    Json(Value),
    Part(Bytes),
}

/// What was given, and what of it could not be read.
#[derive(Debug, Default)]
pub(super) struct Fields {
    given: Vec<(String, Given)>,
    pub(super) problems: Vec<Problem>,
}

impl Fields {
    /// Reads a body of JSON.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn json(body: &[u8]) -> Result<Self, String> {
        let object: Map<String, Value> =
            serde_json::from_slice(body).map_err(|error| format!("the body is no JSON object: {error}"))?;
        let given = object.into_iter().filter(|(_, value)| !value.is_null());
        Ok(Self {
            given: given.map(|(name, value)| (name, Given::Json(value))).collect(),
            problems: Vec::new(),
        })
    }

    /// Takes the parts of a form.
    pub(super) fn form(parts: Vec<(String, Bytes)>) -> Self {
        let given = parts.into_iter().filter(|(_, data)| !data.is_empty());
        Self {
            given: given.map(|(name, data)| (name, Given::Part(data))).collect(),
            problems: Vec::new(),
        }
    }

    /// Complains about everything that is given and is none of `known`.
    pub(super) fn only(&mut self, known: &'static [&'static str]) {
        let mut unknown: Vec<_> = self.given.iter().map(|(name, _)| name).collect();
        unknown.retain(|name| !known.contains(&name.as_str()));
        unknown.sort();
        unknown.dedup();
        unknown.truncate(UNKNOWN_TOLD);
        let shown = |name: &String| name.chars().take(crate::table::NAME_SHOWN).collect::<String>();
        let problems = unknown
            .into_iter()
            .map(|name| Problem::new(shown(name), Rule::Unexpected(known)));
        self.problems.extend(problems.collect::<Vec<_>>());
    }

    /// Notes what is wrong with a field; one complaint about each is enough.
    pub(super) fn complain(&mut self, field: &'static str, rule: Rule) {
        if !self.problems.iter().any(|known| known.field == field) {
            self.problems.push(Problem::new(field, rule));
        }
    }

    /// Complains about a field in words.
    pub(super) fn wrong(&mut self, field: &'static str, why: impl Into<String>) {
        self.complain(field, Rule::Wrong(why.into()));
    }

    /// True when the field has a value, whatever it is.
    pub(super) fn has(&self, field: &str) -> bool {
        self.last(field).is_some()
    }

    /// The value that counts, where a form gives several.
    fn last(&self, field: &str) -> Option<&Given> {
        let found = self.given.iter().rev().find(|(name, _)| name == field);
        found.map(|(_, given)| given)
    }

    /// A text.
    pub(super) fn text(&mut self, field: &'static str) -> Option<String> {
        let rule = match self.last(field)? {
            Given::Json(Value::String(text)) => return Some(text.clone()),
            Given::Json(_) => Rule::Wrong("must be a string".to_owned()),
            Given::Part(data) => match std::str::from_utf8(data) {
                Ok(text) => return Some(text.to_owned()),
                Err(_) => Rule::NotUnicode,
            },
        };
        self.complain(field, rule);
        None
    }

    /// One of a few words.
    pub(super) fn word(
        &mut self,
        field: &'static str,
        words: &'static [&'static str],
    ) -> Option<&'static str> {
        let given = self.text(field)?;
        let found = words.iter().find(|word| **word == given).copied();
        if found.is_none() {
            let names = words.iter().map(|word| (*word).to_owned());
            self.complain(field, Rule::OneOf(names.collect()));
        }
        found
    }

    /// A whole number within limits.
    pub(super) fn integer(&mut self, field: &'static str, limits: RangeInclusive<u64>) -> Option<u64> {
        let written = match self.last(field)? {
            Given::Json(Value::Number(number)) => number.to_string(),
            Given::Json(_) => String::new(),
            Given::Part(data) => String::from_utf8_lossy(data).into_owned(),
        };
        let rule = match integer(&written) {
            Some(Integer::Fits(value)) if limits.contains(&value) => return Some(value),
            Some(Integer::Fits(value)) if value > *limits.end() => Rule::at_most(value, *limits.end()),
            Some(Integer::Fits(_) | Integer::Negative) => Rule::at_least(written.trim(), *limits.start()),
            Some(Integer::Huge) => Rule::at_most(written.trim(), *limits.end()),
            None => Rule::NotInteger,
        };
        self.complain(field, rule);
        None
    }

    /// A number.
    pub(super) fn number(&mut self, field: &'static str) -> Option<f32> {
        let value = match self.last(field)? {
            Given::Json(Value::Number(number)) => number.as_f64().map(|value| value as f32),
            Given::Json(_) => None,
            Given::Part(data) => std::str::from_utf8(data)
                .ok()
                .and_then(|text| text.trim().parse().ok()),
        };
        if value.is_none() {
            self.complain(field, Rule::NotNumber);
        }
        value
    }

    /// Yes or no; absent is no.
    pub(super) fn flag(&mut self, field: &'static str) -> bool {
        let value = match self.last(field) {
            None => return false,
            Some(Given::Json(Value::Bool(value))) => Some(*value),
            Some(Given::Json(_)) => None,
            Some(Given::Part(data)) => match data.to_ascii_lowercase().as_slice() {
                b"true" | b"1" => Some(true),
                b"false" | b"0" => Some(false),
                _ => None,
            },
        };
        if value.is_none() {
            self.wrong(field, "must be true or false");
        }
        value.unwrap_or_default()
    }

    /// The files that are given by any of these names, which complaints name by the first.
    pub(super) fn files(&mut self, names: &[&'static str; 2]) -> Vec<Bytes> {
        let mut files = Vec::new();
        let mut is_file = true;
        for (name, given) in &self.given {
            if names.contains(&name.as_str()) {
                match given {
                    Given::Part(data) => files.push(data.clone()),
                    Given::Json(_) => is_file = false,
                }
            }
        }
        if !is_file {
            self.wrong(names[0], "must be a file of a form (multipart/form-data)");
        }
        files
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(body: &str) -> Fields {
        Fields::json(body.as_bytes()).unwrap()
    }

    fn form(parts: &[(&str, &'static str)]) -> Fields {
        Fields::form(
            parts
                .iter()
                .map(|(name, data)| ((*name).to_owned(), Bytes::from_static(data.as_bytes())))
                .collect(),
        )
    }

    #[test]
    fn values_of_json_have_types_and_those_of_a_form_are_text() {
        for mut fields in [
            json(r#"{"n": 2, "w": "low", "f": 1.5, "s": true, "t": "x", "nothing": null}"#),
            form(&[
                ("n", "2"),
                ("w", "low"),
                ("f", "1.5"),
                ("s", "True"),
                ("t", "x"),
                ("nothing", ""),
            ]),
        ] {
            assert_eq!(fields.integer("n", 1..=10), Some(2));
            assert_eq!(fields.word("w", &["high", "low"]), Some("low"));
            assert_eq!(fields.number("f"), Some(1.5));
            assert!(fields.flag("s") && !fields.flag("absent"));
            assert_eq!(fields.text("t").as_deref(), Some("x"));
            assert!(!fields.has("nothing") && fields.text("nothing").is_none());
            assert!(fields.problems.is_empty(), "{:?}", fields.problems);
        }
    }

    #[test]
    fn what_has_another_type_is_told_once() {
        let mut fields = json(r#"{"n": "2", "w": 3, "f": "x", "s": 1, "image": "x", "far": -1, "more": 1}"#);
        assert_eq!(fields.integer("n", 1..=10), None);
        assert_eq!(fields.integer("far", 1..=10), None);
        assert_eq!(fields.word("w", &["low"]), None);
        assert_eq!(fields.number("f"), None);
        assert!(!fields.flag("s") && !fields.flag("s"));
        assert!(fields.files(&["image", "image[]"]).is_empty());
        fields.only(&["n", "w", "f", "s", "image", "far"]);
        let told: Vec<_> = fields.problems.iter().map(|p| p.field.as_ref()).collect();
        assert_eq!(told, ["n", "far", "w", "f", "s", "image", "more"]);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let deep = "[".repeat(100_000);
        for body in ["", "[]", "7", "{", deep.as_str(), r#"{"a": 1} x"#] {
            assert!(Fields::json(body.as_bytes()).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_text_of_a_form_panics(text in any::<Vec<u8>>()) {
            let mut fields = Fields::form(vec![("x".into(), text.into())]);
            fields.text("x");
            fields.integer("x", 0..=9);
            fields.number("x");
            fields.flag("x");
            fields.word("x", &["a"]);
        }
    }
}
