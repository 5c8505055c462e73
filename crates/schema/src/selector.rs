//! Label selectors in Ray's syntax: `a`, `!a`, `in(a, b)`, `!in(a, b)`, by keys as Kubernetes writes them.
//!
//! Refuses keys and values that Ray refuses.

use std::collections::BTreeSet;

use mobula_serving::place::{Match, Selector};

use crate::reader::Node;

/// Letters of a name or value.
pub(crate) const MAX_NAME: usize = 63;
/// Letters of a key's prefix.
const MAX_PREFIX: usize = 253;

/// Reads a selector, a mapping of labels to what they must be.
pub(crate) fn read(node: &Node<'_>) -> Option<Selector> {
    let mut selector = Selector::default();
    for (key, node) in node.entries()? {
        key_of(key, &node);
        let Some(text) = node.any_text() else { continue };
        match Match::parse(&text) {
            Ok(wanted) => {
                selector.0.insert(key.to_owned(), wanted);
            }
            Err(why) => node.refuse(format!("must be a value of a label, or a condition on it: {why}")),
        }
    }
    Some(selector)
}

/// Labels that something has, a mapping of keys to values.
pub(crate) fn labels(node: &Node<'_>) -> std::collections::BTreeMap<String, String> {
    let mut labels = std::collections::BTreeMap::new();
    for (key, node) in node.entries().unwrap_or_default() {
        key_of(key, &node);
        let Some(value) = node.scalar() else { continue };
        if !value.is_empty() && !is_name(&value) {
            node.refuse(format!(
                "must be at most {MAX_NAME} letters, digits, -, _ and ., with a letter or digit at both ends, not {value:?}"
            ));
        }
        labels.insert(key.to_owned(), value);
    }
    labels
}

/// The labels that every one of these selectors asks for: each key that all of them name, with what any of them takes.
pub(crate) fn common(all: &[Selector]) -> Selector {
    let Some((first, rest)) = all.split_first() else {
        return Selector::default();
    };
    let any = |key: &String, wanted: &Match| {
        rest.iter()
            .try_fold(wanted.clone(), |sum, other| either(sum, other.0.get(key)?))
    };
    let wanted = first
        .0
        .iter()
        .filter_map(|(key, wanted)| Some((key.clone(), any(key, wanted)?)));
    Selector(wanted.collect())
}

/// What matches one or the other; none if that is everything.
fn either(one: Match, other: &Match) -> Option<Match> {
    let kept = |values: BTreeSet<String>| (!values.is_empty()).then_some(Match::NotIn(values));
    match (one, other) {
        (Match::In(a), Match::In(b)) => Some(Match::In(&a | b)),
        (Match::NotIn(a), Match::NotIn(b)) => kept(&a & b),
        (Match::In(a), Match::NotIn(b)) => kept(b - &a),
        (Match::NotIn(a), Match::In(b)) => kept(&a - b),
    }
}

fn key_of(key: &str, node: &Node<'_>) {
    let (prefix, name) = match key.rsplit_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let prefixed = |prefix: &str| {
        prefix.len() <= MAX_PREFIX && prefix.split('.').all(|part| part.is_empty() || is_name(part))
    };
    if !is_name(name) || !prefix.is_none_or(prefixed) {
        node.refuse(format!(
            "is no label: its key must be a name of at most {MAX_NAME} letters, digits, -, _ and ., after a domain and / if need be"
        ));
    }
}

/// A value of a label, as Kubernetes takes it.
pub(crate) fn is_name(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    let ends = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= MAX_NAME && ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(|c| inner(*c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_alternatives_ask_for_is_asked_for() {
        let one = |key: &str, text: &str| Selector([(key.to_owned(), Match::parse(text).unwrap())].into());
        let zone = common(&[one("zone", "a"), one("zone", "in(b,c)")]);
        assert_eq!(zone, one("zone", "in(a,b,c)"));
        assert_eq!(
            common(&[one("zone", "a"), one("disk", "ssd")]),
            Selector::default()
        );
        assert_eq!(
            common(&[one("zone", "!a"), one("zone", "!in(a,b)")]),
            one("zone", "!a")
        );
        assert_eq!(
            common(&[one("zone", "!in(a,b)"), one("zone", "a")]),
            one("zone", "!b")
        );
        assert_eq!(
            common(&[one("zone", "!a"), one("zone", "a")]),
            Selector::default()
        );
    }
}
