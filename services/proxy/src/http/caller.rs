//! What callers say in headers, at every path that draws: who they are, how long they wait and for what, who goes first.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use mobula_kit::Deadline;
use mobula_proto::image::v1::GenerateRequest;

use super::query;
use crate::{
    failfast,
    problem::{Problem, Rule},
};

/// A caller's name for its request, in and out.
const REQUEST_ID: &str = "x-request-id";
/// A caller's time limit in milliseconds.
const TIMEOUT: &str = "x-mobula-timeout-ms";
/// Who goes first, for whoever cannot change the query.
const PRIORITY: &str = "x-mobula-priority";
/// Which of an application's models on demand is to draw: Ray Serve's header, also with hyphens, into which some proxies
/// turn underscores.
pub(super) const MODEL_ID: [&str; 2] = ["serve_multiplexed_model_id", "serve-multiplexed-model-id"];

/// Writes what the headers say into a request; gives the caller's deadline.
pub(super) fn read(
    headers: &HeaderMap,
    asked: &mut GenerateRequest,
    problems: &mut Vec<Problem>,
) -> Option<Deadline> {
    asked.model_id = model_id(headers);
    asked.request_id = request_id(headers, problems);
    let deadline = deadline(headers, problems);
    if let Some(given) = headers.get(PRIORITY) {
        match query::priority(given.to_str().unwrap_or_default()) {
            Ok(priority) => asked.priority = priority,
            Err(rule) => problems.push(Problem::new(PRIORITY, rule)),
        }
    }
    if let Some(given) = headers.get(failfast::NAME) {
        match failfast::read(given.to_str().unwrap_or_default()) {
            Ok(is_fast) => asked.failfast = Some(is_fast),
            Err(rule) => problems.push(Problem::new(failfast::NAME, rule)),
        }
    }
    deadline
}

/// Gives a request's id back to its caller; one that is empty is none.
pub(super) fn name(headers: &mut HeaderMap, id: &str) {
    if !id.is_empty()
        && let Ok(id) = HeaderValue::from_str(id)
    {
        headers.insert(HeaderName::from_static(REQUEST_ID), id);
    }
}

/// The caller's id, or nothing when it has none or one that cannot be used.
fn request_id(headers: &HeaderMap, problems: &mut Vec<Problem>) -> String {
    let Some(given) = headers.get(REQUEST_ID) else {
        return String::new();
    };
    let given = given.to_str().unwrap_or("\u{7f}");
    match crate::validate::request_id(given) {
        Ok(()) => given.to_owned(),
        Err(problem) => {
            problems.push(Problem::new(REQUEST_ID, problem.rule));
            String::new()
        }
    }
}

/// The model that the caller names; one that cannot be a name is none that there is.
fn model_id(headers: &HeaderMap) -> String {
    let given = MODEL_ID.iter().find_map(|name| headers.get(*name));
    given.map_or_else(String::new, |given| {
        String::from_utf8_lossy(given.as_bytes()).into_owned()
    })
}

/// The caller's time limit.
fn deadline(headers: &HeaderMap, problems: &mut Vec<Problem>) -> Option<Deadline> {
    let given = headers.get(TIMEOUT)?.to_str().unwrap_or_default();
    match given.trim().parse::<u32>() {
        Ok(millis) => Some(Deadline::after(Duration::from_millis(millis.into()))),
        Err(_) => {
            problems.push(Problem::new(TIMEOUT, Rule::NotInteger));
            None
        }
    }
}
