//! How workers come, live, and go.
//!
//! A worker whose stream breaks keeps its lease: its replicas stay in the route table, for proxies notice by themselves
//! whether they can be reached. What ends the wait early is evidence: our provider saw the process end; or, where there
//! is no provider to see it, the other side closed the stream and nobody dialled again within a heartbeat, which a live
//! worker does in 50 ms.

use mobula_proto::control::v1::{self as pb, attach_response::Message as Command};
use tracing::{info, warn};

use super::{
    Action, End, Launch, PROVIDER_LABEL, State, Supply, Time, WORKER_BACKOFF,
    model::{Worker, amounts_of, kind_of},
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
        let (replicas, strays) = before.map(|w| (w.replicas, w.strays)).unwrap_or_default();
        let worker = Worker {
            kind,
            address: hello.address,
            pid: hello.pid,
            capacity: amounts_of(&hello.resources.unwrap_or_default()),
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
        self.dirty = true;
        // The address may be a new one.
        self.routes.changed = true;
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
        self.dirty = true;
        if worker.leaving && worker.replicas.is_empty() {
            self.lose(&id, "it left", actions);
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
        let Some((kind, since)) = worker
            .map(|w| (w.kind, w.since))
            .or_else(|| launch.map(|launch| (launch.kind, launch.since)))
        else {
            return;
        };
        self.dirty = true;
        if self.dismissed.remove(id) || self.stopping {
            info!(worker = %id, %why, "worker ended");
        } else {
            warn!(worker = %id, %kind, %why, "worker ended unasked");
            self.totals.worker_failures += 1;
            let starts = self.starts.entry(kind).or_default();
            let wait = starts.backoff.fail(&WORKER_BACKOFF, now.saturating_sub(since));
            // One that served and died is replaced at once, the first time.
            let free = attached && starts.backoff.failures() == 1;
            starts.not_before = if free { now } else { now + wait };
            starts.last_end = why;
        }
        self.lose(id, "its process ended", actions);
    }

    /// Forgets a worker; its replicas are to be placed again.
    pub(super) fn lose(&mut self, id: &str, why: &str, actions: &mut Vec<Action>) {
        let Some(worker) = self.workers.remove(id) else {
            return;
        };
        for deployment in &mut self.deployments {
            deployment.shunned.remove(id);
        }
        self.leases.release(&id.to_owned());
        if let Some(session) = worker.session {
            self.sessions.remove(&session);
            actions.push(Action::Close { session });
        }
        info!(worker = %id, %why, replicas = worker.replicas.len(), "worker is gone");
        self.routes.changed |= !worker.replicas.is_empty();
        for replica in &worker.replicas {
            self.requeue(replica);
        }
        self.dirty = true;
    }

    /// A lease is over. A process of ours may still be there: it has a launch's time to come back.
    pub(super) fn expired(&mut self, id: &str, now: Time, actions: &mut Vec<Action>) {
        self.totals.lease_expiries += 1;
        let ours = self
            .workers
            .get(id)
            .filter(|worker| worker.owned)
            .map(|worker| worker.kind);
        self.lose(id, "its lease is over", actions);
        if let Some(kind) = ours {
            let launch = Launch {
                kind,
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
            let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
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
