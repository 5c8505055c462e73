//! From files to configurations of rustls. Reads whole files and nothing else; keeps nothing.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::WebPkiServerVerifier,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    server::WebPkiClientVerifier,
};

use super::certificate;
use crate::Error;

/// A bundle of all authorities of the web has 220 KiB.
const MAX_FILE_BYTES: u64 = 4 << 20;
const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Ports and connections inside the mesh.
    Mesh,
    /// Doors for users.
    Public,
}

impl Use {
    /// As metrics name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mesh => "mesh",
            Self::Public => "public",
        }
    }
}

/// Which files there are.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    /// Certificate and key.
    pub(super) own: Option<(PathBuf, PathBuf)>,
    /// Whose certificates callers must show.
    pub(super) client_ca: Option<PathBuf>,
    /// Whose certificates are trusted when dialling; none for those of the system.
    pub(super) ca: Option<PathBuf>,
    pub(super) server_name: Option<String>,
}

/// What the files hold, as it was read at one time.
#[derive(PartialEq, Eq)]
pub(super) struct Content {
    own: Option<(Vec<u8>, Vec<u8>)>,
    client_ca: Option<Vec<u8>>,
    ca: Option<Vec<u8>>,
}

/// Configurations made of one content.
#[derive(Debug)]
pub(super) struct Material {
    pub(super) servers: Option<Servers>,
    pub(super) client: Arc<ClientConfig>,
    /// Name to be checked instead of the one that is dialled.
    pub(super) server_name: Option<ServerName<'static>>,
    /// When the own certificate ends, seconds since the Unix epoch.
    pub(super) expires: Option<u64>,
}

/// How ports are served.
#[derive(Debug)]
pub(super) struct Servers {
    /// As the files say.
    pub(super) grpc: Arc<ServerConfig>,
    pub(super) http: Arc<ServerConfig>,
    /// HTTP for callers who need not show a certificate.
    pub(super) open_http: Arc<ServerConfig>,
    /// Callers must show a certificate.
    pub(super) is_mutual: bool,
}

impl Files {
    /// Reads all of them.
    pub(super) fn read(&self) -> Result<Content, Error> {
        let bytes = |path: &PathBuf| {
            let mut bytes = Vec::new();
            let read = File::open(path).and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut bytes));
            read.map_err(|error| broken(path, format!("it cannot be read: {error}")))?;
            Ok::<_, Error>(bytes)
        };
        let both = |(cert, key): &(PathBuf, PathBuf)| Ok::<_, Error>((bytes(cert)?, bytes(key)?));
        Ok(Content {
            own: self.own.as_ref().map(both).transpose()?,
            client_ca: self.client_ca.as_ref().map(bytes).transpose()?,
            ca: self.ca.as_ref().map(bytes).transpose()?,
        })
    }

    /// Makes configurations of what was read.
    pub(super) fn make(&self, content: &Content) -> Result<Material, Error> {
        let own = self.own.as_ref().zip(content.own.as_ref());
        let own = own
            .map(|(files, bytes)| own_certificate(files, bytes))
            .transpose()?;
        let servers = own.as_ref().map(|own| self.servers(own, content)).transpose()?;
        let expires = own.as_ref().and_then(|own| certificate::expires(&own.chain[0]));
        let server_name = self.server_name.clone().map(|name| {
            ServerName::try_from(name.clone()).map_err(|_| Error::Config {
                setting: "--tls-server-name (MOBULA_TLS_SERVER_NAME)",
                value: name,
                why: "it is no DNS name and no address".to_owned(),
            })
        });
        Ok(Material {
            servers,
            client: Arc::new(self.client(own, content)?),
            server_name: server_name.transpose()?,
            expires,
        })
    }

    fn servers(&self, own: &Own, content: &Content) -> Result<Servers, Error> {
        let verifier = match (&self.client_ca, &content.client_ca) {
            (Some(path), Some(bytes)) => {
                let roots = Arc::new(authorities(path, bytes)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
                Some(
                    verifier
                        .build()
                        .map_err(|error| broken(path, error.to_string()))?,
                )
            }
            _ => None,
        };
        let is_mutual = verifier.is_some();
        let config = |verifier: Option<_>, alpn: &[&[u8]]| {
            let builder = ServerConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .map_err(|error| broken(&own.path, error.to_string()))?;
            let builder = match verifier {
                Some(verifier) => builder.with_client_cert_verifier(verifier),
                None => builder.with_no_client_auth(),
            };
            let mut config = builder
                .with_single_cert(own.chain.clone(), own.key.clone_key())
                .map_err(|error| broken(&own.path, format!("it does not go with its key: {error}")))?;
            config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
            Ok::<_, Error>(Arc::new(config))
        };
        Ok(Servers {
            grpc: config(verifier.clone(), &[H2])?,
            http: config(verifier, &[H2, HTTP1])?,
            open_http: config(None, &[H2, HTTP1])?,
            is_mutual,
        })
    }

    fn client(&self, own: Option<Own>, content: &Content) -> Result<ClientConfig, Error> {
        let roots = match (&self.ca, &content.ca) {
            (Some(path), Some(bytes)) => authorities(path, bytes)?,
            _ => of_system(),
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Tls {
                what: "TLS".to_owned(),
                why: error.to_string(),
            })?;
        // A system without authorities trusts nobody; that is told when somebody is dialled.
        let builder = if roots.is_empty() {
            builder.with_root_certificates(roots)
        } else {
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
            let verifier = verifier.build().map_err(|error| Error::Tls {
                what: "the trusted authorities".to_owned(),
                why: error.to_string(),
            })?;
            builder.with_webpki_verifier(verifier)
        };
        let mut config = match own {
            Some(own) => builder
                .with_client_auth_cert(own.chain, own.key)
                .map_err(|error| broken(&own.path, format!("it does not go with its key: {error}")))?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![H2.to_vec()];
        Ok(config)
    }
}

/// The certificate of this process.
struct Own {
    path: PathBuf,
    /// Never empty.
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

fn own_certificate(
    (cert, key): &(PathBuf, PathBuf),
    (chain, secret): &(Vec<u8>, Vec<u8>),
) -> Result<Own, Error> {
    Ok(Own {
        path: cert.clone(),
        chain: certificates(cert, chain)?,
        key: PrivateKeyDer::from_pem_slice(secret)
            .map_err(|error| broken(key, format!("it holds no private key in PEM: {error}")))?,
    })
}

fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let read = read.map_err(|error| broken(path, format!("it is no PEM: {error}")))?;
    if read.is_empty() {
        return Err(broken(path, "it holds no certificate in PEM".to_owned()));
    }
    Ok(read)
}

fn authorities(path: &Path, bytes: &[u8]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, bytes)? {
        let added = roots.add(certificate);
        added.map_err(|error| {
            broken(
                path,
                format!("a certificate in it is none of an authority: {error}"),
            )
        })?;
    }
    Ok(roots)
}

/// What the system trusts; what of it cannot be read is left out, as every other program of the system does.
fn of_system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn broken(path: &Path, why: String) -> Error {
    Error::Tls {
        what: path.display().to_string(),
        why,
    }
}
