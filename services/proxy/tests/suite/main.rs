//! The proxy on real sockets, between a controller and workers of a few lines each.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod demand;
mod doors;
mod grpc;
mod handover;
mod hostile;
mod http;
mod keys;
mod on_demand;
mod openai;
mod pictures;
mod readers;
mod refine;
mod replicas;
mod rolling;
mod support;
mod tokens;
mod v2;
mod waiting;
mod wire;
mod zero;
