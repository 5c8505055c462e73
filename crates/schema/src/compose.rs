//! YAML documents from the events of a parser, without calling itself: depth, values and aliases are counted as they come.
//!
//! Words mean what they mean to PyYAML, with which Ray Serve reads its configs (`yes` is true, 010 is 8), but that numbers are
//! numbers in JSON's way too (1e5) and times are text. Refuses keys that are written twice, which PyYAML passes over, tags
//! beside those of plain values, and anchors that hold themselves.

mod word;

use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Parser, ScalarStyle, Tag, options};

use crate::{
    source::{MAX_DEPTH, MAX_VALUES},
    tree::{Entries, Tree, Value, weight},
};

/// A line and what is wrong there.
pub(crate) type Fault = (u64, String);

/// A value that is complete, with what it costs to have it once more.
#[derive(Clone)]
struct Done {
    tree: Tree,
    values: usize,
    depth: usize,
}

/// A list or mapping that is not complete.
struct Open {
    anchor: usize,
    line: u64,
    values: usize,
    depth: usize,
    parts: Parts,
}

enum Parts {
    List(Vec<Tree>),
    Map(Map),
}

#[derive(Default)]
struct Map {
    entries: Entries,
    seen: HashSet<String>,
    /// The key whose value is to come, with its line.
    key: Option<(String, u64)>,
    /// Mappings behind `<<`.
    merged: Vec<Tree>,
}

#[derive(Default)]
struct Composer {
    documents: Vec<Tree>,
    open: Vec<Open>,
    root: Option<Tree>,
    anchors: HashMap<usize, Done>,
    values: usize,
}

/// Reads all documents of a text, those with nothing in them left out.
///
/// # Errors
///
/// The first that is wrong.
pub(crate) fn documents(text: &str) -> Result<Vec<Tree>, Fault> {
    let options = options! {
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
        // A long word of JSON may stand before a colon.
        simple_key_max_lookahead: 4096,
    };
    let mut composer = Composer::default();
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| (line(error.marker().line()), error.info()))?;
        let at = line(span.start.line());
        composer.take(event, at).map_err(|why| (at, why))?;
    }
    Ok(composer.documents)
}

fn line(line: usize) -> u64 {
    line as u64
}

impl Composer {
    fn take(&mut self, event: Event<'_>, line: u64) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.scalar(&text, style, anchor, tag.as_deref(), line)
            }
            Event::SequenceStart(_, anchor, tag) => {
                fits(tag.as_deref(), "seq")?;
                self.begin(anchor, line, Parts::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                fits(tag.as_deref(), "map")?;
                self.begin(anchor, line, Parts::Map(Map::default()))
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => self.alias(anchor, line),
            Event::DocumentEnd => {
                self.documents
                    .extend(self.root.take().filter(|tree| !tree.is_null()));
                self.anchors.clear();
                Ok(())
            }
            Event::UnresolvedAlias(name) => Err(format!("the alias {name} stands for nothing")),
            Event::StreamStart | Event::StreamEnd | Event::DocumentStart(..) | Event::Anchor(..) | _ => {
                Ok(())
            }
        }
    }

    fn spend(&mut self, values: usize) -> Result<(), String> {
        self.values += values;
        if self.values > MAX_VALUES {
            return Err(format!(
                "there are more than {MAX_VALUES} values, those of aliases included"
            ));
        }
        Ok(())
    }

    fn begin(&mut self, anchor: usize, line: u64, parts: Parts) -> Result<(), String> {
        self.spend(1)?;
        if self.open.len() >= MAX_DEPTH {
            return Err(format!("values are nested more than {MAX_DEPTH} deep"));
        }
        self.open.push(Open {
            anchor,
            line,
            values: 1,
            depth: 0,
            parts,
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let value = match open.parts {
            Parts::List(items) => Value::List(items),
            Parts::Map(map) => Value::Map(map.complete()),
        };
        let tree = Tree {
            line: Some(open.line),
            ..Tree::new(value)
        };
        let done = Done {
            tree,
            values: open.values,
            depth: open.depth + 1,
        };
        self.put(done, open.anchor, None)
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        line: u64,
    ) -> Result<(), String> {
        let values = weight(text);
        self.spend(values)?;
        let value = word::value(text, style == ScalarStyle::Plain, tag)?;
        let tree = Tree {
            line: Some(line),
            ..Tree::new(value)
        };
        let done = Done {
            tree,
            values,
            depth: 0,
        };
        // A key is what is written, whatever it would mean as a value.
        self.put(done, anchor, Some((text, style == ScalarStyle::Plain)))
    }

    fn alias(&mut self, anchor: usize, line: u64) -> Result<(), String> {
        let Some(done) = self.anchors.get(&anchor) else {
            return Err("an alias stands for what it is part of".into());
        };
        let (values, depth) = (done.values, done.depth);
        if self.open.len() + depth > MAX_DEPTH {
            return Err(format!(
                "values are nested more than {MAX_DEPTH} deep, those of aliases included"
            ));
        }
        self.spend(values)?;
        let mut done = self.anchors[&anchor].clone();
        done.tree.line = Some(line);
        let text = done.tree.as_text().map(str::to_owned);
        self.put(done, 0, text.as_deref().map(|text| (text, false)))
    }

    /// Gives a value to what it is part of; `word` is how it was written and whether without quotes, if it can be a key.
    fn put(&mut self, done: Done, anchor: usize, word: Option<(&str, bool)>) -> Result<(), String> {
        if anchor != 0 {
            // Kept once more, and so counted once more.
            self.spend(done.values)?;
            self.anchors.insert(anchor, done.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(done.tree);
            return Ok(());
        };
        parent.values += done.values;
        parent.depth = parent.depth.max(done.depth);
        match &mut parent.parts {
            Parts::List(items) => items.push(done.tree),
            Parts::Map(map) => return map.put(done.tree, word),
        }
        Ok(())
    }
}

impl Map {
    fn put(&mut self, mut tree: Tree, word: Option<(&str, bool)>) -> Result<(), String> {
        let Some((key, line)) = self.key.take() else {
            let Some((key, plain)) = word else {
                return Err("a key must be a word".into());
            };
            if plain && tree.is_null() {
                return Err("a key must be a word, and here is none".into());
            }
            if !self.seen.insert(key.to_owned()) {
                return Err(format!("the key {:?} is written twice", short(key)));
            }
            self.key = Some((key.to_owned(), tree.line.unwrap_or_default()));
            return Ok(());
        };
        if key == "<<" {
            return self.merge(tree);
        }
        tree.line = Some(line);
        self.entries.push((key, tree));
        Ok(())
    }

    fn merge(&mut self, tree: Tree) -> Result<(), String> {
        let list = match tree.value {
            Value::List(items) => items,
            Value::Map(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => vec![tree],
        };
        if list.iter().any(|tree| tree.as_map().is_none()) {
            return Err("what is behind << must be a mapping, or a list of them".into());
        }
        self.merged.extend(list);
        Ok(())
    }

    /// The entries, with those that are merged in where they are not given.
    fn complete(mut self) -> Entries {
        for tree in self.merged {
            let Value::Map(entries) = tree.value else { continue };
            for (key, tree) in entries {
                if self.seen.insert(key.clone()) {
                    self.entries.push((key, tree));
                }
            }
        }
        self.entries
    }
}

/// The beginning of a word that may be very long.
fn short(word: &str) -> String {
    word.chars().take(60).collect()
}

fn fits(tag: Option<&Tag>, kind: &str) -> Result<(), String> {
    match tag {
        Some(tag) if tag.core_suffix() != Some(kind) && tag.original() != "!" => {
            Err(format!("the tag {} is not taken", short(&tag.original())))
        }
        Some(_) | None => Ok(()),
    }
}
