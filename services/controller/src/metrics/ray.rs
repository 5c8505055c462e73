//! What Ray Serve's controller shows of itself, of applications and of deployments, under its names (controller.py,
//! application_state.py, deployment_state.py and autoscaling_state.py of 2.60). Series end with their application or
//! deployment.

use std::{collections::BTreeMap, time::Duration};

use mobula_kit::metrics::{Family, Kind, START_MILLIS, Series};
use tokio::time::Instant;

use crate::state::State;

/// The loop turns for every heartbeat; scrapers come every ten seconds or so.
const SHOWN_EVERY: Duration = Duration::from_millis(500);

const DEPLOYMENT: &[&str] = &["application", "deployment"];

static LOOP: Family = Family {
    name: "serve_controller_control_loop_duration_s",
    kind: Kind::Gauge,
    labels: &[],
    help: "Seconds of the last turn of the control loop.",
};
static LOOPS: Family = Family {
    name: "serve_controller_num_control_loops",
    kind: Kind::Gauge,
    labels: &["actor_id"],
    help: "Turns of the control loop since the start; a turn takes in a batch of events.",
};
static SLEEP: Family = Family {
    name: "serve_controller_sleep_duration_s",
    kind: Kind::Gauge,
    labels: &[],
    help: "Seconds that the control loop waited before its last turn.",
};
static APPLICATION_STATUS: Family = Family {
    name: "serve_application_status",
    kind: Kind::Gauge,
    labels: &["application"],
    help: "0 unknown, 1 DEPLOY_FAILED, 2 UNHEALTHY, 3 NOT_STARTED, 4 DELETING, 5 DEPLOYING, 6 RUNNING.",
};
static DEPLOYMENT_STATUS: Family = Family {
    name: "serve_deployment_status",
    kind: Kind::Gauge,
    labels: DEPLOYMENT,
    help: "0 unknown, 1 DEPLOY_FAILED, 2 UNHEALTHY, 3 UPDATING, 4 UPSCALING, 5 DOWNSCALING, 6 HEALTHY.",
};
static HEALTHY: Family = Family {
    name: "serve_deployment_replica_healthy",
    kind: Kind::Gauge,
    labels: DEPLOYMENT,
    help: "Replicas that run.",
};
static TARGET: Family = Family {
    name: "serve_autoscaling_target_replicas",
    kind: Kind::Gauge,
    labels: DEPLOYMENT,
    help: "Replicas that are wanted.",
};
static STARTUP: Family = Family {
    name: "serve_replica_startup_latency_ms",
    kind: Kind::Histogram(&START_MILLIS),
    labels: DEPLOYMENT,
    help: "Milliseconds from the wish for a replica until it runs, the wait for a worker included.",
};
static DESIRED: Family = Family {
    name: "serve_autoscaling_desired_replicas",
    kind: Kind::Gauge,
    labels: DEPLOYMENT,
    help: "Replicas that the scaler decided on; more may be wanted while the application is in use.",
};
static TOTAL_REQUESTS: Family = Family {
    name: "serve_autoscaling_total_requests",
    kind: Kind::Gauge,
    labels: DEPLOYMENT,
    help: "Queued and running requests that the scaler decides by.",
};
static TARGET_ONGOING: Family = Family {
    name: "serve_autoscaling_target_ongoing_requests",
    kind: Kind::Gauge,
    labels: DEPLOYMENT,
    help: "Requests that a replica should have.",
};

/// All of them.
#[cfg(test)]
static FAMILIES: [&Family; 11] = [
    &LOOP,
    &LOOPS,
    &SLEEP,
    &APPLICATION_STATUS,
    &DEPLOYMENT_STATUS,
    &HEALTHY,
    &TARGET,
    &STARTUP,
    &DESIRED,
    &TOTAL_REQUESTS,
    &TARGET_ONGOING,
];

/// Handles to the series of what there is.
#[derive(Debug)]
pub(crate) struct Ray {
    duration: Series,
    turns: Series,
    sleep: Series,
    /// Turns since the start; a gauge cannot be read back.
    count: u64,
    ended: Instant,
    shown: Option<Instant>,
    applications: BTreeMap<String, Series>,
    deployments: BTreeMap<(String, String), Deployment>,
}

#[derive(Debug)]
struct Deployment {
    status: Series,
    healthy: Series,
    target: Series,
    startup: Series,
    /// Desired replicas, requests, and requests that a replica should have.
    scaling: Option<[Series; 3]>,
}

impl Deployment {
    fn new((application, deployment): &(String, String)) -> Self {
        let of = [application.as_str(), deployment.as_str()];
        Self {
            status: DEPLOYMENT_STATUS.series(&of),
            healthy: HEALTHY.series(&of),
            target: TARGET.series(&of),
            startup: STARTUP.series(&of),
            scaling: None,
        }
    }
}

impl Ray {
    /// Handles for the controller of this id, new with every start.
    pub(crate) fn new(controller_id: &str, now: Instant) -> Self {
        Self {
            duration: LOOP.series(&[]),
            turns: LOOPS.series(&[controller_id]),
            sleep: SLEEP.series(&[]),
            count: 0,
            ended: now,
            shown: None,
            applications: BTreeMap::new(),
            deployments: BTreeMap::new(),
        }
    }

    /// A turn of the loop is over; what there is is shown now and then.
    #[allow(clippy::cast_precision_loss)] // A turn every millisecond reaches 2^52 after 140 millennia.
    pub(crate) fn turned(&mut self, state: &mut State, began: Instant, now: Instant) {
        let slept = began.saturating_duration_since(self.ended);
        self.sleep.set(slept.as_secs_f64());
        self.duration
            .set(now.saturating_duration_since(began).as_secs_f64());
        self.count += 1;
        self.turns.set(self.count as f64);
        self.ended = now;
        if self.shown.is_none_or(|at| now >= at + SHOWN_EVERY) {
            self.shown = Some(now);
            self.show(state);
        }
    }

    #[allow(clippy::cast_precision_loss)] // Counts far below 2^52.
    fn show(&mut self, state: &mut State) {
        let mut applications = std::mem::take(&mut self.applications);
        for (name, status) in state.application_gauges() {
            let known = applications.remove(name);
            let series = known.unwrap_or_else(|| APPLICATION_STATUS.series(&[name]));
            series.set(status.into());
            self.applications.insert(name.to_owned(), series);
        }
        let mut deployments = std::mem::take(&mut self.deployments);
        for gauges in state.deployment_gauges() {
            let place = (gauges.application.to_owned(), gauges.deployment.to_owned());
            let known = deployments.remove(&place);
            let mut series = known.unwrap_or_else(|| Deployment::new(&place));
            series.status.set(gauges.status.into());
            series.healthy.set(gauges.running as f64);
            series.target.set(gauges.target as f64);
            series.scaling = gauges.scaling.map(|scaling| {
                let of = [gauges.application, gauges.deployment];
                let known = series.scaling.take();
                let shown = known.unwrap_or_else(|| {
                    [&DESIRED, &TOTAL_REQUESTS, &TARGET_ONGOING].map(|family| family.series(&of))
                });
                shown[0].set(scaling.desired.into());
                shown[1].set(scaling.total_requests);
                shown[2].set(scaling.target_ongoing);
                shown
            });
            self.deployments.insert(place, series);
        }
        for startup in state.take_startups() {
            if let Some(series) = self.deployments.get(&(startup.application, startup.deployment)) {
                series.startup.record_ms(startup.took);
            }
        }
        // What is left of the old ones is gone, and its series with it.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_types_labels_and_buckets_are_rays() {
        let list = include_str!("../../../../crates/kit/tests/golden/ray_metrics.tsv");
        for family in FAMILIES {
            assert!(
                list.lines().any(|line| line == family.line()),
                "{}",
                family.line()
            );
        }
    }
}
