//! A document as it was written: every value knows its line, and its path when it was moved since.
//!
//! Invariant: no mapping has a key twice, every number is finite, and what [`Tree::to_json`] gives back, read again, is the
//! same tree but for lines and paths.

use std::{collections::HashSet, fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::Number;

/// A value and where it stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tree {
    /// Line of its key, or of itself in a list; none where the text is not known.
    pub(crate) line: Option<u64>,
    /// Where it was written, when it is not there any more.
    pub(crate) origin: Option<Arc<str>>,
    pub(crate) value: Value,
}

/// A value.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Value {
    #[default]
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Tree>),
    Map(Entries),
}

/// The fields of a mapping, as they were written.
pub(crate) type Entries = Vec<(String, Tree)>;

impl Tree {
    pub(crate) fn new(value: Value) -> Self {
        Self {
            line: None,
            origin: None,
            value,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        self.value == Value::Null
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::List(_) | Value::Map(_) => None,
        }
    }

    pub(crate) fn as_map(&self) -> Option<&Entries> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::List(_) => None,
        }
    }

    pub(crate) fn as_map_mut(&mut self) -> Option<&mut Entries> {
        match &mut self.value {
            Value::Map(entries) => Some(entries),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::List(_) => None,
        }
    }

    pub(crate) fn as_list_mut(&mut self) -> Option<&mut Vec<Self>> {
        match &mut self.value {
            Value::List(items) => Some(items),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::Map(_) => None,
        }
    }

    /// The field of this name, if this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.as_map()?
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, tree)| tree)
    }

    /// As [`Self::get`]; none as well where nothing is written behind the key.
    pub(crate) fn given(&self, key: &str) -> Option<&Self> {
        self.get(key).filter(|tree| !tree.is_null())
    }

    /// The value as it stands at `path`, so that problems with it are told of there wherever it is moved.
    pub(crate) fn written_at(mut self, path: String) -> Self {
        self.origin.get_or_insert_with(|| path.into());
        self
    }

    /// What it costs to read it again: values, of which a long word is many, and how deep they are nested.
    pub(crate) fn cost(&self) -> (usize, usize) {
        let sum = |parts: &mut dyn Iterator<Item = (usize, &Self)>| {
            let (values, depth) = parts.fold((1, 0), |(values, depth), (key, tree)| {
                let (own, below) = tree.cost();
                (values + key + own, depth.max(below))
            });
            (values, depth + 1)
        };
        match &self.value {
            Value::Null | Value::Bool(_) | Value::Number(_) => (1, 0),
            Value::Text(text) => (weight(text), 0),
            Value::List(items) => sum(&mut items.iter().map(|tree| (0, tree))),
            Value::Map(entries) => sum(&mut entries.iter().map(|(key, tree)| (weight(key), tree))),
        }
    }

    /// The document without lines and paths.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(is) => (*is).into(),
            Value::Number(number) => serde_json::Value::Number(number.clone()),
            Value::Text(text) => text.clone().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => entries
                .iter()
                .map(|(key, tree)| (key.clone(), tree.to_json()))
                .collect(),
        }
    }
}

impl From<&serde_json::Value> for Tree {
    fn from(value: &serde_json::Value) -> Self {
        Self::new(match value {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(is) => Value::Bool(*is),
            serde_json::Value::Number(number) => Value::Number(number.clone()),
            serde_json::Value::String(text) => Value::Text(text.clone()),
            serde_json::Value::Array(items) => Value::List(items.iter().map(Self::from).collect()),
            serde_json::Value::Object(map) => Value::Map(
                map.iter()
                    .map(|(key, value)| (key.clone(), Self::from(value)))
                    .collect(),
            ),
        })
    }
}

/// Bytes of text that count as one value more.
const WORD: usize = 64;

/// What a word costs, in values: a long one as much as many short ones.
pub(crate) fn weight(text: &str) -> usize {
    1 + text.len() / WORD
}

/// Takes a field out of a mapping.
pub(crate) fn take(entries: &mut Entries, key: &str) -> Option<Tree> {
    let at = entries.iter().position(|(name, _)| name == key)?;
    Some(entries.remove(at).1)
}

/// JSON, which has no lines.
impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, a number, true, false, null, a list or a mapping")
    }

    fn visit_unit<E: Error>(self) -> Result<Tree, E> {
        Ok(Tree::default())
    }

    fn visit_bool<E: Error>(self, is: bool) -> Result<Tree, E> {
        Ok(Tree::new(Value::Bool(is)))
    }

    fn visit_i64<E: Error>(self, n: i64) -> Result<Tree, E> {
        Ok(Tree::new(Value::Number(n.into())))
    }

    fn visit_u64<E: Error>(self, n: u64) -> Result<Tree, E> {
        Ok(Tree::new(Value::Number(n.into())))
    }

    fn visit_f64<E: Error>(self, n: f64) -> Result<Tree, E> {
        let number = Number::from_f64(n).ok_or_else(|| E::custom(format!("{n} is no finite number")))?;
        Ok(Tree::new(Value::Number(number)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::new(Value::Text(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Tree::new(Value::List(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let (mut entries, mut seen) = (Entries::new(), HashSet::new());
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format!("the key {key:?} is written twice")));
            }
            entries.push((key, map.next_value()?));
        }
        Ok(Tree::new(Value::Map(entries)))
    }
}
