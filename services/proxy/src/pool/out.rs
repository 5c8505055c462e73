//! Replicas that are left out because they failed what they took. The decisions are `mobula_serving::route::health`'s.

use std::{sync::Arc, time::Duration};

use mobula_serving::route::health::may_leave_out;

use super::{Pool, State};
use crate::replica::Replica;

impl Pool {
    /// A replica failed what it took, by its own fault: one that does so again and again is left out for a while.
    pub(crate) fn broke(&self, replica: &Replica) {
        if !replica.book(|book| book.broke()) {
            return;
        }
        let now = self.now();
        let mut state = self.lock();
        let out = state.out(now);
        let is_here = state.replicas.iter().any(|other| other.id == replica.id);
        if !is_here || replica.book(|book| book.is_out(now)) || !may_leave_out(out, state.replicas.len()) {
            return;
        }
        let until = replica.book(|book| book.leave_out(now, self.settings.slow_start));
        state.out_until = state.out_until.max(until);
        drop(state);
        self.metrics.left_out.add(1);
        self.metrics.out.set((out + 1) as f64);
        tracing::warn!(
            replica = replica.id,
            deployment = self.name,
            seconds = until.saturating_sub(now).as_secs(),
            "a replica failed again and again and is left out"
        );
    }
}

impl State {
    /// Replicas that are left out.
    pub(super) fn out(&self, now: Duration) -> usize {
        let is_out = |replica: &&Arc<Replica>| replica.book(|book| book.is_out(now));
        self.replicas.iter().filter(is_out).count()
    }

    /// Whether those that are left out have to be asked as well, since nobody else can be reached.
    pub(super) fn needs_all(&self, now: Duration) -> bool {
        let serves =
            |replica: &Arc<Replica>| replica.book(|book| book.is_reachable(now) && !book.is_out(now));
        now < self.out_until && !self.replicas.iter().any(serves)
    }
}
