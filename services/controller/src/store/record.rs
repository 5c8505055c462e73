//! What is kept, in the shape in which it is kept: JSON that a person can read, in tables and in backups alike.
//!
//! Decides nothing. A change of these shapes that an older controller would misread needs a new [`super::FORMAT`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::intent::Change;

/// Everything that shall run, as the documents that say so.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Desired {
    /// Grows with every accepted change and is never used twice.
    pub(crate) resource_version: u64,
    /// The config without its applications.
    pub(crate) options: Map<String, Value>,
    /// By name.
    pub(crate) applications: BTreeMap<String, Entry>,
}

/// One application.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its `ServeApplicationSchema`, with the current names.
    pub(crate) document: Value,
    pub(crate) source: Source,
    /// Of its last change.
    pub(crate) resource_version: u64,
    pub(crate) deployed_unix_ms: u64,
    /// Resource version of the revision that first had this document: a way back leads to what was before that.
    pub(crate) origin: u64,
}

/// How an application was deployed (Ray: `APIType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Source {
    /// By a whole config: one that lacks it deletes it.
    Declarative,
    /// By itself.
    Imperative,
}

/// Numbers of replicas that stand in no document, by application and deployment: scalers decided them, or an external
/// scaler set them.
pub(crate) type Targets = BTreeMap<(String, String), u32>;

/// One accepted change, and everything as it was after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Revision {
    pub(crate) at_unix_ms: u64,
    pub(crate) action: Action,
    pub(crate) reason: String,
    pub(crate) changes: Vec<Change>,
    pub(crate) desired: Desired,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    Deploy,
    Put,
    Delete,
    Scale,
    Rollback,
    Restore,
    AutomaticRollback,
}

impl Action {
    /// Its name in the history.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Put => "put",
            Self::Delete => "delete",
            Self::Scale => "scale",
            Self::Rollback => "rollback",
            Self::Restore => "restore",
            Self::AutomaticRollback => "automatic rollback",
        }
    }
}

/// One change of a deployment's number of replicas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Decision {
    pub(crate) at_unix_ms: u64,
    pub(crate) application: String,
    pub(crate) deployment: String,
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) reason: String,
    pub(crate) policy: String,
    pub(crate) inputs: BTreeMap<String, f64>,
}
