//! A request's place in a pool: how it waits for a replica, and for how long.
//!
//! Invariant: a place that is dropped while it waits leaves the line, and passes on the permit that it was just given.

use std::{sync::Arc, time::Duration};

use mobula_serving::{admission::Ticket, route::Cost};

use crate::{
    Error,
    permit::Permit,
    pool::{Asked, Pool},
};

/// A request's place in a pool, kept over its attempts.
#[derive(Debug)]
pub(crate) struct Place {
    pool: Arc<Pool>,
    ticket: Ticket,
    /// At what cost it was admitted, while it has not asked for a replica yet.
    arriving: Option<Cost>,
    /// Since when it has had no replica, by the clock.
    since: Duration,
}

impl Place {
    /// The place of a request that came at `since`.
    pub(crate) fn new(pool: Arc<Pool>, ticket: Ticket, arriving: Option<Cost>, since: Duration) -> Self {
        Self {
            pool,
            ticket,
            arriving,
            since,
        }
    }

    /// Waits for a replica.
    ///
    /// # Errors
    /// [`Error::NoReplica`] when none was there for the whole of the limit.
    pub(crate) async fn acquire(&mut self, cost: Cost) -> Result<Permit, Error> {
        if let Some(admitted) = self.arriving.take() {
            self.pool.arrived(admitted);
        }
        let pool = &self.pool;
        let mut granted = match pool.ask(self.ticket, cost) {
            Asked::Served(permit) => return Ok(permit),
            Asked::Waits(granted) => granted,
        };
        let _line = Line {
            pool,
            ticket: self.ticket,
        };
        let mut limit = pool.waits_until(self.since);
        loop {
            tokio::select! {
                biased;
                permit = &mut granted => return permit.map_err(|_| pool.no_replica(self.since)),
                () = tokio::time::sleep_until(pool.settings.clock.at(limit)) => {
                    // A replica that is there, full or not, is worth waiting for.
                    pool.look_alive();
                    limit = pool.waits_until(self.since);
                    if limit <= pool.settings.clock.now() {
                        return Err(pool.no_replica(self.since));
                    }
                }
            }
        }
    }

    /// A replica took the request: the limit begins anew should it be lost.
    pub(crate) fn served(&mut self) {
        self.since = self.pool.settings.clock.now();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(admitted) = self.arriving.take() {
            self.pool.arrived(admitted);
        }
    }
}

/// Takes a request out of line when it stops waiting.
struct Line<'a> {
    pool: &'a Arc<Pool>,
    ticket: Ticket,
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.pool.leave(self.ticket);
    }
}
