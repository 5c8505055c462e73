//! Ready when every latch was released; not ready again, at once and for good, when the service drains.
//!
//! A part that the service needs takes a latch while the service is assembled and releases it when it can serve, so
//! nobody can forget to add a condition. Health (whether what was loaded still works) is not decided here.

use std::{collections::BTreeMap, future::Future, sync::Arc};

use tokio::sync::watch;

/// A cheap handle to the readiness of one service.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<watch::Sender<State>>);

#[derive(Clone, Debug, Default)]
struct State {
    waiting: BTreeMap<u64, &'static str>,
    next: u64,
    draining: bool,
}

/// Something that the service waits for; released by [`Latch::release`] or by dropping it.
#[derive(Debug)]
#[must_use = "a latch that is dropped at once makes nobody wait"]
pub struct Latch {
    readiness: Readiness,
    id: u64,
}

impl Readiness {
    /// Makes a readiness that waits for nothing yet, and so is ready.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(State::default())))
    }

    /// Makes the service wait for something, named as `/readyz` shall say it.
    pub fn latch(&self, name: &'static str) -> Latch {
        let mut id = 0;
        self.0.send_modify(|state| {
            id = state.next;
            state.next += 1;
            state.waiting.insert(id, name);
        });
        Latch {
            readiness: self.clone(),
            id,
        }
    }

    /// True when all latches are released and the service does not drain.
    pub fn is_ready(&self) -> bool {
        self.0.borrow().is_ready()
    }

    /// What is waited for, in the order in which the latches were taken; `draining` once that has begun.
    pub fn waiting_for(&self) -> Vec<&'static str> {
        let state = self.0.borrow();
        let draining = state.draining.then_some("draining");
        draining
            .into_iter()
            .chain(state.waiting.values().copied())
            .collect()
    }

    /// Makes the service not ready, for good.
    pub fn drain(&self) {
        self.0
            .send_if_modified(|state| !std::mem::replace(&mut state.draining, true));
    }

    /// Waits for the next change. What counts as next begins with the call, not with the first poll: make the future,
    /// look at [`Readiness::is_ready`], then await, and no change is missed.
    pub fn changed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut changes = self.0.subscribe();
        let keep = self.clone();
        async move {
            // The sender is kept alive by `keep`, so this ends with a change only.
            let _ = changes.changed().await;
            drop(keep);
        }
    }

    /// Waits until the service is ready.
    pub async fn ready(&self) {
        let mut changes = self.0.subscribe();
        let _ = changes.wait_for(State::is_ready).await;
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    fn is_ready(&self) -> bool {
        self.waiting.is_empty() && !self.draining
    }
}

impl Latch {
    /// Says that what was waited for has happened.
    pub fn release(self) {
        drop(self);
    }
}

impl Drop for Latch {
    fn drop(&mut self) {
        self.readiness.0.send_modify(|state| {
            state.waiting.remove(&self.id);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_the_last_latch_is_released() {
        let readiness = Readiness::new();
        let (model, route) = (readiness.latch("model"), readiness.latch("route"));
        assert_eq!(readiness.waiting_for(), ["model", "route"]);
        model.release();
        assert!(!readiness.is_ready());
        drop(route);
        assert!(readiness.is_ready());
    }

    #[test]
    fn draining_ends_readiness_at_once_and_for_good() {
        let readiness = Readiness::new();
        let latch = readiness.latch("model");
        readiness.drain();
        latch.release();
        assert!(!readiness.is_ready());
        assert_eq!(readiness.waiting_for(), ["draining"]);
    }

    #[tokio::test]
    async fn a_change_between_the_call_and_the_wait_is_not_missed() {
        let readiness = Readiness::new();
        let latch = readiness.latch("model");
        let changed = readiness.changed();
        latch.release();
        changed.await;
        assert!(readiness.is_ready());
    }
}
