//! The handshake at a port: bounded in time, counted, and with an answer in words for who does not speak TLS.

use std::{io, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;

use super::{HANDSHAKES, Stream, certificate, live::Live};

/// A handshake is two round trips: what takes longer is a caller who holds a connection for nothing.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// First byte of a handshake (RFC 8446, 5.1).
const HANDSHAKE_RECORD: u8 = 22;
/// How long a caller who is refused may take to read why, and what of its request is read meanwhile:
/// closing a socket with unread bytes takes the answer along.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
const REFUSAL_READ: u64 = 64 << 10;
/// SETTINGS without a setting, and the head of GOAWAY with INADEQUATE_SECURITY (RFC 9113, 6.5 and 6.8) but for its length.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const GOAWAY: [u8; 14] = [7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12];
const WHY: &str = "this port speaks TLS, and the request came plain: use https, or TLS in place of plaintext";

/// What a port speaks above TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2 alone.
    Grpc,
    /// HTTP/2 and HTTP/1.1.
    Http,
}

/// TLS of a port.
#[derive(Clone, Debug)]
pub struct Server {
    live: Arc<Live>,
    asks_clients: bool,
}

/// In the extensions of every request that came under TLS: what the connection proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Names of the caller's certificate, which is one of an authority that this port trusts; none when it showed none.
    pub peer: Option<Arc<[String]>>,
}

impl Server {
    pub(super) fn new(live: Arc<Live>, asks_clients: bool) -> Self {
        Self { live, asks_clients }
    }

    /// The same, for callers who have no certificate to show. HTTP alone.
    pub(super) fn for_anybody(self) -> Self {
        Self {
            asks_clients: false,
            ..self
        }
    }

    /// Every caller must show a certificate of an authority that is trusted.
    pub fn is_mutual(&self) -> bool {
        let material = self.live.current();
        self.asks_clients && material.servers.as_ref().is_some_and(|servers| servers.is_mutual)
    }

    /// Shakes hands with who dialled; none when nothing came of it, which is counted and told to the log.
    pub(crate) async fn accept(&self, tcp: TcpStream, protocol: Protocol) -> Option<(Stream, Connection)> {
        let config = self.config(protocol)?;
        let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, shake(tcp, config)).await;
        let (result, why) = match shaken {
            Ok(Ok(shaken)) => {
                count("ok");
                return Some(shaken);
            }
            Ok(Err(Failed::Plain(tcp))) => {
                count("plain");
                let _ = tokio::time::timeout(REFUSAL_TIMEOUT, refuse_plain(tcp)).await;
                return None;
            }
            Ok(Err(Failed::Refused(error, tcp))) => {
                // The alert says why, and is lost with what is unread.
                let _ = tokio::time::timeout(REFUSAL_TIMEOUT, read_out(tcp)).await;
                match error.get_ref().is_some_and(|error| error.is::<rustls::Error>()) {
                    true => ("refused", error.to_string()),
                    false => ("broken", error.to_string()),
                }
            }
            Ok(Err(Failed::Broken(error))) => ("broken", error.to_string()),
            Err(_) => ("late", "it was not over in time".to_owned()),
        };
        count(result);
        tracing::debug!(why, "a TLS handshake failed");
        None
    }

    fn config(&self, protocol: Protocol) -> Option<Arc<ServerConfig>> {
        let material = self.live.current();
        let servers = material.servers.as_ref()?;
        Some(Arc::clone(match (protocol, self.asks_clients) {
            (Protocol::Grpc, _) => &servers.grpc,
            (Protocol::Http, true) => &servers.http,
            (Protocol::Http, false) => &servers.open_http,
        }))
    }
}

enum Failed {
    /// It is not TLS that the caller speaks.
    Plain(TcpStream),
    /// Hands were not shaken, and the caller was told.
    Refused(io::Error, TcpStream),
    Broken(io::Error),
}

async fn shake(tcp: TcpStream, config: Arc<ServerConfig>) -> Result<(Stream, Connection), Failed> {
    let mut first = [0];
    match tcp.peek(&mut first).await {
        Ok(1) if first[0] == HANDSHAKE_RECORD => {}
        Ok(1) => return Err(Failed::Plain(tcp)),
        Ok(_) => return Err(Failed::Broken(io::ErrorKind::UnexpectedEof.into())),
        Err(error) => return Err(Failed::Broken(error)),
    }
    let stream = TlsAcceptor::from(config)
        .accept(tcp)
        .into_fallible()
        .await
        .map_err(|(error, tcp)| Failed::Refused(error, tcp))?;
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let peer = shown.map(|shown| certificate::names(shown).into());
    Ok((Stream::Tls(Box::new(stream)), Connection { peer }))
}

/// Tells a caller who speaks plain HTTP, of either version, what this port speaks.
async fn refuse_plain(mut tcp: TcpStream) -> io::Result<()> {
    let mut first = [0];
    tcp.peek(&mut first).await?;
    // HTTP/2 begins with PRI, which no method of HTTP/1.1 does but PROPFIND, PROPPATCH and such, of WebDAV: not ours.
    if first == *b"P" && is_http2(&tcp).await? {
        let length = u32::try_from(8 + WHY.len()).unwrap_or_default().to_be_bytes();
        let frames = [&SETTINGS[..], &length[1..], &GOAWAY[..], WHY.as_bytes()].concat();
        tcp.write_all(&frames).await?;
    } else {
        let answer = format!(
            "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{WHY}\n",
            WHY.len() + 1
        );
        tcp.write_all(answer.as_bytes()).await?;
    }
    read_out(tcp).await
}

/// Says that nothing more comes, and reads what the caller still sends.
async fn read_out(mut tcp: TcpStream) -> io::Result<()> {
    tcp.shutdown().await?;
    let mut rest = tcp.take(REFUSAL_READ);
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
    Ok(())
}

async fn is_http2(tcp: &TcpStream) -> io::Result<bool> {
    const PREFACE: &[u8] = b"PRI ";
    let mut start = [0; PREFACE.len()];
    // The preface is one segment; of one that comes in pieces the first decides.
    let read = tcp.peek(&mut start).await?;
    Ok(PREFACE.starts_with(&start[..read]) && read > 1)
}

fn count(result: &'static str) {
    metrics::counter!(HANDSHAKES, "result" => result).increment(1);
}
