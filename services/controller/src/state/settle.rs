//! What is due, in the order in which one thing follows from another.

use tracing::info;

use super::{Action, State, Supply, Time};

impl State {
    /// Does what is due.
    pub(crate) fn settle(&mut self, now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.stopping {
            return actions;
        }
        for worker in self.leases.expire(now) {
            self.expired(&worker, now, &mut actions);
        }
        while let Some((_, id)) = self.retries.first().filter(|(at, _)| *at <= now).cloned() {
            self.requeue(&id, now);
        }
        self.pass_gates(now);
        self.send_drains(now, &mut actions);
        while let Some((_, key)) = self.wakes.first().filter(|(at, _)| *at <= now).copied() {
            self.wakes.pop_first();
            self.touch(key);
        }
        self.end_grace(now);
        self.drop_silent(now);
        self.tick_due(now, &mut actions);
        while let Some(key) = self.dirty.pop_first() {
            self.reconcile(key, now, &mut actions);
            self.totals.reconciled += 1;
        }
        let due = self.supply_due.is_some_and(|at| at <= now);
        if (self.room_changed || due) && self.grace.is_none() {
            self.room_changed = false;
            self.supply_due = None;
            if self.deployments.values().any(|d| !d.pending.is_empty()) {
                self.place(now, &mut actions);
                self.totals.solved += 1;
            }
            self.supply(now, &mut actions);
        }
        actions
    }

    /// Ends the wait for workers of an earlier life: by time, because all known ones are back or dead, or because nothing
    /// is missing.
    fn end_grace(&mut self, now: Time) {
        let Some(until) = self.grace else { return };
        let complete = || {
            self.numbers_are_known()
                && self
                    .deployments
                    .values()
                    .all(|d| d.is_complete() && d.outdated.is_empty())
        };
        let nobody_left = matches!(self.settings.supply, Supply::Process { .. }) && self.awaited.is_empty();
        if now >= until || nobody_left || complete() {
            info!(missing = ?self.awaited, "adoption is over");
            self.grace = None;
            self.room_changed = true;
            self.routes.changed = true;
            self.dirty = self.deployments.keys().copied().collect();
        }
    }
}
