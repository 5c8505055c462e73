//! Bodies of requests, within a number of bytes and a time. What is read is counted with all other pictures that requests
//! hold.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;

use super::{error::Failure, form::Splitter};
use crate::generate::Generator;

/// A body of JSON that is not complete by then holds a connection for nothing; as for all heads.
const JSON_TIMEOUT: Duration = Duration::from_secs(30);
/// Two files of 16 MiB at 2 Mbit/s.
const FORM_TIMEOUT: Duration = Duration::from_secs(130);
/// What is too large is read on and thrown away up to so many times what is allowed: clients that send all before they
/// read would see a broken connection instead of the reason.
const THROWN_AWAY: usize = 4;

/// What a body may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes of JSON.
    pub(super) json: usize,
    /// Bytes of a form.
    pub(super) form: usize,
}

/// Reads a body of JSON.
pub(super) async fn json(
    generator: &Generator,
    headers: &HeaderMap,
    body: Body,
    limits: Limits,
) -> Result<Bytes, Failure> {
    let read = read(generator, (headers, limits.json), body, |_| ());
    tokio::time::timeout(JSON_TIMEOUT, read)
        .await
        .unwrap_or(Err(Failure::Slow))
}

/// Reads a body of any kind, within a number of bytes.
pub(in crate::http) async fn whole(
    generator: &Generator,
    (headers, limit): (&HeaderMap, usize),
    body: Body,
) -> Result<Bytes, Failure> {
    let read = read(generator, (headers, limit), body, |_| ());
    tokio::time::timeout(FORM_TIMEOUT, read)
        .await
        .unwrap_or(Err(Failure::Slow))
}

/// Reads a form: the names and contents of its parts.
pub(super) async fn form(
    generator: &Generator,
    headers: &HeaderMap,
    body: Body,
    limits: Limits,
) -> Result<Vec<(String, Bytes)>, Failure> {
    let content_type = headers.get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    let mut splitter = Splitter::new(content_type.unwrap_or_default());
    let look = |body: &[u8]| {
        if let Ok(splitter) = &mut splitter {
            splitter.look(body);
        }
    };
    let read = read(generator, (headers, limits.form), body, look);
    let body = tokio::time::timeout(FORM_TIMEOUT, read)
        .await
        .unwrap_or(Err(Failure::Slow))?;
    splitter
        .and_then(|splitter| splitter.parts(&body))
        .map_err(Failure::Malformed)
}

/// Why there is no more of a body: its sender did not go on, or has gone.
fn cut(error: &axum::Error) -> Failure {
    if mobula_kit::http::is_late(error) {
        Failure::Slow
    } else {
        Failure::Broken
    }
}

/// Reads a body to its end; `look` sees all of it whenever more has come.
async fn read(
    generator: &Generator,
    (headers, limit): (&HeaderMap, usize),
    mut body: Body,
    mut look: impl FnMut(&[u8]),
) -> Result<Bytes, Failure> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    // Who asks before sending is told before sending.
    if headers.contains_key(header::EXPECT) && announced.is_some_and(|length| length > limit as u64) {
        return Err(Failure::TooLarge(limit));
    }
    let mut held = Vec::new();
    let mut whole = BytesMut::new();
    let mut length = 0usize;
    let mut failure = None;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| cut(&error))?.into_data() else {
            continue;
        };
        length = length.saturating_add(data.len());
        if failure.is_none() && length > limit {
            failure = Some(Failure::TooLarge(limit));
        }
        if failure.is_none() {
            match generator.hold(data.len() as u64) {
                Ok(bytes) => held.push(bytes),
                Err(error) => failure = Some(error.into()),
            }
        }
        if failure.is_some() {
            (held, whole) = (Vec::new(), BytesMut::new());
            if length > limit.saturating_mul(THROWN_AWAY) {
                break;
            }
            continue;
        }
        whole.extend_from_slice(&data);
        look(&whole);
    }
    // The request counts its pictures itself from here on.
    drop(held);
    match failure {
        Some(failure) => Err(failure),
        None => Ok(whole.freeze()),
    }
}
