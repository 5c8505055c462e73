//! Replicas that are there already: of an earlier life of the controller, or of a worker that was away.
//!
//! What runs is taken as it is whenever it can serve: as one that is wanted, or, in another version than is wanted, as one
//! that an update replaces. Refuses what is one too many.

use mobula_proto::control::v1::{self as pb, ReplicaState, RolloutState};
use tracing::info;

use super::{
    Action, State, Time,
    convert::{devices_of, spec_of},
    model::{Deployment, Phase, Record, Replica, Spec},
    rollout::Rollout,
};

impl State {
    /// Lets a replica that is there already stand for one that is not: for a pending one, for one that waits after a
    /// failure, or, if it runs, for one that only starts. False if no such replica is wanted.
    pub(super) fn adopt(
        &mut self,
        worker: &str,
        report: &pb::ReplicaReport,
        now: Time,
        actions: &mut Vec<Action>,
    ) -> bool {
        let Some(reported) = &report.spec else {
            return false;
        };
        let Some(key) = self.find(&reported.application, &reported.deployment) else {
            return false;
        };
        let Some(deployment) = self.deployments.get(&key).filter(|d| !d.deleting) else {
            return false;
        };
        let runs = report.state() == ReplicaState::Running;
        let spec = if deployment.spec.version == reported.version {
            deployment.spec.clone()
        } else if runs && deployment.running.len() < deployment.target {
            self.known_spec(deployment, reported)
        } else {
            return false;
        };
        let id = &report.replica_id;
        let gang = gang_of(id, &spec);
        if spec.version == deployment.spec.version {
            let Some(stand_in) = self.stand_in(deployment, &gang, runs) else {
                if !self.expect_more(key) {
                    return false;
                }
                return self.take_in(
                    worker,
                    report,
                    Replica::new(key, spec, gang, Record::default(), now),
                    now,
                );
            };
            if let Some(elsewhere) = self.replicas.get(&stand_in).and_then(|r| r.worker.clone()) {
                self.stray(&stand_in, ReplicaState::Stopping);
                self.drain(&elsewhere, &stand_in, actions);
            }
            self.remove_replica(&stand_in);
        } else if let Some(deployment) = self.deployments.get_mut(&key) {
            info!(replica = %id, version = %spec.version, "replica is of an earlier version and serves until it is replaced");
            let from = deployment.proven.get_or_insert_with(|| spec.clone()).clone();
            let from = Some(from).filter(|from| from.version != deployment.spec.version);
            match deployment.rollout.as_mut().filter(|rollout| rollout.is_active()) {
                // It began when nobody had reported in yet, and nothing was known to go back to.
                Some(rollout) if rollout.state == RolloutState::Progressing && rollout.from.is_none() => {
                    rollout.from = from;
                }
                Some(_) => {}
                None => deployment.rollout = Some(Rollout::new(from, now)),
            }
        }
        self.take_in(
            worker,
            report,
            Replica::new(key, spec, gang, Record::default(), now),
            now,
        )
    }

    /// The spec of a replica of another version: that of its like, or as much of it as it tells.
    fn known_spec(&self, deployment: &Deployment, reported: &pb::ReplicaSpec) -> std::sync::Arc<Spec> {
        let like = deployment.outdated.iter().filter_map(|id| self.replicas.get(id));
        like.map(|replica| &replica.spec)
            .chain(&deployment.proven)
            .find(|spec| spec.version == reported.version)
            .cloned()
            .unwrap_or_else(|| spec_of(reported, &deployment.spec))
    }

    /// A replica without which the one that is there already leaves no gap.
    fn stand_in(&self, deployment: &Deployment, gang: &str, runs: bool) -> Option<String> {
        let current = |id: &&String| !deployment.outdated.contains(*id);
        let idle = || {
            deployment
                .pending
                .iter()
                .chain(&deployment.failed)
                .filter(current)
        };
        let same_gang = |id: &&String| self.replicas.get(*id).is_some_and(|r| r.gang == gang);
        // Members of gangs are taken from as few others as can be: those that have lost one already go first.
        let size = deployment.spec.gang();
        let broken = |id: &&String| {
            size > 1
                && self.replicas.get(*id).is_some_and(|replica| {
                    let members = deployment.replicas.iter().filter_map(|id| self.replicas.get(id));
                    members.filter(|member| member.gang == replica.gang).count() < size
                })
        };
        let starting = || {
            let mut placed = deployment.replicas.iter().filter(current);
            placed.find(|id| self.replicas.get(*id).is_some_and(|r| r.phase == Phase::Starting))
        };
        idle()
            .find(same_gang)
            .or_else(|| idle().find(broken))
            .or_else(|| idle().next())
            .or_else(|| runs.then(starting).flatten())
            .cloned()
    }

    /// Books a replica where it is.
    fn take_in(&mut self, worker: &str, report: &pb::ReplicaReport, mut replica: Replica, now: Time) -> bool {
        let id = report.replica_id.clone();
        replica.worker = Some(worker.to_owned());
        (replica.seen, replica.assigned) = (true, now);
        if let Some(spec) = &report.spec {
            replica.devices = devices_of(&spec.gpus);
        }
        replica.message.clone_from(&report.message);
        replica.light.clone_from(&report.light);
        replica.models.clone_from(&report.models);
        (replica.load, replica.model) = (report.load, report.model.clone());
        self.insert_replica(id.clone(), replica);
        if let Some(here) = self.workers.get_mut(worker) {
            here.replicas.insert(id.clone());
        }
        if report.state() == ReplicaState::Running {
            self.enter(&id, Phase::Running { since: now });
            self.gates.insert((now + self.gate(), id.clone()));
        } else {
            self.enter(&id, Phase::Starting);
        }
        info!(replica = %id, worker, "replica adopted");
        true
    }
}

/// The gang that a replica's id tells, if its deployment has gangs.
fn gang_of(id: &str, spec: &Spec) -> String {
    let name = id.rsplit('#').next().unwrap_or(id);
    let gang = name.split_once('-').filter(|_| spec.gang() > 1);
    gang.map_or(name, |(gang, _)| gang).to_owned()
}
