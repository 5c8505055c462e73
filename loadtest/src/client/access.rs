//! How a mesh that is closed is called: TLS by rustls, a certificate of our own, an API key.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::uri::Authority;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

use crate::Error;
use crate::args::AccessArgs;
use crate::record::{Ending, Kind};

/// Longest wait for a connection, its handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What every connection and every request of a run has in common.
#[derive(Debug, Clone, Default)]
pub struct Access {
    tls: Option<Arc<ClientConfig>>,
    server_name: Option<ServerName<'static>>,
    /// The whole header.
    authorization: Option<HeaderValue>,
}

/// What is dialled.
pub(super) struct Door {
    authority: Authority,
    secure: Option<(TlsConnector, ServerName<'static>)>,
}

/// A connection, plain or under TLS.
pub(super) type Connection = Either<TcpStream, TlsStream<TcpStream>>;

impl Access {
    /// Reads certificates and keys; `secure` says whether a target is called under TLS.
    ///
    /// # Errors
    /// [`Error::Option`] for what makes no sense, [`Error::Read`] for a file that cannot be read.
    pub fn new(args: &AccessArgs, secure: bool) -> Result<Self, Error> {
        let refused = |option, value: &str, why| Error::Option {
            option,
            value: value.to_owned(),
            why,
        };
        let key = args.api_key.as_deref().map(|key| {
            let header = HeaderValue::try_from(format!("Bearer {key}"));
            // The key itself is not repeated.
            header.map_err(|_| refused("api-key", "***", "is no header's value"))
        });
        let mut authorization = key.transpose()?;
        if let Some(header) = &mut authorization {
            header.set_sensitive(true);
        }
        let name = args.tls_server_name.as_deref().map(|name| {
            let parsed = ServerName::try_from(name.to_owned());
            parsed.map_err(|_| refused("tls-server-name", name, "is no name of a server"))
        });
        if let (false, Some(file)) = (secure, &args.tls_ca) {
            let why = "no target is called under TLS: use grpcs://host:port or https://host:port";
            return Err(refused("tls-ca", &file.to_string_lossy(), why));
        }
        Ok(Self {
            tls: secure.then(|| config(args)).transpose()?,
            server_name: name.transpose()?,
            authorization,
        })
    }

    /// What says who calls. A key that goes to one target under TLS goes to no other in the clear.
    pub(super) fn authorization(&self, secure: bool) -> Option<HeaderValue> {
        let may = secure || self.tls.is_none();
        self.authorization.clone().filter(|_| may)
    }

    /// A door that speaks a protocol, named as in ALPN; nothing when a certificate could not be for its host.
    pub(super) fn door(&self, authority: Authority, secure: bool, protocol: &[u8]) -> Option<Door> {
        if !secure {
            return Some(Door {
                authority,
                secure: None,
            });
        }
        let mut config = self.tls.as_deref()?.clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned()).ok()?,
        };
        let secure = Some((TlsConnector::from(Arc::new(config)), name));
        Some(Door { authority, secure })
    }
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.authority)
    }
}

impl Door {
    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.secure.is_some() { "https" } else { "http" }
    }

    /// A connection without Nagle's delay.
    pub(super) async fn dial(&self) -> Result<Connection, Ending> {
        let failed = |label: String| Ending::other(Kind::Transport, label);
        let opened = async {
            let stream = TcpStream::connect(self.authority.as_str())
                .await
                .map_err(|error| failed(format!("connect: {}", error.kind())))?;
            // Without it answers may be late by 40 ms; a socket that cannot do it still works.
            let _ = stream.set_nodelay(true);
            Ok(match &self.secure {
                None => Either::Left(stream),
                Some((connector, name)) => {
                    let shaken = connector.connect(name.clone(), stream).await;
                    Either::Right(shaken.map_err(|error| failed(format!("TLS: {error}")))?)
                }
            })
        };
        tokio::time::timeout(CONNECT_TIMEOUT, opened)
            .await
            .unwrap_or_else(|_| Err(failed("connect: timed out".to_owned())))
    }
}

fn config(args: &AccessArgs) -> Result<Arc<ClientConfig>, Error> {
    let mut roots = RootCertStore::empty();
    match &args.tls_ca {
        Some(file) => {
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| unread(file, error))?;
            }
        }
        // What of the system's cannot be read is not trusted, and dialling says what is missing.
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let system = |error: rustls::Error| Error::System {
        what: "use TLS".to_owned(),
        source: std::io::Error::other(error),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(system)?
        .with_root_certificates(roots);
    let config = match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => {
            let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unread_pem(key, error))?;
            builder
                .with_client_auth_cert(certificates(certificate)?, private)
                .map_err(|error| unread(certificate, error))?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// At least one.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(unread(file, "no certificate is in it")),
        read => read.map_err(|error| unread_pem(file, error)),
    }
}

fn unread_pem(file: &Path, error: pem::Error) -> Error {
    if let pem::Error::Io(source) = error {
        return Error::Read {
            path: file.to_owned(),
            source,
        };
    }
    unread(file, error)
}

fn unread(file: &Path, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Read {
        path: file.to_owned(),
        source: std::io::Error::other(why),
    }
}
