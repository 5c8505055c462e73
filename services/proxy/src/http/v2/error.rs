//! What went wrong, as the protocol tells it: `{"error": "..."}`, with statuses as Triton has them where it has one. Pure.

use axum::response::Response;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::json;
use tonic::Code;

use super::super::{answer, openai};
use crate::{Error, problem::Problem, v2::wrong};

/// What went wrong.
#[derive(Debug)]
pub(super) enum Failure {
    /// In the generator, or in fields.
    Asked(Error),
    /// The body could not be read.
    Body(openai::Failure),
    /// The body is packed in a way that is not known here.
    Packed,
    /// A path has only this method.
    Method(Method),
    /// There is no such path.
    Unknown,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Asked(error)
    }
}

impl From<Vec<Problem>> for Failure {
    fn from(problems: Vec<Problem>) -> Self {
        Self::Asked(Error::Invalid(problems))
    }
}

/// The request as such is wrong.
pub(super) fn malformed(why: impl Into<String>) -> Failure {
    Failure::Asked(Error::Invalid(vec![wrong("request", why)]))
}

/// Answers a request to one of the protocol's paths that may not come in.
pub(in crate::http) fn refuse(error: Error) -> Response {
    response(&error.into())
}

/// The answer that tells of it.
pub(super) fn response(failure: &Failure) -> Response {
    let (status, message) = told(failure);
    let mut response = answer::json(status, &json!({ "error": message }));
    let headers = response.headers_mut();
    match failure {
        Failure::Asked(error) => {
            answer::challenge(headers, error);
            if let Some(after) = error.retry_after() {
                // Whole seconds, rounded up: 0 would mean at once.
                let seconds = after.as_millis().div_ceil(1000) as u64;
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
        }
        Failure::Method(method) => {
            if let Ok(method) = HeaderValue::from_str(method.as_str()) {
                headers.insert(header::ALLOW, method);
            }
        }
        Failure::Packed => {
            let known = HeaderValue::from_static("gzip, deflate");
            headers.insert(header::ACCEPT_ENCODING, known);
        }
        Failure::Body(_) | Failure::Unknown => {}
    }
    response
}

fn told(failure: &Failure) -> (StatusCode, String) {
    match failure {
        Failure::Asked(error) => asked(error),
        Failure::Body(openai::Failure::Drawing(error)) => asked(error),
        Failure::Body(openai::Failure::TooLarge(limit)) => {
            let why = format!("the body has more than {limit} bytes");
            (StatusCode::PAYLOAD_TOO_LARGE, why)
        }
        Failure::Body(openai::Failure::Slow) => {
            let why = "the body did not arrive in time";
            (StatusCode::REQUEST_TIMEOUT, why.to_owned())
        }
        Failure::Body(_) => (StatusCode::BAD_REQUEST, "the body broke off".to_owned()),
        Failure::Packed => {
            let why = "the body's Content-Encoding is none of gzip, deflate, identity";
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, why.to_owned())
        }
        Failure::Method(method) => {
            let why = format!("this path has {method} only");
            (StatusCode::METHOD_NOT_ALLOWED, why)
        }
        Failure::Unknown => {
            let why = "the protocol has no such path; /v2 says what there is";
            (StatusCode::NOT_FOUND, why.to_owned())
        }
    }
}

fn asked(error: &Error) -> (StatusCode, String) {
    let status = match error.code() {
        Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => answer::status_of(error),
    };
    (status, error.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mobula_serving::admission::{Bound, Full};

    use super::*;

    #[test]
    fn errors_have_one_form_and_statuses_of_their_codes() {
        let full = Full {
            bound: Bound::Requests,
            waiting: 3,
            retry_after: Duration::from_millis(1_200),
        };
        for (failure, status) in [
            (malformed("is empty"), 400),
            (Error::NoRoutes.into(), 503),
            (Error::DeadlinePassed.into(), 408),
            (Error::Unsupported("no").into(), 501),
            (Error::Overloaded { full, status: 429 }.into(), 429),
            (Failure::Body(openai::Failure::TooLarge(9)), 413),
            (Failure::Body(openai::Failure::Broken), 400),
            (Failure::Packed, 415),
            (Failure::Unknown, 404),
        ] {
            let (told, message) = told(&failure);
            assert_eq!(told.as_u16(), status, "{failure:?}");
            assert!(!message.is_empty());
        }
        let busy = response(&Error::Overloaded { full, status: 503 }.into());
        assert_eq!(busy.headers()["retry-after"], "2");
        assert_eq!(
            response(&Failure::Method(Method::POST)).headers()["allow"],
            "POST"
        );
    }
}
