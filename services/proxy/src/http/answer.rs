//! HTTP answers. Pure.

use std::fmt::Write as _;

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{ALLOW, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE},
};
use mobula_kit::status;
use mobula_proto::{
    common::v1::Timings,
    image::v1::{Image, ImageFormat, Parameters},
};
use serde_json::{Value, json};
use tonic::Code;

use super::{
    caller,
    fastapi::{self, Given},
    query::Query,
};
use crate::{
    Error,
    problem::{Problem, Rule},
};

/// nginx's code for a request that was given up by its caller; Ray Serve uses it too.
const CLIENT_CLOSED_REQUEST: u16 = 499;
/// Headers that say what a picture was made with.
const SEED: HeaderName = HeaderName::from_static("x-mobula-seed");
const STEPS: HeaderName = HeaderName::from_static("x-mobula-steps");
const SCHEDULER: HeaderName = HeaderName::from_static("x-mobula-scheduler");
const GUIDANCE_SCALE: HeaderName = HeaderName::from_static("x-mobula-guidance-scale");
const MODEL: HeaderName = HeaderName::from_static("x-mobula-model");
const MODEL_ID: HeaderName = HeaderName::from_static("x-mobula-model-id");
const MODEL_DIGEST: HeaderName = HeaderName::from_static("x-mobula-model-digest");
const IMAGE_DIGEST: HeaderName = HeaderName::from_static("x-mobula-image-digest");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// Headers that a picture has at most, with those that name its request and its date.
const PICTURE_HEADERS: usize = 16;
/// Bytes of a usual Server-Timing.
const TIMING_BYTES: usize = 192;

/// A plain text, as Ray's proxy answers.
pub(super) fn text(status: StatusCode, text: impl Into<Body>) -> Response {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// A JSON value.
pub(super) fn json(status: StatusCode, value: &Value) -> Response {
    let mut response = Response::new(value.to_string().into());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// FastAPI's answer to a path that it does not know.
pub(super) fn not_found() -> Response {
    json(StatusCode::NOT_FOUND, &json!({ "detail": "Not Found" }))
}

/// FastAPI's answer to a method that a path does not have.
pub(super) fn method_not_allowed() -> Response {
    let mut response = json(
        StatusCode::METHOD_NOT_ALLOWED,
        &json!({ "detail": "Method Not Allowed" }),
    );
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static("GET"));
    response
}

/// FastAPI's answer to a path with a slash too many.
pub(super) fn redirect(to: &str) -> Response {
    let mut response = StatusCode::TEMPORARY_REDIRECT.into_response();
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert(LOCATION, to);
    }
    response
}

/// A picture with what it was made with.
pub(super) fn picture(image: Image, parameters: Parameters, timings: Timings) -> Response {
    let media_type = media_type(image.format());
    let mut response = Response::new(Body::from(image.data));
    let headers = response.headers_mut();
    headers.reserve(PICTURE_HEADERS);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(SEED, image.seed.into());
    headers.insert(STEPS, parameters.steps.into());
    let mut add = |name, value: String| {
        // A name from the configuration may hold what a header may not; then it is left out.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    add(SCHEDULER, parameters.scheduler);
    add(GUIDANCE_SCALE, parameters.guidance_scale.to_string());
    add(MODEL, parameters.model);
    if !parameters.model_id.is_empty() {
        add(MODEL_ID, parameters.model_id);
    }
    add(MODEL_DIGEST, parameters.model_digest);
    add(IMAGE_DIGEST, image.digest);
    add(SERVER_TIMING, server_timing(&timings));
    response
}

/// The media type of a file.
pub(super) fn media_type(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Unspecified | ImageFormat::Png => "image/png",
        ImageFormat::Jpeg => "image/jpeg",
        ImageFormat::Webp => "image/webp",
    }
}

/// The stage split in the words of Server-Timing, milliseconds.
fn server_timing(t: &Timings) -> String {
    let stages = [
        ("queue", t.queue_us),
        ("preprocess", t.preprocess_us),
        ("encode", t.encode_us),
        ("denoise", t.denoise_us),
        ("decode", t.decode_us),
        ("image", t.image_us),
        ("total", t.total_us),
    ];
    let mut text = String::with_capacity(TIMING_BYTES);
    for (name, micros) in stages {
        let comma = if text.is_empty() { "" } else { ", " };
        // Writing to a String cannot fail.
        let _ = write!(text, "{comma}{name};dur={}.{:03}", micros / 1000, micros % 1000);
    }
    text
}

/// What went wrong.
pub(super) fn error(error: &Error, query: &Query) -> Response {
    if let Some(problems) = problems(error) {
        let detail: Vec<_> = problems.iter().map(|problem| detail(problem, query)).collect();
        return json(
            StatusCode::UNPROCESSABLE_ENTITY,
            &json!({ "detail": dedup(detail) }),
        );
    }
    let violations: Vec<_> = error
        .violations()
        .into_iter()
        .map(|(field, description)| json!({ "field": field, "description": description }))
        .collect();
    let body = json!({ "error": {
        "code": status::name(error.code()),
        "reason": error.reason(),
        "message": error.to_string(),
        "violations": violations,
    }});
    let mut response = json(status_of(error), &body);
    challenge(response.headers_mut(), error);
    if let Some(after) = error.retry_after() {
        // Whole seconds, rounded up: 0 would mean at once.
        response.headers_mut().insert(
            RETRY_AFTER,
            HeaderValue::from(after.as_millis().div_ceil(1000) as u64),
        );
    }
    response
}

/// What somebody has to show who has shown nothing, or nothing that is known (RFC 6750).
pub(super) fn challenge(headers: &mut HeaderMap, error: &Error) {
    if let Error::Unauthenticated { is_shown } = error {
        let how = if *is_shown {
            "Bearer realm=\"mobula\", error=\"invalid_token\""
        } else {
            "Bearer realm=\"mobula\""
        };
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(how));
    }
}

/// The fields that are wrong, whoever found out.
fn problems(error: &Error) -> Option<Vec<Problem>> {
    if let Error::Invalid(problems) = error {
        return Some(problems.clone());
    }
    if error.code() != Code::InvalidArgument {
        return None;
    }
    let found = error.violations().into_iter();
    let problems: Vec<_> = found
        .map(|(field, why)| Problem::new(field, Rule::Wrong(why)))
        .collect();
    (!problems.is_empty()).then_some(problems)
}

fn detail(problem: &Problem, query: &Query) -> Value {
    let name = query.given_as(&problem.field);
    let is_header = name.starts_with("x-") || caller::MODEL_ID.contains(&name);
    let place = if is_header { "header" } else { "query" };
    fastapi::detail(
        problem,
        Given {
            place,
            name,
            value: query.raw(name),
        },
    )
}

/// `img_size` is both sides: one complaint is enough.
fn dedup(mut detail: Vec<Value>) -> Vec<Value> {
    detail.dedup();
    detail
}

/// The status of an answer that tells of an error.
pub(super) fn status_of(error: &Error) -> StatusCode {
    if let Error::Overloaded { status, .. } = error {
        return StatusCode::from_u16(*status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    }
    if matches!(error, Error::OverLimit { .. }) {
        return StatusCode::TOO_MANY_REQUESTS;
    }
    status(error.code())
}

/// Ray Serve's status codes, where it has one.
fn status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::OutOfRange => StatusCode::UNPROCESSABLE_ENTITY,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::FailedPrecondition => StatusCode::PRECONDITION_FAILED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::DeadlineExceeded => StatusCode::REQUEST_TIMEOUT,
        Code::ResourceExhausted | Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Cancelled => {
            StatusCode::from_u16(CLIENT_CLOSED_REQUEST).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
        }
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mobula_serving::admission::Full;

    use super::*;

    #[test]
    fn the_stage_split_is_in_milliseconds() {
        let timings = Timings {
            queue_us: 1_250,
            total_us: 7,
            ..Timings::default()
        };
        let said = server_timing(&timings);
        assert!(
            said.starts_with("queue;dur=1.250, preprocess;dur=0.000"),
            "{said}"
        );
        assert!(said.ends_with("total;dur=0.007"), "{said}");
    }

    #[test]
    fn a_full_queue_is_503_or_429_with_whole_seconds() {
        let full = Full {
            waiting: 3,
            retry_after: Duration::from_millis(1_200),
            ..Full::default()
        };
        for status in [503, 429] {
            let response = error(&Error::Overloaded { full, status }, &Query::default());
            assert_eq!(response.status().as_u16(), status, "as the deployment says");
            assert_eq!(response.headers()[RETRY_AFTER], "2");
        }
    }

    #[test]
    fn statuses_are_rays() {
        assert_eq!(status(Code::DeadlineExceeded).as_u16(), 408);
        assert_eq!(status(Code::Cancelled).as_u16(), 499);
        assert_eq!(status(Code::Unavailable).as_u16(), 503);
        assert_eq!(status(Code::Internal).as_u16(), 500);
    }
}
