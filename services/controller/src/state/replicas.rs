//! What workers say of their replicas, and what follows from it.

use std::collections::BTreeSet;

use mobula_proto::control::v1::{self as pb, ReplicaState, attach_response::Message as Command};
use mobula_serving::{backoff::Backoff, lease};
use tracing::{info, warn};

use super::{
    Action, REPLICA_BACKOFF, State, Time,
    model::{Phase, Stray, amounts_of},
};

impl State {
    /// Takes in a worker's list of its replicas; `hello` if it is the first of a stream, when everything that was on its
    /// way to the worker may have been lost.
    pub(super) fn report(
        &mut self,
        worker: &str,
        reports: Vec<pb::ReplicaReport>,
        hello: bool,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let mut seen = BTreeSet::new();
        for report in reports {
            seen.insert(report.replica_id.clone());
            let ours = self.replicas.get(&report.replica_id);
            if ours.is_some_and(|replica| replica.worker.as_deref() == Some(worker)) {
                self.update(worker, report, now, actions);
            } else {
                self.unwanted(worker, report, hello, now, actions);
            }
        }
        let Some(here) = self.workers.get_mut(worker) else {
            return;
        };
        let strays = here.strays.len();
        here.strays.retain(|id, _| seen.contains(id));
        self.dirty |= here.strays.len() != strays;
        let missing: Vec<String> = here.replicas.difference(&seen).cloned().collect();
        for id in missing {
            self.missing(&id, hello, now, actions);
        }
    }

    /// A wanted replica reports from where it should be.
    fn update(&mut self, worker: &str, report: pb::ReplicaReport, now: Time, actions: &mut Vec<Action>) {
        let state = report.state();
        let id = report.replica_id;
        let Some(replica) = self.replicas.get_mut(&id) else {
            return;
        };
        replica.seen = true;
        replica.message = report.message;
        if replica.load != report.load {
            replica.load = report.load;
            self.routes.loads_changed = true;
        }
        if replica.model != report.model {
            replica.model = report.model;
            self.routes.changed = true;
        }
        let (phase, deployment) = (replica.phase, replica.deployment);
        match state {
            ReplicaState::Running => {
                if !matches!(phase, Phase::Running { .. }) {
                    info!(replica = %id, worker, took_ms = now.saturating_sub(replica.assigned).as_millis(), "replica runs");
                    self.deployments[deployment].shunned.remove(worker);
                    self.enter(&id, Phase::Running { since: now });
                }
            }
            ReplicaState::Starting | ReplicaState::Pending | ReplicaState::Unspecified => {
                if phase != Phase::Starting {
                    self.enter(&id, Phase::Starting);
                }
            }
            ReplicaState::Failed => {
                let message = replica.message.clone();
                self.fail(&id, &message, now, actions);
            }
            // We did not ask for it, so the worker itself leaves: it keeps what it finishes, we start another elsewhere.
            ReplicaState::Stopping => {
                if !self.dismissed.contains(worker) {
                    info!(replica = %id, worker, "worker drains by itself; its replica is placed again");
                }
                self.stray(&id, ReplicaState::Stopping);
                self.requeue(&id);
                if let Some(worker) = self.workers.get_mut(worker) {
                    worker.leaving = true;
                }
            }
        }
    }

    /// A replica reports that is not wanted where it is.
    fn unwanted(
        &mut self,
        worker: &str,
        report: pb::ReplicaReport,
        hello: bool,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let state = report.state();
        let Some(here) = self.workers.get_mut(worker) else {
            return;
        };
        if let Some(stray) = here.strays.get_mut(&report.replica_id) {
            self.dirty |= stray.state != state;
            (stray.state, stray.message, stray.load) = (state, report.message, report.load);
            if hello && state != ReplicaState::Stopping {
                self.drain(worker, &report.replica_id, actions);
            }
            return;
        }
        let alive = matches!(state, ReplicaState::Starting | ReplicaState::Running);
        let known = self.replicas.contains_key(&report.replica_id);
        if alive && !known && !here.leaving && self.adopt(worker, &report, now, actions) {
            return;
        }
        let spec = report.spec.unwrap_or_default();
        let stray = Stray {
            application: spec.application,
            deployment: spec.deployment,
            need: amounts_of(&spec.resources.unwrap_or_default()),
            state,
            message: report.message,
            load: report.load,
        };
        info!(replica = %report.replica_id, worker, "replica is not wanted and is drained");
        if let Some(here) = self.workers.get_mut(worker) {
            here.strays.insert(report.replica_id.clone(), stray);
        }
        if state != ReplicaState::Stopping {
            self.drain(worker, &report.replica_id, actions);
        }
    }

    /// Lets a replica that is there already stand for one that is not: for a pending one, for one that waits after a
    /// failure, or, if it runs, for one that only starts. False if the intent wants no such replica.
    fn adopt(
        &mut self,
        worker: &str,
        report: &pb::ReplicaReport,
        now: Time,
        actions: &mut Vec<Action>,
    ) -> bool {
        let Some(spec) = &report.spec else { return false };
        let found = self.deployments.iter().position(|d| {
            d.spec.name == spec.deployment
                && d.version == spec.version
                && self.apps[d.app].name == spec.application
        });
        let Some(index) = found else { return false };
        let deployment = &self.deployments[index];
        let runs = report.state() == ReplicaState::Running;
        let starting = || {
            let mut placed = deployment.replicas.iter();
            placed
                .find(|id| self.replicas.get(*id).is_some_and(|r| r.phase == Phase::Starting))
                .cloned()
        };
        let idle = deployment
            .pending
            .first()
            .or_else(|| deployment.failed.first())
            .cloned();
        let Some(stand_in) = idle.or_else(|| runs.then(starting).flatten()) else {
            return false;
        };
        if let Some(elsewhere) = self.replicas.get(&stand_in).and_then(|r| r.worker.clone()) {
            self.stray(&stand_in, ReplicaState::Stopping);
            self.drain(&elsewhere, &stand_in, actions);
        }
        self.remove_replica(&stand_in);

        let id = report.replica_id.clone();
        self.insert_replica(id.clone(), index, Backoff::default());
        if let Some(replica) = self.replicas.get_mut(&id) {
            replica.worker = Some(worker.to_owned());
            (replica.seen, replica.assigned) = (true, now);
            replica.message.clone_from(&report.message);
            (replica.load, replica.model) = (report.load, report.model.clone());
        }
        if let Some(here) = self.workers.get_mut(worker) {
            here.replicas.insert(id.clone());
        }
        self.enter(
            &id,
            if runs {
                Phase::Running { since: now }
            } else {
                Phase::Starting
            },
        );
        info!(replica = %id, worker, "replica adopted");
        true
    }

    /// A replica that should be on a worker is not in its list.
    fn missing(&mut self, id: &str, hello: bool, now: Time, actions: &mut Vec<Action>) {
        let Some(replica) = self.replicas.get_mut(id) else {
            return;
        };
        if !replica.seen {
            // The list may be older than the assignment; after a lease's time, or a new stream, the assignment was lost.
            if hello || now.saturating_sub(replica.assigned) >= lease::term(self.settings.heartbeat) {
                replica.assigned = now;
                self.assign(id, actions);
            }
        } else if matches!(replica.phase, Phase::Running { .. }) {
            warn!(replica = %id, "replica vanished: its worker was started anew");
            self.requeue(id);
        } else {
            self.fail(id, "its worker ended while it started", now, actions);
        }
    }

    /// Books a failure; the replica is tried again later under another id.
    pub(super) fn fail(&mut self, id: &str, message: &str, now: Time, actions: &mut Vec<Action>) {
        let Some(replica) = self.replicas.get_mut(id) else {
            return;
        };
        let worked = match replica.phase {
            Phase::Running { since } => now.saturating_sub(since),
            Phase::Pending | Phase::Starting | Phase::Failed { .. } => Time::ZERO,
        };
        let wait = replica.backoff.fail(&REPLICA_BACKOFF, worked);
        replica.message = message.to_owned();
        let (failures, deployment) = (replica.backoff.failures(), replica.deployment);
        self.totals.replica_failures += 1;
        warn!(replica = %id, failures, wait_s = wait.as_secs(), error = message, "replica failed");
        if let Some(worker) = self.replicas.get(id).and_then(|r| r.worker.clone()) {
            self.stray(id, ReplicaState::Failed);
            self.drain(&worker, id, actions);
            self.deployments[deployment].shunned.insert(worker);
        }
        if let Some(replica) = self.replicas.get_mut(id) {
            replica.worker = None;
        }
        self.enter(id, Phase::Failed { retry: now + wait });
    }

    /// Moves a replica from its worker's wanted ones to its strays.
    pub(super) fn stray(&mut self, id: &str, state: ReplicaState) {
        let Some(replica) = self.replicas.get_mut(id) else {
            return;
        };
        let deployment = &self.deployments[replica.deployment];
        let stray = Stray {
            application: self.apps[deployment.app].name.clone(),
            deployment: deployment.spec.name.clone(),
            need: deployment.spec.need.clone(),
            state,
            message: replica.message.clone(),
            load: replica.load,
        };
        if let Some(worker) = replica
            .worker
            .take()
            .and_then(|worker| self.workers.get_mut(&worker))
        {
            worker.replicas.remove(id);
            worker.strays.insert(id.to_owned(), stray);
        }
    }

    /// Tells a worker to stop a replica. One whose stream is broken is told when it is back.
    pub(super) fn drain(&self, worker: &str, id: &str, actions: &mut Vec<Action>) {
        let Some(here) = self.workers.get(worker) else {
            return;
        };
        let (Some(session), Some(stray)) = (here.session, here.strays.get(id)) else {
            return;
        };
        let wanted = self
            .deployments
            .iter()
            .find(|d| d.spec.name == stray.deployment && self.apps[d.app].name == stray.application);
        let grace = match wanted {
            _ if stray.state == ReplicaState::Failed => Time::ZERO,
            Some(deployment) => deployment.spec.grace,
            None => DEFAULT_GRACE,
        };
        let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        let drain = pb::Drain {
            replica_id: id.to_owned(),
            grace_ms,
        };
        actions.push(Action::Send {
            session,
            command: Box::new(Command::Drain(drain)),
        });
    }

    /// Tells a replica's worker to start it.
    pub(super) fn assign(&self, id: &str, actions: &mut Vec<Action>) {
        let Some(replica) = self.replicas.get(id) else {
            return;
        };
        let worker = replica
            .worker
            .as_ref()
            .and_then(|worker| self.workers.get(worker));
        if let Some(session) = worker.and_then(|worker| worker.session) {
            let replica = Some(self.replica_spec(id, replica.deployment));
            actions.push(Action::Send {
                session,
                command: Box::new(Command::Assign(pb::Assign { replica })),
            });
        }
    }
}

/// For replicas of deployments that the intent does not know; Ray's `graceful_shutdown_timeout_s`.
const DEFAULT_GRACE: Time = Time::from_secs(20);
