//! The proxy: the only door for users, over HTTP and gRPC. It validates, admits, queues, routes, starts lost requests
//! again and streams; it keeps no state but what runs, and serves on when the controller is away.

mod aside;
mod caller;
mod channels;
mod clock;
mod config;
mod demand;
mod draw;
mod error;
mod events;
mod failfast;
mod fault;
mod follow;
mod gate;
mod generate;
mod grpc;
mod header;
mod hold;
mod http;
mod infotext;
mod keys;
mod malformed;
mod metrics;
mod names;
mod permit;
mod place;
mod plain;
mod pool;
mod prepare;
mod problem;
mod ray;
mod registry;
mod replica;
mod report;
mod service;
mod table;
mod tokenize;
mod v2;
mod validate;
mod words;

pub use config::{Config, Listeners, Provenance};
pub use error::Error;
pub use keys::Text;
pub use names::calls_per_step;
pub use problem::{Problem, Rule};
pub use service::run;
