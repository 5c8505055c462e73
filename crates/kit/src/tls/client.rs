//! Dialling under TLS, and words for what comes of it: rustls says what it saw, a person needs to know what to change.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustls::{AlertDescription, CertificateError, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::live::Live;

/// How TLS is dialled.
#[derive(Clone)]
pub struct Client {
    live: Arc<Live>,
}

/// A connection that was dialled, plain or under TLS.
#[derive(Debug)]
pub enum Outbound {
    /// Without TLS.
    Plain(TcpStream),
    /// Under TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Client {
    pub(super) fn new(live: Arc<Live>) -> Self {
        Self { live }
    }

    /// Shakes hands with the peer that was dialled as `host`.
    ///
    /// # Errors
    /// In words: what is wrong with which side's certificate, or that the peer does not speak TLS.
    pub async fn connect(&self, tcp: TcpStream, host: &str) -> io::Result<Outbound> {
        let material = self.live.current();
        let name = match &material.server_name {
            Some(name) => name.clone(),
            None => {
                let host = host.trim_start_matches('[').trim_end_matches(']');
                ServerName::try_from(host.to_owned())
                    .map_err(|_| io::Error::other(format!("no certificate can be for {host:?}")))?
            }
        };
        let connector = TlsConnector::from(Arc::clone(&material.client));
        let wanted = name.to_str().into_owned();
        let shaken = connector.connect(name, tcp).await;
        let stream = shaken.map_err(|error| explained(error, Some(&wanted)))?;
        Ok(Outbound::Tls(Box::new(stream)))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.live.fmt(f)
    }
}

/// The same error in words; `wanted` is the name that was looked for, while hands are shaken.
fn explained(error: io::Error, wanted: Option<&str>) -> io::Error {
    let kind = error.kind();
    let said = match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(said) => words(said, wanted.unwrap_or("this name")),
        None if wanted.is_some() && kind == io::ErrorKind::UnexpectedEof => Some(
            "the peer hung up while hands were shaken: it may speak no TLS, or want a certificate (--tls-cert)".to_owned(),
        ),
        None => None,
    };
    match said {
        Some(said) => io::Error::new(kind, said),
        None => error,
    }
}

fn words(error: &rustls::Error, wanted: &str) -> Option<String> {
    use CertificateError as Bad;
    #[allow(clippy::wildcard_enum_match_arm, reason = "rustls' enums are non-exhaustive")]
    match error {
        rustls::Error::InvalidMessage(_) => {
            Some("the peer does not speak TLS: its port is plain, or is another one".to_owned())
        }
        rustls::Error::InvalidCertificate(bad) => Some(match bad {
            // The second is an authority of the same name with another key.
            Bad::UnknownIssuer | Bad::BadSignature => {
                "the peer's certificate is of no authority that is trusted here (--tls-ca)".to_owned()
            }
            Bad::Expired | Bad::ExpiredContext { .. } => "the peer's certificate has ended".to_owned(),
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                "the peer's certificate does not hold yet: is a clock wrong?".to_owned()
            }
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
                format!(
                    "the peer's certificate is not for {wanted} (--tls-server-name names another): {error}"
                )
            }
            other => format!("the peer's certificate cannot be used: {other}"),
        }),
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired => {
                Some("the peer demands a certificate of its callers (--tls-cert, --tls-key)".to_owned())
            }
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError => Some(format!(
                "the peer does not trust the certificate of this process ({alert:?})"
            )),
            AlertDescription::CertificateExpired => {
                Some("the certificate of this process has ended, says the peer".to_owned())
            }
            AlertDescription::NoApplicationProtocol => {
                Some("the peer's port is for another protocol: it takes no HTTP/2".to_owned())
            }
            _ => None,
        },
        _ => None,
    }
}

impl AsyncRead for Outbound {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            // With TLS 1.3 a peer refuses our certificate after hands were shaken.
            Self::Tls(stream) => Pin::new(stream)
                .poll_read(cx, buf)
                .map_err(|error| explained(error, None)),
        }
    }
}

/// A peer that hung up while we wrote may have said why before.
fn told<T>(
    stream: &mut TlsStream<TcpStream>,
    cx: &mut Context<'_>,
    done: Poll<io::Result<T>>,
) -> Poll<io::Result<T>> {
    match done {
        Poll::Ready(Err(error)) => {
            let mut byte = [0];
            let read = Pin::new(stream).poll_read(cx, &mut ReadBuf::new(&mut byte));
            Poll::Ready(Err(match read {
                Poll::Ready(Err(said)) => explained(said, None),
                Poll::Ready(Ok(())) | Poll::Pending => error,
            }))
        }
        done @ (Poll::Ready(Ok(_)) | Poll::Pending) => done,
    }
}

impl AsyncWrite for Outbound {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => {
                let written = Pin::new(&mut *stream).poll_write(cx, bytes);
                told(stream, cx, written)
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Self::Tls(stream) => {
                let written = Pin::new(&mut *stream).poll_write_vectored(cx, bytes);
                told(stream, cx, written)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => {
                let flushed = Pin::new(&mut *stream).poll_flush(cx);
                told(stream, cx, flushed)
            }
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
