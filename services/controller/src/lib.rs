//! The controller: keeps what shall run (the intent) and what runs (as workers report it), places replicas on workers,
//! and tells proxies where they are. It is not on the request path: with it gone, everything serves on; when it is back
//! it adopts what it finds.
//!
//! - `mobula_schema` reads configs; `intent` is what shall run and how it changes, `store` keeps it;
//! - `state` decides, pure, with the time as an argument; `owner` is the loop around it; `explain` says why;
//! - `provider` starts workers; `control` and `serve` are the gRPC services, `rest` is Ray Serve's REST API.

mod config;
mod control;
mod error;
mod explain;
mod intent;
pub mod metrics;
mod owner;
mod provider;
mod rest;
mod run;
mod serve;
mod state;
mod store;

pub use self::{
    config::{Config, Supplier, WorkerLogs},
    error::Error,
    run::{Listeners, run},
};
