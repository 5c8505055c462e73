//! One document with everything that is kept, and the way back.
//!
//! Pure. Refuses a document that is not one, has lost or changed a value, or is of a newer format; says which. White space
//! does not count: a backup may be put through a formatter.

use mobula_schema::Problem;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    Error,
    store::{Desired, FORMAT, History, Kept},
};

/// The largest backup that is read: a hundred of the largest configs and ten thousand decisions, twice over.
pub(crate) const MAX_BYTES: usize = 256 << 20;

/// More changes than a controller makes in its life, one every nanosecond for a century; what follows can be counted on.
const MAX_VERSION: u64 = 1 << 62;

/// What a backup says it is.
const KIND: &str = "mobula-controller-backup";
/// The field with the SHA-256 of everything else, as serde_json writes it: keys sorted, no white space.
const DIGEST: &str = "digest";

#[derive(Serialize, Deserialize)]
struct Content {
    desired: Desired,
    targets: Vec<Target>,
    applied: Option<String>,
    history: History,
}

#[derive(Serialize, Deserialize)]
struct Target {
    application: String,
    deployment: String,
    replicas: u32,
}

/// Writes a backup.
///
/// # Errors
///
/// [`Error::Backup`] if it would be larger than what can be restored.
pub(super) fn write(kept: &Kept, history: History, now_unix_ms: u64) -> Result<Vec<u8>, Error> {
    let targets = kept.targets.iter();
    let content = Content {
        desired: kept.desired.clone(),
        targets: targets
            .map(|((application, deployment), replicas)| Target {
                application: application.clone(),
                deployment: deployment.clone(),
                replicas: *replicas,
            })
            .collect(),
        applied: kept.applied.clone(),
        history,
    };
    let unwritable = |error: serde_json::Error| Error::Backup(format!("it cannot be written: {error}"));
    let content = serde_json::to_value(content).map_err(unwritable)?;
    let mut document = json!({
        "kind": KIND,
        "format": FORMAT,
        "written_unix_ms": now_unix_ms,
        "content": content,
    });
    document[DIGEST] = digest(&document).into();
    let text = serde_json::to_vec(&document).map_err(unwritable)?;
    if text.len() > MAX_BYTES {
        return Err(Error::Backup(format!(
            "it would have {} bytes; at most {MAX_BYTES} can be restored: keep fewer revisions",
            text.len()
        )));
    }
    Ok(text)
}

/// Reads a backup.
///
/// # Errors
///
/// [`Error::Invalid`] with what it is instead.
pub(super) fn read(bytes: &[u8]) -> Result<(Kept, History), Error> {
    let mut document: Value =
        serde_json::from_slice(bytes).map_err(|error| refuse(format!("is damaged, or no JSON: {error}")))?;
    if document.get("kind").and_then(Value::as_str) != Some(KIND) {
        return Err(refuse(format!(
            "is no backup of a controller: its kind is not {KIND:?}"
        )));
    }
    match document.get("format").and_then(Value::as_u64) {
        Some(FORMAT) => {}
        Some(format) if format > FORMAT => {
            return Err(refuse(format!(
                "is of a newer controller (format {format}; this one reads {FORMAT})"
            )));
        }
        Some(_) | None => return Err(refuse("has no format that is known".into())),
    }
    let misfit = |error: serde_json::Error| refuse(format!("is damaged: {error}"));
    let named = document.as_object_mut().and_then(|fields| fields.remove(DIGEST));
    if named.is_none_or(|named| named != digest(&document)) {
        return Err(refuse(
            "is damaged or was changed by hand: it does not have the digest that it names".into(),
        ));
    }
    let content: Content = serde_json::from_value(document["content"].take()).map_err(misfit)?;
    let versions: Vec<u64> = content
        .history
        .revisions
        .iter()
        .map(|revision| revision.desired.resource_version)
        .collect();
    if content.desired.resource_version > MAX_VERSION {
        return Err(refuse(
            "contradicts itself: no controller has made so many changes".into(),
        ));
    }
    let ordered = versions.is_sorted_by(|a, b| a < b);
    if !ordered
        || versions
            .last()
            .is_some_and(|last| *last > content.desired.resource_version)
    {
        return Err(refuse(
            "contradicts itself: its revisions are not in order".into(),
        ));
    }
    let targets = content.targets.into_iter();
    let kept = Kept {
        desired: content.desired,
        targets: targets
            .map(|target| ((target.application, target.deployment), target.replicas))
            .collect(),
        applied: content.applied,
    };
    Ok((kept, content.history))
}

fn digest(document: &Value) -> String {
    let digest = Sha256::digest(document.to_string());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn refuse(why: String) -> Error {
    Error::Invalid(vec![Problem {
        path: "(backup)".into(),
        line: None,
        why,
    }])
}
