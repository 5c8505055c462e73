//! What admission speaks of: bounds, what there is no room for, deadlines, and how fast a deployment works.

use std::time::Duration;

use crate::{fair::Claim, route::Cost};

/// A measurement is believed for so long without another one: what slowed a machine down is often over by then, and a request
/// that is let in for nothing every so often costs a replica little that has nothing else to do.
pub(super) const DOUBTED_AFTER: Duration = Duration::from_secs(10);

/// How much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Requests, beyond those that find a slot free.
    pub requests: usize,
    /// Bytes of those requests.
    pub bytes: u64,
    /// How long one may wait.
    pub age: Duration,
}

impl Default for Bounds {
    /// None.
    fn default() -> Self {
        Self {
            requests: usize::MAX,
            bytes: u64::MAX,
            age: Duration::MAX,
        }
    }
}

/// Which bound a request came up against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bound {
    /// Requests of everybody.
    #[default]
    Requests,
    /// Requests of low class, which leave some places to others.
    Low,
    /// Requests of its tenant.
    Share,
    /// Bytes.
    Bytes,
    /// The time that it would wait.
    Age,
}

/// There is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Full {
    /// Requests that wait.
    pub waiting: usize,
    /// When a place is likely to be free.
    pub retry_after: Duration,
    /// What there is no room for.
    pub bound: Bound,
}

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let waiting = self.waiting;
        match self.bound {
            Bound::Requests => write!(f, "queue is full ({waiting} waiting)"),
            Bound::Low => write!(
                f,
                "queue is full for requests of low priority ({waiting} waiting)"
            ),
            Bound::Share => write!(
                f,
                "queue is full for this caller, who has its share of it ({waiting} waiting)"
            ),
            Bound::Bytes => write!(f, "queue is full of prompts and pictures ({waiting} waiting)"),
            Bound::Age => write!(f, "the wait would be longer than may be ({waiting} waiting)"),
        }
    }
}

impl std::error::Error for Full {}

/// A deadline cannot be met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("deadline cannot be met: {needed:?} needed, {left:?} left")]
pub struct TooLate {
    /// Predicted time to the last picture, at the least.
    pub needed: Duration,
    /// Time to the deadline.
    pub left: Duration,
}

/// How fast a deployment works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Nanoseconds per row at one replica; 0 before it was measured.
    pub row_ns: u64,
    /// Replicas that work side by side.
    pub replicas: usize,
}

impl Pace {
    /// Time that `rows` take; `None` when nothing was measured or nobody works.
    pub fn time(self, rows: u64) -> Option<Duration> {
        let replicas = u64::try_from(self.replicas).ok().filter(|n| *n > 0)?;
        (self.row_ns > 0).then(|| Cost::rows(rows.div_ceil(replicas)).time(self.row_ns))
    }
}

/// What a request asks to be let in for.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// As whom.
    pub claim: &'a Claim,
    /// What it costs.
    pub cost: Cost,
    /// Bytes that it holds while it waits.
    pub bytes: u64,
}

/// What a queue is in front of.
#[derive(Debug, Clone, Copy)]
pub struct Scene {
    /// Slots that are free.
    pub free: usize,
    /// How fast they work.
    pub pace: Pace,
    /// The time.
    pub now: Duration,
}

/// What a predicted time rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Basis {
    /// Time since its time per row was last measured.
    pub age: Duration,
    /// Whether a request is under way that will measure it anew.
    pub under_way: bool,
}

impl Basis {
    /// Whether nothing would ever put a wrong prediction right: it is old, and only a request that runs is a measurement.
    fn is_doubtful(self) -> bool {
        !self.under_way && self.age >= DOUBTED_AFTER
    }
}

/// Refuses a deadline that is `left` away when a request is predicted to need `needed`, as far as that is trusted. One that
/// rests on an old measurement refuses nobody while nothing is under way: the request that comes then measures anew, and
/// those behind it are judged by what it took.
///
/// # Errors
/// [`TooLate`] when the time is too short.
pub fn check_deadline(left: Duration, needed: Duration, basis: Basis) -> Result<(), TooLate> {
    let late = needed > left && !basis.is_doubtful();
    if left.is_zero() || late {
        Err(TooLate { needed, left })
    } else {
        Ok(())
    }
}
