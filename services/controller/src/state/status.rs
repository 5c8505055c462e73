//! What runs, what does not, and why, in words that say what to do.

use std::{collections::BTreeMap, time::Duration};

use mobula_proto::control::v1::{self as pb, ApplicationState, ReplicaState};
use mobula_serving::place::{Kind, Reason};

use super::{
    FAILURES_UNTIL_FAILED, State, Supply, Time,
    model::{App, Deployment, Phase, Replica, Worker, amounts_to_proto, kind_to_proto},
};

impl State {
    /// The state of everything.
    pub(crate) fn status(&self, now: Time) -> pb::GetStatusResponse {
        let mut applications: Vec<_> = self
            .apps
            .iter()
            .map(|app| self.application_status(app, now))
            .collect();
        applications.sort_by(|a, b| a.name.cmp(&b.name));
        // A proxy that dialled again before its old stream was seen to end is one proxy.
        let proxies: BTreeMap<_, _> = self
            .watches
            .values()
            .map(|proxy| (proxy.proxy_id.clone(), proxy.clone()))
            .collect();
        pb::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_ms: millis(now),
            applications,
            workers: self
                .workers
                .iter()
                .map(|(id, worker)| self.worker_status(id, worker, now))
                .collect(),
            proxies: proxies.into_values().collect(),
        }
    }

    fn application_status(&self, app: &App, now: Time) -> pb::ApplicationStatus {
        let deployments = app.deployments.iter().map(|index| &self.deployments[*index]);
        let missing: Vec<&Deployment> = deployments.clone().filter(|d| !d.is_complete()).collect();
        let failures = missing.iter().map(|d| self.failures(d)).max().unwrap_or(0);
        let state = match () {
            () if missing.is_empty() => ApplicationState::Running,
            () if app.ran => ApplicationState::Unhealthy,
            () if failures >= FAILURES_UNTIL_FAILED => ApplicationState::DeployFailed,
            () if self.grace.is_some() => ApplicationState::NotStarted,
            () => ApplicationState::Deploying,
        };
        let message: Vec<String> = missing.iter().map(|d| self.why_incomplete(d, now)).collect();
        pb::ApplicationStatus {
            name: app.name.clone(),
            route_prefix: app.route_prefix.clone().unwrap_or_default(),
            state: state.into(),
            message: message.join("; "),
            deployments: deployments.map(|d| self.deployment_status(app, d, now)).collect(),
        }
    }

    /// How often the worst replica failed in a row, or the workers that were started for those without a place.
    fn failures(&self, deployment: &Deployment) -> u32 {
        let replicas = deployment.replicas.iter().filter_map(|id| self.replicas.get(id));
        let of_replicas = replicas
            .map(|replica| replica.backoff.failures())
            .max()
            .unwrap_or(0);
        let starts = self
            .starts
            .get(&deployment.spec.kind)
            .map_or(0, |starts| starts.backoff.failures());
        of_replicas.max(if deployment.pending.is_empty() { 0 } else { starts })
    }

    /// What is missing, and why the first of it is: a failure is told before a start, a start before a wait.
    fn why_incomplete(&self, deployment: &Deployment, now: Time) -> String {
        let spec = &deployment.spec;
        let starting = || {
            let mut ids = deployment.replicas.iter();
            ids.find(|id| self.replicas.get(*id).is_some_and(|r| r.phase == Phase::Starting))
        };
        let first = deployment
            .failed
            .first()
            .or_else(|| deployment.pending.first())
            .or_else(starting);
        let why = first
            .and_then(|id| self.replicas.get(id))
            .map(|replica| self.why(deployment, replica, now));
        format!(
            "{}: {} of {} replicas run: {}",
            spec.name,
            deployment.running.len(),
            spec.replicas,
            why.unwrap_or_default()
        )
    }

    fn deployment_status(&self, app: &App, deployment: &Deployment, now: Time) -> pb::DeploymentStatus {
        let mut replicas: Vec<pb::ReplicaStatus> = deployment
            .replicas
            .iter()
            .filter_map(|id| Some((id, self.replicas.get(id)?)))
            .map(|(id, replica)| pb::ReplicaStatus {
                replica_id: id.clone(),
                state: match replica.phase {
                    Phase::Pending => ReplicaState::Pending,
                    Phase::Starting => ReplicaState::Starting,
                    Phase::Running { .. } => ReplicaState::Running,
                    Phase::Failed { .. } => ReplicaState::Failed,
                }
                .into(),
                message: self.why(deployment, replica, now),
                worker_id: replica.worker.clone().unwrap_or_default(),
                load: replica.load,
                execution_provider: replica
                    .model
                    .as_ref()
                    .map(|model| model.execution_provider.clone())
                    .unwrap_or_default(),
            })
            .collect();
        for (worker_id, worker) in &self.workers {
            let here = worker.strays.iter().filter(|(id, stray)| {
                stray.deployment == deployment.spec.name
                    && stray.application == app.name
                    && !self.replicas.contains_key(*id)
            });
            replicas.extend(here.map(|(id, stray)| pb::ReplicaStatus {
                replica_id: id.clone(),
                // Whatever it says: it was told to stop.
                state: ReplicaState::Stopping.into(),
                message: stray.message.clone(),
                worker_id: worker_id.clone(),
                load: stray.load,
                execution_provider: String::new(),
            }));
        }
        pb::DeploymentStatus {
            name: deployment.spec.name.clone(),
            target_replicas: u32::try_from(deployment.spec.replicas).unwrap_or(u32::MAX),
            replicas,
        }
    }

    /// Why a replica does not run; what it does, if it does.
    fn why(&self, deployment: &Deployment, replica: &Replica, now: Time) -> String {
        match replica.phase {
            Phase::Running { .. } => replica.message.clone(),
            Phase::Starting if replica.message.is_empty() => {
                format!(
                    "is started on {}",
                    replica.worker.as_deref().unwrap_or("its worker")
                )
            }
            Phase::Starting => replica.message.clone(),
            Phase::Failed { retry } => {
                let times = match replica.backoff.failures() {
                    0 | 1 => "failed".to_owned(),
                    n => format!("failed {n} times in a row"),
                };
                format!(
                    "{times}, is tried again in {}: {}",
                    seconds(retry, now),
                    replica.message
                )
            }
            Phase::Pending => self.why_pending(deployment, now),
        }
    }

    fn why_pending(&self, deployment: &Deployment, now: Time) -> String {
        if let Some(until) = self.grace {
            return format!(
                "workers of the controller before this one have {} to come back",
                seconds(until, now)
            );
        }
        let Some(reason) = &deployment.reason else {
            return "is being placed".into();
        };
        let kind = deployment.spec.kind;
        match &self.settings.supply {
            Supply::External { controller } => match reason {
                Reason::NoWorker { .. } => {
                    format!("{reason}: start one with mobula-{kind} --controller {controller}")
                }
                Reason::NoRoom { .. } | Reason::Short { .. } | Reason::Apart { .. } => reason.to_string(),
            },
            Supply::Process { max_workers, .. } => self.why_no_process(kind, *max_workers, reason, now),
        }
    }

    fn why_no_process(&self, kind: Kind, max_workers: usize, reason: &Reason, now: Time) -> String {
        let starts = self
            .starts
            .get(&kind)
            .filter(|starts| !starts.last_end.is_empty());
        let last = starts.map(|starts| (starts.not_before, &starts.last_end));
        if let Some((at, end)) = last.filter(|(at, _)| *at > now) {
            return format!(
                "the last {kind} worker {end}; the next is started in {}",
                seconds(at, now)
            );
        }
        if self
            .launched
            .values()
            .any(|l| l.kind == kind && !l.returning && !l.overdue)
        {
            return match last {
                Some((_, end)) => format!("its {kind} worker is being started (the last one {end})"),
                None => format!("its {kind} worker is being started"),
            };
        }
        let idle = self
            .workers
            .values()
            .any(|w| w.owned && w.kind == kind && w.is_idle());
        if !idle && self.owned() >= max_workers {
            return format!("{max_workers} workers run already, as many as --max-workers allows");
        }
        reason.to_string()
    }

    fn worker_status(&self, id: &str, worker: &Worker, now: Time) -> pb::WorkerStatus {
        pb::WorkerStatus {
            worker_id: id.to_owned(),
            kind: kind_to_proto(worker.kind).into(),
            address: worker.address.clone(),
            resources: Some(amounts_to_proto(&worker.capacity)),
            used: Some(amounts_to_proto(&self.used(worker))),
            heartbeat_age_ms: millis(self.leases.age(&id.to_owned(), now).unwrap_or_default()),
            resident_bytes: worker.resident_bytes,
            pid: worker.pid,
            alive: true,
        }
    }

    /// Workers with a stream, and those that only have their lease left.
    pub(crate) fn worker_counts(&self) -> (usize, usize) {
        let attached = self
            .workers
            .values()
            .filter(|worker| worker.session.is_some())
            .count();
        (attached, self.workers.len() - attached)
    }

    /// Wanted replicas that are pending, starting, running, failed.
    pub(crate) fn replica_counts(&self) -> [(&'static str, usize); 4] {
        let sum = |of: fn(&Deployment) -> usize| self.deployments.iter().map(of).sum::<usize>();
        let (pending, running, failed) = (
            sum(|d| d.pending.len()),
            sum(|d| d.running.len()),
            sum(|d| d.failed.len()),
        );
        let starting = self.replicas.len() - pending - running - failed;
        [
            ("pending", pending),
            ("starting", starting),
            ("running", running),
            ("failed", failed),
        ]
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whole seconds until then, never less than one.
fn seconds(at: Time, now: Time) -> String {
    format!("{} s", at.saturating_sub(now).as_secs_f64().ceil().max(1.0))
}
