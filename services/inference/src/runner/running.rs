//! Who is in the call that runs now, so that a call in which nobody is left can be ended.
//!
//! A reader that goes away looks here; the engine thread writes here before and after each call.
//!
//! Invariant: a call is interrupted only while every request in it has lost its reader.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::outbox::Left;
use crate::engine::Interrupt;

/// The call that runs now.
#[derive(Default)]
pub(crate) struct Running {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    readers: Vec<Left>,
    running: bool,
    interrupter: Option<Arc<dyn Interrupt>>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").finish_non_exhaustive()
    }
}

impl Running {
    /// What ends a call; set once the engine is there.
    pub(super) fn interrupt_with(&self, interrupter: Option<Arc<dyn Interrupt>>) {
        self.lock().interrupter = interrupter;
    }

    /// A call begins with these readers in it.
    pub(super) fn begin(&self, readers: impl Iterator<Item = Left>) {
        let mut state = self.lock();
        state.readers.clear();
        state.readers.extend(readers);
        state.running = true;
    }

    /// The call ended.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.running = false;
        state.readers.clear();
    }

    /// A reader went away: ends the running call when it was the last one in it.
    pub(super) fn left(&self) {
        let state = self.lock();
        let nobody = state.running && !state.readers.is_empty() && state.readers.iter().all(Left::is_gone);
        if nobody && let Some(interrupter) = &state.interrupter {
            interrupter.interrupt();
        }
    }

    /// Nothing under the lock can panic half-way, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
