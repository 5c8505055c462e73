//! HTTP as a browser or curl speaks it.

use std::net::SocketAddr;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: http::StatusCode,
    /// Headers.
    pub headers: http::HeaderMap,
    /// Whole body.
    pub body: Bytes,
}

impl Answer {
    /// A header as text; empty when it is absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Gets a path with its query, already percent-encoded.
///
/// # Errors
/// When no answer comes; an answer with an error status is an answer.
pub async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    send(address, http::Request::get(path).body(String::new())?).await
}

/// Sends a request whose URI is a path with its query, already percent-encoded.
///
/// # Errors
/// As [`get`].
pub async fn send(address: SocketAddr, request: http::Request<String>) -> anyhow::Result<Answer> {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let (mut parts, body) = request.into_parts();
    let what = format!("{} {}", parts.method, parts.uri);
    parts.uri = format!("http://{address}{}", parts.uri).parse()?;
    let request = http::Request::from_parts(parts, Full::from(body));
    let response = client.request(request).await.with_context(|| what.clone())?;
    let (parts, body) = response.into_parts();
    let body = body
        .collect()
        .await
        .with_context(|| format!("{what}: the body"))?
        .to_bytes();
    Ok(Answer {
        status: parts.status,
        headers: parts.headers,
        body,
    })
}
