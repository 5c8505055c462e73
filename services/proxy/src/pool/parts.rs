//! Replicas of several models in one deployment, as they are while an update goes on, and deployments that others have
//! taken the place of.
//!
//! Invariant: who waits for a replica of one model does not wait for one that is not there.

use std::{collections::BTreeSet, sync::Arc};

use super::{Pool, State};
use crate::{Error, replica::Replica};

impl Pool {
    /// Models of which every other part of a split application has a replica: only those are drawn with, as long as any
    /// replica has one of them.
    pub(crate) fn set_whole(self: &Arc<Self>, whole: Option<BTreeSet<String>>) {
        let mut state = self.lock();
        if state.whole != whole {
            state.whole = whole;
            drop(state);
            self.pump();
        }
    }

    /// Digests of its replicas' own models; none where one has not said what it is.
    pub(crate) fn digests(&self) -> Option<BTreeSet<String>> {
        let state = self.lock();
        let digest = |replica: &Arc<Replica>| Some(replica.model(None)?.digest.clone());
        state.replicas.iter().map(digest).collect()
    }

    /// Its application is served by other deployments, or by this one again.
    pub(crate) fn set_moved(&self, is_moved: bool) {
        self.lock().is_moved = is_moved;
        self.send_away();
    }

    /// What a request is told that comes to the pool, or is sent away by it; none where it may wait.
    pub(crate) fn elsewhere(&self, of: Option<&str>) -> Option<Error> {
        let state = self.lock();
        let deployment = || self.name.clone();
        if state.is_moved {
            return Some(Error::Moved {
                deployment: deployment(),
            });
        }
        let lacks = of.is_some_and(|digest| !state.may_have_model(digest));
        lacks.then(|| Error::OtherModel {
            deployment: deployment(),
        })
    }

    /// Sends those away who wait for what is not here any more.
    pub(super) fn send_away(&self) {
        let mut state = self.lock();
        let waits = |of: Option<&str>| !state.is_moved && of.is_none_or(|of| state.may_have_model(of));
        let gone: Vec<_> = state
            .queue
            .iter()
            .filter(|(_, _, waiter)| !waits(waiter.of.as_deref()))
            .map(|(ticket, ..)| ticket)
            .collect();
        let gone: Vec<_> = gone
            .into_iter()
            .filter_map(|ticket| state.queue.leave(ticket))
            .collect();
        drop(state);
        for waiter in gone {
            self.left();
            drop(waiter);
        }
    }

    /// Whether more replicas are expected, or as many as there shall be are there.
    pub(crate) fn is_expected(&self) -> bool {
        self.lock().outlook.is_expected()
    }
}

impl State {
    /// Whether some replica may be of this model, or none is there at all.
    fn may_have_model(&self, digest: &str) -> bool {
        self.replicas.is_empty() || self.replicas.iter().any(|replica| replica.is_of(Some(digest)))
    }

    /// Whether the other parts of its application have replicas of its model, or of none that is here.
    pub(super) fn is_whole(&self, replica: &Replica) -> bool {
        let Some(whole) = &self.whole else { return true };
        let has = |replica: &Replica| whole.iter().any(|digest| replica.is_of(Some(digest)));
        has(replica) || !self.replicas.iter().any(|replica| has(replica))
    }
}
