//! What went wrong, in OpenAI's words: `{"error": {"message", "type", "param", "code"}}` with the statuses that its clients
//! know. Pure.
//!
//! Full queues are 429 and what is away for a moment 503, both with when to come back; clients ask again by themselves.
//! What a second try cannot help says so (`x-should-retry: false`), or they would try it all the same.

use std::time::Duration;

use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use tonic::Code;

use super::{super::answer, translate};
use crate::{Error, problem::Rule};

/// nginx's code for a request that was given up; Ray Serve uses it too.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// What went wrong.
#[derive(Debug)]
pub(in crate::http) enum Failure {
    /// In the generator, or in fields.
    Drawing(Error),
    /// The body is no JSON, or no form.
    Malformed(String),
    /// The body has more bytes than this.
    TooLarge(usize),
    /// The body did not come in time.
    Slow,
    /// The body broke off.
    Broken,
    /// A path has only this method.
    Method(http::Method),
    /// A link is of no picture that is kept here.
    NoFile,
    /// Links were asked for and none are given.
    NoLinks,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Drawing(error)
    }
}

/// A failure as OpenAI has it.
#[derive(Debug, PartialEq)]
struct Told {
    status: u16,
    kind: &'static str,
    code: Option<String>,
    param: Option<String>,
    message: String,
    retry_after: Option<Duration>,
}

const INVALID: &str = "invalid_request_error";

/// The answer that tells of it.
pub(super) fn response(failure: &Failure) -> Response {
    let told = told(failure);
    let status = StatusCode::from_u16(told.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = answer::json(status, &json!({ "error": told.object() }));
    let headers = response.headers_mut();
    if let Failure::Method(method) = failure
        && let Ok(method) = HeaderValue::from_str(method.as_str())
    {
        headers.insert(header::ALLOW, method);
    }
    told.retry(headers);
    if let Failure::Drawing(error) = failure {
        answer::challenge(headers, error);
    }
    response
}

/// The data of the event that ends a stream.
pub(super) fn event(error: Error) -> Value {
    json!({ "type": "error", "error": told(&Failure::Drawing(error)).object() })
}

impl Told {
    fn object(&self) -> Value {
        json!({ "message": self.message, "type": self.kind, "param": self.param, "code": self.code })
    }

    /// When to come back, or never.
    fn retry(&self, headers: &mut HeaderMap) {
        if let Some(after) = self.retry_after {
            // Whole seconds, rounded up: 0 would mean at once.
            let seconds = after.as_millis().div_ceil(1000) as u64;
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            let millis = HeaderValue::from(after.as_millis() as u64);
            headers.insert(HeaderName::from_static("retry-after-ms"), millis);
        } else if matches!(self.status, 408 | 409) {
            headers.insert(
                HeaderName::from_static("x-should-retry"),
                HeaderValue::from_static("false"),
            );
        }
    }
}

fn told(failure: &Failure) -> Told {
    let invalid = |status, code: &str, message: String| Told {
        status,
        kind: INVALID,
        code: Some(code.to_owned()),
        param: None,
        message,
        retry_after: None,
    };
    match failure {
        Failure::Drawing(error) => drawing(error),
        Failure::Malformed(why) => invalid(400, "invalid_body", why.clone()),
        Failure::TooLarge(limit) => {
            let message = format!("the body has more than {limit} bytes");
            invalid(413, "request_too_large", message)
        }
        Failure::Slow => invalid(
            408,
            "request_timeout",
            "the body did not arrive in time".to_owned(),
        ),
        Failure::Broken => invalid(400, "invalid_body", "the body broke off".to_owned()),
        Failure::Method(method) => invalid(
            405,
            "method_not_supported",
            format!("this path has {method} only"),
        ),
        Failure::NoFile => {
            let message = "there is no such picture here; links are good for an hour, at the proxy that gave them, \
                unless newer pictures need the room";
            invalid(404, "file_not_found", message.to_owned())
        }
        Failure::NoLinks => {
            let message = "response_format: is url; this proxy keeps no pictures, ask for b64_json";
            Told {
                param: Some("response_format".to_owned()),
                ..invalid(400, "invalid_value", message.to_owned())
            }
        }
    }
}

fn drawing(error: &Error) -> Told {
    let (status, kind, code) = match error.code() {
        Code::InvalidArgument | Code::OutOfRange => (400, INVALID, "invalid_value"),
        Code::FailedPrecondition => (400, INVALID, "not_drawable"),
        Code::Unauthenticated => (401, INVALID, "invalid_api_key"),
        Code::PermissionDenied => (403, INVALID, "permission_denied"),
        Code::NotFound => (404, INVALID, "model_not_found"),
        Code::DeadlineExceeded => (408, "timeout_error", "deadline_passed"),
        Code::AlreadyExists | Code::Aborted => (409, INVALID, "duplicate_request"),
        Code::ResourceExhausted => (429, "rate_limit_error", "rate_limit_exceeded"),
        Code::Cancelled => (CLIENT_CLOSED_REQUEST, INVALID, "cancelled"),
        Code::Unimplemented => (501, INVALID, "not_supported"),
        Code::Unavailable => (503, "server_error", "unavailable"),
        Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => (500, "server_error", "internal_error"),
    };
    let mut told = Told {
        status,
        kind,
        code: Some(code.to_owned()),
        param: (status == 404 || matches!(error, Error::Closed { .. })).then(|| "model".to_owned()),
        message: error.to_string(),
        retry_after: error.retry_after(),
    };
    let mut fields = Vec::new();
    for (field, why) in error.violations() {
        let words = format!("{}: {why}", translate::name(&field));
        // A size is two fields: one complaint is enough.
        if !fields.contains(&words) {
            fields.push(words);
        }
        told.param
            .get_or_insert_with(|| translate::name(&field).to_owned());
    }
    if !fields.is_empty() {
        told.message = fields.join("; ");
    }
    if let Error::Invalid(problems) = error
        && let Some(first) = problems.first()
    {
        told.code = Some(rule(&first.rule).to_owned());
    }
    told
}

/// OpenAI's codes, where it has one.
fn rule(rule: &Rule) -> &'static str {
    match rule {
        Rule::Missing => "missing_required_parameter",
        Rule::Unexpected(_) => "unknown_parameter",
        Rule::TooLong { .. } => "string_above_max_length",
        Rule::TooShort { .. } => "string_below_min_length",
        Rule::NotInteger | Rule::NotNumber => "invalid_type",
        Rule::AtLeast { .. } => "integer_below_min_value",
        Rule::AtMost { .. } => "integer_above_max_value",
        Rule::NotFinite
        | Rule::NotUnicode
        | Rule::NotPrintable
        | Rule::MultipleOf { .. }
        | Rule::OneOf(_)
        | Rule::OneOfMany { .. }
        | Rule::Wrong(_) => "invalid_value",
    }
}

#[cfg(test)]
mod tests {
    use mobula_serving::admission::Full;

    use super::*;
    use crate::problem::Problem;

    #[test]
    fn fields_are_told_by_openais_names_the_first_as_param() {
        let error = Error::Invalid(vec![
            Problem::new("width", Rule::MultipleOf { is: 100, of: 8 }),
            Problem::new("height", Rule::MultipleOf { is: 100, of: 8 }),
            Problem::new("steps", Rule::at_most(500, 100_u8)),
        ]);
        let told = told(&error.into());
        assert_eq!((told.status, told.param.as_deref()), (400, Some("size")));
        assert_eq!(
            told.message,
            "size: is 100 and must be a multiple of 8; num_inference_steps: is 500 and must be at most 100"
        );
        assert_eq!(told.code.as_deref(), Some("invalid_value"));
    }

    #[test]
    fn statuses_are_those_that_openais_clients_know() {
        let full = Full {
            waiting: 3,
            retry_after: Duration::from_millis(1_200),
            ..Full::default()
        };
        let unknown = Error::UnknownModel {
            name: "dall-e-2".into(),
            known: vec!["demo".into()],
        };
        let not_named = Error::ModelNotNamed {
            known: vec!["a".into(), "b".into()],
        };
        for (error, status, kind, code, param) in [
            (not_named, 400, INVALID, "invalid_value", Some("model")),
            (unknown, 404, INVALID, "model_not_found", Some("model")),
            (
                Error::DeadlinePassed,
                408,
                "timeout_error",
                "deadline_passed",
                None,
            ),
            (
                Error::Overloaded { full, status: 503 },
                429,
                "rate_limit_error",
                "rate_limit_exceeded",
                None,
            ),
            (Error::NoRoutes, 503, "server_error", "unavailable", None),
            (Error::Answer("x"), 500, "server_error", "internal_error", None),
        ] {
            let told = told(&error.into());
            assert_eq!((told.status, told.kind), (status, kind), "{told:?}");
            assert_eq!((told.code.as_deref(), told.param.as_deref()), (Some(code), param));
        }
    }

    #[test]
    fn clients_are_told_when_to_come_back_or_not_to() {
        let full = Full {
            waiting: 3,
            retry_after: Duration::from_millis(1_200),
            ..Full::default()
        };
        let busy = response(&Error::Overloaded { full, status: 503 }.into());
        assert_eq!(busy.headers()["retry-after"], "2");
        assert_eq!(busy.headers()["retry-after-ms"], "1200");
        let late = response(&Error::DeadlinePassed.into());
        assert_eq!(late.headers()["x-should-retry"], "false");
        let wrong = response(&Failure::Method(http::Method::POST));
        assert_eq!(wrong.headers()["allow"], "POST");
    }
}
