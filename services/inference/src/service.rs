//! The gRPC door: a request becomes a stream of events, or one answer.

mod stages;
mod stream;

use mobula_kit::Deadline;
use mobula_kit::worker::{Lease, Replicas};
use mobula_proto::inference::v1::inference_service_server::InferenceService;
use mobula_proto::inference::v1::{
    DecodeRequest, DecodeResponse, DenoiseRequest, DenoiseResponse, EncodeRequest, EncodeResponse,
    EncodeTextRequest, EncodeTextResponse, GenerateRequest, GenerateResponse, LoadModelRequest,
    LoadModelResponse,
};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::error::Error;
use crate::loader::Loader;
use crate::ondemand::Held;
use crate::replica::{Loaded, Replica};
pub use stream::{Events, Message};

/// The service over a worker's replicas.
#[derive(Debug, Clone)]
pub struct Service {
    replicas: Replicas<Loader>,
}

impl Service {
    /// Makes the service.
    #[must_use]
    pub fn new(replicas: Replicas<Loader>) -> Self {
        Self { replicas }
    }

    /// A place in a replica, with the model that is asked for.
    async fn place(
        &self,
        replica_id: &str,
        model_id: &str,
        deadline: Option<Instant>,
    ) -> Result<Placed, Status> {
        let lease = self.replicas.lease(replica_id)?;
        let held = told(&lease, lease.take(model_id, deadline).await)?;
        Ok(Placed {
            held: held.map(|(held, _)| held),
            lease,
        })
    }
}

/// A request's place in a replica. A model on demand stays as long as it works for it.
#[derive(Debug)]
struct Placed {
    held: Option<Held>,
    lease: Lease<Replica>,
}

impl Placed {
    fn model(&self) -> &Loaded {
        match &self.held {
            Some(held) => held,
            None => self.lease.own(),
        }
    }

    /// Counts a request that fails as an error of its replica.
    fn told<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        told(&self.lease, result)
    }
}

fn told<T>(lease: &Lease<Replica>, result: Result<T, Error>) -> Result<T, Error> {
    result.inspect_err(|error| lease.fails(error.reason()))
}

#[tonic::async_trait]
impl InferenceService for Service {
    type GenerateStream = Events<GenerateResponse>;
    type DenoiseStream = Events<DenoiseResponse>;
    type DecodeStream = Events<DecodeResponse>;

    async fn generate(
        &self,
        request: Request<GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        // INVALID_ARGUMENT: a field is wrong; BadRequest names all of them.
        // NOT_FOUND: this worker has no such replica.
        // UNAVAILABLE: the replica starts, drains, or its engine failed.
        // RESOURCE_EXHAUSTED: the replica has max_ongoing_requests, or as many pictures as it can hold, or all of its models
        // are in use and another was asked for.
        // DEADLINE_EXCEEDED: the deadline passed, here or later in the stream.
        // FAILED_PRECONDITION: the replica does not do all of a picture's way, or (in the stream) the picture's numbers
        // stopped being finite.
        // INTERNAL (in the stream): a run of the model failed.
        let deadline = Deadline::of(&request).map(|deadline| deadline.0);
        let request = request.into_inner();
        let placed = self
            .place(&request.replica_id, &request.model_id, deadline)
            .await?;
        let inbox = placed.told(placed.model().generate(request, deadline))?;
        Ok(Response::new(Events::new(inbox, placed)))
    }

    async fn load_model(
        &self,
        request: Request<LoadModelRequest>,
    ) -> Result<Response<LoadModelResponse>, Status> {
        // INVALID_ARGUMENT: the replica has no such model. NOT_FOUND: this worker has no such replica.
        // UNAVAILABLE: the replica starts, drains, or its engine failed. RESOURCE_EXHAUSTED: the replica is full, or all of
        // its models are in use. DEADLINE_EXCEEDED: it was not loaded in time. INTERNAL: it cannot be loaded.
        let deadline = Deadline::of(&request).map(|deadline| deadline.0);
        let request = request.into_inner();
        let lease = self.replicas.lease(&request.replica_id)?;
        let (model, was_loaded) = match told(&lease, lease.take(&request.model_id, deadline).await)? {
            None => (lease.own().info().clone(), false),
            Some((held, was_loaded)) => (held.info().clone(), was_loaded),
        };
        Ok(Response::new(LoadModelResponse {
            model: Some(model),
            was_loaded,
        }))
    }

    async fn denoise(
        &self,
        request: Request<DenoiseRequest>,
    ) -> Result<Response<Self::DenoiseStream>, Status> {
        // As for generate; FAILED_PRECONDITION also where the replica has no denoiser.
        let deadline = Deadline::of(&request).map(|deadline| deadline.0);
        let request = request.into_inner();
        let (replica, model) = request.request.as_ref().map_or(("", ""), |request| {
            (request.replica_id.as_str(), request.model_id.as_str())
        });
        let placed = self.place(replica, model, deadline).await?;
        let inbox = placed.told(placed.model().denoise(request, deadline))?;
        Ok(Response::new(Events::new(inbox, placed)))
    }

    async fn decode(&self, request: Request<DecodeRequest>) -> Result<Response<Self::DecodeStream>, Status> {
        // As for generate; FAILED_PRECONDITION also where the replica has no decoder.
        let deadline = Deadline::of(&request).map(|deadline| deadline.0);
        let request = request.into_inner();
        let placed = self
            .place(&request.replica_id, &request.model_id, deadline)
            .await?;
        let inbox = placed.told(placed.model().decode(request, deadline))?;
        Ok(Response::new(Events::new(inbox, placed)))
    }

    async fn encode_text(
        &self,
        request: Request<EncodeTextRequest>,
    ) -> Result<Response<EncodeTextResponse>, Status> {
        // As for generate; FAILED_PRECONDITION where the replica has no text encoders.
        let deadline = Deadline::of(&request).map(|deadline| deadline.0);
        let request = request.into_inner();
        let placed = self
            .place(&request.replica_id, &request.model_id, deadline)
            .await?;
        Ok(Response::new(
            stages::encode_text(placed, request, deadline).await?,
        ))
    }

    async fn encode(&self, request: Request<EncodeRequest>) -> Result<Response<EncodeResponse>, Status> {
        // As for generate; FAILED_PRECONDITION where the replica has no VAE encoder.
        let deadline = Deadline::of(&request).map(|deadline| deadline.0);
        let request = request.into_inner();
        let placed = self
            .place(&request.replica_id, &request.model_id, deadline)
            .await?;
        Ok(Response::new(stages::encode(placed, &request, deadline).await?))
    }
}
