//! The null server's gRPC door, straight on HTTP/2.

use std::sync::Arc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use mobula_proto::image::v1::GenerateRequest;
use tokio::net::TcpStream;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::answer::{Answer, Shared, messages};
use crate::client::Frames;

const PATH: &str = "/mobula.image.v1.ImageService/Generate";
/// No request that it has to read is longer.
const MAX_REQUEST_BYTES: usize = 1 << 20;
/// More than any client here has in flight on one connection.
const MAX_STREAMS: u32 = 10_000;
const WINDOW: u32 = 1 << 20;

pub(super) async fn serve(shared: Arc<Shared>, stream: TcpStream) {
    let handshake = h2::server::Builder::new()
        .max_concurrent_streams(MAX_STREAMS)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW * 4)
        .handshake::<_, Bytes>(stream);
    let Ok(mut connection) = handshake.await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        // It ends with its stream, and with this thread's runtime.
        tokio::spawn(answer(Arc::clone(&shared), request, respond));
    }
}

async fn answer(shared: Arc<Shared>, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    if request.uri().path() != PATH {
        return refuse(
            &mut respond,
            &Status::unimplemented("only ImageService.Generate is here"),
        );
    }
    let Some(request) = read(request.into_body()).await else {
        return refuse(&mut respond, &Status::invalid_argument("no GenerateRequest"));
    };
    match shared.answer(&request.prompt, request.width).await {
        Answer::Picture(encoded) => send(&mut respond, encoded.messages.clone()),
        Answer::Odd(file) => send(&mut respond, messages(&file)),
        Answer::Refused(Some(seconds)) => {
            let details = ErrorDetails::with_retry_info(Some(std::time::Duration::from_secs(seconds)));
            let status = Status::with_error_details(Code::ResourceExhausted, "the queue is full", details);
            refuse(&mut respond, &status);
        }
        Answer::Refused(None) => refuse(&mut respond, &Status::resource_exhausted("the queue is full")),
        Answer::Failed => refuse(&mut respond, &Status::internal("as asked for")),
        Answer::BadSize => refuse(
            &mut respond,
            &Status::invalid_argument("size: multiples of 8 up to 2048"),
        ),
        Answer::Cut => {
            let _ = respond.send_response(head(), false);
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
        Answer::Silent => std::future::pending().await,
    }
}

async fn read(mut body: RecvStream) -> Option<GenerateRequest> {
    let mut frames = Frames::default();
    let mut request = None;
    while let Some(chunk) = body.data().await {
        let chunk = chunk.ok()?;
        let _ = body.flow_control().release_capacity(chunk.len());
        frames.push(&chunk);
        if let Some(message) = frames.next(MAX_REQUEST_BYTES).ok()? {
            request = Some(prost::Message::decode(message).ok()?);
        }
    }
    request
}

fn head() -> Response<()> {
    let mut response = Response::new(());
    response
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

fn send(respond: &mut SendResponse<Bytes>, messages: Bytes) {
    // A client that has gone is no reason to do anything.
    if let Ok(mut stream) = respond.send_response(head(), false) {
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let _ = stream.send_data(messages, false);
        let _ = stream.send_trailers(trailers);
    }
}

fn refuse(respond: &mut SendResponse<Bytes>, status: &Status) {
    let mut response = head();
    // Its text is ours and fits a header.
    let _ = status.add_header(response.headers_mut());
    let _ = respond.send_response(response, true);
}
