//! Who is let in, and what they are told of their wait.
//!
//! A request is admitted when its cost is known; one that has to wait for its model's description is admitted before, as
//! cheap as can be, and settled later. It keeps the place in line that it came for.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use mobula_kit::Deadline;
use mobula_serving::{
    admission::{Admission, Ask, Basis, Full, Scene, check_deadline},
    fair::Claim,
    route::{self, Cost},
};

use super::{Pool, State};
use crate::{Error, place::Place, replica::Replica};

/// What a request asks a pool for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Want<'a> {
    pub(crate) cost: Cost,
    pub(crate) deadline: Option<Deadline>,
    /// One of the models on demand; none is the deployment's own.
    pub(crate) model_id: Option<&'a Arc<str>>,
    /// As whom it waits.
    pub(crate) claim: &'a Claim,
    /// What it holds while it waits.
    pub(crate) bytes: u64,
    /// It does not wait where no replica can be reached.
    pub(crate) failfast: bool,
}

impl<'a> Want<'a> {
    /// The least that can be asked for.
    pub(crate) fn least((claim, failfast): (&'a Claim, bool), model_id: Option<&'a Arc<str>>) -> Self {
        Self {
            cost: Cost::ROW,
            deadline: None,
            model_id,
            claim,
            bytes: 0,
            failfast,
        }
    }

    /// As the queue counts it.
    pub(crate) fn ask(&self) -> Ask<'a> {
        Ask {
            claim: self.claim,
            cost: self.cost,
            bytes: self.bytes,
        }
    }
}

/// A request that was admitted before its cost was known.
#[derive(Debug)]
pub(crate) struct Early {
    place: Place,
    admission: Admission,
}

impl Early {
    /// Whether it was admitted by this pool.
    pub(crate) fn is_at(&self, pool: &Arc<Pool>) -> bool {
        self.place.is_at(pool)
    }
}

/// A request that was admitted.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) place: Place,
    /// Requests ahead of it.
    pub(crate) ahead: usize,
    /// Predicted time to its last picture; `None` before anything was measured.
    pub(crate) eta: Option<Duration>,
}

impl Pool {
    /// Admits a request, or refuses it at the door: the queue is full, or its deadline cannot be met.
    pub(crate) fn admit(self: &Arc<Self>, want: Want<'_>) -> Result<Admitted, Error> {
        let early = self.expect(want)?;
        self.settle(early, want)
    }

    /// Admits a request whose cost is not known yet, or refuses it because the queue is full. It is counted from now on.
    pub(crate) fn expect(self: &Arc<Self>, want: Want<'_>) -> Result<Early, Error> {
        let now = self.now();
        let mut state = self.lock();
        let needed = state.queue.len() + state.queue.arriving() + 1;
        let scene = Scene {
            free: state.free(needed, now),
            pace: self.pace(&state),
            now,
        };
        let State { queue, trust, .. } = &mut *state;
        let admission = match queue.admit(want.ask(), scene, trust) {
            Ok(admission) => admission,
            Err(full) => return Err(self.full(&state, full)),
        };
        self.metrics.bytes.set(state.queue.bytes() as f64);
        drop(state);
        let place = Place::new(Arc::clone(self), admission.ticket, want).arriving(admission.wait);
        Ok(Early { place, admission })
    }

    /// Gives an admitted request its cost, or refuses it after all because its deadline cannot be met.
    pub(crate) fn settle(self: &Arc<Self>, early: Early, want: Want<'_>) -> Result<Admitted, Error> {
        let Early { mut place, admission } = early;
        let now = self.now();
        let row_ns = self.row_ns.load(Ordering::Relaxed);
        let mut state = self.lock();
        let needed = state.queue.len() + state.queue.arriving();
        let asked = Ask {
            claim: want.claim,
            ..place.asked()
        };
        let admission = if (asked.cost, asked.bytes) == (want.cost, want.bytes) {
            admission
        } else {
            let scene = Scene {
                free: state.free(needed, now),
                pace: self.pace(&state),
                now,
            };
            let State { queue, trust, .. } = &mut *state;
            match queue.settle(admission, (asked, want.ask()), scene, trust) {
                Ok(admission) => {
                    state.tally.settle(asked.cost, want.cost);
                    self.metrics.bytes.set(state.queue.bytes() as f64);
                    admission
                }
                Err(full) => return Err(self.full(&state, full)),
            }
        };
        let (best, basis, trust) = (state.best_wait(now, row_ns), state.basis(now), state.trust);
        drop(state);
        place.settle(want, admission.wait);
        if let Some(deadline) = want.deadline {
            // What runs already is left out: small requests pass large ones there.
            let work = trust.work(want.cost.time(row_ns), admission.ahead > 0);
            let needed = trust.wait(admission.wait.unwrap_or_default()) + work;
            if let Err(late) = check_deadline(deadline.remaining(), needed, basis) {
                self.metrics.refused_late();
                return Err(late.into());
            }
        }
        let eta = admission
            .wait
            .filter(|_| row_ns > 0)
            .map(|wait| wait + best + want.cost.time(row_ns));
        let ahead = admission.ahead;
        Ok(Admitted { place, ahead, eta })
    }

    fn full(&self, state: &State, full: Full) -> Error {
        self.metrics.refused(full.bound);
        state.backpressure.error(full)
    }

    /// A place for a request that was admitted by another pool.
    pub(crate) fn place(self: &Arc<Self>, want: Want<'_>) -> Place {
        let ticket = self.lock().queue.ticket();
        Place::new(Arc::clone(self), ticket, want)
    }
}

impl State {
    /// Free slots of all replicas; counting stops at `needed`: whoever is ahead of everybody else needs one slot only.
    fn free(&self, needed: usize, now: Duration) -> usize {
        let (mut free, all) = (0, self.needs_all(now));
        for replica in &self.replicas {
            free += replica.book(|book| book.free(now, all)) as usize;
            if free >= needed {
                break;
            }
        }
        free
    }

    /// What predictions rest on for the request that was just admitted.
    fn basis(&self, now: Duration) -> Basis {
        let measured = self
            .replicas
            .iter()
            .filter_map(|replica| replica.book(|book| book.measured_at()));
        let runs = |replica: &Arc<Replica>| replica.book(|book| book.ongoing()) > 0;
        Basis {
            age: measured.max().map_or(Duration::MAX, |at| now.saturating_sub(at)),
            under_way: self.queue.arriving() > 1 || !self.queue.is_empty() || self.replicas.iter().any(runs),
        }
    }

    /// The shorter wait of two replicas at random, as the router will find it.
    pub(super) fn best_wait(&self, now: Duration, typical: u64) -> Duration {
        let wait = |i: usize| self.replicas[i].book(|book| book.wait(now, typical));
        let picked = route::pick(self.replicas.len(), &mut rand::rng(), |i| Some(wait(i)));
        picked.map_or(Duration::ZERO, |i| Duration::from_nanos(wait(i).ns))
    }
}
