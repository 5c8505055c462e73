//! Keeps streams of pictures from being compressed, whatever their caller would take.
//!
//! Most clients say with every call that they take gzip, and tonic then compresses every message of a stream. Pictures
//! are compressed already, and the events between them fit a packet: both would only cost time.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use http::{HeaderName, Request, Response};
use tonic::{body::Body, server::NamedService};
use tower::Service;

/// By which callers say what they take.
const TAKES: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// A service one of whose methods, by its path, never compresses.
#[derive(Debug, Clone)]
pub(crate) struct Plain<S> {
    pub(crate) inner: S,
    pub(crate) path: &'static str,
}

impl<S: NamedService> NamedService for Plain<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Plain<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if request.uri().path() == self.path {
            request.headers_mut().remove(TAKES);
        }
        self.inner.call(request)
    }
}
