//! The kit on real sockets.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod admin;
mod common;
mod drain;
mod grpc;
mod guests;
mod otlp;
mod stalled;
mod start;
mod web;
