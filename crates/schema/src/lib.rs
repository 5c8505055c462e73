//! What shall run, as Ray Serve writes it: `ServeDeploySchema` in YAML or JSON, KubeRay's RayService, old names and formats.
//!
//! [`parse`] reads a whole config, [`parse_application`] and [`application`] one application. Everything that is written is honoured, translated or
//! ignored with a [`Note`] that says so, or the document is refused whole with every [`Problem`] at once. Nothing here starts,
//! places or counts anything.

mod application;
mod compose;
mod config;
mod deployment;
mod digest;
mod env;
mod graph;
mod group;
mod legacy;
mod logging;
mod note;
mod placing;
mod quantity;
mod read;
mod reader;
mod scaling;
mod selector;
mod service;
mod source;
mod suggest;
mod top;
mod tree;

#[cfg(test)]
mod tests;

pub use self::{
    config::{
        Application, Backpressure, Config, Count, Deployment, Grpc, Health, Http, Options, Placing,
        ProxyLocation, Rollout, Stage, WorkerGroup,
    },
    note::{Note, Problem, Verdict},
    read::{Parsed, application, document, parse, parse_application},
    source::MAX_BYTES,
    top::MAX_REPLICAS_OF_ALL,
};
