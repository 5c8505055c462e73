//! Between which numbers of replicas a target may be: min, max and initial, scaled by the cluster's target capacity.
//!
//! Refuses to know why a capacity is what it is. Invariant: the lower bound wins where the two cross, as in Ray.

use super::Config;

/// Where the target capacity is going, Ray's `TargetCapacityDirection`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The cluster is being filled: a deployment has at least its `initial_replicas`.
    Up,
    /// It is being emptied.
    Down,
}

impl Direction {
    /// The direction after a new configuration, from the capacity and direction before it. `None` as `before` means that there
    /// was no configuration, or one of other applications: then the cluster is being filled.
    #[must_use]
    pub fn next(before: Option<(Option<f64>, Option<Self>)>, capacity: Option<f64>) -> Option<Self> {
        match (before, capacity) {
            (Some((old, direction)), new) if old == new => direction,
            (_, None) => None,
            (None, Some(_)) => Some(Self::Up),
            (Some((Some(old), _)), Some(new)) if old < new => Some(Self::Up),
            (Some(_), Some(_)) => Some(Self::Down),
        }
    }
}

/// A number of replicas at a target capacity in percent: rounded, half up, and 0 only if either is 0.
#[must_use]
pub fn adjusted(replicas: u32, capacity: Option<f64>) -> u32 {
    let Some(percent) = capacity.filter(|percent| *percent != 100.0) else {
        return replicas;
    };
    if percent <= 0.0 || replicas == 0 {
        return 0;
    }
    // The remainder is exact, where a quotient in floats would be rounded before it is rounded.
    let scaled = f64::from(replicas) * percent;
    let rest = scaled % 100.0;
    let whole = ((scaled - rest) / 100.0).round() as u32;
    (whole + u32::from(rest >= 50.0)).max(1)
}

/// Both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) lower: u32,
    pub(super) upper: u32,
    /// `initial_replicas`, if set, is the lower one.
    pub(super) filling: bool,
}

impl Bounds {
    pub(super) fn of(config: &Config, capacity: Option<f64>, direction: Option<Direction>) -> Self {
        let filling = direction == Some(Direction::Up);
        let lower = config.initial.filter(|_| filling).unwrap_or(config.min);
        Self {
            lower: adjusted(lower, capacity),
            upper: adjusted(config.max, capacity),
            filling,
        }
    }

    pub(super) fn clamp(self, replicas: u32) -> u32 {
        replicas.min(self.upper).max(self.lower)
    }
}
