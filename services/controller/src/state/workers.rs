//! How workers come, live, and go.
//!
//! A worker whose stream breaks keeps its lease: its replicas stay in the route table, for proxies notice by themselves
//! whether they can be reached. What ends the wait early is evidence: our provider saw the process end; or, where there
//! is no provider to see it, the other side closed the stream and nobody dialled again within a heartbeat, which a live
//! worker does in 50 ms.

use mobula_proto::control::v1::{self as pb, attach_response::Message as Command};
use tracing::{info, warn};

use super::{
    Action, End, LOSS_BACKOFF, Launch, PROVIDER_LABEL, State, Supply, Time, WORKER_BACKOFF,
    convert::{amounts_of, kind_of, millis32},
    model::{Phase, Worker},
};

impl State {
    pub(super) fn hello(&mut self, session: u64, hello: pb::Hello, now: Time, actions: &mut Vec<Action>) {
        let Some(kind) = kind_of(hello.kind()) else {
            // The shell has refused such a hello already.
            actions.push(Action::Close { session });
            return;
        };
        let id = hello.worker_id.clone();
        if let Some(worker) = self.workers.get(&id)
            && let Some(old) = worker.session
        {
            if (worker.pid, &worker.address) != (hello.pid, &hello.address) {
                let why = format!(
                    "a live worker at {} with process id {} is named {id:?} already; give this one another id",
                    worker.address, worker.pid
                );
                actions.push(Action::Refuse { session, why });
                return;
            }
            // The same worker dialled again before we knew that its old stream is dead: the newer one wins.
            self.sessions.remove(&old);
            actions.push(Action::Close { session: old });
        }
        actions.push(Action::Welcome { session });

        let launch = self.launched.remove(&id);
        self.awaited.remove(&id);
        let before = self.workers.remove(&id);
        let known = launch.is_some() || before.as_ref().is_some_and(|w| w.owned);
        let owned = matches!(self.settings.supply, Supply::Process { .. })
            && (known
                || hello
                    .labels
                    .get(PROVIDER_LABEL)
                    .is_some_and(|label| label == "process"));
        if owned && !known {
            actions.push(Action::Adopt {
                worker_id: id.clone(),
                kind,
                pid: hello.pid,
            });
        }
        let labels = hello.labels.into_iter().collect();
        let group = self.group_of(kind, &labels, owned);
        let (replicas, strays) = before.map(|w| (w.replicas, w.strays)).unwrap_or_default();
        let worker = Worker {
            kind,
            address: hello.address,
            pid: hello.pid,
            capacity: amounts_of(&hello.resources.unwrap_or_default()),
            labels,
            group,
            session: Some(session),
            owned,
            leaving: self.dismissed.contains(&id),
            since: launch.map_or(now, |launch| launch.since),
            idle_since: None,
            resident_bytes: 0,
            replicas,
            strays,
        };
        info!(worker = %id, %kind, address = %worker.address, pid = worker.pid, replicas = hello.replicas.len(), "worker attached");
        self.workers.insert(id.clone(), worker);
        self.sessions.insert(session, id.clone());
        self.leases.renew(&id, now);
        self.room_changed = true;
        // The address may be a new one.
        self.routes.changed = true;
        self.keep_pace(Some(session), actions);
        self.report(&id, hello.replicas, true, now, actions);
    }

    pub(super) fn heartbeat(
        &mut self,
        session: u64,
        heartbeat: pb::Heartbeat,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let Some(id) = self.sessions.get(&session).cloned() else {
            return;
        };
        self.leases.renew(&id, now);
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.resident_bytes = heartbeat.resident_bytes;
        }
        self.report(&id, heartbeat.replicas, false, now, actions);
    }

    pub(super) fn lost(&mut self, session: u64, end: End, now: Time, actions: &mut Vec<Action>) {
        let Some(id) = self.sessions.remove(&session) else {
            return;
        };
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        worker.session = None;
        self.room_changed = true;
        if worker.leaving && worker.replicas.is_empty() {
            self.lose(&id, "it left", now, actions);
            return;
        }
        if end == End::Closed && !worker.owned {
            self.leases.shorten(&id, now + self.settings.heartbeat);
        }
        warn!(worker = %id, ?end, "worker's stream ended; its replicas stay until its lease is over");
    }

    pub(super) fn exited(&mut self, id: &str, why: String, now: Time, actions: &mut Vec<Action>) {
        let launch = self.launched.remove(id);
        self.awaited.remove(id);
        let worker = self.workers.get(id);
        let attached = worker.is_some() || launch.as_ref().is_some_and(|launch| launch.returning);
        let Some((kind, group, since)) = worker
            .map(|w| (w.kind, w.group.clone(), w.since))
            .or_else(|| launch.map(|launch| (launch.kind, launch.group, launch.since)))
        else {
            return;
        };
        self.room_changed = true;
        if self.dismissed.remove(id) || self.stopping {
            info!(worker = %id, %why, "worker ended");
        } else {
            warn!(worker = %id, %kind, %why, "worker ended unasked");
            self.totals.worker_failures += 1;
            let starts = self.starts.entry(group).or_default();
            let wait = starts.backoff.fail(&WORKER_BACKOFF, now.saturating_sub(since));
            // One that served and died is replaced at once, the first time.
            let free = attached && starts.backoff.failures() == 1;
            starts.not_before = if free { now } else { now + wait };
            starts.last_end = why;
            self.touch_waiting(kind);
        }
        self.lose(id, "its process ended", now, actions);
    }

    /// Takes a worker for somebody else's: our provider would never see its process end, and would hold a place for it.
    pub(super) fn disown(&mut self, id: &str) {
        if let Some(worker) = self.workers.get_mut(id) {
            worker.owned = false;
        }
        self.launched.remove(id);
        self.dismissed.remove(id);
        self.room_changed = true;
    }

    /// Forgets a worker; its replicas are to be placed again.
    pub(super) fn lose(&mut self, id: &str, why: &str, now: Time, actions: &mut Vec<Action>) {
        let Some(worker) = self.workers.remove(id) else {
            return;
        };
        for deployment in self.deployments.values_mut() {
            deployment.shunned.remove(id);
        }
        self.leases.release(&id.to_owned());
        if let Some(session) = worker.session {
            self.sessions.remove(&session);
            actions.push(Action::Close { session });
        }
        self.keep_pace(None, actions);
        info!(worker = %id, %why, replicas = worker.replicas.len(), "worker is gone");
        self.routes.changed |= !worker.replicas.is_empty();
        for (stray, of) in worker.strays {
            self.unbook_stray(of.deployment, id, &stray);
        }
        let said = format!("worker {id} is gone: {why}");
        for replica in &worker.replicas {
            self.lose_replica(replica, worker.leaving, &said, now, actions);
        }
        self.room_changed = true;
    }

    /// Places a replica again whose worker is gone: at once, but for one whose workers go again and again while it is
    /// young, for then it may be what kills them.
    fn lose_replica(&mut self, id: &str, left: bool, why: &str, now: Time, actions: &mut Vec<Action>) {
        self.restart_gang(id, now, actions);
        let Some(replica) = self.replicas.get_mut(id) else {
            return;
        };
        let (key, phase) = (replica.deployment, replica.phase);
        if left {
            self.requeue(id, now);
            return;
        }
        let worked = match phase {
            Phase::Running { since } => now.saturating_sub(since),
            Phase::Pending | Phase::Starting | Phase::Failed { .. } => Time::ZERO,
        };
        let wait = replica.record.losses.fail(&LOSS_BACKOFF, worked);
        let again = replica.record.losses.failures() > 1;
        why.clone_into(&mut replica.message);
        replica.worker = None;
        if phase.is_running() {
            self.health_failed(id, why);
        }
        let Some(deployment) = self.deployments.get_mut(&key) else {
            return;
        };
        let current = !deployment.outdated.contains(id);
        if phase == Phase::Starting && current {
            deployment.failures.count = deployment.failures.count.saturating_add(1);
            why.clone_into(&mut deployment.failures.last);
        }
        if again && current {
            self.enter(id, Phase::Failed { retry: now + wait });
        } else {
            self.requeue(id, now);
        }
    }

    /// A lease is over. A process of ours may still be there: it has a launch's time to come back.
    pub(super) fn expired(&mut self, id: &str, now: Time, actions: &mut Vec<Action>) {
        self.totals.lease_expiries += 1;
        let ours = self
            .workers
            .get(id)
            .filter(|worker| worker.owned)
            .map(|worker| (worker.kind, worker.group.clone()));
        self.lose(id, "its lease is over", now, actions);
        if let Some((kind, group)) = ours {
            let launch = Launch {
                kind,
                group,
                since: now,
                returning: true,
                overdue: false,
            };
            self.launched.insert(id.to_owned(), launch);
        }
    }

    /// Tells our provider's workers to leave and lets go of everybody else.
    pub(super) fn stop(&mut self, grace: Time, actions: &mut Vec<Action>) {
        self.stopping = true;
        let owned: Vec<String> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.owned)
            .map(|(id, _)| id.clone())
            .collect();
        for id in owned {
            self.dismiss(&id, grace, actions);
        }
        for id in self.launched.keys() {
            self.dismissed.insert(id.clone());
            actions.push(Action::End {
                worker_id: id.clone(),
                told: false,
                grace,
            });
        }
        // The streams of those who were told stay open until they have left.
        let others = self.workers.values().filter(|worker| !worker.owned);
        actions.extend(
            others
                .filter_map(|worker| worker.session)
                .map(|session| Action::Close { session }),
        );
    }

    /// Tells one of our provider's workers to leave.
    pub(super) fn dismiss(&mut self, id: &str, grace: Time, actions: &mut Vec<Action>) {
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        worker.leaving = true;
        self.dismissed.insert(id.to_owned());
        let told = worker.session.is_some();
        if let Some(session) = worker.session {
            let grace_ms = millis32(grace);
            let command = Box::new(Command::Shutdown(pb::Shutdown { grace_ms }));
            actions.push(Action::Send { session, command });
        }
        actions.push(Action::End {
            worker_id: id.to_owned(),
            told,
            grace,
        });
    }
}
