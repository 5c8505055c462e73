//! Walks a parsed document and collects everything that is wrong with it, each with its path.
//!
//! Refuses to stop at the first problem, and to pass over a key that nobody asked for.

use std::{cell::RefCell, fmt, ops::RangeInclusive};

use serde_json::{Map, Value};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, such as `applications[0].deployments[1].num_replicas`.
    pub path: String,
    /// What is wrong, and what is accepted.
    pub why: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.why)
    }
}

/// Where problems are put.
pub(super) type Problems = RefCell<Vec<Problem>>;

/// A value and where it stands.
#[derive(Clone)]
pub(super) struct Node<'a> {
    value: &'a Value,
    path: String,
    problems: &'a Problems,
}

impl<'a> Node<'a> {
    pub(super) fn root(value: &'a Value, problems: &'a Problems) -> Self {
        Self {
            value,
            path: String::new(),
            problems,
        }
    }

    pub(super) fn refuse(&self, why: impl Into<String>) {
        let path = if self.path.is_empty() {
            "(document)".to_owned()
        } else {
            self.path.clone()
        };
        self.problems.borrow_mut().push(Problem {
            path,
            why: why.into(),
        });
    }

    fn wants<T>(&self, what: &str) -> Option<T> {
        self.refuse(format!("must be {what}, not {}", describe(self.value)));
        None
    }

    pub(super) fn fields(&self) -> Option<Fields<'a>> {
        match self.value {
            Value::Object(map) => Some(Fields {
                node: self.clone(),
                map,
                asked: Vec::new(),
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                self.wants("a mapping of names to values")
            }
        }
    }

    pub(super) fn list(&self) -> Option<Vec<Self>> {
        let Some(items) = self.value.as_array() else {
            return self.wants("a list");
        };
        let node = |(i, value)| Self {
            value,
            path: format!("{}[{i}]", self.path),
            problems: self.problems,
        };
        Some(items.iter().enumerate().map(node).collect())
    }

    /// Every key with its value, for mappings whose names are free.
    pub(super) fn entries(&self) -> Option<Vec<(String, Self)>> {
        let fields = self.fields()?;
        Some(
            fields
                .map
                .keys()
                .map(|key| (key.clone(), fields.child(key, &fields.map[key])))
                .collect(),
        )
    }

    pub(super) fn text(&self) -> Option<String> {
        match self.value.as_str() {
            Some("") => self.wants("text that is not empty"),
            Some(text) => Some(text.to_owned()),
            None => self.wants("text"),
        }
    }

    /// Text, or a number or truth value as it would be written.
    pub(super) fn scalar(&self) -> Option<String> {
        match self.value {
            Value::String(text) => Some(text.clone()),
            Value::Bool(_) | Value::Number(_) => Some(self.value.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => self.wants("text, a number, true or false"),
        }
    }

    pub(super) fn whole(&self, range: RangeInclusive<i64>) -> Option<i64> {
        match self.value.as_i64() {
            Some(n) if range.contains(&n) => Some(n),
            Some(_) | None => self.wants(&format!(
                "a whole number from {} to {}",
                range.start(),
                range.end()
            )),
        }
    }

    pub(super) fn number(&self, most: f64) -> Option<f64> {
        match self.value.as_f64() {
            Some(n) if (0.0..=most).contains(&n) => Some(n),
            Some(_) | None => self.wants(&format!("a number from 0 to {most}")),
        }
    }
}

/// The fields of a mapping, with a note of those that were asked for.
pub(super) struct Fields<'a> {
    node: Node<'a>,
    map: &'a Map<String, Value>,
    asked: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// The field's value; null counts as not given, as in Ray's optional fields.
    pub(super) fn get(&mut self, key: &'static str) -> Option<Node<'a>> {
        self.asked.push(key);
        self.map
            .get(key)
            .filter(|value| !value.is_null())
            .map(|value| self.child(key, value))
    }

    /// As [`Self::get`]; its absence is a problem.
    pub(super) fn need(&mut self, key: &'static str, what: &str) -> Option<Node<'a>> {
        let found = self.get(key);
        if found.is_none() {
            self.child(key, &Value::Null)
                .refuse(format!("is required: {what}"));
        }
        found
    }

    /// True if the key is written with nothing in it, where that has a meaning of its own.
    pub(super) fn is_null(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(Value::is_null)
    }

    /// Refuses every field that was not asked for; `known` says more of those that Ray knows.
    pub(super) fn finish(self, known: &[(&str, &str)]) {
        for (key, value) in self.map {
            if !self.asked.contains(&key.as_str()) {
                let why = match known.iter().find(|(name, _)| name == key) {
                    Some((_, why)) => format!("is not supported: {why}"),
                    None => "is not a known field".to_owned(),
                };
                self.child(key, value)
                    .refuse(format!("{why} (accepted here: {})", self.asked.join(", ")));
            }
        }
    }

    fn child(&self, key: &str, value: &'a Value) -> Node<'a> {
        let parent = &self.node.path;
        let path = if parent.is_empty() {
            key.to_owned()
        } else {
            format!("{parent}.{key}")
        };
        Node {
            value,
            path,
            problems: self.node.problems,
        }
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "empty".into(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => format!("{:?}", text.chars().take(40).collect::<String>()),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a mapping".into(),
    }
}
