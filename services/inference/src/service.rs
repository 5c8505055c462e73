//! The gRPC door: a request becomes a stream of events.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Stream;
use mobula_kit::Deadline;
use mobula_kit::worker::{Lease, Replicas};
use mobula_proto::inference::v1::generate_response::Event;
use mobula_proto::inference::v1::inference_service_server::InferenceService;
use mobula_proto::inference::v1::{GenerateRequest, GenerateResponse};
use tonic::{Request, Response, Status};

use crate::loader::Loader;
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

/// One request's events; holds its place in the replica until it is dropped.
#[derive(Debug)]
pub struct Events {
    // Dropped first, so that the request is cancelled before its place is free.
    inbox: Inbox,
    lease: Lease<Replica>,
}

impl Stream for Events {
    type Item = Result<GenerateResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(item) = ready!(Pin::new(&mut self.inbox).poll_next(context)) else {
            return Poll::Ready(None);
        };
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
        // RESOURCE_EXHAUSTED: the replica has max_ongoing_requests, or as many pictures as it can hold.
        // DEADLINE_EXCEEDED: the deadline passed, here or later in the stream.
        // INTERNAL (in the stream): a run of the model failed.
        let deadline = Deadline::of(&request).map(|deadline| deadline.0);
        let request = request.into_inner();
        let lease = self.replicas.lease(&request.replica_id)?;
        let inbox = lease.generate(request, deadline)?;
        Ok(Response::new(Events { inbox, lease }))
    }
}
