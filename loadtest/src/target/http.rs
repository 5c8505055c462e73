//! `GET /imagine` over keep-alive connections.

use std::fmt::Write as _;

use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::{Common, picture};
use crate::{Error, Outcome, Shot};

/// No picture that we serve is larger; a body beyond it counts as failed.
const MAX_BODY_BYTES: usize = 64 << 20;
const DIGEST_HEADER: &str = "x-mobula-image-digest";

#[derive(Debug, Clone)]
pub(crate) struct Target {
    client: Client<HttpConnector, Empty<Bytes>>,
    base: String,
    common: Common,
}

impl Target {
    pub(crate) fn new(base: &str, common: Common) -> Result<Self, Error> {
        let base = base.trim_end_matches('/').to_owned();
        let _: Uri = base.parse().map_err(|_| Error::Target { target: base.clone() })?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, base, common })
    }

    pub(crate) async fn draw(&self, shot: &Shot) -> Outcome {
        let Ok(uri) = self.uri(shot).parse() else {
            return Outcome::Failed("bad URI".into());
        };
        match tokio::time::timeout(self.common.timeout, self.fetch(uri)).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Failed("timeout".into()),
        }
    }

    async fn fetch(&self, uri: Uri) -> Outcome {
        let Ok(response) = self.client.get(uri).await else {
            return Outcome::Failed("connection".into());
        };
        let (head, body) = response.into_parts();
        if !head.status.is_success() {
            return Outcome::Failed(head.status.as_u16().to_string());
        }
        let digest = head
            .headers
            .get(DIGEST_HEADER)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        match Limited::new(body, MAX_BODY_BYTES).collect().await {
            Ok(body) => picture(digest, &body.to_bytes()),
            Err(_) => Outcome::Failed("body".into()),
        }
    }

    fn uri(&self, shot: &Shot) -> String {
        let mut uri = format!(
            "{}/imagine?prompt={}&seed={}",
            self.base,
            escaped(&shot.prompt),
            shot.seed
        );
        let Common {
            steps,
            size,
            guidance_scale,
            ..
        } = &self.common;
        if let Some(steps) = steps {
            let _ = write!(uri, "&steps={steps}");
        }
        if let Some(size) = size {
            let _ = write!(uri, "&img_size={size}");
        }
        if let Some(scale) = guidance_scale {
            let _ = write!(uri, "&guidance_scale={scale}");
        }
        uri
    }
}

/// Percent-encodes all but RFC 3986's unreserved characters.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_percent_encoded() {
        assert_eq!(escaped("a red ★"), "a%20red%20%E2%98%85");
    }
}
