//! The gRPC door: a request becomes a stream of events.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Stream;
use mobula_kit::Deadline;
use mobula_kit::worker::{Lease, Replicas};
use mobula_proto::inference::v1::generate_response::Event;
use mobula_proto::inference::v1::inference_service_server::InferenceService;
use mobula_proto::inference::v1::{GenerateRequest, GenerateResponse, LoadModelRequest, LoadModelResponse};
use tonic::{Request, Response, Status};

use crate::error::Error;
use crate::loader::Loader;
use crate::ondemand::Held;
use crate::replica::Replica;
use crate::runner::Inbox;

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
}

/// Counts a request that fails as an error of its replica.
fn told<T>(lease: &Lease<Replica>, result: Result<T, Error>) -> Result<T, Error> {
    result.inspect_err(|error| lease.fails(error.reason()))
}

/// One request's events; holds its place in the replica until it is dropped.
#[derive(Debug)]
pub struct Events {
    // Dropped first, so that the request is cancelled before its place is free.
    inbox: Inbox,
    /// A model on demand stays as long as it draws.
    _held: Option<Held>,
    lease: Lease<Replica>,
}

impl Stream for Events {
    type Item = Result<GenerateResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(item) = ready!(Pin::new(&mut self.inbox).poll_next(context)) else {
            return Poll::Ready(None);
        };
        if let Err(error) = &item {
            self.lease.fails(error.reason());
        }
        let item = item.map(|event| {
            let tells_load = matches!(event, Event::Accepted(_) | Event::Done(_));
            GenerateResponse {
                load: tells_load.then(|| self.lease.load()),
                event: Some(event),
            }
        });
        Poll::Ready(Some(item.map_err(Status::from)))
    }
}

#[tonic::async_trait]
impl InferenceService for Service {
    type GenerateStream = Events;

    async fn generate(&self, request: Request<GenerateRequest>) -> Result<Response<Events>, Status> {
        // INVALID_ARGUMENT: a field is wrong; BadRequest names all of them.
        // NOT_FOUND: this worker has no such replica.
        // UNAVAILABLE: the replica starts, drains, or its engine failed.
        // RESOURCE_EXHAUSTED: the replica has max_ongoing_requests, or as many pictures as it can hold, or all of its models
        // are in use and another was asked for.
        // DEADLINE_EXCEEDED: the deadline passed, here or later in the stream.
        // FAILED_PRECONDITION (in the stream): the picture's numbers stopped being finite.
        // INTERNAL (in the stream): a run of the model failed.
        let deadline = Deadline::of(&request).map(|deadline| deadline.0);
        let request = request.into_inner();
        let lease = self.replicas.lease(&request.replica_id)?;
        let held = told(&lease, lease.take(&request.model_id, deadline).await)?;
        let held = held.map(|(held, _)| held);
        let inbox = match &held {
            None => lease.generate(request, deadline),
            Some(model) => model.generate(request, deadline),
        };
        let inbox = told(&lease, inbox)?;
        let events = Events {
            inbox,
            _held: held,
            lease,
        };
        Ok(Response::new(events))
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
            None => (lease.info().clone(), false),
            Some((held, was_loaded)) => (held.info().clone(), was_loaded),
        };
        Ok(Response::new(LoadModelResponse {
            model: Some(model),
            was_loaded,
        }))
    }
}
