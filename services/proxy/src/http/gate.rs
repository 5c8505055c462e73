//! Who may come in: found out from a request's head, before anything else of it is looked at.
//!
//! Open to all are the probes' pages, the links to pictures (their names cannot be guessed), and the questions that browsers
//! ask before they send a key.

use std::time::Duration;

use axum::{body::Body, response::Response};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Limited};

use super::{answer, openai, query::Query, v2};
use crate::{Error, keys::Keys};

/// Pages that tell no secret, by their paths' beginnings: health, whose paths probes of Ray Serve and of the Open Inference
/// Protocol know.
const PAGES: [&str; 3] = ["/-/", "/v2/health/live", "/v2/health/ready"];
/// Ray's list of applications: answered without a key, and names what the caller's key opens and nothing else.
pub(super) const ROUTES: &str = "/-/routes";
/// Of a request that is refused so much is read and thrown away, for so long: clients that send all before they read would see
/// a broken connection instead of the reason.
const THROWN_AWAY: usize = 1 << 20;
const THROWN_AWAY_TIMEOUT: Duration = Duration::from_secs(2);
/// Where OpenAI's paths begin, below whatever prefix.
const OPENAI: &str = "/v1/";
/// Where those of the Open Inference Protocol begin, which are the proxy's own.
const INFERENCE: &str = "/v2";

/// Lets a request in, with who asks noted in it; or answers it.
pub(super) async fn enter(keys: &Keys, mut request: Request<Body>) -> Result<Request<Body>, Box<Response>> {
    let path = request.uri().path();
    let is_page = PAGES.iter().any(|page| path.starts_with(page));
    let is_link = path.contains(openai::FILES) && !path.contains("..");
    let is_list = path == ROUTES;
    if (is_page && !is_list) || is_link || request.method() == Method::OPTIONS {
        return Ok(request);
    }
    let refuse: fn(Error) -> Response = if path.contains(OPENAI) {
        openai::refuse
    } else if path.starts_with(INFERENCE) {
        v2::refuse
    } else {
        |error| answer::error(&error, &Query::default())
    };
    let noted = match is_list {
        true => keys.look(&mut request).map(drop),
        false => keys.note(&mut request),
    };
    let Err(error) = noted else {
        return Ok(request);
    };
    let body = Limited::new(request.into_body(), THROWN_AWAY).collect();
    // Read or not, the answer is the same.
    let _ = tokio::time::timeout(THROWN_AWAY_TIMEOUT, body).await;
    Err(Box::new(refuse(error)))
}
