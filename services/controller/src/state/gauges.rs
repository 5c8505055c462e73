//! The numbers of applications and deployments that Ray Serve's dashboards show.

use mobula_proto::control::v1::{ApplicationState, DeploymentState};

use super::{State, Time, model::Key};

/// Starts of replicas that wait to be shown, at most: more than start in a second.
const STARTUPS: usize = 10_000;

/// A deployment's numbers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Gauges<'a> {
    pub(crate) application: &'a str,
    pub(crate) deployment: &'a str,
    /// As Ray numbers it (`DeploymentStatus.to_numeric`).
    pub(crate) status: u8,
    pub(crate) running: usize,
    pub(crate) target: usize,
    /// None for one whose number somebody says.
    pub(crate) scaling: Option<Scaling>,
}

/// The numbers of one that scales by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scaling {
    /// Replicas that its scaler decided on.
    pub(crate) desired: u32,
    /// Requests that it decided by.
    pub(crate) total_requests: f64,
    pub(crate) target_ongoing: f64,
}

/// A replica that runs for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Startup {
    pub(crate) application: String,
    pub(crate) deployment: String,
    /// Since it was made.
    pub(crate) took: Time,
}

impl State {
    /// Every application and its status as Ray numbers it (`ApplicationStatus.to_numeric`).
    pub(crate) fn application_gauges(&self) -> impl Iterator<Item = (&str, u8)> {
        self.apps.iter().map(|(name, app)| {
            let status = match self.application_state(app) {
                ApplicationState::Unspecified => 0,
                ApplicationState::DeployFailed => 1,
                ApplicationState::Unhealthy => 2,
                ApplicationState::NotStarted => 3,
                ApplicationState::Deleting => 4,
                ApplicationState::Deploying => 5,
                ApplicationState::Running => 6,
            };
            (name.as_str(), status)
        })
    }

    /// Every deployment's numbers.
    pub(crate) fn deployment_gauges(&self) -> impl Iterator<Item = Gauges<'_>> {
        self.deployments.iter().map(|(key, deployment)| Gauges {
            application: &deployment.app,
            deployment: deployment.name(),
            status: match deployment.condition.state {
                DeploymentState::Unspecified => 0,
                DeploymentState::DeployFailed => 1,
                DeploymentState::Unhealthy => 2,
                DeploymentState::Updating => 3,
                DeploymentState::Upscaling => 4,
                DeploymentState::Downscaling => 5,
                DeploymentState::Healthy => 6,
            },
            running: deployment.running.len(),
            target: deployment.target,
            scaling: self.scalers.get(key).map(super::scaling::Auto::gauges),
        })
    }

    /// Replicas that began to run since this was last asked.
    pub(crate) fn take_startups(&mut self) -> Vec<Startup> {
        std::mem::take(&mut self.startups)
    }

    /// Notes that a replica of a deployment began to run after so long.
    pub(super) fn note_startup(&mut self, key: Key, took: Time) {
        if self.startups.len() < STARTUPS
            && let Some(deployment) = self.deployments.get(&key)
        {
            self.startups.push(Startup {
                application: deployment.app.clone(),
                deployment: deployment.name().to_owned(),
                took,
            });
        }
    }
}
