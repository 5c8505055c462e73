//! Which workers a group may take, by their labels; values in the words of Ray's `label_selector`.
//!
//! Refuses what Ray refuses: values that are no Kubernetes label values, empty lists, operators other than `!` and `in`.
//! Invariant: what [`Match::parse`] reads, it reads again from what [`Match`] prints.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// The longest label value, as in Kubernetes.
const MAX_VALUE: usize = 63;

/// What the value of one label must be. A worker without the label matches [`Match::NotIn`] only, as in Ray.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    /// One of these.
    In(BTreeSet<String>),
    /// None of these.
    NotIn(BTreeSet<String>),
}

impl Match {
    /// Reads `a`, `!a`, `in(a, b)` or `!in(a, b)`.
    ///
    /// # Errors
    ///
    /// Why the text is none of these.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (negated, rest) = match text.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let list = rest.strip_prefix("in(").and_then(|rest| rest.strip_suffix(')'));
        let values: BTreeSet<String> = match list {
            Some(list) => list.split(',').map(|value| value.trim().to_owned()).collect(),
            None => BTreeSet::from([rest.to_owned()]),
        };
        // An empty value is Ray's "the label is there and empty"; it has no other form.
        if let Some(bad) = values.iter().find(|value| !text.is_empty() && !is_value(value)) {
            return Err(format!(
                "{bad:?} is no label value: at most {MAX_VALUE} letters, digits, '-', '_' and '.', a letter or digit \
                 at both ends; write a, !a, in(a, b) or !in(a, b)"
            ));
        }
        Ok(if negated {
            Self::NotIn(values)
        } else {
            Self::In(values)
        })
    }

    /// True if a worker with this value of the label matches.
    #[must_use]
    pub fn matches(&self, value: Option<&str>) -> bool {
        match self {
            Self::In(values) => value.is_some_and(|value| values.contains(value)),
            Self::NotIn(values) => !value.is_some_and(|value| values.contains(value)),
        }
    }
}

fn is_value(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= MAX_VALUE
        && ends(text.chars().next())
        && ends(text.chars().next_back())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (not, values) = match self {
            Self::In(values) => ("", values),
            Self::NotIn(values) => ("!", values),
        };
        let words: Vec<&str> = values.iter().map(String::as_str).collect();
        match words.as_slice() {
            [one] => write!(f, "{not}{one}"),
            many => write!(f, "{not}in({})", many.join(", ")),
        }
    }
}

/// What the labels of a worker must be, by name: all must match, and nothing asked matches every worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector(pub BTreeMap<String, Match>);

impl Selector {
    /// True if a worker with these labels matches.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0
            .iter()
            .all(|(name, wanted)| wanted.matches(labels.get(name).map(String::as_str)))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, wanted)) in self.0.iter().enumerate() {
            write!(f, "{}{name}: {wanted}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
