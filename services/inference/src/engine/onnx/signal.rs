//! Ends a running call from another thread: one set of run options that all of an engine's sessions share.
//!
//! ONNX Runtime tests the flag between operators. Invariant: an interruption ends the call during which it came, and no later
//! one, because every call of the engine begins with [`Signal::begin`].

use std::sync::atomic::{AtomicBool, Ordering};

use ort::session::RunOptions;

use super::super::{Error, Interrupt};
use super::provider::Providers;

pub(super) struct Signal {
    options: RunOptions,
    asked: AtomicBool,
}

impl Signal {
    /// Makes the options of runs that are not recorded as CUDA graphs, for sessions that may record others.
    pub(super) fn new(providers: &Providers) -> Result<Self, Error> {
        let mut options = RunOptions::new().map_err(library)?;
        providers.without_graph(&mut options).map_err(library)?;
        Ok(Self {
            options,
            asked: AtomicBool::new(false),
        })
    }

    /// Forgets interruptions of calls that are over.
    pub(super) fn begin(&self) {
        if self.asked.swap(false, Ordering::AcqRel) {
            // It cannot fail for options that exist.
            let _ = self.options.unterminate();
        }
    }

    /// What runs are made with.
    pub(super) fn options(&self) -> &RunOptions {
        &self.options
    }

    /// Whether this call was asked to end.
    pub(super) fn was_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }
}

impl Interrupt for Signal {
    fn interrupt(&self) {
        let _ = self.options.terminate();
        self.asked.store(true, Ordering::Release);
    }
}

fn library(error: ort::Error) -> Error {
    Error::Library {
        why: error.to_string(),
    }
}
