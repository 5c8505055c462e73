//! A request that is no valid protobuf, or is too large, is its caller's fault and is told so.
//!
//! tonic answers INTERNAL to a string that is not UTF-8, to half a message and to bytes that do not decompress, OUT_OF_RANGE to a message that
//! is too large, and RESOURCE_EXHAUSTED, which asks for another try, to one that decompresses to too much, before any
//! handler sees them. Here all become INVALID_ARGUMENT with the field, as every other bad input. Answers of handlers are
//! not touched: the texts below are tonic's and prost's own.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use futures::{FutureExt as _, future::Map};
use http::{HeaderMap, Request, Response};
use mobula_kit::status;
use tonic::{Code, Status, body::Body, server::NamedService};
use tower::Service;

/// How prost's errors begin; then come the message, a dot, the field, a colon and why.
const NOT_PROTOBUF: &str = "failed to decode Protobuf message: ";
/// How tonic's begins when a message is larger than is accepted.
const TOO_LARGE: &str = "Error, decoded message length too large: ";
/// How they begin when a compressed message is no gzip, or holds more than is accepted.
const NOT_GZIP: &str = "Error decompressing: ";
/// How they begin when there is no whole message; the first is said of gRPC-Web's base64.
const NO_MESSAGE: [&str; 4] = [
    "tonic-web: ",
    "Missing request message.",
    "Unexpected EOF decoding stream.",
    "protocol error: received message with invalid compression flag",
];
/// What to do about a request that is too large.
const SMALLER: &str = "send smaller pictures, or raise the proxy's --max-image-bytes";
/// Named when no field is to blame.
const WHOLE: &str = "request";

/// A gRPC service whose callers are told what is wrong with their bytes.
#[derive(Debug, Clone)]
pub(crate) struct Checked<S>(pub(crate) S);

type Answered = Result<Response<Body>, Infallible>;

impl<S: NamedService> NamedService for Checked<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Checked<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Map<S::Future, fn(Answered) -> Answered>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.call(request).map(|answered| {
            answered.map(|response| match complaint(response.headers()) {
                Some(status) => status.into_http(),
                None => response,
            })
        })
    }
}

/// What to say of a status that tonic made of bytes that came within a stream.
pub(crate) fn within_stream(status: Status) -> Status {
    complaint(status.clone().into_http::<Body>().headers()).unwrap_or(status)
}

/// What to say instead of the status in these headers, if anything. A status is in the headers only when there is no body.
fn complaint(headers: &HeaderMap) -> Option<Status> {
    // Most answers are streams, and have none.
    headers.get("grpc-status")?;
    let status = Status::from_header_map(headers)?;
    match status.code() {
        Code::Internal => {
            if let Some(why) = status.message().strip_prefix(NOT_GZIP) {
                let why = why.strip_suffix(", while sending request").unwrap_or(why);
                return Some(status::invalid(
                    WHOLE,
                    format!("is not the gzip that it says it is: {why}"),
                ));
            }
            if NO_MESSAGE.iter().any(|said| status.message().starts_with(said)) {
                return Some(status::invalid(WHOLE, "is no whole message in its frame"));
            }
            let why = status.message().strip_prefix(NOT_PROTOBUF)?;
            let named = why.split_once(": ").filter(|(field, _)| !field.contains(' '));
            let (field, why) = named.unwrap_or((WHOLE, why));
            // The message's own name says nothing to its caller.
            Some(status::invalid(
                field.split_once('.').map_or(field, |(_, field)| field),
                why,
            ))
        }
        Code::OutOfRange => {
            let why = status.message().strip_prefix(TOO_LARGE)?;
            Some(status::invalid(WHOLE, format!("is too large: {why}; {SMALLER}")))
        }
        Code::ResourceExhausted => {
            let why = status.message().strip_prefix(NOT_GZIP)?;
            Some(status::invalid(WHOLE, format!("is too large: {why}; {SMALLER}")))
        }
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::Unimplemented
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: Status) -> Option<(String, String)> {
        complaint(status.into_http::<Body>().headers()).map(|status| status::violations(&status).remove(0))
    }

    #[test]
    fn a_field_that_is_not_utf8_is_named() {
        let text = "failed to decode Protobuf message: GenerateRequest.prompt: invalid string value: data is not UTF-8 encoded";
        let (field, why) = told(Status::internal(text)).unwrap();
        assert_eq!(field, "prompt");
        assert_eq!(why, "invalid string value: data is not UTF-8 encoded");
    }

    #[test]
    fn bytes_without_a_field_are_the_request() {
        let text = "failed to decode Protobuf message: invalid tag value: 0";
        assert_eq!(
            told(Status::internal(text)).unwrap(),
            ("request".into(), "invalid tag value: 0".into())
        );
    }

    #[test]
    fn what_is_too_large_is_told_what_to_do_and_not_to_try_again() {
        for status in [
            Status::out_of_range(
                "Error, decoded message length too large: found 9 bytes, the limit is: 8 bytes",
            ),
            Status::resource_exhausted(
                "Error decompressing: size limit, of 8 bytes, exceeded while decompressing message",
            ),
        ] {
            let (field, why) = told(status).unwrap();
            assert_eq!(field, "request");
            assert!(why.contains("8 bytes") && why.ends_with(SMALLER), "{why}");
        }
        let full = status::retryable(
            Code::ResourceExhausted,
            "QUEUE_FULL",
            "3 wait",
            std::time::Duration::from_secs(1),
        );
        assert_eq!(told(full), None);
    }

    #[test]
    fn bytes_that_do_not_decompress_are_the_callers_fault() {
        let text = "Error decompressing: invalid gzip header, while sending request";
        let (field, why) = told(Status::internal(text)).unwrap();
        assert_eq!(field, "request");
        assert!(why.ends_with("it says it is: invalid gzip header"), "{why}");
    }

    #[test]
    fn half_a_message_is_the_callers_fault_but_for_what_grpc_calls_internal() {
        for text in NO_MESSAGE {
            let (field, _) = told(Status::internal(format!("{text} and more"))).unwrap();
            assert_eq!(field, "request", "{text}");
        }
        // The specification asks for INTERNAL here.
        let text = "protocol error: received message with compressed-flag but no grpc-encoding was specified";
        assert_eq!(told(Status::internal(text)), None);
    }

    #[test]
    fn what_handlers_say_is_left_alone() {
        assert_eq!(told(Status::internal("the model failed")), None);
        assert_eq!(told(Status::not_found("no such model")), None);
    }
}
