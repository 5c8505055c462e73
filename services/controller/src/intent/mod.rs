//! What shall run: who may change it, what a change is, what was changed before.
//!
//! [`Ledger`] is the handle; a desk behind it checks each change, says what it costs, puts it on the disk and only then
//! publishes the new [`Intent`]. Starts nothing and knows nothing of what runs. Invariants:
//! - a change is accepted whole or refused whole; what is refused leaves the intent as it was;
//! - the same config twice is one change: the second makes no revision;
//! - resource versions grow with every change and are never used twice;
//! - a whole config is total for what whole configs deployed; what was put by itself stays until it is named or deleted.

mod backup;
mod desk;
mod diff;
mod ledger;
mod plan;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;

use mobula_proto::control::v1::ApplicationSource;

pub(crate) use self::{
    backup::MAX_BYTES as MAX_BACKUP_BYTES,
    diff::Change,
    ledger::{Failed, Flags, Ledger, Start},
};
use crate::store::Targets;

/// What shall run, checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Intent {
    /// Grows with every accepted change.
    pub(crate) resource_version: u64,
    /// Applications in the order of their names.
    pub(crate) config: mobula_schema::Config,
    /// What the config does not say of its applications, by name.
    pub(crate) applications: BTreeMap<String, Meta>,
    /// Replicas by application and deployment where they stand in no document: of deployments that scale, the number
    /// last decided; of applications with an external scaler, the number that it set.
    pub(crate) targets: Targets,
}

/// What the config does not say of an application.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Of its last change.
    pub(crate) resource_version: u64,
    pub(crate) source: ApplicationSource,
    pub(crate) deployed_unix_ms: u64,
}
