//! How long something must be wanted before it is done, and in which tick that is.
//!
//! Refuses to know what is wanted. Invariant: a wish is as old as the first of the ticks in a row that had it, whoever looked.

use std::time::Duration;

use super::{Config, TICK};

/// How much earlier than its delay a wish is granted: Ray's `_DELAY_ELAPSED_EPS_S`.
const EARLY: Duration = Duration::from_micros(1);

/// A target that is wanted higher or lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) up: bool,
    /// The tick that had it first.
    pub(super) since: u64,
}

/// When a tick is, since the origin.
pub(super) fn time(tick: u64) -> Duration {
    // 2^64 ns are 1.8e11 ticks.
    Duration::from_nanos(tick.saturating_mul(TICK_NS))
}

/// The last tick at a time or before it.
pub(super) fn floor(at: Duration) -> u64 {
    super::nanos(at) / TICK_NS
}

/// The first tick at a time or after it.
pub(super) fn ceil(at: Duration) -> u64 {
    super::nanos(at).div_ceil(TICK_NS)
}

const TICK_NS: u64 = TICK.as_nanos() as u64;

impl Wish {
    /// The tick in which a wish of a deployment with `target` replicas is granted.
    pub(super) fn due(self, config: &Config, target: u32) -> u64 {
        let delay = self.delay(config, target).saturating_sub(EARLY);
        self.since.saturating_add(ceil(delay))
    }

    /// How long it must last.
    pub(super) fn delay(self, config: &Config, target: u32) -> Duration {
        match (self.up, target) {
            (true, _) => config.upscale_delay,
            (false, 1) => config.downscale_to_zero_delay.unwrap_or(config.downscale_delay),
            (false, _) => config.downscale_delay,
        }
    }

    /// The name in Ray of what it waits for.
    pub(super) fn delay_name(self, config: &Config, target: u32) -> &'static str {
        match (self.up, target, config.downscale_to_zero_delay) {
            (true, _, _) => "upscale_delay_s",
            (false, 1, Some(_)) => "downscale_to_zero_delay_s",
            (false, _, _) => "downscale_delay_s",
        }
    }
}
