//! How many replicas a deployment should have: Ray Serve's algorithm, and one that counts work instead of requests.
//!
//! A [`Scaler`] belongs to one deployment. It takes in what routers and replicas say of the load, and every [`TICK`] it says
//! whether the number of replicas should change, and why. It refuses to start replicas, to know where they are, and to have a
//! clock: time is a [`Duration`] since any fixed point of the caller's, and only the caller's own clock is used.
//!
//! [`Policy::Ongoing`] is Ray 2.60's `default_autoscaling_policy` with all that surrounds it (ray/serve/autoscaling_policy.py,
//! _private/autoscaling_state.py, _private/metrics_utils.py); tools/reference/autoscaling.py runs Ray itself, and the tests
//! replay what it decided. In each tick:
//!
//! ```text
//! total   = aggregate of queued + running requests over look_back (`steps` says how)
//! no replica runs, total > 0:  target = max(ceil(upscaling_factor), target), at once
//! desired = total / target_ongoing
//! scaled  = ceil(running + factor x (desired - running)), factor that of the direction
//!           one less if that is `running` although ceil(desired) is less
//! scaled must stay above (or below) the target for upscale_delay (downscale_delay; from the last replica to none
//!           downscale_to_zero_delay); then target = scaled, but from more than one never to 0
//! target  = within min and max, both scaled by target_capacity
//! ```
//!
//! Older Ray counted turns of its loop (`c > int(delay / 0.1)`) where 2.60 looks at the time that has passed; with turns of
//! exactly 100 ms both grant a wish in the same tick. Older Ray also applied the bounds before the delay, which comes to the
//! same targets. Differences from 2.60, each on purpose:
//! - a whole number is one within [`NEAR`]: Ray's sums of floats can land one bit above it, and a replica more is asked for;
//! - what a router has running is one series, not one per replica, so a replica that joins or stops does not shorten or
//!   rewrite the window (a replica's own report is one series of its own, as in Ray);
//! - a replica that says nothing is dropped as a router is; in Ray its last report counts until it is stopped;
//! - `initial_replicas` comes back when the scaling settings change; in Ray also when any other setting of the deployment does.
//!
//! [`Policy::Work`] is described in `work`.
//!
//! Invariants, each a property test: the target is within the bounds; it never goes from more than one to 0 in one step; the
//! same samples give the same decisions at the same ticks however rarely the caller asks; a request counts once.

mod bounds;
mod decide;
mod delay;
mod load;
#[cfg(test)]
mod properties;
mod scaler;
mod series;
#[cfg(test)]
mod simulation;
mod steps;
#[cfg(test)]
mod tests;
mod view;
mod words;
mod work;

use std::time::Duration;

pub use self::{
    bounds::{Direction, adjusted},
    scaler::Scaler,
    view::{Decision, Health, Inputs, Status, View},
};

/// One turn of the loop that decides; Ray's control loop has the same.
pub const TICK: Duration = Duration::from_millis(100);
/// How near a number must be to a whole one to be taken for it, relative to max(1, the number): far above what adding floats
/// loses, far below what a request is.
pub const NEAR: f64 = 1e-9;
/// A source that says nothing for so long, or for two of its intervals, is dropped; Ray's
/// `RAY_SERVE_MIN_HANDLE_METRICS_TIMEOUT_S`.
pub const SILENCE: Duration = Duration::from_secs(10);

/// What is wrong with a [`Config`].
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum Error {
    /// The bounds cross.
    #[error(
        "max_replicas is {max} and min_replicas {min}: max_replicas must be at least 1 and at least min_replicas"
    )]
    Bounds {
        /// As given.
        min: u32,
        /// As given.
        max: u32,
    },
    /// The first number is outside the bounds.
    #[error("initial_replicas is {initial}: it must be from min_replicas ({min}) to max_replicas ({max})")]
    Initial {
        /// As given.
        initial: u32,
        /// The lower bound.
        min: u32,
        /// The upper bound.
        max: u32,
    },
    /// A number that must be more than 0 is not.
    #[error("{field} is {value}: it must be a number above 0")]
    Positive {
        /// The field's name in Ray.
        field: &'static str,
        /// As given.
        value: f64,
    },
    /// A time that must be more than 0 is not.
    #[error("{field} is 0: it must be a time above 0")]
    Zero {
        /// The field's name in Ray.
        field: &'static str,
    },
}

/// How the load of a window becomes one number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Aggregation {
    /// Its mean over time.
    #[default]
    Mean,
    /// The most there was.
    Max,
    /// The least there was.
    Min,
}

/// What the target follows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Policy {
    /// Ray's `default_autoscaling_policy`: requests that are queued or running.
    #[default]
    Ongoing,
    /// Predicted seconds of work.
    Work {
        /// Seconds of work that one replica may have before it.
        target_s: f64,
    },
}

/// Ray's `autoscaling_config`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `min_replicas`.
    pub min: u32,
    /// `initial_replicas`.
    pub initial: Option<u32>,
    /// `max_replicas`.
    pub max: u32,
    /// `target_ongoing_requests`, queued and running, that a replica should have.
    pub target_ongoing: f64,
    /// `metrics_interval_s`: how often sources report.
    pub metrics_interval: Duration,
    /// `look_back_period_s`: the window over which load is aggregated.
    pub look_back: Duration,
    /// `upscaling_factor`: what part of a step up is done; 1 if unset.
    pub upscaling_factor: Option<f64>,
    /// `downscaling_factor`: what part of a step down is done; 1 if unset.
    pub downscaling_factor: Option<f64>,
    /// `upscale_delay_s`.
    pub upscale_delay: Duration,
    /// `downscale_delay_s`.
    pub downscale_delay: Duration,
    /// `downscale_to_zero_delay_s`: for the last replica; as the others if unset.
    pub downscale_to_zero_delay: Option<Duration>,
    /// `aggregation_function`.
    pub aggregation: Aggregation,
    /// `policy`.
    pub policy: Policy,
}

impl Default for Config {
    /// Ray's defaults for an `autoscaling_config` that names nothing.
    fn default() -> Self {
        Self {
            min: 1,
            initial: None,
            max: 1,
            target_ongoing: 2.0,
            metrics_interval: Duration::from_secs(10),
            look_back: Duration::from_secs(30),
            upscaling_factor: None,
            downscaling_factor: None,
            upscale_delay: Duration::from_secs(30),
            downscale_delay: Duration::from_secs(600),
            downscale_to_zero_delay: None,
            aggregation: Aggregation::Mean,
            policy: Policy::Ongoing,
        }
    }
}

impl Config {
    /// Ray's `num_replicas: auto`: the defaults with up to 100 replicas.
    #[must_use]
    pub fn auto() -> Self {
        Self {
            max: 100,
            ..Self::default()
        }
    }

    /// Says what is wrong, with Ray's rules and names.
    ///
    /// # Errors
    /// When the bounds cross, the first number is outside them, or a number or a window is not above 0.
    pub fn check(&self) -> Result<(), Error> {
        let (min, max) = (self.min, self.max);
        if max == 0 || max < min {
            return Err(Error::Bounds { min, max });
        }
        if let Some(initial) = self.initial.filter(|n| *n < min || *n > max) {
            return Err(Error::Initial { initial, min, max });
        }
        let target_s = match self.policy {
            Policy::Ongoing => None,
            Policy::Work { target_s } => Some(target_s),
        };
        let numbers = [
            ("target_ongoing_requests", Some(self.target_ongoing)),
            ("upscaling_factor", self.upscaling_factor),
            ("downscaling_factor", self.downscaling_factor),
            ("target_s", target_s),
        ];
        for (field, value) in numbers {
            if let Some(value) = value.filter(|value| !(value.is_finite() && *value > 0.0)) {
                return Err(Error::Positive { field, value });
            }
        }
        let times = [
            ("metrics_interval_s", self.metrics_interval),
            ("look_back_period_s", self.look_back),
        ];
        match times.into_iter().find(|(_, time)| time.is_zero()) {
            Some((field, _)) => Err(Error::Zero { field }),
            None => Ok(()),
        }
    }

    /// After how much silence a source is dropped.
    fn silence(&self) -> Duration {
        SILENCE.max(self.metrics_interval.saturating_mul(2))
    }
}

/// What a router or a replica says of its load.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sample {
    /// Requests that wait for a replica.
    pub queued: f64,
    /// Requests that are at a replica.
    pub running: f64,
    /// Predicted seconds of work of both: rows that are not computed yet x measured seconds per row.
    pub work_s: f64,
}

/// The smallest whole number that is not below, [`NEAR`] considered.
fn ceil(x: f64) -> f64 {
    let whole = x.round();
    if (x - whole).abs() <= NEAR * whole.abs().max(1.0) {
        whole
    } else {
        x.ceil()
    }
}

/// The same as a number of replicas.
fn replicas(x: f64) -> u32 {
    // `as` takes what is negative or no number for 0, and what is too large for the largest.
    ceil(x) as u32
}

/// Nanoseconds; 584 years are enough.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
