//! What follows from a replica that failed: when it is tried again, and whether another try can help.
//!
//! A worker says when the assignment itself is at fault (the model is missing, an option is unknown). Such a failure tells of
//! that worker alone, since another may have the model: the others are tried at once, and when none is left, or the replica
//! came to the same worker again for want of room elsewhere, nothing remains to be found out. All other failures may pass;
//! they are counted, with growing waits between the tries.

use mobula_proto::control::v1::ReplicaState;
use tracing::warn;

use super::{
    Action, REPLICA_BACKOFF, State, Time,
    condition::Happened,
    model::{Key, Phase},
};

impl State {
    /// Books a failure, with what was said of it and whether it is permanent there; the replica is tried again later under
    /// another id.
    pub(super) fn fail(
        &mut self,
        id: &str,
        (message, permanent): (&str, bool),
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let Some(replica) = self.replicas.get_mut(id) else {
            return;
        };
        let (key, phase, last_resort) = (replica.deployment, replica.phase, replica.last_resort);
        let worked = match phase {
            Phase::Running { since } => now.saturating_sub(since),
            Phase::Pending | Phase::Starting | Phase::Failed { .. } => Time::ZERO,
        };
        let wait = replica.record.failures.fail(&REPLICA_BACKOFF, worked);
        replica.message = message.to_owned();
        let failures = replica.record.failures.failures();
        self.totals.replica_failures += 1;
        warn!(replica = %id, failures, permanent, error = message, "replica failed");
        if phase.is_running() {
            self.health_failed(id, message);
        }
        self.restart_gang(id, now, actions);
        let worker = self.replicas.get(id).and_then(|r| r.worker.clone());
        if let Some(worker) = &worker {
            self.stray(id, ReplicaState::Failed);
            self.drain(worker, id, actions);
        }
        let Some(deployment) = self.deployments.get_mut(&key) else {
            return;
        };
        if deployment.outdated.contains(id) {
            // The update makes what takes its place.
            self.remove_replica(id);
            return;
        }
        deployment.failures.count = deployment.failures.count.saturating_add(1);
        message.clone_into(&mut deployment.failures.last);
        deployment.shunned.extend(worker.clone());
        let hopeless = worker.filter(|_| permanent);
        let wait = match hopeless {
            Some(worker) if self.is_elsewhere_to_try(key, &worker, last_resort) => Time::ZERO,
            Some(_) | None => wait,
        };
        self.enter(id, Phase::Failed { retry: now + wait });
    }

    /// Books that a replica's start failed for good on a worker. True if another worker may do better, which is found out at
    /// once; one that was tried again for want of another is the last.
    fn is_elsewhere_to_try(&mut self, key: Key, worker: &str, last_resort: bool) -> bool {
        let Some(deployment) = self.deployments.get_mut(&key) else {
            return false;
        };
        let failures = &mut deployment.failures;
        failures.hopeless.insert(worker.to_owned());
        let mut others = self.workers.iter().filter(|(id, worker)| {
            worker.kind == deployment.spec.config.kind
                && worker.takes_replicas()
                && !failures.hopeless.contains(*id)
        });
        let elsewhere = !last_resort && others.next().is_some();
        failures.are_final |= !elsewhere;
        elsewhere && !failures.are_enough(&deployment.spec)
    }

    /// Books that a replica that ran does so no more, though nobody asked for it.
    pub(super) fn health_failed(&mut self, id: &str, why: &str) {
        if let Some(key) = self.replicas.get(id).map(|replica| replica.deployment)
            && let Some(deployment) = self.deployments.get_mut(&key)
        {
            let message = format!("replica {id} failed: {why}");
            deployment.condition.handle(Happened::HealthCheckFailed, &message);
        }
    }
}
