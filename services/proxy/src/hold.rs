//! How many bytes of pictures all requests may hold together: what waits in a queue with a picture costs memory, and the
//! queue is long.
//!
//! Invariant: what is held never exceeds the limit, and what is dropped is given back.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use metrics::Gauge;

use crate::Error;

/// The bytes that are held.
#[derive(Debug)]
pub(crate) struct Holder {
    held: AtomicU64,
    limit: u64,
    gauge: Gauge,
}

/// Bytes of one request; given back by drop.
#[derive(Debug)]
pub(crate) struct Held {
    holder: Arc<Holder>,
    bytes: u64,
}

impl Holder {
    /// Holds at most `limit` bytes.
    pub(crate) fn new(limit: u64, gauge: Gauge) -> Arc<Self> {
        Arc::new(Self {
            held: AtomicU64::new(0),
            limit,
            gauge,
        })
    }

    /// Holds `bytes` until what is returned is dropped.
    ///
    /// # Errors
    /// [`Error::PicturesFull`] when that would be too many.
    pub(crate) fn hold(self: &Arc<Self>, bytes: u64) -> Result<Held, Error> {
        let add = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= self.limit);
        let before = self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        let Ok(_) = before else {
            return Err(Error::PicturesFull { limit: self.limit });
        };
        self.gauge.increment(bytes as f64);
        Ok(Held {
            holder: Arc::clone(self),
            bytes,
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.holder.held.fetch_sub(self.bytes, Ordering::Relaxed);
        self.holder.gauge.decrement(self.bytes as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_stays_below_the_limit_and_comes_back() {
        let holder = Holder::new(100, Gauge::noop());
        let first = holder.hold(60).unwrap();
        assert!(matches!(holder.hold(41), Err(Error::PicturesFull { limit: 100 })));
        let second = holder.hold(40).unwrap();
        assert!(holder.hold(1).is_err());
        drop((first, second));
        assert!(holder.hold(100).is_ok());
        assert!(holder.hold(u64::MAX).is_err());
    }
}
