//! Ways back: to an earlier revision, to what was before an update that failed, to what a backup says.

use mobula_proto::control::v1 as pb;

use super::{
    Desk, Said, shortened,
    stamp::{expect, stamp},
};
use crate::{
    Error,
    intent::{Failed, backup, diff, plan},
    store::{Action, Batch, Revision},
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
        let now = self.kept.desired.resource_version;
        let plan = if name.is_empty() {
            let found = self.find(|revision| {
                let version = revision.desired.resource_version;
                if to == 0 { version < now } else { version == to }
            })?;
            let found = found.ok_or_else(|| no_revision(to, ""))?;
            plan::back(&found.desired)
        } else {
            let current = self.kept.desired.applications.get(name).cloned();
            let found = self.find(|revision| {
                let earlier = revision.desired.applications.get(name);
                if to == 0 {
                    earlier.is_some_and(|earlier| {
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
        self.settle(plan, Said::new(Action::Rollback, String::new(), request.dry_run))
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
    fn find(&mut self, fits: impl Fn(&Revision) -> bool) -> Result<Option<Revision>, Error> {
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
