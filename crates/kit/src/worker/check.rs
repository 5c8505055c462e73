//! When a replica is checked, and when it counts as unhealthy. Pure: time is an argument.
//!
//! As in Ray Serve: a check every period, each with a timeout, and so many failures in a row make it unhealthy. One success
//! forgets all failures. Invariant: at most one check of a replica is under way.

use std::time::Duration;

use mobula_proto::control::v1::LightConfig;
use tokio::time::Instant;

/// Ray's `health_check_period_s`.
const PERIOD: Duration = Duration::from_secs(10);
/// Ray's `health_check_timeout_s`.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Ray's `RAY_SERVE_REPLICA_HEALTH_CHECK_UNHEALTHY_THRESHOLD`.
const FAILURES: u32 = 3;

/// How a replica is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) period: Duration,
    pub(crate) timeout: Duration,
    pub(crate) failures: u32,
}

impl Policy {
    /// What the controller says; Ray's defaults where it says nothing.
    pub(crate) fn of(light: &LightConfig) -> Self {
        let millis = |ms: u32, default| match ms {
            0 => default,
            ms => Duration::from_millis(ms.into()),
        };
        Self {
            period: millis(light.health_check_period_ms, PERIOD),
            timeout: millis(light.health_check_timeout_ms, TIMEOUT),
            failures: match light.health_check_failures {
                0 => FAILURES,
                n => n,
            },
        }
    }
}

/// How the checks of a replica go.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    under_way: bool,
    /// When the last one began.
    began: Option<Instant>,
    failures: u32,
    healthy: Option<Instant>,
}

impl Checks {
    /// Whether a check is to begin now; it is then under way.
    pub(crate) fn begin(&mut self, policy: &Policy, now: Instant) -> bool {
        let due = self.began.is_none_or(|began| now >= began + policy.period);
        if self.under_way || !due {
            return false;
        }
        (self.under_way, self.began) = (true, Some(now));
        true
    }

    /// Takes a check's result; why it is unhealthy, when this failure was one too many.
    pub(crate) fn end(
        &mut self,
        result: Result<(), String>,
        policy: &Policy,
        now: Instant,
    ) -> Result<(), String> {
        self.under_way = false;
        match result {
            Ok(()) => {
                (self.failures, self.healthy) = (0, Some(now));
                Ok(())
            }
            Err(why) => {
                self.failures += 1;
                if self.failures < policy.failures {
                    return Ok(());
                }
                Err(match self.failures {
                    1 => format!("a health check failed: {why}"),
                    n => format!("{n} health checks in a row failed: {why}"),
                })
            }
        }
    }

    /// When it was last found healthy.
    pub(crate) fn healthy(&self) -> Option<Instant> {
        self.healthy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        period: Duration::from_secs(10),
        timeout: Duration::from_secs(30),
        failures: 3,
    };

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn a_check_begins_every_period_and_never_beside_another() {
        let (mut checks, start) = (Checks::default(), Instant::now());
        assert!(checks.begin(&POLICY, start));
        assert!(!checks.begin(&POLICY, start + seconds(20)));
        checks.end(Ok(()), &POLICY, start + seconds(21)).unwrap();
        assert!(checks.begin(&POLICY, start + seconds(21)));
        checks.end(Ok(()), &POLICY, start + seconds(22)).unwrap();
        assert!(!checks.begin(&POLICY, start + seconds(30)));
        assert!(checks.begin(&POLICY, start + seconds(31)));
    }

    #[test]
    fn failures_in_a_row_make_it_unhealthy_and_a_success_forgets_them() {
        let (mut checks, now) = (Checks::default(), Instant::now());
        let mut end = |result: Result<(), String>| checks.end(result, &POLICY, now);
        assert_eq!(end(Err("a".into())), Ok(()));
        assert_eq!(end(Err("b".into())), Ok(()));
        assert_eq!(end(Ok(())), Ok(()));
        assert_eq!(end(Err("c".into())), Ok(()));
        assert_eq!(end(Err("d".into())), Ok(()));
        assert_eq!(
            end(Err("e".into())),
            Err("3 health checks in a row failed: e".into())
        );
        assert_eq!(checks.healthy(), Some(now));
    }

    #[test]
    fn what_the_controller_does_not_say_is_rays_default() {
        assert_eq!(Policy::of(&LightConfig::default()), POLICY);
        let said = LightConfig {
            health_check_period_ms: 100,
            health_check_failures: 1,
            ..Default::default()
        };
        assert_eq!(Policy::of(&said).period, Duration::from_millis(100));
        assert_eq!(Policy::of(&said).failures, 1);
    }
}
