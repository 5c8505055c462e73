//! The load generator on real sockets: against its own null server, and against a server of tonic and axum, which are not ours.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod closed;
mod endings;
mod loads;
mod others;
mod support;
