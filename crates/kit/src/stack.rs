//! What happens to every gRPC request, in order, written once.
//!
//! Each layer is a function around a future, so that the whole stack is one future without boxes between layers. What
//! has to outlive the response headers goes on in [`Reply`].

use std::{error::Error as StdError, panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt;
use http::{Request, Response};
use hyper::body::Bytes;
use tonic::{Status, body::Body};
use tracing::{Instrument, Span, debug_span, field::Empty};

use crate::{
    Deadline,
    arriving::Arriving,
    body::{Reply, deadline_passed, panicked},
    dispatch::Table,
    methods::{Method, Methods},
    trace,
};

/// The services of a server with everything around them.
#[derive(Debug)]
pub(crate) struct Stack {
    pub(crate) table: Table,
    pub(crate) methods: Methods,
}

impl Stack {
    /// Answers one request; the layers from the outside in.
    pub(crate) async fn answer<B>(self: Arc<Self>, mut request: Request<B>) -> Response<Reply>
    where
        B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let method = self.methods.of(request.uri().path());

        // 1. Count, outermost: whatever ends the request inside, a caller who leaves included, is counted by the guard.
        let guard = method.start();

        // 2. Trace next, so that the layers below log within the request's span. The span is at debug level: with no
        //    exporter and no debug log this is one load and a branch.
        let span = request_span(method);
        trace::set_parent_http(&span, request.headers());

        // 3. Deadline, noted once for the handler and kept here too: an expired request is dropped with everything that
        //    it holds, and answered DEADLINE_EXCEEDED.
        let deadline = Deadline::of_headers(request.headers());
        if let Some(deadline) = deadline {
            request.extensions_mut().insert(deadline);
        }

        // 4. What a caller begins to send and does not go on with is an error of its body, wherever that is read.
        let request = request.map(|body| Body::new(Arriving::grpc(body, method.is_stream)));

        // 5. Panics are caught innermost, so that the layers above see a status like any other.
        let response = within(deadline, caught(self.table.call(request)))
            .instrument(span.clone())
            .await;
        let response = response.unwrap_or_else(|status| status.into_http());
        Reply::wrap(response, guard, span, deadline)
    }
}

fn request_span(method: &'static Method) -> Span {
    let span = debug_span!(
        "grpc",
        otel.name = Empty,
        otel.kind = "server",
        otel.status_code = Empty,
        rpc.system = "grpc",
        rpc.service = %method.service,
        rpc.method = %method.method,
        rpc.grpc.status_code = Empty,
    );
    if !span.is_disabled() {
        span.record("otel.name", format!("{}/{}", method.service, method.method));
    }
    span
}

async fn within<F>(deadline: Option<Deadline>, work: F) -> Result<Response<Body>, Status>
where
    F: Future<Output = Result<Response<Body>, Status>>,
{
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline.0, work)
            .await
            .unwrap_or_else(|_| Err(deadline_passed())),
        None => work.await,
    }
}

async fn caught(work: impl Future<Output = Response<Body>>) -> Result<Response<Body>, Status> {
    AssertUnwindSafe(work)
        .catch_unwind()
        .await
        .map_err(|_| panicked())
}
