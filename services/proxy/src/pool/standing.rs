//! What those who wait are told of their place.
//!
//! Places change with everybody who comes and goes, and nobody reads them faster than a person does: they are worked out for
//! all who wait at once, when one of them asks and the last time is [`TELL`] ago.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use mobula_serving::route::Cost;

use super::Pool;

/// How often somebody who waits is told its place: what a person can follow.
pub(crate) const TELL: Duration = Duration::from_secs(1);

/// Where somebody stands, as it was last worked out.
#[derive(Debug)]
pub(crate) struct Spot {
    /// Requests that are served before it; as many as can be while that was never worked out.
    ahead: AtomicUsize,
    /// Their rows.
    rows: AtomicU64,
}

impl Default for Spot {
    fn default() -> Self {
        Self {
            ahead: AtomicUsize::new(usize::MAX),
            rows: AtomicU64::new(0),
        }
    }
}

/// Where somebody stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Requests that are served before it.
    pub(crate) ahead: usize,
    /// Predicted time to its last picture; none before anything was measured.
    pub(crate) eta: Option<Duration>,
}

impl Pool {
    /// Where somebody stands who waits at a cost; none when it waits no more.
    pub(crate) fn standing(self: &Arc<Self>, spot: &Spot, cost: Cost) -> Option<Standing> {
        let now = self.now();
        let mut state = self.lock();
        if state.placed_at.is_none_or(|at| at + TELL <= now) {
            state.placed_at = Some(now);
            state.queue.lift(now);
            let mut rows = 0_u64;
            for (ahead, (_, cost, waiter)) in state.queue.iter().enumerate() {
                waiter.spot.ahead.store(ahead, Ordering::Relaxed);
                waiter.spot.rows.store(rows, Ordering::Relaxed);
                rows = rows.saturating_add(cost.get());
            }
        }
        let ahead = spot.ahead.load(Ordering::Relaxed);
        if ahead == usize::MAX {
            return None;
        }
        let row_ns = self.row_ns.load(Ordering::Relaxed);
        let rows = spot.rows.load(Ordering::Relaxed);
        let line = match rows {
            0 => (row_ns > 0).then_some(Duration::ZERO),
            rows => self.pace(&state).time(rows),
        };
        let best = state.best_wait(now, row_ns);
        Some(Standing {
            ahead,
            eta: line.map(|line| line + best + cost.time(row_ns)),
        })
    }
}
