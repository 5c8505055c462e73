//! The ways in: a whole text, or one application as a value.

use serde_json::Value;

use crate::{
    Application, Config, application as app, legacy,
    note::{Note, Problem, Sink, Verdict},
    reader::Node,
    service,
    source::{self, MAX_BYTES, MAX_DEPTH, MAX_VALUES},
    top,
    tree::Tree,
};

/// A document that was accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// What shall run.
    pub config: Config,
    /// What becomes of every field that is not at its default, in the order of the document.
    pub notes: Vec<Note>,
    /// The document with the current names, as a `ServeDeploySchema`; reading it gives the same config.
    pub document: Value,
}

/// Reads YAML or JSON: a `ServeDeploySchema`, one application in the older format, or a RayService among other
/// manifests.
///
/// # Errors
///
/// Everything that is wrong with it, in the order of the document.
pub fn parse(text: &str) -> Result<Parsed, Vec<Problem>> {
    let documents = source::read(text).map_err(|problem| vec![problem])?;
    let sink = Sink::default();
    let Some(mut tree) = choose(documents, text, &sink) else {
        return Err(sink.end().err().unwrap_or_default());
    };
    legacy::document(&mut tree, &sink);
    let config = top::read(&Node::root(&tree, &sink));
    let document = given_back(&tree, MAX_DEPTH, &sink);
    let notes = sink.end()?;
    Ok(Parsed {
        // What could not be read is a problem.
        config: config.unwrap_or_default(),
        notes,
        document,
    })
}

/// The document as JSON, which must be within the limits itself: aliases are written out in it, and old formats have become
/// deeper.
fn given_back(tree: &Tree, most: usize, sink: &Sink) -> Value {
    let document = tree.to_json();
    let (values, depth) = tree.cost();
    let bytes = if values > MAX_VALUES {
        0
    } else {
        document.to_string().len()
    };
    for (found, most, of) in [
        (values, MAX_VALUES, "values"),
        (depth, most, "levels"),
        (bytes, MAX_BYTES, "bytes"),
    ] {
        if found > most {
            let why = format!(
                "has {found} {of} with the current names and all aliases written out; at most {most} are read"
            );
            sink.refuse("", None, why);
        }
    }
    document
}

/// Reads one application (`ServeApplicationSchema`).
///
/// # Errors
///
/// Everything that is wrong with it.
pub fn application(value: &Value) -> Result<(Application, Vec<Note>), Vec<Problem>> {
    one(Tree::from(value))
}

/// Reads YAML or JSON: one application (`ServeApplicationSchema`).
///
/// # Errors
///
/// Everything that is wrong with it, in the order of the document.
pub fn parse_application(text: &str) -> Result<(Application, Vec<Note>), Vec<Problem>> {
    let documents = source::read(text).map_err(|problem| vec![problem])?;
    let count = documents.len();
    let Ok([tree]) = <[Tree; 1]>::try_from(documents) else {
        return Err(vec![Problem {
            path: "(document)".into(),
            line: None,
            why: format!("holds {count} documents; one application is one"),
        }]);
    };
    one(tree)
}

/// Reads YAML or JSON as what it says, without looking at what it means.
///
/// # Errors
///
/// Why it is none, with the line.
pub fn document(text: &str) -> Result<Value, Vec<Problem>> {
    let mut documents = source::read(text).map_err(|problem| vec![problem])?;
    Ok(documents.remove(0).to_json())
}

fn one(mut tree: Tree) -> Result<(Application, Vec<Note>), Vec<Problem>> {
    let sink = Sink::default();
    legacy::application(&mut tree, "", &sink);
    let application = app::read(&Node::root(&tree, &sink), &app::Context::default());
    // It stands in a list in a mapping.
    given_back(&tree, MAX_DEPTH - 2, &sink);
    let notes = sink.end()?;
    // What could not be read is a problem; an application without one is there.
    application
        .map(|application| (application, notes))
        .ok_or_else(Vec::new)
}

/// The document that says what shall run, as a `ServeDeploySchema`.
fn choose(documents: Vec<Tree>, text: &str, sink: &Sink) -> Option<Tree> {
    let several = documents.len() > 1;
    let mut chosen = None;
    for (i, tree) in documents.into_iter().enumerate() {
        let kind = tree.get("kind").and_then(Tree::as_text).map(str::to_owned);
        let path = if several {
            format!("document {}", i + 1)
        } else {
            String::new()
        };
        let manifest = tree.get("apiVersion").is_some();
        match kind.as_deref() {
            Some("RayService") if manifest && chosen.is_some() => {
                sink.refuse(&path, tree.line, "is a second RayService; give each its own file");
            }
            Some("RayService") if manifest => {
                chosen = Some(service::convert(&tree, text, sink));
            }
            Some(kind) if manifest && several => {
                let why =
                    format!("{kind} says nothing of what shall run; only the RayService of the file is read");
                sink.note(&path, tree.line, Verdict::Ignored, why);
            }
            Some(kind) if manifest => {
                let why =
                    format!("is of kind {kind}; of Kubernetes' kinds only RayService says what to serve");
                sink.refuse(&path, tree.line, why);
            }
            Some(_) | None if several => {
                let why = "is no manifest; a config stands alone in its file";
                sink.refuse(&path, tree.line, why);
            }
            Some(_) | None => chosen = Some(Some(tree)),
        }
    }
    if chosen.is_none() && several {
        sink.refuse("", None, "holds several documents and no RayService among them");
    }
    chosen.flatten()
}
