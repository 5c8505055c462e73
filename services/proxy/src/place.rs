//! A request's place in a pool: how it waits for a replica, and for how long.
//!
//! Invariants: a request is counted as long as its place lives; a place that is dropped while it waits leaves the line,
//! and passes on the permit that it was just given.

use std::{sync::Arc, time::Duration};

use mobula_kit::Deadline;
use mobula_serving::{
    admission::{Ask, Ticket},
    fair::Claim,
    route::Cost,
};

use crate::{
    Error,
    permit::Permit,
    pool::{Asked, Asking, Pool, Standing, TELL, Want},
};

/// Who is told where a request stands.
type Tell<'a> = Option<&'a mut (dyn FnMut(Standing) + Send)>;

/// A request's place in a pool, kept over its attempts.
#[derive(Debug)]
pub(crate) struct Place {
    pool: Arc<Pool>,
    ticket: Ticket,
    cost: Cost,
    model_id: Option<Arc<str>>,
    /// The only model whose replicas will do, by its digest.
    of: Option<Arc<str>>,
    claim: Claim,
    bytes: u64,
    deadline: Option<Deadline>,
    failfast: bool,
    /// When it came, by the clock.
    came: Duration,
    /// The wait that was predicted for it.
    predicted: Option<Duration>,
    /// A replica took it, once.
    was_served: bool,
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
            of: None,
            claim: want.claim.clone(),
            bytes: want.bytes,
            deadline: want.deadline,
            failfast: want.failfast,
            came: since,
            predicted: None,
            was_served: false,
            is_arriving: false,
            since,
            without: Duration::ZERO,
        }
    }

    /// It was admitted as it is, to wait for as long as was predicted, and is on its way.
    pub(crate) fn arriving(mut self, predicted: Option<Duration>) -> Self {
        self.is_arriving = true;
        self.predicted = predicted;
        self
    }

    /// Only replicas of the model with this digest will do.
    pub(crate) fn of(mut self, digest: &str) -> Self {
        self.of = Some(digest.into());
        self
    }

    /// It asks for this now, to wait for as long as was predicted.
    pub(crate) fn settle(&mut self, want: Want<'_>, predicted: Option<Duration>) {
        (self.cost, self.bytes) = (want.cost, want.bytes);
        (self.deadline, self.predicted) = (want.deadline, predicted);
    }

    /// As the queue counts it.
    pub(crate) fn asked(&self) -> Ask<'_> {
        Ask {
            claim: &self.claim,
            cost: self.cost,
            bytes: self.bytes,
        }
    }

    /// The pool.
    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Whether it is a place in this pool.
    pub(crate) fn is_at(&self, pool: &Arc<Pool>) -> bool {
        Arc::ptr_eq(&self.pool, pool)
    }

    /// What it costs.
    pub(crate) fn cost(&self) -> Cost {
        self.cost
    }

    /// Waits for a replica, of which nobody is told.
    ///
    /// # Errors
    /// As [`Place::acquire_telling`].
    pub(crate) async fn acquire(&mut self) -> Result<Permit, Error> {
        self.wait_for(None).await
    }

    /// Waits for a replica, and tells where it stands each time that this changes, if anybody wants to know.
    ///
    /// # Errors
    /// [`Error::NoReplica`] when none was there for the whole of the limit, [`Error::TooLate`] when its deadline came too near
    /// while it waited, [`Error::WaitedTooLong`], [`Error::OtherModel`] when replicas are there and none is of the model that it
    /// needs, [`Error::Moved`] when other deployments serve its application.
    pub(crate) async fn acquire_telling(
        &mut self,
        mut tell: Option<impl FnMut(Standing) + Send>,
    ) -> Result<Permit, Error> {
        let tell = tell.as_mut();
        self.wait_for(tell.map(|tell| tell as &mut (dyn FnMut(Standing) + Send)))
            .await
    }

    async fn wait_for(&mut self, tell: Tell<'_>) -> Result<Permit, Error> {
        if std::mem::take(&mut self.is_arriving) {
            self.pool.arrived(self.asked());
        }
        let begun = self.pool.settings.clock.now();
        let had_replicas = self.pool.has_replicas();
        let acquired = self.wait(tell).await;
        self.was_served |= acquired.is_ok();
        if !had_replicas {
            self.without += self.pool.without(begun);
        }
        let waited = self.pool.settings.clock.now().saturating_sub(begun);
        self.pool.metrics.fulfilled(waited);
        acquired
    }

    async fn wait(&self, mut tell: Tell<'_>) -> Result<Permit, Error> {
        let pool = &self.pool;
        let clock = pool.settings.clock;
        let model_id = self.model_id.as_deref();
        let asked = pool.ask(Asking {
            ticket: self.ticket,
            ask: self.asked(),
            model_id: self.model_id.as_ref(),
            of: self.of.as_ref(),
            deadline: self.deadline.map(|deadline| clock.now() + deadline.remaining()),
            predicted: self.prediction(),
            had_turn: self.was_served,
        });
        let (mut granted, spot) = match asked {
            Asked::Served(permit) => return Ok(permit),
            Asked::Elsewhere(error) => return Err(error),
            Asked::Waits(granted, spot) => (granted, spot),
        };
        let _line = Line {
            pool,
            ticket: self.ticket,
        };
        if self.failfast {
            pool.fail_fast()?;
        }
        let mut limit = pool.waits_until(self.since);
        let mut age = pool.age();
        let mut tells = clock.now() + TELL;
        let mut told = None;
        loop {
            let too_long = self.since.saturating_add(*age.borrow_and_update());
            let next = match tell {
                Some(_) => too_long.min(tells),
                None => too_long,
            };
            tokio::select! {
                biased;
                granted = &mut granted => {
                    return granted.unwrap_or_else(|_| Err(pool.no_replica(self.since)));
                }
                // The pool is held here, and so is what tells of changes.
                Ok(()) = age.changed() => {}
                () = tokio::time::sleep_until(clock.at(next.min(limit))) => {
                    if too_long <= clock.now() {
                        return Err(pool.waited_too_long(self.since));
                    }
                    if next < limit {
                        tells = clock.now() + TELL;
                        let standing = pool.standing(&spot, self.cost);
                        if let Some((tell, standing)) = tell.as_mut().zip(standing)
                            && told.replace(standing.ahead) != Some(standing.ahead)
                        {
                            tell(standing);
                        }
                        continue;
                    }
                    if pool.all_lack(model_id) {
                        return Err(pool.no_replica(self.since));
                    }
                    // A replica that is there, full or not, is worth waiting for.
                    pool.look_alive(model_id);
                    limit = pool.waits_until(self.since);
                    if limit <= clock.now() {
                        return Err(pool.no_replica(self.since));
                    }
                }
            }
        }
    }

    /// The wait that was predicted, and since when it waits; none when a replica took it already.
    fn prediction(&self) -> Option<(Duration, Duration)> {
        let predicted = self.predicted.filter(|_| !self.was_served)?;
        Some((predicted, self.came))
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
            self.pool.arrived(self.asked());
        }
        let now = self.pool.settings.clock.now();
        let unserved = self
            .prediction()
            .map(|(predicted, came)| (predicted, now.saturating_sub(came)));
        self.pool.exit(self.cost, self.model_id.as_ref(), unserved);
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
