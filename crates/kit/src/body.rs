//! The response body of the stack: what has to last as long as a response streams.
//!
//! Keeps the deadline, the panics, the span and the count of a request until its last frame, without a box of its own.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tokio::time::Sleep;
use tonic::{Code, Status, body::Body};
use tracing::Span;

use crate::{Deadline, methods::Guard};

/// The status of a request whose deadline passed.
pub(crate) fn deadline_passed() -> Status {
    Status::deadline_exceeded("the deadline of the call passed")
}

/// The status of a request whose handler panicked; the cause is in the log, by the panic hook.
pub(crate) fn panicked() -> Status {
    Status::internal("the request made its handler panic; the log of the service says where")
}

/// Metadata that a stream ends with beside its status, whatever that is. A handler puts it into its response's extensions.
#[derive(Clone, Debug)]
pub struct Trailing(pub HeaderName, pub HeaderValue);

/// A response body that ends with what the stack has to say.
#[derive(Debug)]
pub(crate) struct Reply {
    /// None once the last frame is out.
    inner: Option<Body>,
    trailing: Option<Trailing>,
    guard: Guard,
    span: Span,
    deadline: Option<Deadline>,
    /// Made when the stream first has nothing to give: most responses never wait.
    expiry: Option<Pin<Box<Sleep>>>,
}

impl Reply {
    /// Wraps a handler's response. The guard has its code already when the response is a status alone.
    pub(crate) fn wrap(
        mut response: http::Response<Body>,
        mut guard: Guard,
        span: Span,
        deadline: Option<Deadline>,
    ) -> http::Response<Self> {
        if let Some(code) = code_in(response.headers()) {
            guard.finish(code);
            record(&span, code);
        }
        let trailing = response.extensions_mut().remove();
        response.map(|body| Self {
            inner: Some(body),
            trailing,
            guard,
            span,
            deadline,
            expiry: None,
        })
    }

    /// Ends the stream with a status of the stack's own.
    fn end(&mut self, status: &Status) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.finish(status.code());
        let mut trailers = HeaderMap::new();
        match status.add_header(&mut trailers) {
            Ok(()) => Poll::Ready(Some(Ok(self.trail(trailers)))),
            Err(status) => Poll::Ready(Some(Err(status))),
        }
    }

    /// The last frame.
    fn trail(&mut self, mut trailers: HeaderMap) -> Frame<Bytes> {
        if let Some(Trailing(name, value)) = self.trailing.take() {
            trailers.insert(name, value);
        }
        Frame::trailers(trailers)
    }

    /// Notes the code and frees what the handler holds.
    fn finish(&mut self, code: Code) {
        self.guard.finish(code);
        record(&self.span, code);
        self.inner = None;
    }
}

impl HttpBody for Reply {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let Some(inner) = this.inner.as_mut() else {
            return Poll::Ready(None);
        };
        let polled = {
            let _entered = this.span.enter();
            catch_unwind(AssertUnwindSafe(|| Pin::new(inner).poll_frame(cx)))
        };
        match polled {
            Err(_) => this.end(&panicked()),
            Ok(Poll::Ready(Some(Ok(frame)))) => {
                let frame = match frame.into_trailers() {
                    Ok(trailers) => {
                        this.finish(code_in(&trailers).unwrap_or(Code::Ok));
                        this.trail(trailers)
                    }
                    Err(data) => data,
                };
                Poll::Ready(Some(Ok(frame)))
            }
            Ok(Poll::Ready(Some(Err(status)))) => {
                this.finish(status.code());
                Poll::Ready(Some(Err(status)))
            }
            Ok(Poll::Ready(None)) => {
                this.finish(Code::Ok);
                Poll::Ready(None)
            }
            Ok(Poll::Pending) => {
                let expired = match this.deadline {
                    Some(Deadline(at)) => {
                        let sleep = || Box::pin(tokio::time::sleep_until(at));
                        this.expiry.get_or_insert_with(sleep).as_mut().poll(cx).is_ready()
                    }
                    None => false,
                };
                if expired {
                    this.end(&deadline_passed())
                } else {
                    Poll::Pending
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

/// The code in a response's headers or trailers.
fn code_in(headers: &HeaderMap) -> Option<Code> {
    headers
        .get("grpc-status")
        .map(|code| Code::from_bytes(code.as_bytes()))
}

/// Writes the outcome into the request's span.
fn record(span: &Span, code: Code) {
    if span.is_disabled() {
        return;
    }
    span.record("rpc.grpc.status_code", i32::from(code));
    // OpenTelemetry's convention for servers: these are the server's fault, the others the caller's.
    let fault = matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    );
    if fault {
        span.record("otel.status_code", "ERROR");
    }
}
