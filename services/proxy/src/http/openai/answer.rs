//! Finished pictures as OpenAI's answer. Pure.

use std::time::Duration;

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use mobula_proto::image::v1::{Image, ImageFormat};
use serde_json::{Value, json};

use super::{super::answer::media_type, format, pieces::Pieces};
use crate::{Error, finished::Finished};

/// The answer, with links by `link` instead of pictures where there is one.
///
/// # Errors
/// [`Error::Answer`] when a picture cannot be linked to.
pub(super) fn answer(
    finished: Finished,
    created: u64,
    link: Option<impl Fn(Bytes, ImageFormat) -> Option<String>>,
) -> Result<Response, Error> {
    let Finished {
        images,
        made,
        timings,
    } = finished;
    let format = images.first().map(Image::format).unwrap_or_default();
    let about = json!({
        "created": created,
        "background": "opaque",
        "output_format": format::word(format),
        "size": size(made.width, made.height),
        "usage": usage(),
    });
    // The list of pictures comes last, in place of the closing brace.
    let mut head = about.to_string();
    head.pop();
    let mut pieces = Pieces::default().text(head).text(",\"data\":[");
    for (nth, image) in images.into_iter().enumerate() {
        if nth > 0 {
            pieces = pieces.text(",");
        }
        let seed = image.seed;
        pieces = match &link {
            None => pieces.picture(image.data, &json!({ "seed": seed })),
            Some(link) => {
                let url = link(image.data, format);
                let url = url.ok_or(Error::Answer("a picture is larger than all that may be kept"))?;
                pieces.text(json!({ "url": url, "seed": seed }).to_string())
            }
        };
    }
    let pieces = pieces.text("]}");
    let length = pieces.length();
    let mut response = Response::new(Body::from_stream(futures::stream::iter(pieces)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    let millis = HeaderValue::from(timings.total_us / 1000);
    headers.insert(HeaderName::from_static("openai-processing-ms"), millis);
    Ok(response)
}

/// A picture that a link led to.
pub(super) fn file(data: Bytes, format: ImageFormat, left: Duration) -> Response {
    let mut response = Response::new(Body::from(data));
    let headers = response.headers_mut();
    let media_type = HeaderValue::from_static(media_type(format));
    headers.insert(header::CONTENT_TYPE, media_type);
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    // What is there never changes, and is only for whoever has the link.
    let cache = format!("private, immutable, max-age={}", left.as_secs());
    if let Ok(cache) = HeaderValue::from_str(&cache) {
        headers.insert(header::CACHE_CONTROL, cache);
    }
    response
}

/// A size as OpenAI writes it.
pub(super) fn size(width: u32, height: u32) -> String {
    format!("{width}x{height}")
}

/// Nothing is counted in OpenAI's tokens; clients expect the fields.
pub(super) fn usage() -> Value {
    let details = json!({ "image_tokens": 0, "text_tokens": 0 });
    json!({
        "input_tokens": 0,
        "input_tokens_details": details,
        "output_tokens": 0,
        "output_tokens_details": details,
        "total_tokens": 0,
    })
}
