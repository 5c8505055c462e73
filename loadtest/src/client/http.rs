//! `GET /imagine` over keep-alive connections of HTTP/1.1: the Ray sample's request, which both meshes answer.

use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, RETRY_AFTER};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use super::access::Door;
use super::{Common, MAX_ANSWER_BYTES, Picture, authority};
use crate::record::{Ending, Kind};
use crate::{Card, Mix, Priority};

const DIGEST_HEADER: &str = "x-mobula-image-digest";

#[derive(Debug)]
pub(crate) struct Client {
    door: Door,
    host: HeaderValue,
    authorization: Option<HeaderValue>,
    /// Every card's path and query.
    cards: Vec<Uri>,
    first: usize,
    /// Connections that wait for work; the last one that worked is taken first.
    idle: Mutex<Vec<SendRequest<Empty<Bytes>>>>,
}

impl Client {
    /// A client of `host:port` or `host:port/prefix`.
    pub(super) fn new(rest: &str, secure: bool, mix: &Mix, common: &Common) -> Option<Self> {
        let rest = rest.trim_end_matches('/');
        let split = rest.find('/').unwrap_or(rest.len());
        let (host, prefix) = rest.split_at(split);
        let cards = (0..mix.cards()).map(|card| path(prefix, &mix.card(card)).parse().ok());
        Some(Self {
            door: common.access.door(authority(host)?, secure, b"http/1.1")?,
            host: host.parse().ok()?,
            authorization: common.access.authorization(secure),
            cards: cards.collect::<Option<_>>()?,
            first: common.connections.max(1),
            idle: Mutex::new(Vec::new()),
        })
    }

    pub(super) async fn connect(&self) -> Result<(), Ending> {
        for _ in 0..self.first {
            let connection = self.open().await?;
            self.lock().push(connection);
        }
        Ok(())
    }

    pub(super) async fn draw(&self, card: usize) -> Result<Picture, Ending> {
        loop {
            let idle = self.idle();
            let reused = idle.is_some();
            let mut connection = match idle {
                Some(connection) => connection,
                None => self.open().await?,
            };
            // One that has just brought its last answer takes a moment to be free again.
            if connection.ready().await.is_err() && reused {
                continue;
            }
            let mut request = Request::new(Empty::new());
            *request.uri_mut() = self.cards[card].clone();
            let headers = request.headers_mut();
            headers.insert(HOST, self.host.clone());
            if let Some(authorization) = &self.authorization {
                headers.insert(AUTHORIZATION, authorization.clone());
            }
            match connection.try_send_request(request).await {
                Ok(response) => {
                    let picture = read(response).await;
                    if !connection.is_closed() {
                        self.lock().push(connection);
                    }
                    return picture;
                }
                // The server closed it while it was idle and nothing was sent: no answer was lost.
                Err(mut error) => {
                    let unsent = error.take_message().is_some();
                    if !(reused && unsent) {
                        return Err(broken(error.error()));
                    }
                }
            }
        }
    }

    fn idle(&self) -> Option<SendRequest<Empty<Bytes>>> {
        let mut idle = self.lock();
        while let Some(connection) = idle.pop() {
            if !connection.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    async fn open(&self) -> Result<SendRequest<Empty<Bytes>>, Ending> {
        let stream = self.door.dial().await?;
        let (send, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        // It ends with its connection, and with the thread's runtime.
        tokio::spawn(driver);
        Ok(send)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<SendRequest<Empty<Bytes>>>> {
        self.idle
            .lock()
            .expect("nothing panics while it picks a connection")
    }
}

async fn read(response: Response<Incoming>) -> Result<Picture, Ending> {
    let (head, body) = response.into_parts();
    let hint = head.headers.contains_key(RETRY_AFTER);
    let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
    let body = body.map_err(|_| Ending::other(Kind::Transport, "cut: the body did not come whole"))?;
    let kind = match head.status.as_u16() {
        200..300 => {
            let claimed = head
                .headers
                .get(DIGEST_HEADER)
                .and_then(|value| value.to_str().ok());
            return Ok(Picture {
                data: body.to_bytes(),
                claimed: claimed.unwrap_or_default().to_owned(),
            });
        }
        429 | 503 if hint => Kind::Refused,
        429 | 503 => Kind::RefusedBare,
        408 | 504 => Kind::Deadline,
        _ => Kind::Failed,
    };
    Err(Ending::other(kind, head.status.as_u16().to_string()))
}

fn broken(error: &hyper::Error) -> Ending {
    let label = if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        "closed".to_owned()
    } else if error.is_parse() {
        "no HTTP".to_owned()
    } else {
        let source =
            std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
        source.map_or_else(|| "connection".to_owned(), |error| error.kind().to_string())
    };
    Ending::other(Kind::Transport, label)
}

fn path(prefix: &str, card: &Card<'_>) -> String {
    let mut path = format!(
        "{prefix}/imagine?prompt={}&seed={}",
        escaped(card.prompt),
        card.seed
    );
    let class = card.class;
    if let Some(steps) = class.steps {
        let _ = write!(path, "&steps={steps}");
    }
    if let Some(size) = class.size {
        let _ = write!(path, "&img_size={size}");
    }
    if let Some(scale) = class.guidance_scale {
        let _ = write!(path, "&guidance_scale={scale}");
    }
    if let Some(priority) = class.priority {
        let name = match priority {
            Priority::Low => "low",
            Priority::Normal => "normal",
            Priority::High => "high",
        };
        let _ = write!(path, "&priority={name}");
    }
    path
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
    use crate::Class;

    #[test]
    fn a_card_is_a_path_with_its_prompt_percent_encoded() {
        let class = Class::parse("size=64,steps=2,priority=high", &Class::default()).unwrap();
        let card = Card {
            class: &class,
            prompt: "a red ★",
            seed: 7,
        };
        assert_eq!(
            path("/app", &card),
            "/app/imagine?prompt=a%20red%20%E2%98%85&seed=7&steps=2&img_size=64&priority=high"
        );
    }
}
