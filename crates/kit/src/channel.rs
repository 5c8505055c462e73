//! gRPC channels with settings that suit the mesh: small calls answered in well under a millisecond, pictures of some
//! megabytes, and peers that vanish without a word. Does not balance; one channel is one peer.

use std::{
    error::Error as StdError,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http::Uri;
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use tonic::{
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};
use tower::Service;

use crate::{
    Error,
    gather::Gather,
    tls::{Client, ClientArgs, Outbound},
    token::{Bearer, Token},
};

/// Longer than any handshake inside a data centre, shorter than a person's patience.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often an open connection is checked; together with the timeout a peer that vanished is noticed in 15 s even when
/// no call is waiting (a call itself has a deadline).
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// A picture of 1024 x 1024 as PNG (about 2 MiB) fits without waiting for a window update.
pub(crate) const STREAM_WINDOW: u32 = 4 << 20;
/// The largest that HTTP/2 knows.
const UNBOUNDED_WINDOW: u32 = (1 << 31) - 1;
/// Several of those at a time.
pub(crate) const CONNECTION_WINDOW: u32 = 16 << 20;

/// How a channel keeps its connection alive.
#[derive(Clone, Copy, Debug)]
pub struct KeepAlive {
    /// Time between pings, also while no call is open.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Time after which a host that acknowledges nothing is given up, by the kernel's own probes and retransmissions, which cost
    /// neither side's process anything; none leaves it to the pings.
    pub silence: Option<Duration>,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self {
            interval: KEEP_ALIVE,
            timeout: KEEP_ALIVE_TIMEOUT,
            silence: None,
        }
    }
}

/// Makes a channel to an address as [`Dial::lazy`] takes it, where no flag says how others are dialled.
///
/// # Errors
/// As [`Dial::lazy`].
pub fn lazy(address: &str) -> Result<Channel, Error> {
    Dial::default().lazy(address)
}

/// How this process dials others of its mesh.
#[derive(Clone, Debug, Default)]
pub struct Dial {
    /// With TLS; none is plain, but for addresses that say `https`.
    pub tls: Option<Client>,
    /// What it shows where it is asked who it is.
    pub token: Option<Token>,
}

/// A channel whose calls carry a token, if there is one.
pub type Link = InterceptedService<Channel, Bearer>;

impl Dial {
    /// Makes a channel that connects with its first call and again after a loss: to `host:port`, as this process dials, or
    /// to `https://host:port` or `http://host:port`, with TLS or plain whatever it does else.
    ///
    /// # Errors
    /// [`Error::Address`] when the address is neither; [`Error::Tls`] when TLS is asked for and cannot be had.
    pub fn lazy(&self, address: &str) -> Result<Channel, Error> {
        let Dialer { endpoint, connector } = self.dialer(address, KeepAlive::default())?;
        Ok(endpoint.connect_with_connector_lazy(connector))
    }

    /// The same, for a peer that asks who calls.
    ///
    /// # Errors
    /// As [`Self::lazy`].
    pub fn link(&self, address: &str) -> Result<Link, Error> {
        Ok(InterceptedService::new(self.lazy(address)?, self.bearer()))
    }

    /// Puts the token into calls.
    pub fn bearer(&self) -> Bearer {
        self.token.clone().into()
    }

    /// A peer that is dialled by the caller, each time anew, at an address as [`Self::lazy`] takes it.
    ///
    /// # Errors
    /// As [`Self::lazy`].
    pub fn dialer(&self, address: &str, keep_alive: KeepAlive) -> Result<Dialer, Error> {
        let (scheme, authority) = parsed(address)?;
        let tls = match scheme {
            Some(Scheme::Plain) => None,
            Some(Scheme::Tls) if self.tls.is_none() => Some(ClientArgs::of_system()?),
            Some(Scheme::Tls) | None => self.tls.clone(),
        };
        let scheme = if tls.is_some() { "https" } else { "http" };
        let refused = |_| Error::Address {
            address: address.to_owned(),
        };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{authority}")).map_err(refused)?;
        Ok(Dialer {
            endpoint: tuned(endpoint, keep_alive),
            connector: Connector {
                tcp: tcp(keep_alive),
                tls,
            },
        })
    }
}

/// One peer that is dialled by the caller, each time anew.
#[derive(Clone, Debug)]
pub struct Dialer {
    endpoint: Endpoint,
    connector: Connector,
}

impl Dialer {
    /// Connects.
    ///
    /// # Errors
    /// What the transport says of a peer that cannot be reached.
    pub async fn connect(&self) -> Result<Channel, tonic::transport::Error> {
        self.endpoint.connect_with_connector(self.connector.clone()).await
    }
}

/// What an address says of how it is dialled.
enum Scheme {
    Plain,
    Tls,
}

fn parsed(address: &str) -> Result<(Option<Scheme>, http::uri::Authority), Error> {
    let refused = || Error::Address {
        address: address.to_owned(),
    };
    let (scheme, authority) = match address.split_once("://") {
        Some(("http", authority)) => (Some(Scheme::Plain), authority.trim_end_matches('/')),
        Some(("https", authority)) => (Some(Scheme::Tls), authority.trim_end_matches('/')),
        Some(_) => return Err(refused()),
        None => (None, address),
    };
    let authority: http::uri::Authority = authority.parse().map_err(|_| refused())?;
    if authority.host().is_empty() || authority.port_u16().is_none() {
        return Err(refused());
    }
    Ok((scheme, authority))
}

fn tuned(endpoint: Endpoint, keep_alive: KeepAlive) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(keep_alive.interval)
        .keep_alive_timeout(keep_alive.timeout)
        .keep_alive_while_idle(true)
        // Fixed windows: the adaptive kind sends a ping with every burst of data.
        .initial_stream_window_size(STREAM_WINDOW)
        // A stream that nobody reads must not take what the others need: each has its own window and no other bound, and
        // there are no more of them than the peer takes calls.
        .initial_connection_window_size(UNBOUNDED_WINDOW)
}

/// Connects, and shakes hands where it is to be TLS. The endpoint's own time for connecting holds for both together.
#[derive(Clone, Debug)]
struct Connector {
    tcp: HttpConnector,
    tls: Option<Client>,
}

impl Service<Uri> for Connector {
    type Response = Gather<TokioIo<Outbound>>;
    type Error = Box<dyn StdError + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let host = uri.host().unwrap_or_default().to_owned();
        let connecting = self.tcp.call(uri);
        let tls = self.tls.clone();
        Box::pin(async move {
            let tcp = connecting.await?.into_inner();
            let stream = match tls {
                Some(tls) => tls.connect(tcp, &host).await?,
                None => Outbound::Plain(tcp),
            };
            Ok(Gather::new(TokioIo::new(stream)))
        })
    }
}

/// Dials so that the kernel notices a host's silence: probes after half of that time, and TCP_USER_TIMEOUT for what is not
/// acknowledged.
fn tcp(keep_alive: KeepAlive) -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    if let Some(silence) = keep_alive.silence {
        connector.set_keepalive(Some(silence / 2));
        connector.set_keepalive_interval(Some(silence / 2));
        connector.set_keepalive_retries(Some(1));
        #[cfg(target_os = "linux")]
        connector.set_tcp_user_timeout(Some(silence));
    }
    connector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn host_and_port_or_a_url_make_a_channel() {
        for address in [
            "127.0.0.1:7265",
            "controller:7265",
            "http://[::1]:7265/",
            "http://controller:7265",
            "https://controller:7265",
        ] {
            assert!(lazy(address).is_ok(), "{address}");
        }
    }

    #[tokio::test]
    async fn anything_else_is_refused_with_the_address() {
        for address in [
            "",
            "controller",
            ":7265",
            "ftp://controller:7265",
            "host:port",
            "host:99999",
        ] {
            let error = lazy(address).unwrap_err();
            assert!(error.to_string().contains(&format!("{address:?}")), "{error}");
            assert!(error.is_config());
        }
    }
}
