//! What a caller is told whom a queue has no room for. Pure.

use std::time::Duration;

use mobula_proto::control::v1::DeploymentRoute;
use mobula_serving::admission::Full;

use crate::Error;

/// What a full queue is answered when the table does not say: Ray Serve's status.
const BACKPRESSURE: u16 = 503;

/// What a caller is told whom the queue has no room for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backpressure {
    status: u16,
    retry_after: Option<Duration>,
}

impl Default for Backpressure {
    fn default() -> Self {
        Self {
            status: BACKPRESSURE,
            retry_after: None,
        }
    }
}

impl Backpressure {
    /// As the table says it.
    pub(super) fn of(route: &DeploymentRoute) -> Self {
        Self {
            status: match route.backpressure_status {
                429 => 429,
                _ => BACKPRESSURE,
            },
            retry_after: Duration::try_from_secs_f32(route.retry_after_s)
                .ok()
                .filter(|after| !after.is_zero()),
        }
    }

    /// The refusal of a request.
    pub(super) fn error(self, full: Full) -> Error {
        Error::Overloaded {
            full: Full {
                retry_after: self.retry_after.unwrap_or(full.retry_after),
                ..full
            },
            status: self.status,
        }
    }
}

#[cfg(test)]
mod tests {
    use mobula_serving::admission::Bound;

    use super::*;

    const FULL: Full = Full {
        waiting: 3,
        retry_after: Duration::from_secs(7),
        bound: Bound::Requests,
    };

    fn told(status: u32, retry_after_s: f32) -> (u16, Duration) {
        let route = DeploymentRoute {
            backpressure_status: status,
            retry_after_s,
            ..Default::default()
        };
        let error = Backpressure::of(&route).error(FULL);
        let Error::Overloaded { full, status } = error else {
            panic!("{error}")
        };
        (status, full.retry_after)
    }

    #[test]
    fn a_table_that_says_nothing_means_rays_status_and_the_drain_rate() {
        assert_eq!(told(0, 0.0), (503, FULL.retry_after));
    }

    #[test]
    fn status_and_time_are_as_the_deployment_says() {
        assert_eq!(told(429, 1.5), (429, Duration::from_millis(1_500)));
    }

    #[test]
    fn what_makes_no_sense_is_as_good_as_nothing() {
        for (status, retry_after_s) in [(200, -1.0), (70_000, f32::NAN), (503, f32::INFINITY)] {
            assert_eq!(told(status, retry_after_s), (503, FULL.retry_after));
        }
    }
}
