//! What holds whatever happens.

use std::collections::{BTreeMap, BTreeSet};

use mobula_serving::place::UNIT;

use super::{
    super::{
        lockstep::Parts,
        model::{Key, Phase},
    },
    world::World,
};

impl World {
    /// What runs, by deployment.
    pub(super) fn running(&self) -> BTreeMap<Key, BTreeSet<String>> {
        let deployments = self.state.deployments.iter();
        deployments.map(|(key, d)| (*key, d.running.clone())).collect()
    }

    /// Nothing that runs is stopped while fewer than wanted would be left, unless there was no room for more.
    pub(super) fn check_stops(&self, before: &BTreeMap<Key, BTreeSet<String>>) {
        for (key, deployment) in &self.state.deployments {
            let forced = deployment.rollout.as_ref().is_some_and(|rollout| rollout.forced);
            if deployment.deleting || forced || self.gangs {
                continue;
            }
            let ran = before.get(key).cloned().unwrap_or_default();
            let stopped = deployment.stopping.iter().filter(|(worker, id)| {
                let stray = &self.state.workers[worker].strays[id];
                ran.contains(id) && stray.undrained
            });
            assert!(
                stopped.count() == 0 || deployment.running.len() >= deployment.target,
                "{}: {} of {} are left",
                deployment.name(),
                deployment.running.len(),
                deployment.target
            );
        }
    }

    /// Nothing that runs of a split application is stopped so that no model has a replica of every part, unless there was no
    /// room for both.
    pub(super) fn check_parts(&self, before: &BTreeMap<Key, BTreeSet<String>>) {
        for (name, app) in &self.state.apps {
            let Some((keys, parts)) = self.state.parts(name) else {
                continue;
            };
            let of = |key: &Key| &self.state.deployments[key];
            let is_apart = |key: &Key| of(key).rollout.as_ref().is_some_and(|rollout| rollout.apart);
            if app.deleting || keys.iter().any(is_apart) {
                continue;
            }
            let mut with_stopped = parts.clone();
            for (key, part) in keys.iter().zip(&mut with_stopped.0) {
                for (worker, id) in &of(key).stopping {
                    let stray = &self.state.workers[worker].strays[id];
                    let ran = before.get(key).is_some_and(|before| before.contains(id));
                    if ran && stray.undrained {
                        part.models.entry(stray.weights.clone()).or_default().running += 1;
                    }
                }
            }
            let serves = |parts: &Parts| parts.models().into_iter().any(|model| parts.serves(model));
            assert!(
                serves(&parts) || !serves(&with_stopped),
                "no model has every part any more: {with_stopped:?}, now {parts:?}"
            );
        }
    }

    /// Whatever happens, this holds.
    pub(super) fn check(&self) {
        let state = &self.state;
        for deployment in state.deployments.values() {
            let (all, target) = (deployment.replicas.len(), deployment.target);
            if deployment.deleting {
                continue;
            }
            if deployment.outdated.is_empty() {
                // While workers of an earlier life may come back, what runs is left alone whatever is wanted.
                let waits = state.grace.is_some() && all > target && deployment.pending.is_empty();
                assert!(
                    all == target || waits,
                    "{}: {all} for {target}",
                    deployment.name()
                );
            } else if state.grace.is_none() {
                // More than that may run only because it was there already, or because old gangs leave as a whole.
                let old = deployment
                    .outdated
                    .iter()
                    .map(|id| state.replicas[id].spec.gang() - 1);
                assert!(
                    all <= target + deployment.surge() + old.max().unwrap_or(0)
                        || deployment.running.len() == all,
                    "{}: {all} for {target}",
                    deployment.name()
                );
            }
            assert!(deployment.steady.is_subset(&deployment.running));
            assert!(deployment.steady.is_disjoint(&deployment.outdated));
        }
        assert_eq!(
            state.replicas.len(),
            state
                .deployments
                .values()
                .map(|d| d.replicas.len())
                .sum::<usize>()
        );
        for (id, replica) in &state.replicas {
            let deployment = &state.deployments[&replica.deployment];
            let sets = (
                deployment.pending.contains(id),
                deployment.running.contains(id),
                deployment.failed.contains(id),
            );
            assert_eq!(
                deployment.outdated.contains(id),
                replica.spec.version != deployment.spec.version
            );
            let (expected, placed) = match replica.phase {
                Phase::Pending => ((true, false, false), false),
                Phase::Starting => ((false, false, false), true),
                Phase::Running { .. } => ((false, true, false), true),
                Phase::Failed { retry } => {
                    assert!(state.retries.contains(&(retry, id.clone())));
                    ((false, false, true), false)
                }
            };
            assert_eq!(sets, expected, "{id} {:?}", replica.phase);
            assert_eq!(replica.worker.is_some(), placed, "{id} {:?}", replica.phase);
            if let Some(worker) = &replica.worker {
                assert!(state.workers[worker].replicas.contains(id));
            }
        }
        let failed = state.deployments.values().map(|d| d.failed.len()).sum::<usize>();
        assert_eq!(state.retries.len(), failed);
        for (id, worker) in &state.workers {
            for replica in &worker.replicas {
                assert_eq!(state.replicas[replica].worker.as_ref(), Some(id));
                assert!(!worker.strays.contains_key(replica));
            }
            for (stray, of) in &worker.strays {
                if let Some(deployment) = of.deployment.and_then(|key| state.deployments.get(&key)) {
                    assert!(deployment.stopping.contains(&(id.clone(), stray.clone())));
                }
            }
            assert!(
                state.used(worker).fits(&worker.capacity),
                "{id} is over its capacity"
            );
            let mut given: BTreeMap<usize, u64> = BTreeMap::new();
            for replica in worker.replicas.iter().map(|replica| &state.replicas[replica]) {
                for gpu in &replica.devices {
                    *given.entry(*gpu).or_default() += replica.spec.config.need.gpus.min(UNIT);
                }
            }
            assert!(given.values().all(|share| *share <= UNIT), "{id}: {given:?}");
            assert!(state.leases.age(id, self.now).is_some(), "{id} has no lease");
        }
        for (session, worker) in &state.sessions {
            assert_eq!(state.workers[worker].session, Some(*session));
        }
    }
}
