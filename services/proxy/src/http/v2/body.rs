//! Bodies of requests: read within a number of bytes and a time, unpacked, and split behind their JSON.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, header};

use super::{
    super::openai,
    error::{Failure, malformed},
    inflate::{self, Packed, unpack},
};
use crate::{generate::Generator, v2::wrong};

/// How many bytes of a body are JSON; what follows are tensors as they are in memory.
pub(super) const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// A body, split.
#[derive(Debug, PartialEq)]
pub(super) struct Parts {
    pub(super) json: Bytes,
    pub(super) binary: Bytes,
}

/// Reads a body of `limit` bytes at most, packed and unpacked.
pub(super) async fn read(
    generator: &Generator,
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<Parts, Failure> {
    let packed = packed(headers)?;
    let body = openai::read(generator, (headers, limit), body)
        .await
        .map_err(Failure::Body)?;
    let whole = match packed {
        None => body,
        Some(packed) => {
            // As much as it may become, until it is known; the request counts its pictures itself from here on.
            let _held = generator.hold(limit as u64)?;
            let unpacked = unpack(packed, &body, limit).await;
            let unpacked = unpacked.map_err(|failure| match failure {
                inflate::Failure::TooLarge => Failure::Body(openai::Failure::TooLarge(limit)),
                inflate::Failure::Broken => malformed("is not packed as its Content-Encoding says"),
            })?;
            unpacked.into()
        }
    };
    split(headers, whole)
}

fn packed(headers: &HeaderMap) -> Result<Option<Packed>, Failure> {
    let Some(given) = headers.get(header::CONTENT_ENCODING) else {
        return Ok(None);
    };
    match given
        .to_str()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
        .as_str()
    {
        "" | "identity" => Ok(None),
        "gzip" => Ok(Some(Packed::Gzip)),
        "deflate" => Ok(Some(Packed::Deflate)),
        _ => Err(Failure::Packed),
    }
}

fn split(headers: &HeaderMap, mut whole: Bytes) -> Result<Parts, Failure> {
    let Some(given) = headers.get(JSON_LENGTH) else {
        return Ok(Parts {
            json: whole,
            binary: Bytes::new(),
        });
    };
    let length = given
        .to_str()
        .ok()
        .and_then(|length| length.trim().parse::<usize>().ok());
    match length {
        Some(length) if length <= whole.len() => {
            let json = whole.split_to(length);
            Ok(Parts { json, binary: whole })
        }
        Some(_) | None => {
            let why = format!(
                "must be the number of bytes of JSON, {} of the body at most",
                whole.len()
            );
            Err(vec![wrong("Inference-Header-Content-Length", why)].into())
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(name: HeaderName, value: &'static str) -> HeaderMap {
        [(name, HeaderValue::from_static(value))].into_iter().collect()
    }

    #[test]
    fn a_body_is_split_behind_its_json() {
        let whole = || Bytes::from_static(b"{}binary");
        let parts = split(&headers(JSON_LENGTH, "2"), whole()).unwrap();
        assert_eq!((&parts.json[..], &parts.binary[..]), (&b"{}"[..], &b"binary"[..]));
        let parts = split(&HeaderMap::new(), whole()).unwrap();
        assert_eq!((parts.json.len(), parts.binary.len()), (8, 0));
        for length in ["9", "-1", "two", "99999999999999999999"] {
            assert!(split(&headers(JSON_LENGTH, length), whole()).is_err(), "{length}");
        }
    }

    #[test]
    fn encodings_that_are_not_known_are_refused() {
        let of = |value| packed(&headers(header::CONTENT_ENCODING, value));
        assert!(matches!(of("gzip"), Ok(Some(Packed::Gzip))));
        assert!(matches!(of("Deflate"), Ok(Some(Packed::Deflate))));
        assert!(matches!(of("identity"), Ok(None)));
        assert!(matches!(of("br"), Err(Failure::Packed)));
        assert!(matches!(of("gzip, gzip"), Err(Failure::Packed)));
    }
}
