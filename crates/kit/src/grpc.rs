//! The gRPC server of every service: health, reflection, the stack of `stack.rs`, and a drain that ends by one deadline.
//!
//! It accepts connections itself and speaks HTTP/2 through hyper, because tonic's own server cannot be cut at a deadline
//! (its connections are detached tasks) and answers an expired deadline with CANCELLED. HTTP/1.1 is refused, but at a door
//! for browsers ([`Server::web`]), where gRPC-Web comes by it.
//!
//! Drain, once the stop is triggered: not ready at once; new connections and calls are taken for the notice time, in
//! which balancers hear of it; then no new ones, what runs may finish; at the deadline it is cut. Handlers of streams
//! without an end must watch the stop themselves.
//!
//! Callers who begin a message and do not end it are answered DEADLINE_EXCEEDED; those who do not take what they asked for are
//! let go of, the stream where that can be told, else the connection. Streams between two messages may idle.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Request, Response};
use http_body_util::Either;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio_util::sync::CancellationToken;
use tonic::{
    body::Body,
    codec::CompressionEncoding::Gzip,
    server::NamedService,
    transport::server::{Connected, TcpConnectInfo},
};
use tonic_health::pb::health_server::HealthServer;
use tower::Service;

use crate::{
    Error, Readiness, Stop,
    accept::{self, Incoming as Accepted, NOTICE},
    channel::{CONNECTION_WINDOW, STREAM_WINDOW},
    connection,
    dispatch::Table,
    gather::Gather,
    guests::guests,
    health::Health,
    heard::Heard,
    leaving::{Leaving, PATIENCE, Watched},
    listen::Listener,
    methods::Methods,
    metrics, pace,
    stack::Stack,
    taken::Taken,
    tls::Protocol,
    web::{Origins, Web},
};

pub use crate::body::Trailing;

/// The largest message that services should accept and send, bytes: a raw picture of 2048 x 2048 (12 MiB), with room.
/// tonic's own bound is 4 MB; pass this one to `max_decoding_message_size` of servers and clients that carry pictures.
pub const MAX_MESSAGE_BYTES: usize = 32 << 20;

/// Calls at a time on one connection; a proxy has one connection per worker, and workers refuse by their own limits.
const MAX_STREAMS: u32 = 4096;
/// Callers that leave at once are normal here (a batch cancelled), an attack only in great numbers. hyper's default of
/// 20 closes the connection of everybody else too.
const MAX_RESET_STREAMS: usize = 1024;
/// A connection whose peer vanished is given up after the interval and the timeout.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Half of [`STREAM_WINDOW`] at the least that a caller of a proxy has to take, and a little.
const PROXY_PATIENCE: Duration = Duration::from_secs(STREAM_WINDOW as u64 / 2 / pace::RATE + 60);
/// A connection on which nothing comes by then is held for nothing: HTTP/2 begins with the client's preface.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(30);
/// The same for every head of HTTP/1.1, and so for a connection between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// A gRPC server that is being put together.
#[derive(Debug)]
pub struct Server {
    service: &'static str,
    notice: Duration,
    table: Table,
    descriptors: Vec<&'static [u8]>,
    web: Option<Origins>,
    patience: Duration,
}

impl Server {
    /// Begins a server; `service` is the binary's name, for the log.
    pub fn new(service: &'static str) -> Self {
        let descriptors = vec![
            mobula_proto::FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            // Errors carry them, and tools look up what they are.
            tonic_types::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        Self {
            service,
            notice: NOTICE,
            table: Table::default(),
            descriptors,
            web: None,
            patience: PATIENCE,
        }
    }

    /// Adds a generated tonic server. What carries pictures sets [`MAX_MESSAGE_BYTES`] on it first.
    #[allow(clippy::should_implement_trait, reason = "adds a service, not a number")]
    pub fn add<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.table.add(service);
        self
    }

    /// Adds contracts beyond Mobula's own (an encoded `FileDescriptorSet`), for reflection and metric labels.
    pub fn describe(mut self, descriptors: &'static [u8]) -> Self {
        self.descriptors.push(descriptors);
        self
    }

    /// Opens the server to browsers: gRPC-Web, over HTTP/1.1 too, for pages of these origins.
    pub fn web(mut self, origins: Origins) -> Self {
        self.web = Some(origins);
        self
    }

    /// Sets how long the draining server goes on taking calls.
    pub fn notice(mut self, notice: Duration) -> Self {
        self.notice = notice;
        self
    }

    /// Sets that the readers of answers are proxies, which read as their own callers do and let go of those themselves: of a
    /// caller who takes just enough to be waited for, half of a window here takes half an hour.
    pub fn for_proxies(mut self) -> Self {
        self.patience = PROXY_PATIENCE;
        self
    }

    /// Serves until the stop is triggered and the drain is over.
    ///
    /// # Errors
    /// [`Error::Reflection`] when the contracts cannot be read.
    pub async fn serve(
        mut self,
        listener: impl Into<Listener>,
        readiness: Readiness,
        stop: Stop,
    ) -> Result<(), Error> {
        let listener = listener.into();
        let notice = self.notice;
        let closing = CancellationToken::new();
        let service = self.service;
        let origins = self.web.take();
        let patience = self.patience;
        let _hold = stop.hold("grpc server");
        let stack = Arc::new(self.assemble(readiness.clone(), closing.clone())?);
        tracing::debug!(service, services = ?stack.table, "gRPC server is up");
        let door = Door {
            web: origins.map(|origins| Web::new(Arc::clone(&stack), &origins)),
            stack,
            patience,
        };
        let connection = |accepted| serve_connection(accepted, door.clone(), closing.clone(), stop.clone());
        let not_ready = async {
            stop.triggered().await;
            readiness.drain();
        };
        tokio::join!(
            accept::connections((listener, guests()), notice, &closing, &stop, connection),
            not_ready
        );
        Ok(())
    }

    fn assemble(mut self, readiness: Readiness, closing: CancellationToken) -> Result<Stack, Error> {
        const REFLECTION: [&str; 2] = [
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        ];
        let mut names = self.table.names();
        names.push("grpc.health.v1.Health");
        names.extend(REFLECTION);
        let reflection = || {
            let mut builder =
                tonic_reflection::server::Builder::configure().include_reflection_service(false);
            for set in &self.descriptors {
                builder = builder.register_encoded_file_descriptor_set(set);
            }
            // Only what is served here: the contracts name the services of the other binaries too.
            names
                .iter()
                .fold(builder, |builder, name| builder.with_service_name(*name))
        };
        // Whoever compresses requests does so on a whole channel, and contracts are worth it.
        let v1 = reflection().build_v1().map_err(Error::Reflection)?;
        let v1 = v1.accept_compressed(Gzip).send_compressed(Gzip);
        let v1alpha = reflection().build_v1alpha().map_err(Error::Reflection)?;
        let v1alpha = v1alpha.accept_compressed(Gzip).send_compressed(Gzip);
        // Handles made before there is a recorder would count nothing for good.
        metrics::install();
        let methods = Methods::new(&self.descriptors, &names);
        let health = Health {
            readiness,
            services: names,
            closing,
        };
        self.table.add(HealthServer::new(health).accept_compressed(Gzip));
        self.table.add(v1);
        self.table.add(v1alpha);
        Ok(Stack {
            table: self.table,
            methods,
        })
    }
}

/// What every connection leads to.
#[derive(Clone, Debug)]
struct Door {
    stack: Arc<Stack>,
    web: Option<Web>,
    patience: Duration,
}

/// Serves one connection: until its peer leaves; or, draining, until its calls are over; or until the deadline.
async fn serve_connection(accepted: Accepted, door: Door, closing: CancellationToken, stop: Stop) {
    let protocol = if door.web.is_some() {
        Protocol::Http
    } else {
        Protocol::Grpc
    };
    let Some((mut stream, secured)) = accepted.open(protocol, &closing).await else {
        return;
    };
    let spoke = tokio::select! {
        biased;
        spoke = tokio::time::timeout(PREFACE_TIMEOUT, stream.spoke()) => spoke.unwrap_or(false),
        () = closing.cancelled() => false,
    };
    if !spoke {
        return;
    }
    let peer: TcpConnectInfo = stream.tcp().connect_info();
    let heard = CancellationToken::new();
    // A caller may withhold the rest of the preface as well.
    let says_no_more = connection::silent(heard.clone(), PREFACE_TIMEOUT);
    let builder = http(door.web.is_some(), door.patience);
    let service = service_fn(move |mut request: Request<Incoming>| {
        // What `tonic::Request::remote_addr` reads.
        request.extensions_mut().insert(peer.clone());
        if let Some(secured) = &secured {
            request.extensions_mut().insert(secured.clone());
        }
        let web = door.web.as_ref().filter(|_| Web::wants(&request)).cloned();
        let stack = Arc::clone(&door.stack);
        let version = request.version();
        async move {
            let response = match web {
                Some(web) => web.answer(request.map(Body::new)).await.map(Either::Right),
                None => stack.answer(request).await.map(Either::Left),
            };
            Ok::<_, Infallible>(response.map(|body| Leaving::new(body, version)))
        }
    });
    let wire = Heard::new(Taken::new(TokioIo::new(stream)), heard);
    let served = builder.serve_connection(Gather::new(wire), service);
    connection::serve(served, says_no_more, &closing, &stop).await;
}

/// HTTP/2, and HTTP/1.1 at a door for browsers.
fn http(is_web: bool, patience: Duration) -> auto::Builder<Watched> {
    let mut builder = auto::Builder::new(Watched { patience });
    builder
        .http2()
        .timer(TokioTimer::new())
        // gRPC has no use for it, and it cannot be compressed.
        .auto_date_header(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
        .max_local_error_reset_streams(MAX_RESET_STREAMS)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    if is_web {
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT);
        builder
    } else {
        builder.http2_only()
    }
}
