//! The parts of a split application as [`super::lockstep`] sees them.

use std::collections::BTreeMap;

use mobula_schema::Stage;
use mobula_serving::place::Kind;

use super::{
    State,
    lockstep::{Count, Hold, Part, Parts},
    model::{Deployment, Key},
};

impl State {
    /// The parts of an application, if it is split, and their deployments in the same order.
    pub(super) fn parts(&self, app: &str) -> Option<(Vec<Key>, Parts)> {
        let keys = self.apps.get(app)?.deployments.iter().copied();
        let is_part = |deployment: &Deployment| {
            let config = &deployment.spec.config;
            !deployment.deleting && config.kind == Kind::Inference && !config.stages.is_empty()
        };
        let (keys, parts): (Vec<Key>, Vec<Part>) = keys
            .filter_map(|key| Some((key, self.deployments.get(&key).filter(|d| is_part(d))?)))
            .map(|(key, deployment)| (key, self.part(deployment)))
            .unzip();
        (parts.len() > 1).then_some((keys, Parts(parts)))
    }

    fn part(&self, deployment: &Deployment) -> Part {
        let mut models: BTreeMap<String, Count> = BTreeMap::new();
        for id in &deployment.running {
            let Some(replica) = self.replicas.get(id) else {
                continue;
            };
            let count = models.entry(replica.spec.weights.clone()).or_default();
            count.running += 1;
            count.lives += 1;
            let counts = deployment.outdated.contains(id) || deployment.steady.contains(id);
            count.ready += usize::from(counts);
        }
        for (worker, id) in &deployment.stopping {
            let stray = self.workers.get(worker).and_then(|worker| worker.strays.get(id));
            if let Some(stray) = stray.filter(|stray| stray.takes_room()) {
                models.entry(stray.weights.clone()).or_default().lives += 1;
            }
        }
        Part {
            target: deployment.target,
            draws: deployment.spec.config.stages.contains(&Stage::Denoise),
            models,
        }
    }

    /// What a deployment keeps of another model, in step with the other parts of its application.
    pub(super) fn hold(&self, key: Key) -> Option<Hold> {
        let deployment = self.deployments.get(&key)?;
        if deployment.outdated.is_empty() {
            return None;
        }
        let (keys, parts) = self.parts(&deployment.app)?;
        let index = keys.iter().position(|other| *other == key)?;
        parts.hold(index, &deployment.spec.weights)
    }

    /// How many replicas that are as they shall be a deployment should have now.
    pub(super) fn wanted(&self, key: Key) -> usize {
        let Some(deployment) = self.deployments.get(&key) else {
            return 0;
        };
        let mut wanted = deployment.wanted();
        let unit = deployment.spec.gang();
        // What is held here leaves when other parts have come further, and not for one more of this.
        if unit == 1 && self.hold(key).is_some_and(|hold| hold.behind.is_some()) {
            let most = deployment.target + deployment.surge();
            wanted = wanted.min(most.saturating_sub(deployment.outdated.len()));
        }
        if deployment.outdated.is_empty() || wanted <= unit {
            return wanted;
        }
        // Room goes to parts that have none of the new model before it goes to more of the others.
        let begins = self
            .parts(&deployment.app)
            .is_some_and(|(_, parts)| parts.begins(&deployment.spec.weights));
        if begins {
            wanted.min(deployment.updated().max(unit))
        } else {
            wanted
        }
    }

    /// Which of a deployment's running replicas of earlier versions may leave in step with the other parts of its
    /// application, and which are held.
    pub(super) fn held(&self, hold: Option<&Hold>, old: Vec<String>) -> (Vec<String>, Vec<String>) {
        let Some(hold) = hold else {
            return (old, Vec::new());
        };
        let is_held = |id: &String| {
            let replica = self.replicas.get(id);
            replica.is_some_and(|replica| replica.spec.weights == hold.model)
        };
        old.into_iter().partition(|id| !is_held(id))
    }

    /// A replica of another part that leaves to make room for one of this deployment: its part keeps others of its model.
    pub(super) fn makes_room_elsewhere(&self, key: Key) -> Option<(Key, String)> {
        let deployment = self.deployments.get(&key)?;
        let need = &deployment.spec.config.need;
        let (keys, _) = self.parts(&deployment.app)?;
        keys.into_iter().filter(|other| *other != key).find_map(|other| {
            let part = self.deployments.get(&other)?;
            let old = part.outdated.intersection(&part.running).cloned().collect();
            let (_, held) = self.held(self.hold(other).as_ref(), old);
            if part.spec.gang() > 1 || held.len() < 2 {
                return None;
            }
            let fits = |id: &String| {
                let replica = self.replicas.get(id);
                let worker = replica.and_then(|replica| self.workers.get(replica.worker.as_ref()?));
                replica.zip(worker).is_some_and(|(replica, worker)| {
                    let mut used = self.used(worker);
                    used.take(&replica.spec.config.need);
                    let mut free = worker.capacity.clone();
                    free.take(&used);
                    worker.takes_replicas() && need.fits(&free)
                })
            };
            let there: Vec<String> = held.into_iter().filter(fits).collect();
            Some((other, self.victims(&there, 1).pop()?))
        })
    }
}
