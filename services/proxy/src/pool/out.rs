//! Replicas that get less than their share: those that are left out because they failed what they took, and those that are new
//! or come back. The decisions are `mobula_serving::route`'s.

use std::{sync::Arc, time::Duration};

use mobula_proto::control::v1 as pb;
use mobula_serving::route::{Restraint, health::may_leave_out};

use super::{Pool, State};
use crate::{demand::Stir, replica::Replica};

impl Pool {
    /// A replica failed what it took, by its own fault: one that does so again and again is left out for a while.
    pub(crate) fn broke(self: &Arc<Self>, replica: &Replica) {
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
        self.show_restrained(&mut state, now);
        drop(state);
        self.metrics.left_out.add(1);
        self.settings.signal.stir(Stir::Asked);
        tracing::warn!(
            replica = replica.id,
            deployment = self.name,
            seconds = until.saturating_sub(now).as_secs(),
            "a replica failed again and again and is left out"
        );
    }

    /// A replica did a small call. Beside pictures it says nothing of whether those are drawn, and must not hide that they are not.
    pub(crate) fn helped(&self, replica: &Replica) {
        if !self.lock().draws {
            replica.book(|book| book.did());
        }
    }

    /// Replicas that get less than their share now, in the words of the contract.
    pub(crate) fn restrained(&self) -> Vec<pb::RestrainedReplica> {
        let now = self.now();
        let state = self.lock();
        let told = state.restrained(now).map(|(replica, why)| pb::RestrainedReplica {
            replica_id: replica.id.clone(),
            ejected_ms: millis(why.ejected),
            ejections: why.times,
            slow_start_ms: millis(why.slow),
        });
        told.collect()
    }

    /// Shows how many replicas get less than their share, and again when that changes by itself.
    pub(super) fn show_restrained(self: &Arc<Self>, state: &mut State, now: Duration) {
        let (mut out, mut slow, mut ends) = (0.0, 0.0, None::<Duration>);
        for (_, why) in state.restrained(now) {
            let end = if why.ejected.is_zero() {
                slow += 1.0;
                why.slow
            } else {
                out += 1.0;
                why.ejected
            };
            ends = Some(ends.map_or(end, |before| before.min(end)));
        }
        self.metrics.out.set(out);
        self.metrics.slow.set(slow);
        let Some(due) = ends.map(|end| now + end) else {
            return;
        };
        if state.shown_at.is_some_and(|at| at > now && at <= due) {
            return;
        }
        state.shown_at = Some(due);
        let wake = self.settings.clock.at(due);
        let pool = Arc::downgrade(self);
        self.settings.stop.spawn_aside(async move {
            tokio::time::sleep_until(wake).await;
            if let Some(pool) = pool.upgrade() {
                let now = pool.now();
                pool.show_restrained(&mut pool.lock(), now);
            }
        });
    }
}

/// Whole milliseconds, none of them lost: what is not over is not told as over.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

impl State {
    /// Replicas that get less than their share.
    fn restrained(&self, now: Duration) -> impl Iterator<Item = (&Arc<Replica>, Restraint)> {
        let replicas = self.replicas.iter();
        replicas.filter_map(move |replica| {
            let why = replica.book(|book| book.restraint(now))?;
            Some((replica, why))
        })
    }

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
