//! A request's place in a pool: how it waits for a replica, and for how long.
//!
//! Invariants: a request is counted as long as its place lives; a place that is dropped while it waits leaves the line,
//! and passes on the permit that it was just given.

use std::{sync::Arc, time::Duration};

use mobula_serving::{admission::Ticket, route::Cost};

use crate::{
    Error,
    permit::Permit,
    pool::{Asked, Pool, Want},
};

/// A request's place in a pool, kept over its attempts.
#[derive(Debug)]
pub(crate) struct Place {
    pool: Arc<Pool>,
    ticket: Ticket,
    cost: Cost,
    model_id: Option<Arc<str>>,
    /// It was admitted and has not asked for a replica yet.
    is_arriving: bool,
    /// Since when it has had no replica, by the clock.
    since: Duration,
    /// How long it waited while there was none.
    without: Duration,
}

impl Place {
    /// The place of a request that comes now.
    pub(crate) fn new(pool: Arc<Pool>, ticket: Ticket, want: Want<'_>) -> Self {
        pool.enter(want.cost, want.model_id);
        let since = pool.settings.clock.now();
        Self {
            pool,
            ticket,
            cost: want.cost,
            model_id: want.model_id.cloned(),
            is_arriving: false,
            since,
            without: Duration::ZERO,
        }
    }

    /// It was admitted at its cost, and is on its way.
    pub(crate) fn arriving(mut self) -> Self {
        self.is_arriving = true;
        self
    }

    /// Changes its cost; gives what it was.
    pub(crate) fn settle(&mut self, cost: Cost) -> Cost {
        std::mem::replace(&mut self.cost, cost)
    }

    /// The pool.
    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// What it costs.
    pub(crate) fn cost(&self) -> Cost {
        self.cost
    }

    /// Waits for a replica.
    ///
    /// # Errors
    /// [`Error::NoReplica`] when none was there for the whole of the limit.
    pub(crate) async fn acquire(&mut self) -> Result<Permit, Error> {
        if std::mem::take(&mut self.is_arriving) {
            self.pool.arrived(self.cost);
        }
        let begun = self.pool.settings.clock.now();
        let had_replicas = self.pool.has_replicas();
        let acquired = self.wait().await;
        if !had_replicas {
            self.without += self.pool.without(begun);
        }
        let waited = self.pool.settings.clock.now().saturating_sub(begun);
        self.pool.metrics.fulfilled(waited);
        acquired
    }

    async fn wait(&self) -> Result<Permit, Error> {
        let pool = &self.pool;
        let model_id = self.model_id.as_deref();
        let mut granted = match pool.ask(self.ticket, self.cost, self.model_id.as_ref()) {
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
                    if pool.all_lack(model_id) {
                        return Err(pool.no_replica(self.since));
                    }
                    // A replica that is there, full or not, is worth waiting for.
                    pool.look_alive(model_id);
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

    /// Takes how long it waited while there was no replica.
    pub(crate) fn take_without(&mut self) -> Duration {
        std::mem::take(&mut self.without)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_arriving {
            self.pool.arrived(self.cost);
        }
        self.pool.exit(self.cost, self.model_id.as_ref());
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
