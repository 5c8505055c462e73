//! The null server's HTTP door: `GET /imagine`.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::answer::{Answer, Shared};

type Body = BoxBody<Bytes, std::io::Error>;

pub(super) async fn serve(shared: Arc<Shared>, stream: TcpStream) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(&shared, &request).await) }
    });
    // How a connection ends is its client's affair.
    let _ = hyper::server::conn::http1::Builder::new()
        .pipeline_flush(true)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<Body> {
    match request.uri().path() {
        "/imagine" => {}
        "/-/healthz" => return text(StatusCode::OK, "success"),
        _ => return text(StatusCode::NOT_FOUND, "only /imagine is here"),
    }
    let query = request.uri().query().unwrap_or_default();
    let field = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value)
            .next_back()
    };
    let prompt = field("prompt").unwrap_or_default().replace("%3A", ":");
    let Ok(size) = field("img_size").map(str::parse).transpose() else {
        return text(StatusCode::UNPROCESSABLE_ENTITY, "img_size");
    };
    match shared.answer(&prompt, size).await {
        Answer::Picture(encoded) => png(encoded.file.clone()),
        Answer::Odd(file) => png(file),
        Answer::Refused(seconds) => {
            let mut response = text(StatusCode::SERVICE_UNAVAILABLE, "the queue is full");
            if let Some(seconds) = seconds {
                response.headers_mut().insert(RETRY_AFTER, seconds.into());
            }
            response
        }
        Answer::Failed => text(StatusCode::INTERNAL_SERVER_ERROR, "as asked for"),
        Answer::BadSize => text(
            StatusCode::UNPROCESSABLE_ENTITY,
            "img_size: multiples of 8 up to 2048",
        ),
        Answer::Cut => {
            let begun = stream::iter([Ok(Frame::data(Bytes::from_static(b"\x89PNG")))]);
            // What was begun leaves first, while this waits.
            let cut = stream::once(async {
                tokio::task::yield_now().await;
                Err(std::io::Error::other("as asked for"))
            });
            Response::new(BodyExt::boxed(StreamBody::new(begun.chain(cut))))
        }
        Answer::Silent => std::future::pending().await,
    }
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

fn png(file: Bytes) -> Response<Body> {
    let mut response = Response::new(full(file));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("image/png"));
    response
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(full(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}
