//! `ImageService.Generate` over HTTP/2, without a gRPC library in between: a request is a few shared bytes that were encoded
//! before the load began, which is most of what makes one core enough for tens of thousands a second.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard};

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use mobula_proto::common::v1::Priority as Wire;
use mobula_proto::image::v1::generate_response::Event;
use mobula_proto::image::v1::{GenerateRequest, GenerateResponse};
use tonic_types::StatusExt as _;

use super::access::Door;
use super::{Common, Frames, MAX_ANSWER_BYTES, Picture, authority};
use crate::record::{Ending, Kind};
use crate::{Card, Mix, Priority};

const PATH: &str = "/mobula.image.v1.ImageService/Generate";
/// A picture of 1024 x 1024 fits without waiting for a window update, several of them into a connection.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

#[derive(Debug)]
pub(crate) struct Client {
    door: Door,
    uri: Uri,
    timeout: HeaderValue,
    authorization: Option<HeaderValue>,
    /// Every card as a message on the wire.
    cards: Vec<Bytes>,
    first: usize,
    most: usize,
    connections: Mutex<Vec<Connection>>,
    /// Held while a connection is opened, so that one is opened for many that wait, not many.
    opening: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone)]
struct Connection {
    send: SendRequest<Bytes>,
    streams: Arc<AtomicUsize>,
    closed: Arc<AtomicBool>,
}

/// One stream on a connection, counted.
struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Client {
    pub(super) fn new(target: &str, secure: bool, mix: &Mix, common: &Common) -> Option<Self> {
        let door = common.access.door(authority(target)?, secure, b"h2")?;
        let uri = Uri::builder()
            .scheme(door.scheme())
            .authority(door.authority().clone())
            .path_and_query(PATH)
            .build()
            .ok()?;
        // The specification's timeouts have eight digits at most.
        let timeout = format!("{}m", common.timeout.as_millis().clamp(1, 99_999_999));
        Some(Self {
            door,
            uri,
            timeout: timeout.parse().ok()?,
            authorization: common.access.authorization(secure),
            cards: (0..mix.cards())
                .map(|card| encode(&mix.card(card), &common.model))
                .collect(),
            first: common.connections.max(1),
            most: common.max_connections.max(1),
            connections: Mutex::new(Vec::new()),
            opening: tokio::sync::Mutex::new(()),
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
        match self.try_draw(card).await {
            // The server says that it has not looked at it: gRPC's own clients ask once more (its proposal A6).
            Err(Attempt::NotSeen(_)) => match self.try_draw(card).await {
                Err(Attempt::NotSeen(ending) | Attempt::Over(ending)) => Err(ending),
                Ok(picture) => Ok(picture),
            },
            Err(Attempt::Over(ending)) => Err(ending),
            Ok(picture) => Ok(picture),
        }
    }

    async fn try_draw(&self, card: usize) -> Result<Picture, Attempt> {
        let (send, _slot) = self.pick().await.map_err(Attempt::Over)?;
        let mut send = send
            .ready()
            .await
            .map_err(|error| Attempt::NotSeen(broken(&error)))?;
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert("te", HeaderValue::from_static("trailers"));
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-timeout", self.timeout.clone());
        if let Some(authorization) = &self.authorization {
            headers.insert("authorization", authorization.clone());
        }
        let (response, mut body) = send
            .send_request(request, false)
            .map_err(|error| Attempt::NotSeen(broken(&error)))?;
        body.send_data(self.cards[card].clone(), true)
            .map_err(|error| attempt(&error))?;
        let response = response.await.map_err(|error| attempt(&error))?;
        if !response.status().is_success() {
            let label = format!("HTTP {}", response.status().as_u16());
            return Err(Attempt::Over(Ending::other(Kind::Failed, label)));
        }
        let (head, body) = response.into_parts();
        // An answer without messages has its status where others have their headers.
        if head.headers.contains_key("grpc-status") {
            refuse(&head.headers).map_err(Attempt::Over)?;
            return Err(Attempt::Over(Ending::other(Kind::Wrong, "no picture")));
        }
        read(body).await.map_err(Attempt::Over)
    }

    /// The connection with the fewest streams; a new one where all are full.
    async fn pick(&self) -> Result<(SendRequest<Bytes>, Slot), Ending> {
        if let Some(picked) = self.free() {
            return Ok(picked);
        }
        let _guard = self.opening.lock().await;
        if let Some(picked) = self.free() {
            return Ok(picked);
        }
        let connection = self.open().await?;
        let picked = take(&connection);
        self.lock().push(connection);
        Ok(picked)
    }

    /// Nothing when another connection should be opened.
    fn free(&self) -> Option<(SendRequest<Bytes>, Slot)> {
        let mut connections = self.lock();
        connections.retain(|connection| !connection.closed.load(Ordering::Relaxed));
        let may_open = connections.len() < self.most;
        let emptiest = connections
            .iter()
            .min_by_key(|connection| connection.streams.load(Ordering::Relaxed))?;
        let full = emptiest.streams.load(Ordering::Relaxed) >= emptiest.send.current_max_send_streams();
        if full && may_open {
            None
        } else {
            Some(take(emptiest))
        }
    }

    async fn open(&self) -> Result<Connection, Ending> {
        let stream = self.door.dial().await?;
        let (send, driver) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .enable_push(false)
            .handshake::<_, Bytes>(stream)
            .await
            .map_err(|error| broken(&error))?;
        let closed = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&closed);
        // It ends with its connection, and with the thread's runtime.
        tokio::spawn(async move {
            let _ = driver.await;
            over.store(true, Ordering::Relaxed);
        });
        Ok(Connection {
            send,
            streams: Arc::new(AtomicUsize::new(0)),
            closed,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.connections
            .lock()
            .expect("nothing panics while it picks a connection")
    }
}

fn take(connection: &Connection) -> (SendRequest<Bytes>, Slot) {
    connection.streams.fetch_add(1, Ordering::Relaxed);
    (connection.send.clone(), Slot(Arc::clone(&connection.streams)))
}

/// What one attempt came to, other than a picture.
enum Attempt {
    /// The server has not looked at the request.
    NotSeen(Ending),
    Over(Ending),
}

fn attempt(error: &h2::Error) -> Attempt {
    let unseen = error.reason() == Some(Reason::REFUSED_STREAM);
    if unseen {
        Attempt::NotSeen(broken(error))
    } else {
        Attempt::Over(broken(error))
    }
}

fn broken(error: &h2::Error) -> Ending {
    let label = match error.reason() {
        Some(reason) if error.is_go_away() => format!("GOAWAY {reason:?}"),
        Some(reason) => format!("{reason:?}"),
        None => error
            .get_io()
            .map_or_else(|| "closed".to_owned(), |error| error.kind().to_string()),
    };
    Ending::other(Kind::Transport, label)
}

fn wrong(label: &'static str) -> Ending {
    Ending::other(Kind::Wrong, label)
}

/// Reads the stream to its end; one that ends without `done` was cut.
async fn read(mut body: RecvStream) -> Result<Picture, Ending> {
    let mut frames = Frames::default();
    let (mut last, mut done) = (None, false);
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(|error| broken(&error))?;
        let _ = body.flow_control().release_capacity(chunk.len());
        frames.push(&chunk);
        while let Some(message) = frames.next(MAX_ANSWER_BYTES).map_err(|_| wrong("no message"))? {
            let message: GenerateResponse =
                prost::Message::decode(message).map_err(|_| wrong("no message"))?;
            match message.event {
                Some(Event::Image(image)) => last = Some(image),
                Some(Event::Done(_)) => done = true,
                Some(
                    Event::Accepted(_)
                    | Event::Waiting(_)
                    | Event::Started(_)
                    | Event::Step(_)
                    | Event::Preview(_)
                    | Event::Restarted(_),
                )
                | None => {}
            }
        }
    }
    let trailers = body.trailers().await.map_err(|error| broken(&error))?;
    refuse(&trailers.ok_or_else(|| Ending::other(Kind::Transport, "cut: no status"))?)?;
    match last {
        _ if frames.is_cut() || !done => Err(wrong("cut: no `done`")),
        Some(image) => Ok(Picture {
            data: image.data,
            claimed: image.digest,
        }),
        None => Err(wrong("no picture")),
    }
}

/// Anything but OK is an ending.
fn refuse(trailers: &HeaderMap) -> Result<(), Ending> {
    if trailers.get("grpc-status").is_some_and(|code| code == "0") {
        return Ok(());
    }
    let Some(status) = tonic::Status::from_header_map(trailers) else {
        return Err(wrong("no status"));
    };
    let kind = match status.code() {
        tonic::Code::ResourceExhausted | tonic::Code::Unavailable => {
            let hint = status.get_details_retry_info().and_then(|info| info.retry_delay);
            if hint.is_some() {
                Kind::Refused
            } else {
                Kind::RefusedBare
            }
        }
        tonic::Code::DeadlineExceeded => Kind::Deadline,
        tonic::Code::Ok
        | tonic::Code::Cancelled
        | tonic::Code::Unknown
        | tonic::Code::InvalidArgument
        | tonic::Code::NotFound
        | tonic::Code::AlreadyExists
        | tonic::Code::PermissionDenied
        | tonic::Code::FailedPrecondition
        | tonic::Code::Aborted
        | tonic::Code::OutOfRange
        | tonic::Code::Unimplemented
        | tonic::Code::Internal
        | tonic::Code::DataLoss
        | tonic::Code::Unauthenticated => Kind::Failed,
    };
    Err(Ending::other(kind, format!("{:?}", status.code())))
}

fn encode(card: &Card<'_>, model: &str) -> Bytes {
    let priority = match card.class.priority {
        None => Wire::Unspecified,
        Some(Priority::Low) => Wire::Low,
        Some(Priority::Normal) => Wire::Normal,
        Some(Priority::High) => Wire::High,
    };
    let request = GenerateRequest {
        model: model.to_owned(),
        prompt: card.prompt.to_owned(),
        width: card.class.size,
        height: card.class.size,
        steps: card.class.steps,
        guidance_scale: card.class.guidance_scale,
        seeds: vec![card.seed],
        priority: priority.into(),
        ..GenerateRequest::default()
    };
    let mut bytes = BytesMut::new();
    Frames::write(&request, &mut bytes);
    bytes.freeze()
}
