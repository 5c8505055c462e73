//! A place among a replica's ongoing requests, by value: freed by drop, moved into the response stream.

use std::{
    fmt,
    ops::Deref,
    sync::{Arc, OnceLock},
};

use tokio::time::Instant;

use super::{Replica, meter::Meter, replicas::Shared};

/// One ongoing request of a replica; dereferences to the replica.
pub struct Lease<R: Replica> {
    pub(super) shared: Arc<Shared<R>>,
    pub(super) id: Arc<str>,
    pub(super) serial: u64,
    pub(super) replica: Arc<R>,
    pub(super) meter: Option<Arc<Meter>>,
    pub(super) begun: Instant,
    pub(super) failed: OnceLock<&'static str>,
}

impl<R: Replica> Lease<R> {
    /// The replica's id.
    pub fn replica_id(&self) -> &str {
        &self.id
    }

    /// Says that the request fails, and why: a word of a closed set, for the metrics. The first counts.
    pub fn fails(&self, reason: &'static str) {
        let _ = self.failed.set(reason);
    }
}

impl<R: Replica> Deref for Lease<R> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.replica
    }
}

impl<R: Replica> Drop for Lease<R> {
    fn drop(&mut self) {
        if let Some(meter) = &self.meter {
            meter.ended(self.begun, self.failed.get().copied(), Instant::now());
        }
        self.shared.release(&self.id, self.serial);
    }
}

impl<R: Replica> fmt::Debug for Lease<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("replica", &self.id)
            .finish_non_exhaustive()
    }
}
