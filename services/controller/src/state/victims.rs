//! Which replicas go first when there are more than are wanted.

use std::{cmp::Reverse, collections::BTreeSet};

use super::{
    State,
    model::{Phase, Worker},
};

impl State {
    /// Which of these replicas of one deployment go first, whole gangs, at most so many: those that do not run (failed,
    /// pending, starting, in this order), then those on workers that leave or do not answer, then those on workers with
    /// the fewest replicas, so that whole workers become free (Ray's order), then the least busy, then the newest.
    pub(super) fn victims(&self, of: &[String], count: usize) -> Vec<String> {
        if count == 0 {
            return Vec::new();
        }
        let mut order: Vec<_> = of
            .iter()
            .filter_map(|id| {
                let replica = self.replicas.get(id)?;
                let worker = replica
                    .worker
                    .as_ref()
                    .and_then(|worker| self.workers.get(worker));
                let phase = match replica.phase {
                    Phase::Failed { .. } => 0,
                    Phase::Pending => 1,
                    Phase::Starting => 2,
                    Phase::Running { .. } => 3,
                };
                let busy = replica.load.as_ref().map_or(0, |load| load.ongoing_requests);
                let stays = worker.is_some_and(Worker::takes_replicas);
                let beside = worker.map_or(0, |worker| worker.replicas.len());
                Some(((phase, stays, beside, busy, Reverse(replica.made)), id))
            })
            .collect();
        order.sort();
        let mut chosen = Vec::with_capacity(count);
        let mut taken: BTreeSet<&str> = BTreeSet::new();
        for (_, id) in order {
            let gang = self.replicas[id].gang.as_str();
            if !taken.insert(gang) {
                continue;
            }
            let members: Vec<&String> = if self.replicas[id].spec.gang() > 1 {
                of.iter()
                    .filter(|other| self.replicas.get(*other).is_some_and(|r| r.gang == gang))
                    .collect()
            } else {
                vec![id]
            };
            if chosen.len() + members.len() > count {
                continue;
            }
            chosen.extend(members.into_iter().cloned());
            if chosen.len() == count {
                break;
            }
        }
        chosen
    }
}
