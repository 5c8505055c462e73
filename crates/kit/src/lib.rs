//! How every Mobula binary starts, listens, traces, measures and stops.
//!
//! The kit knows the contracts and nothing of pictures: it decides no route and no batch. A service is one function
//! `run(config, listeners, stop)`; its `main.rs` parses arguments that flatten [`Common`] and hands that function to
//! [`main`]:
//!
//! ```no_run
//! # use clap::Parser;
//! # use mobula_kit::{Common, Error, Readiness, Stop, grpc, listen};
//! #[derive(Parser)]
//! struct Args {
//!     #[arg(long, env = "MOBULA_LISTEN", default_value = "127.0.0.1:7100")]
//!     listen: std::net::SocketAddr,
//!     #[command(flatten)]
//!     common: Common,
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     let args: Args = mobula_kit::parse();
//!     mobula_kit::main("mobula-example", &args.common, move |stop: Stop| async move {
//!         let listener = listen::bind("gRPC", args.listen).await?;
//!         let readiness = Readiness::new();
//!         let loaded = readiness.latch("the model is loaded");
//!         let server = grpc::Server::new("mobula-example"); // .add(ExampleServiceServer::new(service))
//!         loaded.release();
//!         server.serve(listener, readiness, stop).await?;
//!         Ok::<(), Error>(())
//!     })
//! }
//! ```
//!
//! Conventions that the parts share:
//! - Spans on the request path are made at debug level (`tracing::debug_span!`): they cost nothing until an OTLP
//!   endpoint is set (then the exporter asks for them) or the log filter says `debug`. Log events carry the request id
//!   as a field of their own.
//! - Metric handles are made once and kept; nothing looks a label up by name while a request waits.
//! - Everything ends by [`Stop`]: one signal, one deadline, all tasks known by name.

mod args;
mod arriving;
mod backoff;
mod body;
mod connection;
mod dispatch;
mod error;
mod gather;
mod guests;
mod health;
mod heard;
mod leaving;
mod machine;
mod methods;
mod pace;
mod process;
mod signals;
mod stack;
mod start;
mod taken;
mod telemetry;

pub mod accept;
pub mod admin;
pub mod channel;
pub mod deadline;
pub mod grpc;
pub mod guard;
pub mod http;
pub mod listen;
pub mod metrics;
pub mod ready;
pub mod status;
pub mod stop;
pub mod tls;
pub mod token;
pub mod trace;
pub mod web;
pub mod worker;

pub use args::{Common, LogFormat};
pub use async_trait::async_trait;
pub use backoff::Backoff;
pub use deadline::Deadline;
pub use error::{Error, chain};
pub use guests::{Limits as Connections, limit as limit_connections};
pub use machine::host;
pub use process::Usage;
pub use ready::{Latch, Readiness};
pub use start::{EXIT_CONFIG, EXIT_FAILED, EXIT_KILLED, EXIT_OK, main, parse};
pub use stop::{Drained, Stop};
pub use telemetry::Telemetry;
