//! The service over a real socket.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod families;
mod golden;
mod ondemand;
mod replicas;
mod requests;
mod same;
mod stages;
mod support;
