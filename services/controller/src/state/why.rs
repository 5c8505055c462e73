//! Why something is not as it should be, in words that say what to do.

use mobula_proto::control::v1::DeploymentState;
use mobula_serving::place::{Kind, Reason};

use super::{
    State, Supply, Time,
    groups::Unmet,
    model::{Deployment, Key, Phase, Replica},
    supply::command,
};

impl State {
    /// What there is to say of a deployment; nothing if it is as it shall be.
    pub(super) fn deployment_message(&self, deployment: &Deployment, now: Time) -> String {
        let mut parts = Vec::new();
        if deployment.deleting {
            parts.extend(self.why_stays(deployment));
            if !deployment.stopping.is_empty() {
                parts.push(format!(
                    "{} replicas finish what they have",
                    deployment.stopping.len()
                ));
            }
        } else if !deployment.is_complete() {
            parts.push(self.why_incomplete(deployment, now));
        }
        let update = self.update_message(deployment, now);
        if !update.is_empty() {
            parts.push(update);
        }
        let condition = &deployment.condition;
        let failed = matches!(
            condition.state,
            DeploymentState::Unhealthy | DeploymentState::DeployFailed
        );
        if parts.is_empty() && failed {
            parts.push(condition.message.clone());
        }
        parts.join("; ")
    }

    /// What a deployment waits for that the application's config names no more.
    fn why_stays(&self, deployment: &Deployment) -> Option<String> {
        let app = self.apps.get(&deployment.app)?;
        if deployment.running.is_empty() {
            return None;
        }
        if app.deleting {
            return Some("stays for requests that have begun".into());
        }
        if !self.is_served_by_old_graph(app) {
            return Some(
                "is left out of the application's config, and stays for requests that have begun".into(),
            );
        }
        let lacks = self.graph_lacks(app)?;
        Some(format!(
            "is left out of the application's config, and serves until what takes its place runs: {} waits for its replicas",
            lacks.name()
        ))
    }

    /// What is missing, and why the first of it is: a failure is told before a start, a start before a wait.
    fn why_incomplete(&self, deployment: &Deployment, now: Time) -> String {
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
            "{} of {} replicas run: {}",
            deployment.running.len(),
            deployment.target,
            why.unwrap_or_default()
        )
    }

    /// Why a replica does not run; what it does, if it does.
    pub(super) fn why(&self, deployment: &Deployment, replica: &Replica, now: Time) -> String {
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
                let times = match replica.record.failures.failures() + replica.record.losses.failures() {
                    0 | 1 => "failed".to_owned(),
                    n => format!("failed {n} times in a row"),
                };
                format!(
                    "{times}, is tried again in {}: {}",
                    seconds(retry, now),
                    replica.message
                )
            }
            Phase::Pending => self.why_pending(replica.deployment, deployment, now),
        }
    }

    fn why_pending(&self, key: Key, deployment: &Deployment, now: Time) -> String {
        if let Some(until) = self.grace {
            return format!(
                "workers of the controller before this one have {} to come back",
                seconds(until, now)
            );
        }
        let Some(reason) = &deployment.reason else {
            return "is being placed".into();
        };
        let kind = deployment.spec.config.kind;
        match &self.settings.supply {
            Supply::External { controller } => self.why_not_external(key, deployment, reason, controller),
            Supply::Process { max_workers, .. } => {
                self.why_no_process(key, kind, (*max_workers, reason), now)
            }
        }
    }

    /// What somebody has to do.
    fn why_not_external(
        &self,
        key: Key,
        deployment: &Deployment,
        reason: &Reason,
        controller: &str,
    ) -> String {
        let kind = deployment.spec.config.kind;
        let growth = self.growth.get(&key);
        let group = growth.and_then(|growth| growth.group.as_ref());
        if let Some(group) = group.and_then(|name| self.groups.iter().find(|group| group.name == *name)) {
            return format!(
                "{reason}; group {} grows: start {}",
                group.name,
                command(group, controller)
            );
        }
        match growth.and_then(|growth| growth.unmet) {
            Some(Unmet::Full) => format!("{reason}; its worker groups have as many workers as they may"),
            Some(Unmet::TooLarge) => format!("{reason}; no worker group has workers that could hold it"),
            Some(Unmet::NoGroup) | None if matches!(reason, Reason::NoWorker { .. }) => {
                format!("{reason}: start one with mobula-{kind} --controller {controller}")
            }
            Some(Unmet::NoGroup) | None => reason.to_string(),
        }
    }

    fn why_no_process(
        &self,
        key: Key,
        kind: Kind,
        (max_workers, reason): (usize, &Reason),
        now: Time,
    ) -> String {
        let named = !self.intent.config.worker_groups.is_empty();
        let of_kind = || self.groups.iter().filter(|group| group.kind == kind);
        let starts = of_kind().filter_map(|group| Some((&group.name, self.starts.get(&group.name)?)));
        let failed = starts.filter(|(_, starts)| !starts.last_end.is_empty());
        let last = failed.max_by_key(|(_, starts)| starts.not_before);
        if let Some((group, starts)) = last.filter(|(_, starts)| starts.not_before > now) {
            return format!(
                "the last {group} worker {}; the next is started in {}",
                starts.last_end,
                seconds(starts.not_before, now)
            );
        }
        let growth = self.growth.get(&key);
        let group = growth.and_then(|growth| growth.group.clone());
        if let Some(group) = group {
            return match last {
                Some((_, starts)) => {
                    format!(
                        "its {group} worker is being started (the last one {})",
                        starts.last_end
                    )
                }
                None => format!("its {group} worker is being started"),
            };
        }
        match growth.and_then(|growth| growth.unmet) {
            Some(Unmet::Full) if self.owned() >= max_workers && max_workers == 1 => {
                "one worker runs already, as many as --max-workers allows".into()
            }
            Some(Unmet::Full) if self.owned() >= max_workers => {
                format!("{max_workers} workers run already, as many as --max-workers allows")
            }
            Some(Unmet::Full) => format!("{reason}; its worker groups have as many workers as they may"),
            Some(Unmet::TooLarge) if named => {
                format!("{reason}; no worker group has workers that could hold it")
            }
            Some(Unmet::NoGroup) => format!("{reason}; there is no worker group of kind {kind}"),
            Some(Unmet::TooLarge) | None => reason.to_string(),
        }
    }
}

/// Whole seconds until then, never less than one.
fn seconds(at: Time, now: Time) -> String {
    format!("{} s", at.saturating_sub(now).as_secs_f64().ceil().max(1.0))
}
