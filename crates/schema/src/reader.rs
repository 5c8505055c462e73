//! Walks a document and collects what is wrong with it and what becomes of it, each with its path and line.
//!
//! Refuses to stop at the first problem, and to pass over a key that nobody asked for. Null is a field that is not given: Ray
//! writes "uses a default if null" of most fields.

use std::{fmt, ops::RangeInclusive};

use serde_json::Number;

use crate::{
    note::{Sink, Verdict},
    suggest,
    tree::{Entries, Tree, Value},
};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node<'a> {
    pub(crate) tree: &'a Tree,
    pub(crate) path: String,
    pub(crate) line: Option<u64>,
    sink: &'a Sink,
}

impl<'a> Node<'a> {
    pub(crate) fn root(tree: &'a Tree, sink: &'a Sink) -> Self {
        Self::new(tree, String::new(), None, sink)
    }

    fn new(tree: &'a Tree, path: String, line: Option<u64>, sink: &'a Sink) -> Self {
        Self {
            tree,
            path: tree.origin.as_deref().map_or(path, str::to_owned),
            line: tree.line.or(line),
            sink,
        }
    }

    pub(crate) fn refuse(&self, why: impl Into<String>) {
        self.sink.refuse(&self.path, self.line, why);
    }

    pub(crate) fn note(&self, verdict: Verdict, why: impl Into<String>) {
        self.sink.note(&self.path, self.line, verdict, why);
    }

    pub(crate) fn honoured(&self) {
        self.note(Verdict::Honoured, shown(self.tree));
    }

    pub(crate) fn translated(&self, why: impl Into<String>) {
        self.note(Verdict::Translated, why);
    }

    pub(crate) fn ignored(&self, why: impl Into<String>) {
        self.note(Verdict::Ignored, why);
    }

    fn wants<T>(&self, what: &str) -> Option<T> {
        self.refuse(format!("must be {what}, not {}", shown(self.tree)));
        None
    }

    pub(crate) fn fields(&self) -> Option<Fields<'a>> {
        match &self.tree.value {
            Value::Map(entries) => Some(Fields {
                node: self.clone(),
                entries,
                asked: Vec::new(),
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::List(_) => {
                self.wants("a mapping of names to values")
            }
        }
    }

    /// The field of a mapping that was or will be read as one.
    pub(crate) fn below(&self, key: &str) -> Option<Self> {
        let tree = self.tree.given(key)?;
        Some(Self::new(tree, join(&self.path, key), self.line, self.sink))
    }

    pub(crate) fn list(&self) -> Option<Vec<Self>> {
        let Value::List(items) = &self.tree.value else {
            return self.wants("a list");
        };
        let node = |(i, tree)| Self::new(tree, format!("{}[{i}]", self.path), self.line, self.sink);
        Some(items.iter().enumerate().map(node).collect())
    }

    /// Every key with its value, for mappings whose names are free.
    pub(crate) fn entries(&self) -> Option<Vec<(&'a str, Self)>> {
        let fields = self.fields()?;
        let entry = |(key, tree): &'a (String, Tree)| (key.as_str(), fields.child(key, tree));
        Some(fields.entries.iter().map(entry).collect())
    }

    pub(crate) fn text(&self) -> Option<String> {
        match self.tree.as_text() {
            Some("") => self.wants("text that is not empty"),
            Some(text) => Some(text.to_owned()),
            None => self.wants("text"),
        }
    }

    /// Text that may be empty.
    pub(crate) fn any_text(&self) -> Option<String> {
        match self.tree.as_text() {
            Some(text) => Some(text.to_owned()),
            None => self.wants("text"),
        }
    }

    /// Text, or a number or truth value as it would be written.
    pub(crate) fn scalar(&self) -> Option<String> {
        match &self.tree.value {
            Value::Text(text) => Some(text.clone()),
            Value::Bool(is) => Some(is.to_string()),
            Value::Number(number) => Some(number.to_string()),
            Value::Null | Value::List(_) | Value::Map(_) => self.wants("text, a number, true or false"),
        }
    }

    pub(crate) fn flag(&self) -> Option<bool> {
        match self.tree.value {
            Value::Bool(is) => Some(is),
            Value::Null | Value::Number(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
                self.wants("true or false")
            }
        }
    }

    pub(crate) fn whole(&self, range: RangeInclusive<i64>) -> Option<i64> {
        match &self.tree.value {
            Value::Number(number) => integer(number).filter(|n| range.contains(n)),
            Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => None,
        }
        .or_else(|| {
            self.wants(&format!(
                "a whole number from {} to {}",
                range.start(),
                range.end()
            ))
        })
    }

    /// As [`Self::whole`]; the range begins at 0 or more.
    pub(crate) fn count(&self, range: RangeInclusive<u32>) -> Option<u32> {
        let n = self.whole(i64::from(*range.start())..=i64::from(*range.end()))?;
        u32::try_from(n).ok()
    }

    pub(crate) fn number(&self, bounds: Bounds) -> Option<f64> {
        match &self.tree.value {
            Value::Number(number) => number.as_f64().filter(|n| bounds.hold(*n)),
            Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => None,
        }
        .or_else(|| self.wants(&bounds.to_string()))
    }

    /// One of these words.
    pub(crate) fn choice<T: Copy>(&self, choices: &[(&'static str, T)]) -> Option<T> {
        let found = self
            .tree
            .as_text()
            .and_then(|text| choices.iter().find(|(name, _)| *name == text));
        if let Some((_, choice)) = found {
            return Some(*choice);
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let meant = self
            .tree
            .as_text()
            .and_then(|text| suggest::nearest(text, names.iter().copied()));
        self.wants(&match meant {
            Some(meant) => format!("one of {} (did you mean {meant}?)", names.join(", ")),
            None => format!("one of {}", names.join(", ")),
        })
    }
}

/// From where to where a number may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) least: f64,
    pub(crate) most: f64,
    /// The least is not one of them.
    pub(crate) above: bool,
}

impl Bounds {
    pub(crate) const fn from_zero(most: f64) -> Self {
        Self {
            least: 0.0,
            most,
            above: false,
        }
    }

    pub(crate) const fn above_zero(most: f64) -> Self {
        Self {
            least: 0.0,
            most,
            above: true,
        }
    }

    /// Seconds that are some time at all: a millisecond at least.
    pub(crate) const fn span(most: f64) -> Self {
        Self {
            least: 0.001,
            most,
            above: false,
        }
    }

    fn hold(self, n: f64) -> bool {
        (self.least..=self.most).contains(&n) && !(self.above && n <= self.least)
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { least, most, above } = self;
        if *above {
            write!(f, "a number over {least}, at most {most}")
        } else {
            write!(f, "a number from {least} to {most}")
        }
    }
}

/// The fields of a mapping, with a note of those that were asked for.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    pub(crate) node: Node<'a>,
    entries: &'a Entries,
    asked: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// The field's value; null counts as not given.
    pub(crate) fn get(&mut self, key: &'static str) -> Option<Node<'a>> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        let tree = self.node.tree.given(key)?;
        Some(self.child(key, tree))
    }

    /// As [`Self::get`]; its absence is a problem.
    pub(crate) fn need(&mut self, key: &'static str, what: &str) -> Option<Node<'a>> {
        let found = self.get(key);
        if found.is_none() {
            let path = self.path(key);
            self.node
                .sink
                .refuse(&path, self.node.line, format!("is required: {what}"));
        }
        found
    }

    /// The field's value, or the default when it is not given or refused.
    pub(crate) fn read<T: PartialEq>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&Node<'a>) -> Option<T>,
    ) -> Read<'a, T> {
        let found = self.get(key).and_then(|node| Some((read(&node)?, node)));
        match found {
            Some((value, node)) => Read {
                at: Some(node).filter(|_| value != default),
                value,
            },
            None => Read {
                at: None,
                value: default,
            },
        }
    }

    /// A field that has no effect, whatever is in it.
    pub(crate) fn ignore(&mut self, key: &'static str, why: &str) {
        if let Some(node) = self.get(key) {
            node.ignored(why);
        }
    }

    /// True if the key is written with nothing in it, where that has a meaning of its own.
    pub(crate) fn is_null(&self, key: &str) -> bool {
        self.node.tree.get(key).is_some_and(Tree::is_null)
    }

    /// Refuses every field that was not asked for; `known` says more of those that have a reason of their own.
    pub(crate) fn finish(self, known: &[(&str, &str)]) {
        for (key, tree) in self.entries {
            if self.asked.contains(&key.as_str()) {
                continue;
            }
            let accepted = self.asked.join(", ");
            let why = match known.iter().find(|(name, _)| name == key) {
                Some((_, why)) => format!("is not supported: {why}"),
                // A document of wrong names alone is not worth the comparing.
                None if self.node.sink.is_full() => String::new(),
                None => match suggest::nearest(key, self.asked.iter().copied()) {
                    Some(meant) => {
                        format!("is not a known field; did you mean {meant}? (accepted here: {accepted})")
                    }
                    None => format!("is not a known field (accepted here: {accepted})"),
                },
            };
            self.child(key, tree).refuse(why);
        }
    }

    pub(crate) fn path(&self, key: &str) -> String {
        join(&self.node.path, key)
    }

    fn child(&self, key: &str, tree: &'a Tree) -> Node<'a> {
        Node::new(tree, self.path(key), self.node.line, self.node.sink)
    }
}

/// The path of a field in a mapping.
pub(crate) fn join(parent: &str, key: &str) -> String {
    if parent.is_empty() {
        key.to_owned()
    } else {
        format!("{parent}.{key}")
    }
}

/// A field's value, of which it is still to be said what becomes of it.
#[must_use]
#[derive(Debug)]
pub(crate) struct Read<'a, T> {
    /// Where it is written, if it differs from the default.
    pub(crate) at: Option<Node<'a>>,
    pub(crate) value: T,
}

impl<T> Read<'_, T> {
    pub(crate) fn honoured(self) -> T {
        if let Some(node) = &self.at {
            node.honoured();
        }
        self.value
    }

    pub(crate) fn translated(self, why: impl Into<String>) -> T {
        if let Some(node) = &self.at {
            node.translated(why);
        }
        self.value
    }

    pub(crate) fn ignored(self, why: impl Into<String>) -> T {
        if let Some(node) = &self.at {
            node.ignored(why);
        }
        self.value
    }
}

/// The number if it is whole; 5.0 is, as in Ray.
#[allow(clippy::cast_possible_truncation)] // Whole and in range, as was just seen.
fn integer(number: &Number) -> Option<i64> {
    number.as_i64().or_else(|| {
        let n = number.as_f64()?;
        // 2^53: up to here every whole number is a float of its own.
        (n.fract() == 0.0 && n.abs() <= 9_007_199_254_740_992.0).then_some(n as i64)
    })
}

/// The value in a few words.
pub(crate) fn shown(tree: &Tree) -> String {
    match &tree.value {
        Value::Null => "empty".into(),
        Value::Bool(is) => is.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Text(text) => format!("{:?}", text.chars().take(60).collect::<String>()),
        Value::List(items) => format!("a list of {}", items.len()),
        Value::Map(entries) => format!("a mapping of {}", entries.len()),
    }
}
