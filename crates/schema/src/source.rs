//! From text to documents, within limits on length, so that no text costs more than its length.
//!
//! JSON is read as YAML for its lines; where YAML cannot read it (tabs, `\u` pairs), as JSON, without lines.

use crate::{Problem, compose, tree::Tree};

/// The longest document, 1 MiB: a thousand applications, and a third of what fits one object of Kubernetes.
pub const MAX_BYTES: usize = 1 << 20;

/// Deeper than any field of the schema stands; below it is only free JSON (`user_config`). Everything that walks a document
/// may call itself for each level.
pub(crate) const MAX_DEPTH: usize = 64;

/// As many values as a document has that is not made to hurt, those that aliases stand for included: a thousand applications
/// of fifty.
pub(crate) const MAX_VALUES: usize = 50_000;

/// Reads every document of a text.
///
/// # Errors
///
/// Why it is none, with the line.
pub(crate) fn read(text: &str) -> Result<Vec<Tree>, Problem> {
    if text.len() > MAX_BYTES {
        return Err(refused(
            None,
            format!("has {} bytes; at most {MAX_BYTES} are read", text.len()),
        ));
    }
    let documents = match compose::documents(text) {
        Ok(documents) => documents,
        Err((line, why)) => match json(text) {
            Some(tree) => vec![tree],
            None => return Err(refused(Some(line), format!("is no YAML: {why}"))),
        },
    };
    if documents.is_empty() {
        return Err(refused(None, "is empty; give at least `applications: []`".into()));
    }
    Ok(documents)
}

/// The text as JSON, if it is some and not too deep.
fn json(text: &str) -> Option<Tree> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => depth += 1,
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return None;
        }
    }
    serde_json::from_str(text).ok()
}

fn refused(line: Option<u64>, why: String) -> Problem {
    Problem {
        path: "(document)".into(),
        line,
        why,
    }
}
