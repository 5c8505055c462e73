//! What stands in front of every gRPC service that draws or tells of models: who asks is found out from the metadata alone,
//! before anything of the message is read.
//!
//! Health and reflection are not behind it: probes have no keys, and what they tell is no secret. Ray's list of applications
//! is answered without a key too, but names what the caller's key opens and nothing else.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use futures::future::Either;
use http::{Request, Response};
use tonic::{Status, body::Body, server::NamedService};
use tower::Service;

use crate::keys::Keys;

/// What probes ask, of the services behind the gate.
const PROBES: [&str; 3] = [
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
    "/ray.serve.RayServeAPIService/Healthz",
];
/// What is answered without a key, and says more to who has one.
const LISTS: [&str; 1] = ["/ray.serve.RayServeAPIService/ListApplications"];

/// A service behind the gate.
#[derive(Debug, Clone)]
pub(crate) struct Gated<S> {
    keys: Keys,
    service: S,
}

impl<S> Gated<S> {
    /// Puts a service behind the gate.
    pub(crate) fn new(keys: &Keys, service: S) -> Self {
        let keys = keys.clone();
        Self { keys, service }
    }
}

type Answered = Result<Response<Body>, Infallible>;

impl<S: NamedService> NamedService for Gated<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Answered>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let noted = if PROBES.contains(&path) {
            Ok(())
        } else if LISTS.contains(&path) {
            self.keys.look(&mut request).map(drop)
        } else {
            self.keys.note(&mut request)
        };
        match noted {
            Ok(()) => Either::Left(self.service.call(request)),
            Err(error) => Either::Right(ready(Ok(Status::from(error).into_http()))),
        }
    }
}
