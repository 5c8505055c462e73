//! What runs, what does not, and why, in words that say what to do.

use std::collections::BTreeMap;

use mobula_proto::control::v1::{self as pb, ApplicationState, ReplicaState};

use super::{
    State, Supply, Time,
    convert::{amounts_to_proto, count32, gpus_to_proto, kind_to_proto, millis, stages_to_proto},
    document::document,
    model::{App, Deployment, Key, Phase, Replica, Stray, Worker},
    supply::command,
};

impl State {
    /// The state of everything.
    pub(crate) fn status(&self, now: Time) -> pb::GetStatusResponse {
        // A proxy that dialled again before its old stream was seen to end is one proxy.
        let proxies: BTreeMap<_, _> = self
            .watches
            .values()
            .map(|proxy| (proxy.proxy_id.clone(), self.proxy_status(proxy, now)))
            .collect();
        pb::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_ms: millis(now),
            applications: self
                .apps
                .iter()
                .map(|(name, app)| self.application_status(name, app, now))
                .collect(),
            workers: self
                .workers
                .iter()
                .map(|(id, worker)| self.worker_status(id, worker, now))
                .collect(),
            proxies: proxies.into_values().collect(),
            worker_groups: self.group_statuses(),
            resource_version: self.intent.resource_version,
            target_capacity: self.intent.config.options.target_capacity,
            controller_id: self.settings.controller_id.clone(),
        }
    }

    fn proxy_status(&self, proxy: &pb::ProxyStatus, now: Time) -> pb::ProxyStatus {
        let report = self.reports.get(&proxy.proxy_id);
        pb::ProxyStatus {
            report_age_ms: report.map(|report| report.age_ms(now)),
            restrained: report.map(|report| report.restrained(now)).unwrap_or_default(),
            ..proxy.clone()
        }
    }

    /// Unix milliseconds of a time.
    pub(super) fn unix_ms(&self, at: Time) -> u64 {
        self.settings.origin_unix_ms.saturating_add(millis(at))
    }

    /// The deployment that says most decides (Ray: `_determine_app_status`).
    pub(super) fn application_state(&self, app: &App) -> ApplicationState {
        let deployments = || app.deployments.iter().filter_map(|key| self.deployments.get(key));
        let worst = deployments()
            .map(|deployment| &deployment.condition)
            .min_by_key(|condition| condition.rank());
        let waits = self.grace.is_some() && !deployments().all(Deployment::is_complete);
        match worst {
            _ if app.deleting => ApplicationState::Deleting,
            Some(worst) if worst.rank() == 0 => ApplicationState::DeployFailed,
            Some(worst) if worst.rank() == 1 => ApplicationState::Unhealthy,
            Some(worst) if worst.rank() == 2 && waits => ApplicationState::NotStarted,
            Some(worst) if worst.rank() == 2 => ApplicationState::Deploying,
            Some(_) | None => ApplicationState::Running,
        }
    }

    fn application_status(&self, name: &str, app: &App, now: Time) -> pb::ApplicationStatus {
        let deployments = || app.deployments.iter().filter_map(|key| self.deployments.get(key));
        let message: Vec<String> = deployments()
            .filter_map(|deployment| {
                let why = self.deployment_message(deployment, now);
                (!why.is_empty()).then(|| format!("{}: {why}", deployment.name()))
            })
            .collect();
        let short = app.handover.is_short.then(|| {
            "there was no room for the deployments before and after the change at once, so that requests waited".to_owned()
        });
        let message: Vec<String> = message.into_iter().chain(short).collect();
        pb::ApplicationStatus {
            name: name.to_owned(),
            route_prefix: app.route_prefix.clone().unwrap_or_default(),
            state: self.application_state(app).into(),
            message: message.join("; "),
            deployments: app
                .deployments
                .iter()
                .filter_map(|key| Some(self.deployment_status(*key, self.deployments.get(key)?, now)))
                .collect(),
            deployed_unix_ms: app.meta.deployed_unix_ms,
            resource_version: app.meta.resource_version,
            source: app.meta.source.into(),
            external_scaler: app.external_scaler,
            import_path: app.import_path.clone(),
            config: app.document.clone(),
        }
    }

    fn deployment_status(&self, key: Key, deployment: &Deployment, now: Time) -> pb::DeploymentStatus {
        let config = &deployment.spec.config;
        let mut replicas: Vec<pb::ReplicaStatus> = deployment
            .replicas
            .iter()
            .filter_map(|id| Some(self.replica_status(id, deployment, self.replicas.get(id)?, now)))
            .collect();
        let stopping = deployment.stopping.iter().filter_map(|(worker, id)| {
            let stray = self.workers.get(worker)?.strays.get(id)?;
            Some(self.stray_status(worker, id, deployment, stray))
        });
        replicas.extend(stopping);
        pb::DeploymentStatus {
            name: config.name.clone(),
            target_replicas: count32(deployment.target),
            replicas,
            state: deployment.condition.state.into(),
            trigger: deployment.condition.trigger.into(),
            message: self.deployment_message(deployment, now),
            kind: kind_to_proto(config.kind).into(),
            scaling: self.scaling_status(key, deployment, now),
            rollout: self.rollout_status(deployment, now),
            config: document(config).to_string(),
            resources: Some(amounts_to_proto(&config.need)),
            stages: stages_to_proto(config.stages),
        }
    }

    fn replica_status(
        &self,
        id: &str,
        deployment: &Deployment,
        replica: &Replica,
        now: Time,
    ) -> pb::ReplicaStatus {
        pb::ReplicaStatus {
            replica_id: id.to_owned(),
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
            lanes: replica
                .model
                .as_ref()
                .map(|model| model.lanes)
                .unwrap_or_default(),
            started_unix_ms: self.unix_ms(replica.made),
            version: replica.spec.version.clone(),
            outdated: deployment.outdated.contains(id),
            models: replica.models.iter().map(|held| held.model_id.clone()).collect(),
            failures: replica.record.failures.failures(),
            gpus: match replica.worker {
                Some(_) => gpus_to_proto(&replica.devices),
                None => Vec::new(),
            },
        }
    }

    fn stray_status(
        &self,
        worker: &str,
        id: &str,
        deployment: &Deployment,
        stray: &Stray,
    ) -> pb::ReplicaStatus {
        pb::ReplicaStatus {
            replica_id: id.to_owned(),
            // Whatever it says: it was told to stop.
            state: ReplicaState::Stopping.into(),
            message: stray.message.clone(),
            worker_id: worker.to_owned(),
            load: stray.load,
            started_unix_ms: self.unix_ms(stray.made),
            version: stray.version.clone(),
            outdated: stray.version != deployment.spec.version,
            gpus: gpus_to_proto(&stray.devices),
            ..pb::ReplicaStatus::default()
        }
    }

    /// How the worker groups are.
    fn group_statuses(&self) -> Vec<pb::WorkerGroupStatus> {
        let groups = self.groups.iter().enumerate();
        groups
            .map(|(i, group)| {
                let members = self.workers.values().filter(|worker| worker.group == group.name);
                let attached = members.count();
                let launched = self.launched.values().filter(|launch| launch.group == group.name);
                let starting = launched.filter(|launch| launch.is_counted_on()).count();
                let wanted = self.wanted.get(i).copied().unwrap_or(attached + starting);
                let missing = wanted.saturating_sub(attached + starting);
                let message = match (&self.settings.supply, self.starts.get(&group.name)) {
                    (Supply::External { controller }, _) if missing > 0 => {
                        format!("start {missing} more: {}", command(group, controller))
                    }
                    (Supply::Process { .. }, Some(starts)) if missing > 0 && !starts.last_end.is_empty() => {
                        format!("the last worker {}", starts.last_end)
                    }
                    (Supply::External { .. } | Supply::Process { .. }, _) => String::new(),
                };
                pb::WorkerGroupStatus {
                    name: group.name.clone(),
                    kind: kind_to_proto(group.kind).into(),
                    min: group.min,
                    max: group.max,
                    wanted: count32(wanted),
                    attached: count32(attached),
                    starting: count32(starting),
                    message,
                }
            })
            .collect()
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
            labels: worker.labels.clone().into_iter().collect(),
            group: worker.group.clone(),
            leaving: worker.leaving,
        }
    }

    /// Workers with a stream, and those that only have their lease left.
    pub(crate) fn worker_counts(&self) -> (usize, usize) {
        (self.sessions.len(), self.workers.len() - self.sessions.len())
    }

    /// Wanted replicas that are pending, starting, running, failed.
    pub(crate) fn replica_counts(&self) -> [(&'static str, usize); 4] {
        let sum = |of: fn(&Deployment) -> usize| self.deployments.values().map(of).sum::<usize>();
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
