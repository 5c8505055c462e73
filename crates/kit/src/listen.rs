//! Ports are bound before any work, so that a start that cannot succeed fails at once and says what to do; and the
//! address that others reach a bound port by.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
};

use tokio::net::{TcpListener, TcpSocket};

use crate::{Error, tls};

/// Connections that may wait to be accepted: a burst of callers at start, as `listen(2)` suggests for servers.
const BACKLOG: u32 = 1024;

/// A bound port, and how it is spoken to.
#[derive(Debug)]
pub struct Listener {
    pub(crate) tcp: TcpListener,
    pub(crate) tls: Option<tls::Server>,
}

impl Listener {
    /// The same port, under TLS where there is one.
    #[must_use]
    pub fn over(self, tls: Option<tls::Server>) -> Self {
        Self { tls, ..self }
    }

    /// Where it is bound.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// How it is spoken to; none is plain.
    pub fn tls(&self) -> Option<&tls::Server> {
        self.tls.as_ref()
    }
}

impl From<TcpListener> for Listener {
    fn from(tcp: TcpListener) -> Self {
        Self { tcp, tls: None }
    }
}

/// Binds `address` for `what` (such as `gRPC`), and logs the address that it got. The port is plain until
/// [`Listener::over`] says otherwise.
///
/// # Errors
/// [`Error::Bind`] names the address, the purpose and what to do.
#[allow(
    clippy::unused_async,
    reason = "binding needs a runtime; a signature with `async` says so"
)]
pub async fn bind(what: &'static str, address: SocketAddr) -> Result<Listener, Error> {
    let failed = |source: io::Error| Error::Bind {
        what,
        address,
        hint: hint(source.kind()),
        source,
    };
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }
    .map_err(failed)?;
    // A restarted service takes its port over from connections of its predecessor that are in TIME_WAIT.
    socket.set_reuseaddr(true).map_err(failed)?;
    socket.bind(address).map_err(failed)?;
    let listener = socket.listen(BACKLOG).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    tracing::info!(%bound, "listening for {what}");
    Ok(listener.into())
}

fn hint(kind: io::ErrorKind) -> &'static str {
    #[allow(clippy::wildcard_enum_match_arm, reason = "io::ErrorKind is non-exhaustive")]
    match kind {
        io::ErrorKind::AddrInUse => "stop the program that listens there, or choose another address",
        io::ErrorKind::PermissionDenied => "ports below 1024 are reserved; choose a higher one",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address; 0.0.0.0 takes all of them",
        _ => "check the address",
    }
}

/// Gives the `host:port` by which others reach `bound`.
///
/// An `explicit` address wins (without a port it gets the bound one). A bound address that names an interface is taken
/// as it is. For `0.0.0.0` and `[::]` it is the local address of the route to `peer` (`host:port` or a URL), and without a
/// peer, or without a route, the loopback address. May look `peer` up by DNS: call it at start, not per request.
pub fn advertise(explicit: Option<&str>, bound: SocketAddr, peer: Option<&str>) -> String {
    if let Some(explicit) = explicit {
        return with_port(explicit, bound.port());
    }
    if !bound.ip().is_unspecified() {
        return bound.to_string();
    }
    let ip = peer.and_then(route_to).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    SocketAddr::new(ip, bound.port()).to_string()
}

fn with_port(host: &str, port: u16) -> String {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return SocketAddr::new(ip, port).to_string();
    }
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port {
        host.to_owned()
    } else {
        format!("{host}:{port}")
    }
}

/// Connecting a datagram socket sends nothing; it makes the system choose a source address.
fn route_to(peer: &str) -> Option<IpAddr> {
    use std::net::ToSocketAddrs;
    let peer = peer.split_once("://").map_or(peer, |(_, rest)| rest);
    let peer = peer.to_socket_addrs().ok()?.next()?;
    let any = if peer.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(peer).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_explicit_address_wins_and_gets_the_bound_port_when_it_has_none() {
        let bound = address("0.0.0.0:7200");
        assert_eq!(advertise(Some("gpu-1:9"), bound, None), "gpu-1:9");
        assert_eq!(advertise(Some("gpu-1"), bound, None), "gpu-1:7200");
        assert_eq!(advertise(Some("10.0.0.7"), bound, None), "10.0.0.7:7200");
        assert_eq!(advertise(Some("fd00::7"), bound, None), "[fd00::7]:7200");
        assert_eq!(advertise(Some("[fd00::7]:9"), bound, None), "[fd00::7]:9");
    }

    #[test]
    fn a_bound_interface_is_advertised_as_it_is() {
        assert_eq!(
            advertise(None, address("127.0.0.1:7200"), Some("10.0.0.1:1")),
            "127.0.0.1:7200"
        );
    }

    #[test]
    fn an_unspecified_address_becomes_the_one_that_routes_to_the_peer() {
        let bound = address("0.0.0.0:7200");
        assert_eq!(advertise(None, bound, Some("127.0.0.1:7265")), "127.0.0.1:7200");
        assert_eq!(
            advertise(None, bound, Some("http://127.0.0.1:7265")),
            "127.0.0.1:7200"
        );
        assert_eq!(advertise(None, bound, None), "127.0.0.1:7200");
    }

    #[tokio::test]
    async fn a_taken_port_is_refused_with_its_address_and_advice() {
        let first = bind("gRPC", address("127.0.0.1:0")).await.unwrap();
        let taken = first.local_addr().unwrap();
        let error = bind("HTTP", taken).await.unwrap_err();
        let text = crate::chain(&error);
        assert!(
            text.starts_with(&format!("cannot listen on {taken} for HTTP (stop the program")),
            "{text}"
        );
    }
}
