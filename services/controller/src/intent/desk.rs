//! The one place where the intent changes: takes a wish, checks it, writes it down, publishes it.
//!
//! Blocking: it computes and waits for the disk, on a thread for that; [`super::Ledger`] brings the work. Invariant:
//! what it knows is what the disk says; after a failure of the disk it reads everything again before the next work.

mod answer;
mod back;
mod stamp;

use std::sync::Arc;

use mobula_proto::control::v1 as pb;
use mobula_schema::Config;
use tokio::{sync::watch, time::Instant};
use tracing::{error, info};

use self::stamp::{expect, stamp};
use super::{
    Intent, Meta, diff,
    plan::{self, Plan},
    words,
};
use crate::{
    Error, metrics,
    store::{Action, Batch, Decision, Desired, Kept, Revision, Store, Targets},
};

/// The longest reason; it is for people.
const MAX_REASON_BYTES: usize = 1000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Desk {
    store: Store,
    kept: Kept,
    /// What [`Self::kept`] says, checked.
    config: Config,
    publish: watch::Sender<Arc<Intent>>,
    /// Unix time in milliseconds.
    clock: fn() -> u64,
    metrics: metrics::Ledger,
}

/// What is said with a change.
struct Said {
    action: Action,
    reason: String,
    dry_run: bool,
    notes: Vec<pb::Note>,
    /// To be remembered as what the flags said.
    applied: Option<String>,
}

impl Said {
    fn new(action: Action, reason: String, dry_run: bool) -> Self {
        Self {
            action,
            reason,
            dry_run,
            notes: Vec::new(),
            applied: None,
        }
    }
}

impl Desk {
    /// Reads what is kept.
    ///
    /// # Errors
    ///
    /// The store cannot be read, or what is in it is no config for this version.
    pub(super) fn open(mut store: Store, clock: fn() -> u64) -> Result<Self, Error> {
        let kept = store.load()?;
        let config = checked(&store, &kept)?;
        let publish = watch::Sender::new(Arc::new(intent(&kept, &config)));
        let metrics = metrics::Ledger::new();
        metrics.now_at(kept.desired.resource_version);
        Ok(Self {
            store,
            kept,
            config,
            publish,
            clock,
            metrics,
        })
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Intent>> {
        self.publish.subscribe()
    }

    /// True while nothing was ever accepted.
    pub(super) fn is_new(&self) -> bool {
        self.kept.desired.resource_version == 0
    }

    /// What the flags said when they were last heeded.
    pub(super) fn applied(&self) -> Option<&str> {
        self.kept.applied.as_deref()
    }

    pub(super) fn deploy(
        &mut self,
        request: pb::DeployRequest,
        applied: Option<String>,
    ) -> Result<pb::Accepted, Error> {
        expect(
            "the config",
            request.resource_version,
            self.kept.desired.resource_version,
        )?;
        let parsed = mobula_schema::parse(&request.config).map_err(Error::Invalid)?;
        let plan = plan::deploy(&self.kept.desired, &parsed);
        let mut said = Said::new(Action::Deploy, request.reason, request.dry_run);
        said.notes = words::remarks(&parsed.notes);
        said.applied = applied;
        self.settle(plan, said)
    }

    pub(super) fn put(&mut self, request: pb::PutApplicationRequest) -> Result<pb::Accepted, Error> {
        let (application, notes) =
            mobula_schema::parse_application(&request.config).map_err(Error::Invalid)?;
        self.expect_application(&application.name, request.resource_version)?;
        let plan = plan::put(&self.kept.desired, &application);
        let mut said = Said::new(Action::Put, request.reason, request.dry_run);
        said.notes = words::remarks(&notes);
        self.settle(plan, said)
    }

    pub(super) fn delete(&mut self, request: pb::DeleteApplicationRequest) -> Result<pb::Accepted, Error> {
        let plan = if request.name.is_empty() {
            expect(
                "the config",
                request.resource_version,
                self.kept.desired.resource_version,
            )?;
            plan::nothing()
        } else {
            let plan = plan::delete(&self.kept.desired, &request.name)?;
            self.expect_application(&request.name, request.resource_version)?;
            plan
        };
        self.settle(plan, Said::new(Action::Delete, request.reason, request.dry_run))
    }

    pub(super) fn scale(&mut self, request: &pb::ScaleRequest) -> Result<pb::Accepted, Error> {
        let current = (&self.kept.desired, &self.config, &self.kept.targets);
        let which = (request.application.as_str(), request.deployment.as_str());
        let plan = plan::scale(current, which, request.replicas)?;
        self.expect_application(&request.application, request.resource_version)?;
        self.settle(
            plan,
            Said::new(Action::Scale, request.reason.clone(), request.dry_run),
        )
    }

    /// Remembers what scalers decided; the intent is as before, but a restart begins with these numbers.
    pub(super) fn decided(&mut self, decisions: Vec<pb::Decision>) -> Result<(), Error> {
        self.refresh()?;
        let decisions: Vec<Decision> = decisions.into_iter().map(Into::into).collect();
        let mut targets = self.kept.targets.clone();
        for decision in &decisions {
            let app = self
                .config
                .applications
                .iter()
                .find(|app| app.name == decision.application);
            let part = app.and_then(|app| {
                let part = app
                    .deployments
                    .iter()
                    .find(|part| part.name == decision.deployment)?;
                (app.external_scaler || matches!(part.count, mobula_schema::Count::Auto(_))).then_some(part)
            });
            // A fixed number stands in the document.
            if part.is_some() {
                let key = (decision.application.clone(), decision.deployment.clone());
                targets.insert(key, decision.to);
            }
        }
        self.write(&Batch {
            targets: (targets != self.kept.targets).then_some(&targets),
            decisions: &decisions,
            ..Batch::default()
        })?;
        self.kept.targets = targets;
        // Seen by who asks, and nobody is told: the numbers come from those who follow.
        let intent = Arc::new(intent(&self.kept, &self.config));
        self.publish.send_if_modified(|published| {
            *published = intent;
            false
        });
        Ok(())
    }

    /// Has everything read again before the next work.
    pub(super) fn distrust(&mut self) {
        self.store.distrust();
    }

    /// Reads everything again if the disk failed since.
    pub(super) fn refresh(&mut self) -> Result<(), Error> {
        if !self.store.is_broken() {
            return Ok(());
        }
        let kept = self.store.load()?;
        self.config = checked(&self.store, &kept)?;
        self.kept = kept;
        self.publish
            .send_replace(Arc::new(intent(&self.kept, &self.config)));
        Ok(())
    }

    fn settle(&mut self, plan: Plan, said: Said) -> Result<pb::Accepted, Error> {
        let config = plan.check().map_err(Error::Invalid)?;
        let before = &self.kept.desired;
        let mut targets = plan::carry(&self.kept.targets, &self.config, &config);
        targets.extend(plan.targets.iter().cloned());
        plan::bounded(&config, &targets)?;
        let wanted = Desired {
            resource_version: 0,
            options: plan.options.clone(),
            applications: plan.applications.clone(),
        };
        let mut changes = diff::changes(before, &wanted);
        changes.extend(plan.changes.iter().cloned());
        let accepted = pb::Accepted {
            resource_version: before.resource_version,
            changes: Vec::new(),
            notes: said.notes.clone(),
            dry_run: said.dry_run,
        };
        if said.dry_run {
            let changes = changes.into_iter().map(Into::into).collect();
            return Ok(pb::Accepted { changes, ..accepted });
        }
        let applied = said.applied.or_else(|| self.kept.applied.clone());
        if changes.is_empty() {
            if applied != self.kept.applied {
                self.write(&Batch {
                    applied: applied.as_deref(),
                    ..Batch::default()
                })?;
                self.kept.applied = applied;
            }
            return Ok(accepted);
        }
        let now = (self.clock)();
        let deployed = (said.action != Action::Scale).then_some(now);
        let desired = stamp(before, plan, &changes, (before.resource_version + 1, deployed));
        let revision = Revision {
            at_unix_ms: now,
            action: said.action,
            reason: shortened(said.reason),
            changes,
            desired,
        };
        self.write(&Batch {
            revision: Some(&revision),
            targets: (targets != self.kept.targets).then_some(&targets),
            applied: applied.as_deref(),
            ..Batch::default()
        })?;
        Ok(self.take_over(revision, (config, targets, applied), said.notes))
    }

    fn take_over(
        &mut self,
        revision: Revision,
        (config, targets, applied): (Config, Targets, Option<String>),
        notes: Vec<pb::Note>,
    ) -> pb::Accepted {
        let Revision {
            action,
            reason,
            changes,
            desired,
            ..
        } = revision;
        info!(
            resource_version = desired.resource_version,
            action = action.name(),
            changes = changes.len(),
            reason,
            "the intent has changed"
        );
        self.metrics.changed(action.name());
        self.metrics.now_at(desired.resource_version);
        let accepted = pb::Accepted {
            resource_version: desired.resource_version,
            changes: changes.into_iter().map(Into::into).collect(),
            notes,
            dry_run: false,
        };
        self.kept = Kept {
            desired,
            targets,
            applied,
        };
        self.config = config;
        self.publish
            .send_replace(Arc::new(intent(&self.kept, &self.config)));
        accepted
    }

    fn write(&mut self, batch: &Batch<'_>) -> Result<(), Error> {
        let began = Instant::now();
        let written = self.store.commit(batch);
        self.metrics.committed(began.elapsed());
        if let Err(error) = &written {
            error!(error = %mobula_kit::chain(error), "a change could not be kept and was not made");
        }
        written
    }

    /// Refuses if there is an application of this name; with an empty name, if anything was ever accepted.
    pub(super) fn is_vacant(&self, name: &str) -> Result<(), Error> {
        let desired = &self.kept.desired;
        let (what, current) = match desired.applications.get(name) {
            Some(entry) => (format!("application {name:?}"), entry.resource_version),
            None if name.is_empty() => ("the config".to_owned(), desired.resource_version),
            None => return Ok(()),
        };
        if current == 0 {
            return Ok(());
        }
        let why =
            format!("{what} is at resource version {current}, and should not be there yet: read it first");
        Err(Error::Conflict { why, current })
    }

    fn expect_application(&self, name: &str, given: u64) -> Result<(), Error> {
        match self.kept.desired.applications.get(name) {
            Some(entry) => expect(&format!("application {name:?}"), given, entry.resource_version),
            None if given == 0 => Ok(()),
            None => Err(Error::Conflict {
                why: format!("there is no application {name:?}, so it is not at resource version {given}"),
                current: 0,
            }),
        }
    }
}

/// What is kept, as a config of this version.
fn checked(store: &Store, kept: &Kept) -> Result<Config, Error> {
    plan::back(&kept.desired).check().map_err(|problems| {
        let problems: String = problems.iter().map(|problem| format!("\n  {problem}")).collect();
        store.unreadable(format!(
            "this version does not accept what was deployed:{problems}\n"
        ))
    })
}

fn intent(kept: &Kept, config: &Config) -> Intent {
    let applications = kept.desired.applications.iter().map(|(name, entry)| {
        let meta = Meta {
            resource_version: entry.resource_version,
            source: entry.source.into(),
            deployed_unix_ms: entry.deployed_unix_ms,
        };
        (name.clone(), meta)
    });
    Intent {
        resource_version: kept.desired.resource_version,
        config: config.clone(),
        applications: applications.collect(),
        targets: kept.targets.clone(),
    }
}

fn shortened(mut reason: String) -> String {
    if reason.len() > MAX_REASON_BYTES {
        let mut end = MAX_REASON_BYTES;
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        reason.truncate(end);
    }
    reason
}
