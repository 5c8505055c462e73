//! The preprocess service: prompts to tokens, files to pixels.
//!
//! [`run`] serves `mobula.preprocess.v1.PreprocessService` for the replicas that the controller assigns; each replica is one
//! [`model`]'s tokenizers and embeddings. [`mod@prompt`] reads what people write, [`image`] what they draw. Short texts are
//! tokenized at once, long ones and files are for a fixed [`pool`] of threads. It knows no other service than the controller.

mod config;
mod error;
pub mod image;
mod metrics;
pub mod model;
pub mod pool;
pub mod prompt;
mod replica;
mod run;
mod service;
pub mod tokenizer;

pub use self::{
    config::Config,
    error::Error,
    model::Model,
    replica::{Loader, Replica},
    run::{Listeners, run},
    service::Service,
};
