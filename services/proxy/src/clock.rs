//! Time as the pure decisions want it: a duration since the process's own beginning.

use std::time::Duration;

use tokio::time::Instant;

/// A fixed point in time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// Begins now.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the beginning.
    pub(crate) fn now(self) -> Duration {
        self.0.elapsed()
    }

    /// The moment that is `since` after the beginning.
    pub(crate) fn at(self, since: Duration) -> Instant {
        self.0 + since
    }
}
