//! The work policy: as many replicas as keep the predicted work of each under `target_s` seconds.
//!
//! Requests differ (a picture of 8 steps, one of 150 at four times the size), seconds of work do not. With T = `target_s`:
//!
//! ```text
//! work    = sum over routers of the seconds of work they have queued or running
//! up      = min(aggregate of work over look_back, work now) / T
//! down    = max(most work in look_back / T, mean over look_back of busy replicas) / SLACK
//! desired = up if ceil(up) > target;  down if ceil(down) < target;  else the target
//! scaled  = ceil(target + factor x (desired - target)), factor at most 1, one less if it would not move down
//! ```
//!
//! then bounds, delays and staging as for requests. `busy` is min(running requests, running replicas).
//!
//! Why it does not swing, as a mean over a window does that is longer than the delays (its target follows load that is over):
//! - up needs both the window and the present; a backlog that was just worked off asks for nothing;
//! - down looks at the worst of the whole window, and leaves [`SLACK`], so what was just added is not taken away for the same
//!   samples: after a step up the target is below up + 1, and down is at least up / SLACK;
//! - down also leaves the replicas that are busy. A queue is short because there are enough replicas, so its length alone would
//!   take them away until it grows again;
//! - steps count from the target, not from what runs, so a replica that is still starting is not asked for twice, and a factor
//!   above 1 (which would carry past what is wanted) is 1.
//!
//! What remains is the grain of single requests: where `target_s` is less than one request takes, or a window sees few samples,
//! chance decides between neighbouring targets, and only longer delays help.
//!
//! It refuses to predict: seconds of work come with the samples.

use super::{Aggregation, Config, ceil, load::Load, replicas};

/// How full the replicas that are left may be when some are taken away.
pub(super) const SLACK: f64 = 0.8;

/// What the work asks for, in replicas.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Need {
    /// The target should be at least this.
    pub(super) up: f64,
    /// It may be as low as this.
    pub(super) down: f64,
}

impl Need {
    pub(super) fn of(load: &Load, aggregation: Aggregation, target_s: f64, now: u64) -> Self {
        let target_s = target_s.max(f64::MIN_POSITIVE);
        let lasting = load.work.aggregate(now, aggregation).min(load.work.value());
        Self {
            up: lasting / target_s,
            down: (load.work.peak() / target_s).max(load.busy.mean(now)) / SLACK,
        }
    }

    /// What is wanted when the target is `target`.
    pub(super) fn desired(self, target: u32) -> f64 {
        let have = f64::from(target);
        if ceil(self.up) > have {
            self.up
        } else if ceil(self.down) < have {
            self.down
        } else {
            have
        }
    }
}

/// A step from the target towards what is wanted.
pub(super) fn step(config: &Config, target: u32, desired: f64) -> u32 {
    let have = f64::from(target);
    let factor = if desired > have {
        config.upscaling_factor
    } else {
        config.downscaling_factor
    };
    let stepped = replicas(have + factor.unwrap_or(1.0).min(1.0) * (desired - have));
    if ceil(desired) < have && stepped == target {
        target.saturating_sub(1)
    } else {
        stepped
    }
}

#[cfg(test)]
mod tests;
