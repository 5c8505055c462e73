//! One deployment: from the replicas that it has to those that it should have.
//!
//! Runs only for deployments that something happened to, and does nothing when run again; what there is to do in a steady
//! state is told by counts alone.

use std::collections::BTreeMap;

use mobula_proto::control::v1::ReplicaState;
use tracing::info;

use super::{
    Action, State, Time,
    condition::Happened,
    model::{Deployment, Key, Outlook, Phase, Record},
};

/// Between the route table without a replica and the word to the replica that it stops: ten times what lies between two
/// tables, for the way to the proxies. A request that comes later all the same is refused and goes elsewhere.
pub(super) const DRAIN_DELAY: Time = Time::from_millis(100);

impl State {
    /// Brings a deployment's replicas and its intent together.
    pub(super) fn reconcile(&mut self, key: Key, now: Time, actions: &mut Vec<Action>) {
        let Some(deployment) = self.deployments.get(&key) else {
            return;
        };
        if deployment.deleting {
            self.leave(key, now, actions);
            return;
        }
        self.tell_scaler(key, now, actions);
        // While workers of an earlier life may come back nothing of theirs is stopped: they are not all counted yet.
        if self.grace.is_none() {
            self.replace_outdated(key, now, actions);
        }
        self.match_count(key, now, actions);
        if self.grace.is_none() {
            self.judge_update(key, now, actions);
            self.judge(key);
        }
        self.look_ahead(key);
    }

    /// Adds what is missing, takes away what is too much.
    fn match_count(&mut self, key: Key, now: Time, actions: &mut Vec<Action>) {
        let Some(deployment) = self.deployments.get(&key) else {
            return;
        };
        let (wanted, current, target) = (self.wanted(key), deployment.current(), deployment.target);
        if current < wanted {
            for gang in self.seats(key, wanted - current) {
                self.add_replica(key, gang, Record::default(), now);
            }
        } else if current > wanted {
            let deployment = &self.deployments[&key];
            let unplaced: Vec<String> = deployment
                .pending
                .union(&deployment.failed)
                .filter(|id| !deployment.outdated.contains(*id))
                .cloned()
                .collect();
            let mut leave = self.victims(&unplaced, current - wanted);
            let left = current - leave.len();
            // What runs goes only when it is more than is wanted in the end.
            let runs = deployment.updated();
            let bound = if self.grace.is_none() {
                wanted.max(runs.min(target))
            } else {
                left
            };
            if left > bound {
                let rest: Vec<String> = deployment
                    .replicas
                    .difference(&deployment.outdated)
                    .filter(|id| !leave.contains(id))
                    .cloned()
                    .collect();
                leave.extend(self.victims(&rest, left - bound));
            }
            for id in leave {
                info!(replica = %id, "replica is not needed any more");
                self.retire(&id, actions);
            }
        }
    }

    /// The gangs that new replicas belong to: first those that lack members, then new ones (none).
    fn seats(&mut self, key: Key, count: usize) -> Vec<Option<String>> {
        let Some(deployment) = self.deployments.get(&key) else {
            return Vec::new();
        };
        let size = deployment.spec.gang();
        if size == 1 {
            return vec![None; count];
        }
        let mut gangs: BTreeMap<&str, usize> = BTreeMap::new();
        for id in deployment.replicas.difference(&deployment.outdated) {
            if let Some(replica) = self.replicas.get(id) {
                *gangs.entry(&replica.gang).or_default() += 1;
            }
        }
        let lacking = gangs.into_iter().flat_map(|(gang, members)| {
            std::iter::repeat_n(Some(gang.to_owned()), size.saturating_sub(members))
        });
        let mut seats: Vec<Option<String>> = lacking.take(count).collect();
        while seats.len() < count {
            let gang = self.names.draw();
            let members = size.min(count - seats.len());
            seats.extend(std::iter::repeat_n(Some(gang), members));
        }
        seats
    }

    /// Has a replica leave: out of the route table at once, and told to stop when the proxies have had the table.
    pub(super) fn retire(&mut self, id: &str, actions: &mut Vec<Action>) {
        let Some(replica) = self.replicas.get(id) else {
            return;
        };
        let worker = replica.worker.clone();
        let routed = replica.phase.is_running();
        if let Some(worker) = worker {
            self.stray(id, ReplicaState::Stopping);
            if routed {
                if let Some(stray) = self.stray_mut(&worker, id) {
                    stray.undrained = true;
                }
                self.unpublished.push((worker, id.to_owned()));
            } else {
                self.drain(&worker, id, actions);
            }
        }
        self.remove_replica(id);
    }

    /// Enters those that are not in the table that is published now: they are told to stop a little later.
    pub(super) fn schedule_drains(&mut self, now: Time) {
        let at = now + DRAIN_DELAY;
        let leaving = self.unpublished.drain(..);
        self.drains.extend(leaving.map(|(worker, id)| (at, worker, id)));
    }

    /// Tells those to stop whose time has come.
    pub(super) fn send_drains(&mut self, now: Time, actions: &mut Vec<Action>) {
        while let Some((_, worker, id)) = self.drains.first().filter(|(at, ..)| *at <= now).cloned() {
            self.drains.pop_first();
            if let Some(stray) = self.stray_mut(&worker, &id)
                && std::mem::take(&mut stray.undrained)
            {
                self.drain(&worker, &id, actions);
            }
        }
    }

    /// Takes away what is left of a deployment that is deleted, and then itself.
    pub(super) fn clear(&mut self, key: Key, actions: &mut Vec<Action>) {
        let Some(deployment) = self.deployments.get(&key) else {
            return;
        };
        let replicas: Vec<String> = deployment.replicas.iter().cloned().collect();
        for id in replicas {
            self.retire(&id, actions);
        }
        let Some(deployment) = self.deployments.get(&key) else {
            return;
        };
        if !deployment.stopping.is_empty() {
            return;
        }
        let (name, app) = (deployment.name().to_owned(), deployment.app.clone());
        info!(%app, deployment = %name, "deployment is gone");
        self.deployments.remove(&key);
        self.routes.changed = true;
        if let Some(state) = self.apps.get_mut(&app) {
            state.deployments.retain(|other| *other != key);
            // What stayed for its sake goes now, how many of them there may be.
            self.dirty.extend(&state.deployments);
            if state.deleting && state.deployments.is_empty() {
                self.apps.remove(&app);
                info!(%app, "application is gone");
            }
        }
    }

    /// Takes in whether the deployment is well.
    fn judge(&mut self, key: Key) {
        let failing = self.failing(key);
        let Some(deployment) = self.deployments.get_mut(&key) else {
            return;
        };
        let settled = deployment.outdated.is_empty()
            && deployment.replicas.len() == deployment.target
            && deployment.running.len() == deployment.target
            && deployment.stopping.is_empty()
            && deployment.unlit.is_empty();
        // After a rollback it is well again, but not as it was asked to be: only another config ends that.
        let agreed = deployment.spec.version == deployment.intended.version;
        if settled && agreed {
            deployment.condition.handle(Happened::Healthy, "");
        } else if let Some(message) = failing {
            deployment.condition.handle(Happened::StartupFailed, &message);
        } else if deployment.running.is_empty() && deployment.target > 0 {
            let was_well = deployment.condition.state == mobula_proto::control::v1::DeploymentState::Healthy;
            if was_well {
                deployment
                    .condition
                    .handle(Happened::HealthCheckFailed, "no replica is left");
            }
        }
    }

    /// Why the deployment counts as one that fails to start, if it does.
    fn failing(&self, key: Key) -> Option<String> {
        let deployment = self.deployments.get(&key)?;
        if deployment.failures.are_enough(&deployment.spec) {
            return Some(deployment.failures.told());
        }
        if deployment.pending.is_empty() {
            return None;
        }
        self.failing_starts(deployment.spec.config.kind)
    }

    /// Whether somebody else counts its replicas, sees that requests wait, and may have it run again.
    fn is_scaled_from_outside(&self, deployment: &Deployment) -> bool {
        let app = self.apps.get(&deployment.app);
        app.is_some_and(|app| app.external_scaler) && self.intent.config.options.target_capacity != Some(0.0)
    }

    /// Books what callers may expect when there is no replica.
    fn look_ahead(&mut self, key: Key) {
        let Some(deployment) = self.deployments.get(&key) else {
            return;
        };
        let failing = deployment.running.is_empty().then(|| self.failing(key)).flatten();
        let why_none = match failing {
            Some(why) => why,
            None if deployment.target == 0
                && !self.is_scaled(key)
                && !self.is_scaled_from_outside(deployment) =>
            {
                format!("{} has 0 replicas, as its config says", deployment.name())
            }
            None => String::new(),
        };
        let outlook = Outlook {
            expected: why_none.is_empty(),
            why_none,
        };
        if let Some(deployment) = self.deployments.get_mut(&key)
            && deployment.outlook != outlook
        {
            deployment.outlook = outlook;
            self.routes.changed = true;
        }
    }

    /// Stops the other members of a replica's gang and has them placed anew with it, if the gang stands and falls as one.
    pub(super) fn restart_gang(&mut self, id: &str, now: Time, actions: &mut Vec<Action>) {
        let Some(replica) = self.replicas.get(id) else {
            return;
        };
        let placing = &replica.spec.config.placing;
        let Some(deployment) = self
            .deployments
            .get(&replica.deployment)
            .filter(|_| placing.gang > 1 && placing.gang_restart)
        else {
            return;
        };
        let gang = replica.gang.clone();
        let others: Vec<String> = deployment
            .replicas
            .iter()
            .filter(|other| {
                *other != id
                    && self.replicas.get(*other).is_some_and(|other| {
                        other.gang == gang && matches!(other.phase, Phase::Running { .. } | Phase::Starting)
                    })
            })
            .cloned()
            .collect();
        for other in others {
            info!(replica = %other, failed = %id, "replica is started anew with its gang");
            if let Some(worker) = self.replicas.get(&other).and_then(|r| r.worker.clone()) {
                self.stray(&other, ReplicaState::Stopping);
                self.drain(&worker, &other, actions);
            }
            self.requeue(&other, now);
        }
    }
}
