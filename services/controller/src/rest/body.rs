//! Bodies of requests, read to their end before anything is done: within a number of bytes and a time.

use std::time::Duration;

use axum::{
    body::Body,
    extract::Request,
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use bytes::BytesMut;
use tokio_stream::StreamExt as _;

/// A config of a thousand applications is smaller than the limit of the schema; what is larger is no config.
pub(super) const MAX_BYTES: usize = mobula_schema::MAX_BYTES;
/// What is too large is read on and thrown away up to so many times what is allowed: clients that send all before they read
/// would see a broken connection instead of the reason.
const THROWN_AWAY: usize = 16;
/// What comes, but slowly, is no config either.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a body is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Refused {
    #[error("the body has more than {MAX_BYTES} bytes; no config has")]
    TooLarge,
    #[error("the body did not arrive within {} s; send it without a pause", TIMEOUT.as_secs())]
    Slow,
    #[error("the body broke off")]
    Broken,
}

impl Refused {
    fn code(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken => StatusCode::BAD_REQUEST,
        }
    }
}

/// Hands on a request with its whole body.
pub(super) async fn whole(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let read = tokio::time::timeout(TIMEOUT, read(body)).await;
    match read.unwrap_or(Err(Refused::Slow)) {
        Ok(body) => next.run(Request::from_parts(parts, body)).await,
        Err(refused) => (refused.code(), format!("{refused}\n")).into_response(),
    }
}

async fn read(body: Body) -> Result<Body, Refused> {
    let mut pieces = body.into_data_stream();
    let (mut whole, mut length) = (BytesMut::new(), 0_usize);
    while let Some(piece) = pieces.next().await {
        // One that was late is told so by the connection.
        let data = piece.map_err(|_| Refused::Broken)?;
        length = length.saturating_add(data.len());
        if length <= MAX_BYTES {
            whole.extend_from_slice(&data);
        } else if length <= MAX_BYTES * THROWN_AWAY {
            whole = BytesMut::new();
        } else {
            break;
        }
    }
    if length > MAX_BYTES {
        return Err(Refused::TooLarge);
    }
    Ok(Body::from(whole.freeze()))
}
