//! Errors as answers: Ray's codes with Ray's plain text, or JSON for who asks for it.

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use mobula_kit::guard::Guard;
use serde_json::json;
use tonic::Code;

use super::ANSWER_TIMEOUT;
use crate::Error;

/// An error on its way out, with the caller's wish.
#[derive(Debug)]
pub(super) struct Failed {
    error: Error,
    json: bool,
}

impl Failed {
    pub(super) fn new(error: Error, headers: &HeaderMap) -> Self {
        Self {
            error,
            json: wants_json(headers),
        }
    }
}

/// Ray's clients say `*/*` and print what comes.
fn wants_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/json"))
}

/// The HTTP status of an error: 400 for a config with problems and 412 for a number that is nobody's to set, as in Ray;
/// 409 for a resource version that is not the current one.
pub(super) fn status(error: &Error) -> StatusCode {
    if matches!(error, Error::ScalesItself(_)) {
        return StatusCode::PRECONDITION_FAILED;
    }
    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "tonic::Code has codes that no error here has"
    )]
    match error.code() {
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Aborted | Code::AlreadyExists => StatusCode::CONFLICT,
        Code::FailedPrecondition => StatusCode::PRECONDITION_FAILED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// For people: a problem a line, as `mobula check` has them.
pub(super) fn plain(error: &Error) -> String {
    if let Error::Invalid(problems) = error
        && problems.len() > 1
    {
        return problems.iter().map(|problem| format!("{problem}\n")).collect();
    }
    format!("{error}\n")
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let status = status(&self.error);
        if !self.json {
            return (status, plain(&self.error)).into_response();
        }
        let problems = if let Error::Invalid(problems) = &self.error {
            problems.as_slice()
        } else {
            &[]
        };
        let problems: Vec<_> = problems
            .iter()
            .map(|problem| json!({"path": problem.path, "line": problem.line, "why": problem.why}))
            .collect();
        let mut body = json!({"error": self.error.to_string(), "problems": problems});
        if let Error::Conflict { current, .. } = self.error {
            body["resource_version"] = json!(current);
        }
        (status, Json(body)).into_response()
    }
}

/// Refuses who may not ask, with what to do about it: a page answers nothing before.
pub(super) async fn let_in(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let Err(denied) = guard.admit(request.headers()) else {
        return next.run(request).await;
    };
    let is_json = wants_json(request.headers());
    let mut response = if is_json {
        (denied.http(), Json(json!({"error": denied.to_string()}))).into_response()
    } else {
        (denied.http(), format!("{denied}\n")).into_response()
    };
    if denied.http() == StatusCode::UNAUTHORIZED {
        let how = HeaderValue::from_static("Bearer realm=\"mobula\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, how);
    }
    response
}

/// Ends what takes too long.
pub(super) async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(ANSWER_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => (
            StatusCode::GATEWAY_TIMEOUT,
            format!("no answer within {} s\n", ANSWER_TIMEOUT.as_secs()),
        )
            .into_response(),
    }
}
