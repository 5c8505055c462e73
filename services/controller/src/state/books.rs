//! The replicas and the indexes over them: the one place where a replica comes, goes, or changes its phase.

use super::{
    State, Time,
    model::{Key, Phase, Record, Replica},
};

/// Deployments of an application that is not split: one tokenizes, one draws.
const WHOLE: usize = 2;

impl State {
    /// Makes a new pending replica of a deployment as it shall be; of this gang, or of a new one.
    pub(super) fn add_replica(&mut self, key: Key, gang: Option<String>, record: Record, now: Time) {
        let Some(deployment) = self.deployments.get(&key) else {
            return;
        };
        let spec = deployment.spec.clone();
        let prefix = format!("{}#{}#", deployment.app, deployment.name());
        loop {
            let gang = gang.clone().unwrap_or_else(|| self.names.draw());
            let id = if spec.gang() > 1 {
                format!("{prefix}{gang}-{}", self.names.draw())
            } else {
                // Alone in its gang: a replica that takes its place is another gang.
                format!("{prefix}{}", self.names.draw())
            };
            if !self.replicas.contains_key(&id) {
                self.insert_replica(id, Replica::new(key, spec, gang, record, now));
                return;
            }
        }
    }

    /// Puts a pending replica into the books.
    pub(super) fn insert_replica(&mut self, id: String, replica: Replica) {
        let Some(deployment) = self.deployments.get_mut(&replica.deployment) else {
            return;
        };
        if replica.spec.version != deployment.spec.version {
            deployment.outdated.insert(id.clone());
        }
        deployment.replicas.insert(id.clone());
        self.replicas.insert(id.clone(), replica);
        self.enter(&id, Phase::Pending);
    }

    /// Moves a replica to a phase and keeps every index that depends on it.
    pub(super) fn enter(&mut self, id: &str, phase: Phase) {
        let Some(replica) = self.replicas.get_mut(id) else {
            return;
        };
        let Some(deployment) = self.deployments.get_mut(&replica.deployment) else {
            return;
        };
        match replica.phase {
            Phase::Pending => drop(deployment.pending.remove(id)),
            Phase::Starting => {}
            Phase::Running { .. } => {
                deployment.running.remove(id);
                deployment.steady.remove(id);
                deployment.unlit.remove(id);
            }
            Phase::Failed { retry } => {
                deployment.failed.remove(id);
                self.retries.remove(&(retry, id.to_owned()));
            }
        }
        match phase {
            Phase::Pending => {
                deployment.pending.insert(id.to_owned());
                self.room_changed = true;
            }
            Phase::Starting => {}
            Phase::Running { .. } => drop(deployment.running.insert(id.to_owned())),
            Phase::Failed { retry } => {
                deployment.failed.insert(id.to_owned());
                self.retries.insert((retry, id.to_owned()));
            }
        }
        self.routes.changed |= phase.is_running() != replica.phase.is_running();
        replica.phase = phase;
        let key = replica.deployment;
        self.touch(key);
    }

    /// Takes a replica out of the state and off its worker's books.
    pub(super) fn remove_replica(&mut self, id: &str) -> Option<Replica> {
        self.enter(id, Phase::Pending);
        let replica = self.replicas.remove(id)?;
        if let Some(deployment) = self.deployments.get_mut(&replica.deployment) {
            for set in [
                &mut deployment.pending,
                &mut deployment.replicas,
                &mut deployment.outdated,
            ] {
                set.remove(id);
            }
        }
        let worker = replica.worker.as_ref();
        if let Some(worker) = worker.and_then(|worker| self.workers.get_mut(worker)) {
            worker.replicas.remove(id);
            self.room_changed = true;
        }
        Some(replica)
    }

    /// Replaces a replica that is gone by a pending one with another id. One that was outdated is not replaced by its
    /// like: the update makes what it needs.
    pub(super) fn requeue(&mut self, id: &str, now: Time) {
        if let Some(replica) = self.remove_replica(id)
            && let Some(deployment) = self.deployments.get(&replica.deployment)
            && replica.spec.version == deployment.spec.version
        {
            let gang = Some(replica.gang).filter(|_| replica.spec.gang() > 1);
            self.add_replica(replica.deployment, gang, replica.record, now);
        }
    }

    /// Has a deployment looked at when the state settles next; where its application has several that go in step, all of them.
    pub(super) fn touch(&mut self, key: Key) {
        self.dirty.insert(key);
        let app = self.deployments.get(&key).and_then(|d| self.apps.get(&d.app));
        if let Some(app) = app.filter(|app| app.deployments.len() > WHOLE) {
            self.dirty.extend(&app.deployments);
        }
    }

    /// Has it looked at then.
    pub(super) fn wake_at(&mut self, at: Time, key: Key) {
        self.wakes.insert((at, key));
    }

    pub(super) fn find(&self, app: &str, name: &str) -> Option<Key> {
        let keys = self.apps.get(app)?.deployments.iter();
        keys.copied()
            .find(|key| self.deployments.get(key).is_some_and(|d| d.name() == name))
    }
}
