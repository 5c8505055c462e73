//! The Open Inference Protocol over HTTP: `/v2` and what is below it, with tensors as JSON and, behind it, as they travel in
//! memory (the binary tensor extension).
//!
//! Paths are the proxy's, not an application's: the path names the model. Errors are `{"error": "..."}` with the status that
//! the code of the error has.

mod body;
mod door;
mod error;
mod inflate;
mod path;
mod read;
mod write;

pub(super) use self::{door::answer, error::refuse, path::Ask};
