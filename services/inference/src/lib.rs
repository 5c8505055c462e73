//! The inference service: text encoder, UNet and VAE on ONNX Runtime, batched step by step.
//!
//! [`run`] is the service. [`engine`] is the contract with what computes, [`model`] reads model folders, `runner` is the tick
//! loop, `replica` puts them together for the worker kit, and `service` is the gRPC door.

#[doc(hidden)]
pub mod bench;
mod config;
mod encode;
pub mod engine;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod loader;
mod memory;
mod metrics;
pub mod model;
mod ondemand;
pub mod prepare;
pub mod profile;
mod replica;
mod request;
mod runner;
mod service;
mod shared;

pub use config::{Config, Listeners};
pub use error::Error;
pub use loader::Loader;
pub use replica::Replica;
pub use service::{Events, Message, Service};

use mobula_kit::worker::{Replicas, WorkerKind, attach};
use mobula_kit::{Readiness, Stop, admin, grpc};
use mobula_proto::inference::v1::inference_service_server::InferenceServiceServer;

/// Serves until `stop`, then drains. Ready when the controller has welcomed the worker.
///
/// # Errors
/// [`Error::Kit`] when the controller's address is wrong or a socket fails.
pub async fn run(config: Config, listeners: Listeners, stop: Stop) -> Result<(), Error> {
    let readiness = Readiness::new();
    let replicas = Replicas::new(Loader::new(&config)?, stop.clone());
    replicas.ready_with(readiness.latch("the controller"));
    let bound = listeners.grpc.local_addr().map_err(Error::Thread)?;
    let identity = config.worker.identity(WorkerKind::Inference, bound);
    attach(
        (&config.worker.controller, &config.dial),
        identity,
        replicas.clone(),
        &stop,
    )?;
    stop.spawn(
        "admin pages",
        admin::serve(listeners.admin, readiness.clone(), stop.clone()),
    );
    let service = InferenceServiceServer::new(Service::new(replicas))
        // A picture and a mask to start from, or another model's latents.
        .max_decoding_message_size(grpc::MAX_MESSAGE_BYTES)
        .max_encoding_message_size(grpc::MAX_MESSAGE_BYTES);
    grpc::Server::new("mobula-inference")
        .for_proxies()
        .add(service)
        .serve(listeners.grpc, readiness, stop)
        .await?;
    Ok(())
}
