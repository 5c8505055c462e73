//! The preprocess service: prompts to tokens.
//!
//! [`run`] serves `mobula.preprocess.v1.PreprocessService` for the replicas that the controller assigns; each replica is one
//! model's [`tokenizer`]. Short texts are tokenized at once, long ones on a fixed [`pool`] of threads. It knows neither
//! pictures nor other services than the controller.

mod config;
mod error;
mod metrics;
pub mod pool;
mod replica;
mod run;
mod service;
pub mod tokenizer;

pub use self::{
    config::Config,
    error::Error,
    replica::{Loader, Replica},
    run::{Listeners, run},
    service::Service,
};
