//! Replicas of several models in one deployment, as they are while an update goes on, and deployments that others have
//! taken the place of.
//!
//! Invariant: who waits for a replica of one model does not wait for one that is not there.

use std::{collections::BTreeSet, sync::Arc};

use mobula_proto::control::v1::DeploymentRoute;

use super::{Pool, State, Tiers};
use crate::{Error, replica::Replica};

/// Who does what the pool did, as the table says it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The pool itself.
    #[default]
    Serves,
    /// Others, in the table that comes next: those who wait stay until it is there.
    Leaves,
    /// Others: those who wait look for them in the table.
    Moved,
    /// Nobody: its application was deleted.
    Closed,
}

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

    /// It serves its application, as it may have before.
    pub(crate) fn serve(&self) {
        self.lock().role = Role::Serves;
    }

    /// It has no replica any more, and others serve its application in the table that comes next. Who still comes by the
    /// table before is let in whatever may wait here, so as to be sent on with the others.
    pub(crate) fn retire(self: &Arc<Self>) {
        let now = self.now();
        let mut state = self.lock();
        if state.role == Role::Serves {
            state.role = Role::Leaves;
        }
        state.queue.bound(self.settings.bounds);
        state.replicas.clear();
        state.tiers = Tiers::default();
        state.outlook.told(&DeploymentRoute::default(), false, now);
        self.show_restrained(&mut state, now);
        self.metrics.replicas.set(0.0);
    }

    /// Others serve its application, and the table says so.
    pub(crate) fn move_away(&self) {
        self.lock().role = Role::Moved;
        self.send_away();
    }

    /// Nobody serves its application any more: those who wait are told so, and those who come by the table before.
    pub(crate) fn close(self: &Arc<Self>) {
        self.retire();
        self.lock().role = Role::Closed;
        self.send_away();
    }

    /// What a request would be told that came now; none where it may wait.
    pub(crate) fn elsewhere(&self) -> Option<Error> {
        self.sends_on(&self.lock(), None)
    }

    /// What a request is told that comes to the pool, or is sent away by it; none where it may wait. `of`: the only model whose
    /// replicas will do, by its digest.
    pub(super) fn sends_on(&self, state: &State, of: Option<&str>) -> Option<Error> {
        let deployment = || self.name.clone();
        match state.role {
            Role::Moved => Some(Error::Moved {
                deployment: deployment(),
            }),
            Role::Closed => Some(self.gone_without(state, self.now())),
            Role::Serves | Role::Leaves => {
                let lacks = of.is_some_and(|digest| !state.may_have_model(digest));
                lacks.then(|| Error::OtherModel {
                    deployment: deployment(),
                })
            }
        }
    }

    /// Sends those away who wait for what is not here any more.
    pub(super) fn send_away(&self) {
        let mut state = self.lock();
        // Why is told as it is now: the next table may say something else before they look.
        let sent = state.queue.iter().filter_map(|(ticket, _, waiter)| {
            let why = self.sends_on(&state, waiter.of.as_deref())?;
            Some((ticket, why))
        });
        let sent: Vec<_> = sent.collect();
        let sent: Vec<_> = sent
            .into_iter()
            .filter_map(|(ticket, why)| Some((state.queue.leave(ticket)?, why)))
            .collect();
        self.metrics.bytes.set(state.queue.bytes() as f64);
        drop(state);
        for (waiter, why) in sent {
            self.left();
            // Whoever has left hears nothing.
            drop(waiter.grant.send(Err(why)));
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
