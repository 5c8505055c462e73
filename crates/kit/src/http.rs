//! HTTP connections: accepting, limits, and the drain. HTTP/1.1, and HTTP/2 for those who begin with it.
//!
//! It accepts by itself because axum's own loop sets no limits on a connection's head: not on how long it may take, and
//! not on how much of an over-long address is read before it is answered.
//!
//! A body that does not go on is answered 408, and who does not take an answer is let go of.

use std::{
    convert::Infallible,
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{body::Body, response::IntoResponse as _};
use http::{Method, Request, Response, StatusCode, header::CONTENT_LENGTH};
use hyper::{
    body::{Body as _, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::{
    Stop,
    accept::{self, Incoming as Accepted, NOTICE},
    arriving::{Arriving, Late},
    connection,
    guests::{Guests, guests},
    leaving::{Leaving, PATIENCE, Watched},
    listen::Listener,
    taken::Taken,
    tls::Protocol,
};

/// A head that is not complete by then is a caller who holds a connection for nothing.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection over HTTP/2 whose peer vanished is given up after the interval and the timeout, as at the gRPC door.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// So much of a head is read. The address itself may have 64 KiB (more is answered 414); a prompt of a megabyte must be
/// read to be told so, or its sender sees a broken connection instead.
const HEAD_MAX: usize = 2 << 20;

/// What answers requests; an axum `Router` is one. It is asked without `poll_ready`: whatever is busy waits in its future.
pub trait App:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<S> App for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// Serves until the stop is triggered and what was under way has ended, or until the drain's deadline.
pub async fn serve(listener: impl Into<Listener>, app: impl App, stop: Stop) {
    serve_to(guests(), listener.into(), app, stop).await;
}

/// The same for these guests.
pub(crate) async fn serve_to(guests: Arc<Guests>, listener: Listener, app: impl App, stop: Stop) {
    let closing = CancellationToken::new();
    accept::connections((listener, guests), NOTICE, &closing, &stop, |accepted| {
        serve_connection(accepted, app.clone(), closing.clone(), stop.clone())
    })
    .await;
}

/// Serves one connection: until its caller leaves, or asks for nothing; or, draining, until its request is over; or until
/// the deadline.
async fn serve_connection(accepted: Accepted, app: impl App, closing: CancellationToken, stop: Stop) {
    let Some((stream, secured)) = accepted.open(Protocol::Http, &closing).await else {
        return;
    };
    let asked = CancellationToken::new();
    // hyper's own limit on a head begins once it knows the version of HTTP, which a caller may withhold.
    let asks_nothing = connection::silent(asked.clone(), HEAD_TIMEOUT);
    let service = service_fn(move |mut request: Request<Incoming>| {
        asked.cancel();
        if let Some(secured) = &secured {
            request.extensions_mut().insert(secured.clone());
        }
        let app = app.clone();
        let version = request.version();
        async move {
            let response = answer(app, request).await;
            Ok::<_, Infallible>(response.map(|body| Leaving::new(body, version)))
        }
    });
    let mut builder = auto::Builder::new(Watched { patience: PATIENCE });
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    let served = builder.serve_connection(Taken::new(TokioIo::new(stream)), service);
    connection::serve(served, asks_nothing, &closing, &stop).await;
}

/// Answers one request; 408 where its body was late and the handler found no words of its own for that.
async fn answer(mut app: impl App, request: Request<Incoming>) -> Response<Body> {
    let is_head = request.method() == Method::HEAD;
    let late = (!request.body().is_end_stream()).then(Arc::<AtomicBool>::default);
    let request = request.map(|body| match &late {
        Some(late) => Body::new(Arriving::http(body, Arc::clone(late))),
        None => Body::empty(),
    });
    let Ok(mut response) = app.call(request).await;
    let is_late = late.is_some_and(|late| late.load(Ordering::Acquire));
    if is_late && response.status() != StatusCode::REQUEST_TIMEOUT && !response.status().is_success() {
        response = (StatusCode::REQUEST_TIMEOUT, format!("{Late}\n")).into_response();
    }
    if is_head {
        keep_head(&mut response);
    }
    response
}

/// Leaves of an answer what HEAD asks for; its length is that of the body that GET would have. Over HTTP/2 hyper would send
/// the body.
fn keep_head(response: &mut Response<Body>) {
    let body = std::mem::take(response.body_mut());
    if let Some(length) = body.size_hint().exact() {
        response
            .headers_mut()
            .entry(CONTENT_LENGTH)
            .or_insert_with(|| length.into());
    }
}

/// True for the error of a body that was late, whatever it is wrapped in: for who answers that in words of its own.
pub fn is_late(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<Late>() {
            return true;
        }
        cause = error.source();
    }
    false
}
