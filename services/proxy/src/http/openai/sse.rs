//! A request's events as they come, as server-sent events (text/event-stream). What is not read is not drawn on: one event
//! is turned at a time, and a caller who leaves drops the request.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderName, HeaderValue, StatusCode, header};

use super::{
    pieces::Pieces,
    story::{Story, failed},
};
use crate::{events::Events, metrics::Seen};

/// Something is said at least so often, for those between who end what is silent: half of what the strictest of them wait
/// by default, 30 s.
const SILENCE: Duration = Duration::from_secs(15);
/// A comment, which clients skip.
const WAITING: &[u8] = b": waiting\n\n";

/// How a request is counted that is answered and still under way; it travels with its answer until the door has it.
#[derive(Debug, Clone, Default)]
pub(in crate::http) struct Told(Arc<Mutex<Option<Seen>>>);

impl Told {
    /// Counts the request, as answered with a status, when the answer has ended.
    pub(in crate::http) fn keep(&self, mut seen: Seen, status: StatusCode) {
        seen.answering(status);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
    }
}

struct Stream {
    events: Option<Events>,
    story: Story,
    pieces: Pieces,
    /// Counts at the end, by drop.
    _told: Told,
}

impl Stream {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(Ok(piece)) = self.pieces.next() {
                return Some(piece);
            }
            let events = self.events.as_mut()?;
            match tokio::time::timeout(SILENCE, events.next()).await {
                Err(_) => return Some(Bytes::from_static(WAITING)),
                Ok(Some(Ok(event))) => {
                    if let Some(pieces) = self.story.tell(event, super::door::now()) {
                        self.pieces = pieces;
                    }
                }
                Ok(Some(Err(error))) => {
                    self.events = None;
                    self.pieces = failed(error);
                }
                Ok(None) => self.events = None,
            }
        }
    }
}

/// The answer to a request that has begun.
pub(super) fn response(events: Events, story: Story) -> Response {
    let told = Told::default();
    let stream = Stream {
        events: Some(events),
        story,
        pieces: Pieces::default(),
        _told: told.clone(),
    };
    let stream = futures::stream::unfold(stream, async |mut stream| {
        let piece = stream.next().await?;
        Some((Ok::<_, Infallible>(piece), stream))
    });
    let mut response = Response::new(Body::from_stream(stream));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
        // nginx would keep events until it has a buffer full.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response.extensions_mut().insert(told);
    response
}
