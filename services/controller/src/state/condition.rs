//! How a deployment is, as Ray Serve counts it: a state, what brought it there, and the transitions between them.
//!
//! The table is that of `DeploymentStatusInfo.handle_transition` (ray/serve/_private/common.py); whatever it does not name
//! changes nothing. Refuses to know replicas: what happened is told to it.

use mobula_proto::control::v1::{DeploymentState as State, DeploymentTrigger as Trigger};

/// What happened to a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happened {
    /// A config was accepted that changes more than the number of replicas.
    ConfigUpdate,
    /// A person wants more replicas.
    Increase,
    /// A person wants fewer.
    Decrease,
    /// The autoscaler wants more.
    AutoscaleUp,
    /// The autoscaler wants fewer.
    AutoscaleDown,
    /// All replicas run and are as they shall be.
    Healthy,
    /// A replica that ran has failed, or its worker is gone.
    HealthCheckFailed,
    /// Replicas fail to start too often.
    StartupFailed,
    /// An update failed and goes back.
    UpdateFailed,
    /// It is deleted.
    Delete,
}

/// How a deployment is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) state: State,
    pub(super) trigger: Trigger,
    pub(super) message: String,
}

impl Default for Condition {
    /// As of a deployment that has just been told of.
    fn default() -> Self {
        Self {
            state: State::Updating,
            trigger: Trigger::ConfigUpdateStarted,
            message: String::new(),
        }
    }
}

impl Condition {
    /// Takes in what happened; true if that changed anything.
    pub(super) fn handle(&mut self, happened: Happened, message: &str) -> bool {
        let Some((state, trigger)) = self.next(happened) else {
            return false;
        };
        let next = Self {
            state,
            trigger,
            message: message.to_owned(),
        };
        let changed = *self != next;
        *self = next;
        changed
    }

    fn next(&self, happened: Happened) -> Option<(State, Trigger)> {
        use Happened as H;
        match happened {
            H::Delete => return Some((State::Updating, Trigger::Deleting)),
            H::UpdateFailed => return Some((State::DeployFailed, Trigger::ReplicaStartupFailed)),
            // A new config begins everything anew, whatever was before.
            H::ConfigUpdate => return Some((State::Updating, Trigger::ConfigUpdateStarted)),
            H::Increase
            | H::Decrease
            | H::AutoscaleUp
            | H::AutoscaleDown
            | H::Healthy
            | H::HealthCheckFailed
            | H::StartupFailed => {}
        }
        match self.state {
            State::Unspecified | State::Updating => match happened {
                H::Healthy => Some((State::Healthy, Trigger::ConfigUpdateCompleted)),
                H::AutoscaleUp => Some((State::Upscaling, Trigger::Autoscaling)),
                H::AutoscaleDown => Some((State::Downscaling, Trigger::Autoscaling)),
                H::HealthCheckFailed => Some((State::DeployFailed, Trigger::HealthCheckFailed)),
                H::StartupFailed => Some((State::DeployFailed, Trigger::ReplicaStartupFailed)),
                H::Increase | H::Decrease | H::ConfigUpdate | H::UpdateFailed | H::Delete => None,
            },
            State::Upscaling | State::Downscaling => match happened {
                H::Healthy if self.state == State::Upscaling => {
                    Some((State::Healthy, Trigger::UpscaleCompleted))
                }
                H::Healthy => Some((State::Healthy, Trigger::DownscaleCompleted)),
                H::HealthCheckFailed => Some((State::Unhealthy, Trigger::HealthCheckFailed)),
                H::StartupFailed => Some((State::Unhealthy, Trigger::ReplicaStartupFailed)),
                H::Increase => Some((State::Upscaling, Trigger::ConfigUpdateStarted)),
                H::Decrease => Some((State::Downscaling, Trigger::ConfigUpdateStarted)),
                // What a person asked for is told until it is done.
                H::AutoscaleUp if self.trigger == Trigger::Autoscaling => {
                    Some((State::Upscaling, self.trigger))
                }
                H::AutoscaleDown if self.trigger == Trigger::Autoscaling => {
                    Some((State::Downscaling, self.trigger))
                }
                H::AutoscaleUp | H::AutoscaleDown | H::ConfigUpdate | H::UpdateFailed | H::Delete => None,
            },
            State::Healthy => match happened {
                H::Increase => Some((State::Upscaling, Trigger::ConfigUpdateStarted)),
                H::Decrease => Some((State::Downscaling, Trigger::ConfigUpdateStarted)),
                H::AutoscaleUp => Some((State::Upscaling, Trigger::Autoscaling)),
                H::AutoscaleDown => Some((State::Downscaling, Trigger::Autoscaling)),
                H::HealthCheckFailed => Some((State::Unhealthy, Trigger::HealthCheckFailed)),
                H::Healthy | H::StartupFailed | H::ConfigUpdate | H::UpdateFailed | H::Delete => None,
            },
            State::Unhealthy => match happened {
                H::Healthy => Some((State::Healthy, Trigger::Unspecified)),
                H::HealthCheckFailed => Some((State::Unhealthy, Trigger::HealthCheckFailed)),
                H::StartupFailed => Some((State::Unhealthy, Trigger::ReplicaStartupFailed)),
                H::Increase
                | H::Decrease
                | H::AutoscaleUp
                | H::AutoscaleDown
                | H::ConfigUpdate
                | H::UpdateFailed
                | H::Delete => None,
            },
            State::DeployFailed => match happened {
                H::Healthy => Some((State::Healthy, Trigger::Unspecified)),
                H::HealthCheckFailed => Some((State::DeployFailed, Trigger::HealthCheckFailed)),
                H::StartupFailed => Some((State::DeployFailed, Trigger::ReplicaStartupFailed)),
                H::Increase
                | H::Decrease
                | H::AutoscaleUp
                | H::AutoscaleDown
                | H::ConfigUpdate
                | H::UpdateFailed
                | H::Delete => None,
            },
        }
    }

    /// The lower, the more it says of the application (Ray's `DEPLOYMENT_STATUS_RANKING_ORDER`).
    pub(super) fn rank(&self) -> u8 {
        match self.state {
            State::DeployFailed => 0,
            State::Unhealthy => 1,
            State::Unspecified | State::Updating => 2,
            State::Upscaling | State::Downscaling if self.trigger == Trigger::ConfigUpdateStarted => 2,
            State::Upscaling | State::Downscaling | State::Healthy => 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(steps: &[Happened]) -> (State, Trigger) {
        let mut condition = Condition::default();
        for step in steps {
            condition.handle(*step, "");
        }
        (condition.state, condition.trigger)
    }

    #[test]
    fn a_deployment_goes_through_rays_states() {
        use Happened as H;
        assert_eq!(after(&[]), (State::Updating, Trigger::ConfigUpdateStarted));
        assert_eq!(
            after(&[H::Healthy]),
            (State::Healthy, Trigger::ConfigUpdateCompleted)
        );
        assert_eq!(
            after(&[H::Healthy, H::Increase]),
            (State::Upscaling, Trigger::ConfigUpdateStarted)
        );
        assert_eq!(
            after(&[H::Healthy, H::AutoscaleUp, H::Healthy]),
            (State::Healthy, Trigger::UpscaleCompleted)
        );
        assert_eq!(
            after(&[H::Healthy, H::AutoscaleUp, H::AutoscaleDown, H::Healthy]),
            (State::Healthy, Trigger::DownscaleCompleted)
        );
        assert_eq!(
            after(&[H::Healthy, H::HealthCheckFailed, H::StartupFailed, H::Healthy]),
            (State::Healthy, Trigger::Unspecified)
        );
        assert_eq!(
            after(&[H::StartupFailed]),
            (State::DeployFailed, Trigger::ReplicaStartupFailed)
        );
        assert_eq!(
            after(&[H::StartupFailed, H::ConfigUpdate]),
            (State::Updating, Trigger::ConfigUpdateStarted)
        );
        assert_eq!(
            after(&[H::Healthy, H::Delete]),
            (State::Updating, Trigger::Deleting)
        );
    }

    #[test]
    fn an_autoscaler_does_not_hide_what_a_person_asked_for_or_a_failure() {
        use Happened as H;
        assert_eq!(
            after(&[H::Healthy, H::Increase, H::AutoscaleDown]),
            (State::Upscaling, Trigger::ConfigUpdateStarted)
        );
        assert_eq!(
            after(&[H::Healthy, H::HealthCheckFailed, H::AutoscaleUp]),
            (State::Unhealthy, Trigger::HealthCheckFailed)
        );
        assert_eq!(
            after(&[H::Healthy, H::StartupFailed]),
            (State::Healthy, Trigger::ConfigUpdateCompleted)
        );
    }
}
