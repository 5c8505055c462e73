//! Whether a request does well to wait where no replica is. Pure.
//!
//! While the table says that replicas are on their way, or can be had by asking, a request waits as long as it has to.
//! When none is expected any more, it waits for the limit from then on: who came while there was hope is not sent away in
//! the same moment. Who comes when the table says why there is none is told so at once.

use std::time::Duration;

use mobula_proto::control::v1::DeploymentRoute;

/// What is to be expected of a deployment.
#[derive(Debug, Default)]
pub(super) struct Outlook {
    /// There is no replica, and one is expected.
    is_hopeful: bool,
    /// The table says that replicas are to be expected, whether there are any or not.
    is_expected: bool,
    /// When that was over last.
    bleak_since: Duration,
    /// Why there is none, when none is expected.
    why_none: String,
    /// There is a replica.
    has_replicas: bool,
    /// When that changed last.
    changed_at: Duration,
}

impl Outlook {
    /// The table says this.
    pub(super) fn told(&mut self, route: &DeploymentRoute, has_replicas: bool, now: Duration) {
        self.is_expected = route.expected;
        self.hope(route.expected && !has_replicas, now);
        self.why_none = if route.expected || has_replicas {
            String::new()
        } else {
            route.why_none.clone()
        };
        if self.has_replicas != has_replicas {
            self.has_replicas = has_replicas;
            self.changed_at = now;
        }
    }

    /// The controller is not heard any more: what it promised may not come.
    pub(super) fn unheard(&mut self, now: Duration) {
        self.is_expected = false;
        self.hope(false, now);
    }

    /// Replicas are there, or on their way, as far as the controller is heard.
    pub(super) fn is_expected(&self) -> bool {
        self.is_expected
    }

    fn hope(&mut self, is_hopeful: bool, now: Duration) {
        if self.is_hopeful && !is_hopeful {
            self.bleak_since = now;
        }
        self.is_hopeful = is_hopeful;
    }

    /// Until when a request waits that has had no replica since `since`, as far as can be told `now`: it asks again then.
    pub(super) fn limit(&self, since: Duration, timeout: Duration, now: Duration) -> Duration {
        if self.is_hopeful {
            now + timeout
        } else {
            since.max(self.bleak_since) + timeout
        }
    }

    /// Why there is no replica and will be none; empty when the table does not say so.
    pub(super) fn why_none(&self) -> &str {
        &self.why_none
    }

    /// There is a replica.
    pub(super) fn has_replicas(&self) -> bool {
        self.has_replicas
    }

    /// How long of the time from `begun` to `now` there was none, given that there was none at its begin.
    pub(super) fn without(&self, begun: Duration, now: Duration) -> Duration {
        let until = if self.has_replicas { self.changed_at } else { now };
        until.saturating_sub(begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const LIMIT: Duration = Duration::from_secs(30);

    fn route(expected: bool, why_none: &str) -> DeploymentRoute {
        DeploymentRoute {
            expected,
            why_none: why_none.into(),
            ..Default::default()
        }
    }

    #[test]
    fn while_a_replica_is_expected_there_is_no_limit() {
        let mut outlook = Outlook::default();
        outlook.told(&route(true, ""), false, S);
        assert_eq!(outlook.limit(S, LIMIT, S * 100), S * 130, "it asks again then");
        outlook.told(&route(false, "no worker has a GPU"), false, S * 120);
        assert_eq!(
            outlook.limit(S, LIMIT, S * 130),
            S * 150,
            "from when hope was lost"
        );
        assert_eq!(outlook.why_none(), "no worker has a GPU");
        assert_eq!(outlook.limit(S * 140, LIMIT, S * 140), S * 170);
    }

    #[test]
    fn a_replica_that_is_there_is_not_expected() {
        let mut outlook = Outlook::default();
        outlook.told(&route(true, ""), false, S);
        outlook.told(&route(true, ""), true, S * 10);
        assert_eq!(outlook.limit(S, LIMIT, S * 11), S * 40);
        outlook.told(&route(false, "why"), true, S * 12);
        assert_eq!(outlook.why_none(), "", "there is one");
    }

    #[test]
    fn a_controller_that_is_away_promises_nothing() {
        let mut outlook = Outlook::default();
        outlook.told(&route(true, ""), false, S);
        outlook.unheard(S * 5);
        assert_eq!(outlook.limit(S, LIMIT, S * 6), S * 35);
        assert_eq!(outlook.why_none(), "", "and refuses nothing");
        outlook.told(&route(true, ""), false, S * 7);
        assert_eq!(outlook.limit(S, LIMIT, S * 60), S * 90);
    }

    #[test]
    fn the_time_without_a_replica_ends_when_one_comes() {
        let mut outlook = Outlook::default();
        assert_eq!(outlook.without(S, S * 3), S * 2);
        outlook.told(&route(false, ""), true, S * 4);
        assert_eq!(outlook.without(S, S * 9), S * 3);
        assert_eq!(outlook.without(S * 5, S * 9), Duration::ZERO);
    }
}
