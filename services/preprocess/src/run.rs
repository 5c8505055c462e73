//! Puts the service together and serves until it is told to stop.

use mobula_kit::{
    Readiness, Stop, admin, grpc,
    listen::Listener,
    worker::{self, ReplicaSpec, Replicas, WorkerKind},
};
use mobula_proto::preprocess::v1::preprocess_service_server::PreprocessServiceServer;

use crate::{Config, Error, Loader, Service, metrics::Metrics, pool::Pool};

/// Requests at a time for a replica that was named on the command line.
const STANDALONE_REQUESTS: u32 = 1024;

/// The ports, bound by the caller.
#[derive(Debug)]
pub struct Listeners {
    /// gRPC.
    pub grpc: Listener,
    /// `/metrics`, `/healthz`, `/readyz`.
    pub admin: Listener,
}

/// Serves until the stop is triggered and what runs is answered.
///
/// # Errors
///
/// [`Error::Start`] and [`Error::Kit`], when the service cannot start.
pub async fn run(config: Config, listeners: Listeners, stop: Stop) -> Result<(), Error> {
    mobula_kit::metrics::install();
    let metrics = Metrics::new();
    let readiness = Readiness::new();
    let pool = Pool::start(config.threads(), config.queue, metrics.queue.clone())?;
    let default_model = config.worker.default_model.clone();
    let replicas = Replicas::new(
        Loader::new(config.models_dir.clone(), default_model),
        stop.clone(),
    );
    replicas.ready_with(readiness.latch("the controller, or a replica"));
    join(&config, &listeners, &replicas, &stop)?;
    stop.spawn(
        "admin pages",
        admin::serve(listeners.admin, readiness.clone(), stop.clone()),
    );
    let service = Service::new(replicas, pool.clone(), metrics, config.inline_bytes);
    let service = PreprocessServiceServer::new(service)
        .max_decoding_message_size(grpc::MAX_MESSAGE_BYTES)
        .max_encoding_message_size(grpc::MAX_MESSAGE_BYTES);
    let server = grpc::Server::new("mobula-preprocess").for_proxies().add(service);
    let served = server.serve(listeners.grpc, readiness, stop).await;
    // Nobody waits for what is left. A thread ends after the request that it is at: milliseconds for texts, at most a few
    // seconds for a picture at the limits.
    pool.close();
    let _ = tokio::task::spawn_blocking(move || pool.join()).await;
    Ok(served?)
}

/// Attaches to the controller, or serves the replicas of the command line alone.
fn join(
    config: &Config,
    listeners: &Listeners,
    replicas: &Replicas<Loader>,
    stop: &Stop,
) -> Result<(), Error> {
    if config.replicas.is_empty() {
        let bound = listeners.grpc.local_addr().map_err(|source| Error::Start {
            what: "the gRPC port has no address",
            source,
        })?;
        let identity = config.worker.identity(WorkerKind::Preprocess, bound);
        return Ok(worker::attach(
            (&config.worker.controller, &config.dial),
            identity,
            replicas.clone(),
            stop,
        )?);
    }
    for (id, model) in &config.replicas {
        replicas.assign(ReplicaSpec {
            replica_id: id.clone(),
            kind: WorkerKind::Preprocess.into(),
            model: model.clone(),
            max_ongoing_requests: STANDALONE_REQUESTS,
            ..ReplicaSpec::default()
        });
    }
    Ok(())
}
