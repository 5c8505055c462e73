//! Versions: who may change what is there, and what is new after a change.
//!
//! Pure.

use crate::{
    Error,
    intent::{Change, plan::Plan},
    store::Desired,
};

/// Gives every application of a plan its versions and times.
pub(super) fn stamp(
    before: &Desired,
    plan: Plan,
    changes: &[Change],
    (next, deployed): (u64, Option<u64>),
) -> Desired {
    let mut applications = plan.applications;
    for (name, entry) in &mut applications {
        let old = before.applications.get(name);
        let same_document = old.is_some_and(|old| old.document == entry.document);
        let changed = old.is_none() || changes.iter().any(|change| change.application == *name);
        entry.origin = match (entry.origin, old) {
            (0, Some(old)) if same_document => old.origin,
            (0, _) => next,
            (origin, _) => origin,
        };
        entry.resource_version = match old {
            Some(old) if !changed => old.resource_version,
            _ => next,
        };
        entry.deployed_unix_ms = match (old, deployed) {
            (Some(old), None) => old.deployed_unix_ms,
            (Some(old), Some(_)) if !changed => old.deployed_unix_ms,
            (_, Some(now)) => now,
            (None, None) => entry.deployed_unix_ms,
        };
    }
    Desired {
        resource_version: next,
        options: plan.options,
        applications,
    }
}

/// Refuses a change that was made of something older than what is there; 0 stands for whatever is there.
pub(super) fn expect(what: &str, given: u64, current: u64) -> Result<(), Error> {
    if given == 0 || given == current {
        return Ok(());
    }
    Err(Error::Conflict {
        why: format!(
            "{what} is at resource version {current}, not {given}: somebody changed it meanwhile; read it again and \
             make the change anew"
        ),
        current,
    })
}
