//! Brings what was observed and what is intended together: what is over ends, what waits is placed, what has no worker
//! asks for one.

use std::collections::HashMap;

use mobula_proto::control::v1::ReplicaState;
use mobula_serving::place::{self, Group, Kind, Problem, Reason};
use tracing::{info, warn};

use super::{
    Action, State, Supply, Time,
    model::{Launch, Phase, Stray},
};

/// A worker process that has not attached by then has failed to start; loading a library from a cold disk takes seconds.
const LAUNCH_TIMEOUT: Time = Time::from_secs(30);

/// A worker without a replica is kept so long: a replica that is replaced finds it warm.
const IDLE_TIMEOUT: Time = Time::from_secs(10);

/// What a worker that leaves because it is not needed has to end; it has no requests.
const IDLE_GRACE: Time = Time::from_secs(5);

impl State {
    /// Does what is due.
    pub(crate) fn settle(&mut self, now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.stopping {
            return actions;
        }
        for worker in self.leases.expire(now) {
            self.expired(&worker, now, &mut actions);
        }
        while let Some((_, id)) = self.retries.first().filter(|(at, _)| *at <= now).cloned() {
            self.requeue(&id);
        }
        self.end_grace(now);
        if self.dirty || self.wake.is_some_and(|at| at <= now) {
            self.dirty = false;
            self.wake = None;
            if self.grace.is_none() {
                self.place(now, &mut actions);
                self.supply(now, &mut actions);
            }
        }
        actions
    }

    /// Ends the wait for workers of an earlier life: by time, because all known ones are back or dead, or because nothing
    /// is missing.
    fn end_grace(&mut self, now: Time) {
        let complete = self.deployments.iter().all(super::model::Deployment::is_complete);
        for app in &mut self.apps {
            app.ran |= app.deployments.iter().all(|d| self.deployments[*d].is_complete());
        }
        let Some(until) = self.grace else { return };
        let nobody_left = matches!(self.settings.supply, Supply::Process { .. }) && self.awaited.is_empty();
        if now >= until || complete || nobody_left {
            info!(missing = ?self.awaited, "adoption is over");
            self.grace = None;
            self.dirty = true;
            self.routes.changed = true;
        }
    }

    /// Places what is pending.
    fn place(&mut self, now: Time, actions: &mut Vec<Action>) {
        if self
            .deployments
            .iter()
            .all(|deployment| deployment.pending.is_empty())
        {
            return;
        }
        let workers: Vec<String> = self
            .workers
            .iter()
            .filter(|(_, w)| w.takes_replicas())
            .map(|(id, _)| id.clone())
            .collect();
        let ordinals: HashMap<&str, usize> = workers
            .iter()
            .enumerate()
            .map(|(i, id)| (id.as_str(), i))
            .collect();

        // A replica on a worker whose stream is broken is no part of the problem: it stays until the lease is over.
        let mut ids: Vec<Vec<String>> = Vec::with_capacity(self.deployments.len());
        let mut problem = Problem {
            workers: workers.iter().map(|id| self.room(id)).collect(),
            groups: Vec::new(),
        };
        let mut previous = Vec::with_capacity(self.deployments.len());
        for deployment in &self.deployments {
            let (mut group, mut places) = (Vec::new(), Vec::new());
            for id in &deployment.replicas {
                let Some(replica) = self.replicas.get(id) else {
                    continue;
                };
                let at = replica
                    .worker
                    .as_deref()
                    .and_then(|worker| ordinals.get(worker).copied());
                if at.is_some() || replica.phase == Phase::Pending {
                    group.push(id.clone());
                    places.push(at);
                }
            }
            let (kind, need) = (deployment.spec.kind, deployment.spec.need.clone());
            let shunned = deployment.shunned.iter();
            problem.groups.push(Group {
                kind,
                need,
                replicas: group.len(),
                avoid: shunned
                    .filter_map(|id| ordinals.get(id.as_str()).copied())
                    .collect(),
            });
            ids.push(group);
            previous.push(places);
        }

        let solution = place::solve(&problem, &previous);
        for (group, (before, after)) in ids.iter().zip(previous.iter().zip(&solution.placement)) {
            for (id, (before, after)) in group.iter().zip(before.iter().zip(after)) {
                match (before, after) {
                    (None, Some(worker)) => self.put(id, &workers[*worker], now, actions),
                    (Some(before), after) if Some(*before) != *after => {
                        self.displace(id, &workers[*before], actions);
                    }
                    (Some(_) | None, _) => {}
                }
            }
        }
        let starts_workers = matches!(self.settings.supply, Supply::Process { .. });
        for (deployment, reason) in self.deployments.iter_mut().zip(solution.reasons) {
            // Our provider is told next; that is no news.
            let expected = matches!(reason, Some(Reason::NoWorker { .. })) && starts_workers;
            if let Some(reason) = &reason
                && !expected
                && deployment.reason.as_ref() != Some(reason)
            {
                info!(deployment = %deployment.spec.name, pending = deployment.pending.len(), %reason, "replicas have no place");
            }
            deployment.reason = reason;
        }
    }

    fn room(&self, worker: &str) -> place::Worker {
        let worker = &self.workers[worker];
        let mut reserved = place::Amounts::default();
        let strays = worker.strays.values().filter(|stray| stray.takes_room());
        for stray in strays.clone() {
            reserved.add(&stray.need);
        }
        // One replica per process that we start ourselves: a crash takes down one replica, and as many processes are
        // started as there are replicas.
        let room = worker.owned.then(|| 1_usize.saturating_sub(strays.count()));
        place::Worker {
            kind: worker.kind,
            capacity: worker.capacity.clone(),
            reserved,
            room,
        }
    }

    fn put(&mut self, id: &str, worker: &str, now: Time, actions: &mut Vec<Action>) {
        if let Some(replica) = self.replicas.get_mut(id) {
            replica.worker = Some(worker.to_owned());
            (replica.seen, replica.assigned) = (false, now);
        }
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.replicas.insert(id.to_owned());
        }
        self.enter(id, Phase::Starting);
        self.totals.placements += 1;
        info!(replica = %id, %worker, "replica placed");
        self.assign(id, actions);
    }

    /// Its worker came back smaller than it was and cannot hold it any more.
    fn displace(&mut self, id: &str, worker: &str, actions: &mut Vec<Action>) {
        warn!(replica = %id, %worker, "worker has too little left for its replica, which is placed again");
        self.stray(id, ReplicaState::Stopping);
        self.drain(worker, id, actions);
        self.requeue(id);
    }

    /// Has the provider start what is lacking and end what is not needed.
    fn supply(&mut self, now: Time, actions: &mut Vec<Action>) {
        let Supply::Process { max_workers, .. } = self.settings.supply else {
            return;
        };
        for kind in [Kind::Preprocess, Kind::Inference] {
            let of_kind = || self.deployments.iter().filter(move |d| d.spec.kind == kind);
            let unplaced: usize = of_kind().map(|d| d.pending.len()).sum();
            let failed: usize = of_kind().map(|d| d.failed.len()).sum();
            let idle = self.idle(kind, now);
            let coming = self
                .launched
                .values()
                .filter(|l| l.kind == kind && !l.returning && !l.overdue)
                .count();
            let lacking = unplaced.saturating_sub(idle.len() + coming);
            if lacking > 0 {
                self.launch(
                    kind,
                    lacking.min(max_workers.saturating_sub(self.owned())),
                    now,
                    actions,
                );
            }
            // A failed replica will want a worker again.
            let surplus = idle.len().saturating_sub(unplaced + failed);
            for (id, since) in idle.into_iter().take(surplus) {
                if now >= since + IDLE_TIMEOUT {
                    info!(worker = %id, "worker is not needed and is told to leave");
                    self.dismiss(&id, IDLE_GRACE, actions);
                } else {
                    self.wake_at(since + IDLE_TIMEOUT);
                }
            }
        }
        self.end_overdue(now, actions);
    }

    /// Our provider's idle workers of a kind, the longest idle first.
    fn idle(&mut self, kind: Kind, now: Time) -> Vec<(String, Time)> {
        let mut idle = Vec::new();
        for (id, worker) in self.workers.iter_mut().filter(|(_, w)| w.owned && w.kind == kind) {
            let since = worker.idle_since.unwrap_or(now);
            worker.idle_since = worker.is_idle().then_some(since);
            if worker.is_idle() {
                idle.push((id.clone(), since));
            }
        }
        idle.sort_by_key(|(_, since)| *since);
        idle
    }

    /// Worker processes of our provider, attached or not.
    pub(super) fn owned(&self) -> usize {
        self.launched.len() + self.workers.values().filter(|worker| worker.owned).count()
    }

    fn launch(&mut self, kind: Kind, count: usize, now: Time, actions: &mut Vec<Action>) {
        let not_before = self
            .starts
            .get(&kind)
            .map_or(Time::ZERO, |starts| starts.not_before);
        if now < not_before {
            self.wake_at(not_before);
            return;
        }
        for _ in 0..count {
            let worker_id = format!("{kind}-{}", self.names.draw());
            let launch = Launch {
                kind,
                since: now,
                returning: false,
                overdue: false,
            };
            self.launched.insert(worker_id.clone(), launch);
            self.totals.worker_starts += 1;
            info!(worker = %worker_id, %kind, "worker is started");
            actions.push(Action::Start { worker_id, kind });
        }
    }

    /// Ends worker processes that had their time to attach, or to come back.
    fn end_overdue(&mut self, now: Time, actions: &mut Vec<Action>) {
        let mut next: Option<Time> = None;
        for (id, launch) in self.launched.iter_mut().filter(|(_, launch)| !launch.overdue) {
            let due = launch.since + LAUNCH_TIMEOUT;
            if now >= due {
                warn!(worker = %id, "worker process runs and does not attach; it is ended");
                launch.overdue = true;
                actions.push(Action::End {
                    worker_id: id.clone(),
                    told: false,
                    grace: IDLE_GRACE,
                });
            } else {
                next = Some(next.map_or(due, |next| next.min(due)));
            }
        }
        if let Some(next) = next {
            self.wake_at(next);
        }
    }

    fn wake_at(&mut self, at: Time) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    /// What a worker's replicas and strays take of it.
    pub(super) fn used(&self, worker: &super::model::Worker) -> place::Amounts {
        let mut used = place::Amounts::default();
        for id in &worker.replicas {
            if let Some(replica) = self.replicas.get(id) {
                used.add(&self.deployments[replica.deployment].spec.need);
            }
        }
        worker
            .strays
            .values()
            .filter(|stray| Stray::takes_room(stray))
            .for_each(|stray| used.add(&stray.need));
        used
    }
}
