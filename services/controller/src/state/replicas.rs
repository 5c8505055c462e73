//! What workers say of their replicas, and what follows from it.

use std::collections::BTreeSet;

use mobula_proto::control::v1::{self as pb, ReplicaState, attach_response::Message as Command};
use tracing::{info, warn};

use super::{
    Action, State, Time,
    convert::{amounts_of, devices_of, millis32, replica_spec},
    model::{Key, Phase, Stray},
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
                self.update(worker, report, hello, now, actions);
            } else {
                self.unwanted(worker, report, hello, now, actions);
            }
        }
        let Some(here) = self.workers.get_mut(worker) else {
            return;
        };
        let missing: Vec<String> = here.replicas.difference(&seen).cloned().collect();
        let over: Vec<String> = here
            .strays
            .keys()
            .filter(|id| !seen.contains(*id))
            .cloned()
            .collect();
        for id in over {
            self.forget_stray(worker, &id);
        }
        for id in missing {
            self.missing(&id, hello, now, actions);
        }
    }

    /// A wanted replica reports from where it should be.
    fn update(
        &mut self,
        worker: &str,
        report: pb::ReplicaReport,
        hello: bool,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let state = report.state();
        let id = report.replica_id;
        let Some(replica) = self.replicas.get_mut(&id) else {
            return;
        };
        replica.seen = true;
        replica.message = report.message;
        replica.light = report.light;
        if replica.load != report.load {
            replica.load = report.load;
            self.routes.loads_changed = true;
        }
        if replica.model != report.model || replica.models != report.models {
            replica.model = report.model;
            replica.models = report.models;
            self.routes.changed = true;
        }
        let phase = replica.phase;
        match state {
            ReplicaState::Running => {
                if !phase.is_running() {
                    info!(replica = %id, worker, took_ms = now.saturating_sub(replica.assigned).as_millis(), "replica runs");
                    self.runs(&id, worker, now);
                }
                self.tell_light(&id, hello, now, actions);
            }
            ReplicaState::Starting | ReplicaState::Pending | ReplicaState::Unspecified => {
                if phase != Phase::Starting {
                    self.enter(&id, Phase::Starting);
                }
            }
            ReplicaState::Failed => {
                let message = replica.message.clone();
                let permanent = report.permanent && !phase.is_running();
                self.fail(&id, (&message, permanent), now, actions);
            }
            // We did not ask for it, so the worker itself leaves: it keeps what it finishes, we start another elsewhere.
            ReplicaState::Stopping => {
                if !self.dismissed.contains(worker) {
                    info!(replica = %id, worker, "worker drains by itself; its replica is placed again");
                }
                self.stray(&id, ReplicaState::Stopping);
                self.requeue(&id, now);
                if let Some(worker) = self.workers.get_mut(worker) {
                    worker.leaving = true;
                }
            }
        }
    }

    /// Books that a replica takes requests from now on.
    fn runs(&mut self, id: &str, worker: &str, now: Time) {
        if let Some(replica) = self.replicas.get(id) {
            self.note_startup(replica.deployment, now.saturating_sub(replica.made));
        }
        self.enter(id, Phase::Running { since: now });
        self.gates.insert((now + self.gate(), id.to_owned()));
        if let Some(key) = self.replicas.get(id).map(|replica| replica.deployment)
            && let Some(deployment) = self.deployments.get_mut(&key)
        {
            deployment.shunned.remove(worker);
            deployment.failures.hopeless.remove(worker);
        }
    }

    /// Tells a running replica of a light change, unless it is in force or on its way.
    pub(super) fn tell_light(&mut self, id: &str, hello: bool, now: Time, actions: &mut Vec<Action>) {
        let lease = self.lease_term();
        let Some(replica) = self.replicas.get_mut(id) else {
            return;
        };
        let Some(deployment) = self.deployments.get_mut(&replica.deployment) else {
            return;
        };
        let light = &replica.spec.light;
        if replica.light == *light {
            if deployment.unlit.remove(id) {
                self.dirty.insert(replica.deployment);
            }
            return;
        }
        // One without a worker learns it when it is assigned.
        if replica.worker.is_none() {
            return;
        }
        let says = !replica.light.is_empty();
        if says && replica.phase.is_running() {
            deployment.unlit.insert(id.to_owned());
        }
        // A worker that does not say what is in force is believed; one that does is told again when the word was lost.
        let told = replica.told.as_ref().filter(|(told, _)| told == light);
        let lately = told.is_some_and(|(_, at)| !says || now < *at + lease);
        if lately && !hello {
            return;
        }
        replica.told = Some((light.clone(), now));
        let worker = replica
            .worker
            .as_ref()
            .and_then(|worker| self.workers.get(worker));
        if let Some(session) = worker.and_then(|worker| worker.session) {
            let command = Command::Reconfigure(pb::Reconfigure {
                replica_id: id.to_owned(),
                light: Some(super::convert::light_config(&replica.spec.config)),
            });
            actions.push(Action::Send {
                session,
                command: Box::new(command),
            });
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
            self.room_changed |= stray.state != state;
            (stray.state, stray.message, stray.load) = (state, report.message, report.load);
            if hello && state != ReplicaState::Stopping && !stray.undrained {
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
        let deployment = self.find(&spec.application, &spec.deployment);
        let grace = deployment.and_then(|key| self.deployments.get(&key));
        let stray = Stray {
            deployment,
            devices: devices_of(&spec.gpus),
            need: amounts_of(&spec.resources.unwrap_or_default()),
            grace: grace.map_or(DEFAULT_GRACE, |d| d.spec.config.grace),
            state,
            message: report.message,
            load: report.load,
            version: spec.version,
            weights: String::new(),
            made: now,
            undrained: false,
        };
        info!(replica = %report.replica_id, worker, "replica is not wanted and is drained");
        self.add_stray(worker, &report.replica_id, stray);
        if state != ReplicaState::Stopping {
            self.drain(worker, &report.replica_id, actions);
        }
    }

    /// A replica that should be on a worker is not in its list.
    fn missing(&mut self, id: &str, hello: bool, now: Time, actions: &mut Vec<Action>) {
        let lease = self.lease_term();
        let Some(replica) = self.replicas.get_mut(id) else {
            return;
        };
        if !replica.seen {
            // The list may be older than the assignment; after a lease's time, or a new stream, the assignment was lost.
            if hello || now.saturating_sub(replica.assigned) >= lease {
                replica.assigned = now;
                self.assign(id, now, actions);
            }
        } else if matches!(replica.phase, Phase::Running { .. }) {
            warn!(replica = %id, "replica vanished: its worker was started anew");
            self.health_failed(id, "it vanished: its worker was started anew");
            self.restart_gang(id, now, actions);
            self.requeue(id, now);
        } else {
            self.fail(id, ("its worker ended while it started", false), now, actions);
        }
    }

    /// Moves a replica from its worker's wanted ones to its strays.
    pub(super) fn stray(&mut self, id: &str, state: ReplicaState) {
        let Some(replica) = self.replicas.get_mut(id) else {
            return;
        };
        let stray = Stray {
            deployment: Some(replica.deployment),
            need: replica.spec.config.need.clone(),
            devices: replica.devices.clone(),
            grace: replica.spec.config.grace,
            state,
            message: replica.message.clone(),
            load: replica.load,
            version: replica.spec.version.clone(),
            weights: replica.spec.weights.clone(),
            made: replica.made,
            undrained: false,
        };
        if let Some(worker) = replica.worker.take() {
            if let Some(here) = self.workers.get_mut(&worker) {
                here.replicas.remove(id);
            }
            self.add_stray(&worker, id, stray);
        }
    }

    pub(super) fn add_stray(&mut self, worker: &str, id: &str, stray: Stray) {
        let Some(here) = self.workers.get_mut(worker) else {
            return;
        };
        if let Some(deployment) = stray.deployment.and_then(|key| self.deployments.get_mut(&key)) {
            deployment.stopping.insert((worker.to_owned(), id.to_owned()));
        }
        here.strays.insert(id.to_owned(), stray);
        self.room_changed = true;
    }

    pub(super) fn stray_mut(&mut self, worker: &str, id: &str) -> Option<&mut Stray> {
        self.workers.get_mut(worker)?.strays.get_mut(id)
    }

    pub(super) fn forget_stray(&mut self, worker: &str, id: &str) {
        let Some(here) = self.workers.get_mut(worker) else {
            return;
        };
        if let Some(stray) = here.strays.remove(id) {
            self.unbook_stray(stray.deployment, worker, id);
        }
    }

    /// Takes a stray that is gone out of its deployment's books.
    pub(super) fn unbook_stray(&mut self, key: Option<Key>, worker: &str, id: &str) {
        self.room_changed = true;
        if let Some(key) = key
            && let Some(deployment) = self.deployments.get_mut(&key)
        {
            deployment.stopping.remove(&(worker.to_owned(), id.to_owned()));
            self.touch(key);
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
        let grace = match stray.state {
            ReplicaState::Failed => Time::ZERO,
            ReplicaState::Unspecified
            | ReplicaState::Pending
            | ReplicaState::Starting
            | ReplicaState::Running
            | ReplicaState::Stopping => stray.grace,
        };
        let drain = pb::Drain {
            replica_id: id.to_owned(),
            grace_ms: millis32(grace),
        };
        actions.push(Action::Send {
            session,
            command: Box::new(Command::Drain(drain)),
        });
    }

    /// Tells a replica's worker to start it.
    pub(super) fn assign(&mut self, id: &str, now: Time, actions: &mut Vec<Action>) {
        let Some(replica) = self.replicas.get_mut(id) else {
            return;
        };
        replica.told = Some((replica.spec.light.clone(), now));
        let Some(deployment) = self.deployments.get(&replica.deployment) else {
            return;
        };
        let hopeless = &deployment.failures.hopeless;
        replica.last_resort = replica
            .worker
            .as_ref()
            .is_some_and(|worker| hopeless.contains(worker));
        let worker = replica
            .worker
            .as_ref()
            .and_then(|worker| self.workers.get(worker));
        if let Some(session) = worker.and_then(|worker| worker.session) {
            let replica = Some(replica_spec(id, &deployment.app, replica));
            actions.push(Action::Send {
                session,
                command: Box::new(Command::Assign(pb::Assign { replica })),
            });
        }
    }
}

/// For replicas of deployments that the intent does not know; Ray's `graceful_shutdown_timeout_s`.
const DEFAULT_GRACE: Time = Time::from_secs(20);
