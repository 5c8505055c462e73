//! What a request's pictures are charged for: their pixels, whatever the steps, as paid image APIs have it.
//!
//! Invariant: a request that no replica took, or that failed by no fault of its caller's, costs nothing; one that its caller
//! gave up once it was being drawn costs all of it, since the work was done.

use tonic::Code;

use super::Trail;
use crate::{Error, caller::Charge};

/// What a request owes until it has ended.
#[derive(Debug)]
pub(super) struct Bill {
    charge: Option<Charge>,
    trail: Trail,
}

impl Bill {
    /// Of a request with this trail.
    pub(super) fn new(charge: Charge, trail: &Trail) -> Self {
        Self {
            charge: Some(charge),
            trail: trail.clone(),
        }
    }

    /// It ended so.
    pub(super) fn settle(mut self, drawn: &Result<(), Error>) {
        let given_up = |error: &Error| matches!(error.code(), Code::Cancelled | Code::DeadlineExceeded);
        if let Err(error) = drawn
            && !given_up(error)
        {
            self.charge = None;
        }
    }
}

impl Drop for Bill {
    fn drop(&mut self) {
        if let Some(charge) = self.charge.take()
            && self.trail.was_taken()
        {
            charge.keep();
        }
    }
}
