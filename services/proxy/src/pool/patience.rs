//! How long a request waits where no replica is, and what it is told in the end.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use mobula_serving::admission::Bound;
use tokio::sync::watch;

use super::{Pool, State, parts::Role};
use crate::{Error, replica::Replica};

impl Pool {
    /// Until when a request waits that has had no replica since `since`, by the clock, as far as can be told now.
    pub(crate) fn waits_until(&self, since: Duration) -> Duration {
        let alive = Duration::from_nanos(self.alive_at.load(Ordering::Relaxed));
        let timeout = self.settings.no_replica_timeout;
        self.lock().outlook.limit(since.max(alive), timeout, self.now())
    }

    /// Notes whether any replica is there now that may serve the model.
    pub(crate) fn look_alive(&self, model_id: Option<&str>) {
        let now = self.now();
        let serves = |replica: &Arc<Replica>| {
            replica.book(|book| book.is_reachable(now)) && replica.may_have(model_id)
        };
        if self.lock().replicas.iter().any(serves) {
            self.note_alive();
        }
    }

    /// Every replica that there is said that it does not have the model.
    pub(crate) fn all_lack(&self, model_id: Option<&str>) -> bool {
        let state = self.lock();
        !state.replicas.is_empty() && !state.replicas.iter().any(|replica| replica.may_have(model_id))
    }

    /// Refuses a request that does not wait for a replica when none can be reached.
    pub(crate) fn fail_fast(&self) -> Result<(), Error> {
        let now = self.now();
        let state = self.lock();
        let mut replicas = state.replicas.iter();
        let is_sent_on = matches!(state.role, Role::Leaves | Role::Moved);
        if is_sent_on || replicas.any(|replica| replica.book(|book| book.is_reachable(now))) {
            return Ok(());
        }
        let why = match state.outlook.why_none() {
            "" => "none can be reached now, and the request does not wait for one",
            why => why,
        };
        Err(Error::NoReplica {
            deployment: self.name.clone(),
            waited: Duration::ZERO,
            why: why.to_owned(),
        })
    }

    /// Why a request that comes now had better not wait; none when it may.
    pub(crate) fn refusal(&self) -> Option<Error> {
        let state = self.lock();
        let why = state.outlook.why_none();
        (!why.is_empty()).then(|| Error::NoReplica {
            deployment: self.name.clone(),
            waited: Duration::ZERO,
            why: why.to_owned(),
        })
    }

    /// What a request is told that waited in vain.
    pub(crate) fn no_replica(&self, since: Duration) -> Error {
        self.gone_without(&self.lock(), since)
    }

    pub(super) fn gone_without(&self, state: &State, since: Duration) -> Error {
        let why = match state.role {
            Role::Closed => "its application was deleted",
            Role::Serves | Role::Leaves | Role::Moved => state.outlook.why_none(),
        };
        Error::NoReplica {
            deployment: self.name.clone(),
            waited: self.now().saturating_sub(since),
            why: why.to_owned(),
        }
    }

    /// How long a request may wait here.
    pub(crate) fn longest_wait(&self) -> Duration {
        *self.age.borrow()
    }

    /// The same, and how it changes.
    pub(crate) fn age(&self) -> watch::Receiver<Duration> {
        self.age.subscribe()
    }

    /// What a request is told that waited for as long as may be.
    pub(crate) fn waited_too_long(&self, since: Duration) -> Error {
        let state = self.lock();
        self.metrics.refused(Bound::Age);
        Error::WaitedTooLong {
            waited: self.now().saturating_sub(since),
            retry_after: state.queue.retry_after(self.pace(&state)),
        }
    }

    /// The controller is not heard any more.
    pub(crate) fn unheard(&self) {
        let now = self.now();
        self.lock().outlook.unheard(now);
    }

    /// True when the table has a replica.
    pub(crate) fn has_replicas(&self) -> bool {
        self.lock().outlook.has_replicas()
    }

    /// How long since `begun` there was no replica, given that there was none then.
    pub(crate) fn without(&self, begun: Duration) -> Duration {
        let now = self.now();
        self.lock().outlook.without(begun, now)
    }
}
