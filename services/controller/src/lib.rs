//! The controller: keeps what shall run (the intent) and what runs (as workers report it), places replicas on workers,
//! and tells proxies where they are. It is not on the request path: with it gone, everything serves on; when it is back
//! it adopts what it finds.
//!
//! - [`schema`] reads the intent; `state` decides, pure, with the time as an argument; `owner` is the loop around it;
//!   `provider` starts workers; `control` and `serve` are the gRPC services.

mod config;
mod control;
mod error;
pub mod metrics;
mod owner;
mod provider;
mod run;
pub mod schema;
mod serve;
mod state;

pub use self::{
    config::{Config, Supplier, WorkerLogs},
    error::Error,
    run::{Listeners, run},
};
