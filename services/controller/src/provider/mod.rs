//! Who starts and ends workers.
//!
//! A provider decides nothing: which workers there should be is the state's business. It tells what became of each
//! process through the loop's handle.

#[cfg(test)]
pub(crate) mod fake;
mod pid;
mod process;
mod registry;

use std::time::Duration;

use mobula_serving::place::Kind;

use crate::state::Start;

pub(crate) use self::{
    process::{Binaries, Process},
    registry::Registry,
};

/// Starts workers, watches over them, ends them. No method waits for anything.
pub(crate) trait Provider: Send {
    /// Starts a worker; its end, or that it could not be started, is told later.
    fn start(&mut self, worker: &Start);
    /// Watches over a worker that this provider started in an earlier life and does not remember.
    fn adopt(&mut self, worker_id: &str, kind: Kind, pid: u32);
    /// Ends a worker within `grace`; `told` if it was told to leave over its stream.
    fn end(&mut self, worker_id: &str, told: bool, grace: Duration);
}

/// Workers are started by somebody else: compose, Kubernetes, a person.
#[derive(Debug)]
pub(crate) struct External;

impl Provider for External {
    fn start(&mut self, _: &Start) {}
    fn adopt(&mut self, _: &str, _: Kind, _: u32) {}
    fn end(&mut self, _: &str, _: bool, _: Duration) {}
}

/// The name of a kind's binary.
pub(crate) fn binary(kind: Kind) -> &'static str {
    match kind {
        Kind::Preprocess => "mobula-preprocess",
        Kind::Inference => "mobula-inference",
    }
}
