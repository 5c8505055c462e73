//! Ways back: to an earlier revision, to what was before an update that failed, to what a backup says.

use std::collections::BTreeMap;

use mobula_proto::control::v1 as pb;
use serde_json::Value;

use super::{
    Desk, Said, shortened,
    stamp::{expect, stamp},
};
use crate::{
    Error,
    intent::{Failed, backup, diff, plan},
    store::{Action, Batch, Desired, Revision},
};

impl Desk {
    pub(in crate::intent) fn rollback(
        &mut self,
        request: &pb::RollbackRequest,
    ) -> Result<pb::Accepted, Error> {
        let (to, name) = (request.to, request.name.as_str());
        expect(
            "the config",
            request.resource_version,
            self.kept.desired.resource_version,
        )?;
        let mut undone = Undone::default();
        let plan = if name.is_empty() {
            let now = self.kept.desired.clone();
            let found = self.find(|revision| {
                if to == 0 {
                    !undone.has(revision, None) && is_different(&now, &revision.desired)
                } else {
                    revision.desired.resource_version == to
                }
            })?;
            let found = found.ok_or_else(|| no_revision(to, ""))?;
            plan::back(&found.desired)
        } else {
            let current = self.kept.desired.applications.get(name).cloned();
            let found = self.find(|revision| {
                let earlier = revision.desired.applications.get(name);
                if to == 0 {
                    !undone.has(revision, Some(name))
                        && earlier.is_some_and(|earlier| {
                            current
                                .as_ref()
                                .is_none_or(|current| earlier.document != current.document)
                        })
                } else {
                    revision.desired.resource_version == to
                }
            })?;
            let earlier = found.and_then(|revision| revision.desired.applications.get(name).cloned());
            let earlier = earlier.ok_or_else(|| no_revision(to, name))?;
            plan::back_one(&self.kept.desired, name, &earlier)
        };
        self.settle(
            plan,
            Said::new(Action::Rollback, request.reason.clone(), request.dry_run),
        )
    }

    /// Goes back by itself: an update of an application failed.
    pub(in crate::intent) fn rolled_back(&mut self, failed: &Failed) -> Result<pb::Accepted, Error> {
        let name = failed.application.as_str();
        let Some(current) = self.kept.desired.applications.get(name).cloned() else {
            return Err(plan::no_application(name));
        };
        self.expect_application(name, failed.resource_version)?;
        let earlier = self.find(|revision| {
            // What came before the failed one, in what a rollout is about: not itself with another number of replicas.
            let before = revision.desired.resource_version < current.origin;
            let earlier = revision.desired.applications.get(name);
            before && earlier.is_some_and(|earlier| diff::needs_rollout(&current.document, &earlier.document))
        })?;
        let earlier = earlier.and_then(|revision| revision.desired.applications.get(name).cloned());
        let earlier = earlier.ok_or_else(|| no_revision(0, name))?;
        let plan = plan::back_one(&self.kept.desired, name, &earlier);
        let reason = format!("{}: {}", failed.deployment, failed.why);
        self.settle(plan, Said::new(Action::AutomaticRollback, reason, false))
    }

    pub(in crate::intent) fn restore(&mut self, bytes: &[u8], reason: String) -> Result<pb::Accepted, Error> {
        let (kept, history) = backup::read(bytes)?;
        let plan = plan::back(&kept.desired);
        let config = plan.check().map_err(Error::Invalid)?;
        let before = &self.kept.desired;
        let next = before.resource_version.max(kept.desired.resource_version) + 1;
        let changes = diff::changes(before, &kept.desired);
        let desired = stamp(before, plan, &changes, (next, None));
        // What this controller's own flags said stays heeded: a restart does not undo the restoring.
        let applied = self.kept.applied.clone().or(kept.applied);
        let targets = plan::carry(&kept.targets, &config, &config);
        let revision = Revision {
            at_unix_ms: (self.clock)(),
            action: Action::Restore,
            reason: shortened(reason),
            changes,
            desired,
        };
        self.write(&Batch {
            history: Some(&history),
            revision: Some(&revision),
            targets: Some(&targets),
            applied: applied.as_deref(),
            decisions: &[],
        })?;
        Ok(self.take_over(revision, (config, targets, applied), Vec::new()))
    }

    /// The newest revision that fits.
    fn find(&mut self, mut fits: impl FnMut(&Revision) -> bool) -> Result<Option<Revision>, Error> {
        let mut found = None;
        self.store.revisions(|revision| {
            if fits(&revision) {
                found = Some(revision);
            }
            found.is_none()
        })?;
        Ok(found)
    }
}

/// What automatic rollbacks took back, as the history is read from its newest revision: everything between such a rollback
/// and the revision that it went back to.
#[derive(Debug, Default)]
struct Undone {
    /// By application, the document that was gone back to and has not been met yet.
    until: BTreeMap<String, Value>,
}

impl Undone {
    /// Takes in the next older revision; true if an application of it (the one that is named) was taken back later.
    fn has(&mut self, revision: &Revision, name: Option<&str>) -> bool {
        let applications = &revision.desired.applications;
        let is_met = |name: &str, document: &Value| {
            let entry = applications.get(name);
            entry.is_some_and(|entry| entry.document == *document)
        };
        self.until.retain(|name, document| !is_met(name, document));
        let was_undone = match name {
            Some(name) => self.until.contains_key(name),
            None => !self.until.is_empty(),
        };
        if revision.action == Action::AutomaticRollback {
            for change in &revision.changes {
                let back = applications.get(&change.application);
                if let Some(entry) = back.filter(|_| !self.until.contains_key(&change.application)) {
                    self.until
                        .insert(change.application.clone(), entry.document.clone());
                }
            }
        }
        was_undone
    }
}

/// True if one says something else than the other: what runs, not when that was changed.
fn is_different(one: &Desired, other: &Desired) -> bool {
    let said = |desired: &Desired| {
        let applications = desired.applications.iter();
        let said: Vec<_> = applications
            .map(|(name, entry)| (name.clone(), entry.document.clone(), entry.source))
            .collect();
        said
    };
    one.options != other.options || said(one) != said(other)
}

fn no_revision(to: u64, name: &str) -> Error {
    let of = if name.is_empty() {
        String::new()
    } else {
        format!(" that has an application {name:?}")
    };
    Error::Unknown(if to == 0 {
        format!("there is no earlier revision{of} that is different")
    } else {
        format!("there is no revision {to}{of} in the history")
    })
}
