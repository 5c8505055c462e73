//! A place among a replica's ongoing requests, by value: freed by drop, moved into the response stream.

use std::{fmt, ops::Deref, sync::Arc};

use super::{Replica, replicas::Shared};

/// One ongoing request of a replica; dereferences to the replica.
pub struct Lease<R: Replica> {
    pub(super) shared: Arc<Shared<R>>,
    pub(super) id: Arc<str>,
    pub(super) serial: u64,
    pub(super) replica: Arc<R>,
}

impl<R: Replica> Lease<R> {
    /// The replica's id.
    pub fn replica_id(&self) -> &str {
        &self.id
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
