//! How an update goes, in words.

use mobula_proto::control::v1::{self as pb, RolloutState};

use super::{State, Time, convert::count32, model::Deployment, rollout::Rollout};

impl State {
    /// How an update goes.
    pub(super) fn rollout_status(&self, deployment: &Deployment, now: Time) -> Option<pb::Rollout> {
        let rollout = deployment.rollout.as_ref()?;
        Some(pb::Rollout {
            state: rollout.state.into(),
            updated: count32(deployment.updated()),
            target: count32(deployment.target),
            outdated: count32(deployment.outdated.len()),
            message: self.update_message(deployment, now),
            began_unix_ms: self.unix_ms(rollout.began),
        })
    }

    /// What an update waits for, or why it went back.
    pub(super) fn update_message(&self, deployment: &Deployment, now: Time) -> String {
        let Some(rollout) = &deployment.rollout else {
            return String::new();
        };
        let progress = || {
            format!(
                "{} of {} replicas are updated, {} are as before{}",
                deployment.updated(),
                deployment.target,
                deployment.outdated.len(),
                self.update_waits(deployment, rollout, now)
            )
        };
        match rollout.state {
            RolloutState::Progressing => progress(),
            RolloutState::RollingBack => format!("is rolled back after: {}; {}", rollout.error, progress()),
            RolloutState::RolledBack => format!("was rolled back after: {}", rollout.error),
            RolloutState::Complete | RolloutState::Unspecified => String::new(),
        }
    }

    fn update_waits(&self, deployment: &Deployment, rollout: &Rollout, now: Time) -> String {
        let waits = deployment.pending.first().filter(|_| rollout.stuck.is_some());
        if let Some(replica) = waits.and_then(|id| self.replicas.get(id)) {
            let why = self.why(deployment, replica, now);
            return format!("; a replica of the new version has no place beside those that run: {why}");
        }
        if rollout.apart {
            return "; there was no room for replicas of every part in both versions at once, so that requests waited".into();
        }
        if rollout.forced {
            return "; there was no room for more replicas, so that one at a time left before its replacement ran"
                .into();
        }
        self.held_back(deployment).unwrap_or_default()
    }

    /// Which part of the application an update waits for, if it waits for any but this one.
    fn held_back(&self, deployment: &Deployment) -> Option<String> {
        let (keys, parts) = self.parts(&deployment.app)?;
        let of = |key| self.deployments.get(key);
        let here = keys
            .iter()
            .position(|key| of(key).is_some_and(|d| d.name() == deployment.name()))?;
        let hold = parts.hold(here, &deployment.spec.weights)?;
        let running = deployment.outdated.intersection(&deployment.running).count();
        let behind = hold.behind.filter(|behind| *behind != here);
        let behind = behind.and_then(|behind| of(keys.get(behind)?))?;
        (running > 0).then(|| {
            format!(
                "; those stay as far as {} has no replicas of the new model yet",
                behind.name()
            )
        })
    }
}
