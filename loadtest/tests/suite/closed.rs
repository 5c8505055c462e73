//! A closed mesh: certificates on both sides and an API key with every request, before servers of tonic and axum.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use mobula_proto::image::v1::image_service_server::ImageServiceServer;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Status};

use crate::others::{AS_TOLD, Strict, imagine};
use crate::support::{report, run};

const KEY: &str = "Bearer key-of-alice";

/// An authority's certificate, one of a server of the name `mesh`, and one of a caller, as files.
struct Certificates {
    folder: TempDir,
}

impl Certificates {
    fn new() -> Self {
        let all = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).unwrap();
        std::fs::write(all.file("ca"), authority.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        for (name, usage) in [
            ("mesh", ExtendedKeyUsagePurpose::ServerAuth),
            ("alice", ExtendedKeyUsagePurpose::ClientAuth),
        ] {
            let mut params = CertificateParams::new([name.to_owned()]).unwrap();
            params.extended_key_usages = vec![usage];
            let key = KeyPair::generate().unwrap();
            let signed = params.signed_by(&key, &issuer).unwrap();
            std::fs::write(all.file(name), signed.pem()).unwrap();
            std::fs::write(all.file(&format!("{name}-key")), key.serialize_pem()).unwrap();
        }
        all
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.pem"))
    }

    /// Takes connections of callers with a certificate, passes their bytes to `behind`, and says which protocol was agreed on.
    async fn front(&self, behind: SocketAddr, protocol: &'static [u8]) -> SocketAddr {
        let read = |path: &Path| CertificateDer::from_pem_file(path).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(read(&self.file("ca"))).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(
                vec![read(&self.file("mesh"))],
                PrivateKeyDer::from_pem_file(self.file("mesh-key")).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![protocol.to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut caller) = acceptor.accept(stream).await else {
                        return;
                    };
                    assert_eq!(caller.get_ref().1.alpn_protocol(), Some(protocol));
                    let mut server = TcpStream::connect(behind).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut caller, &mut server).await;
                });
            }
        });
        address
    }
}

#[allow(clippy::result_large_err, reason = "tonic's own signature")]
fn keyed(request: Request<()>) -> Result<Request<()>, Status> {
    match request.metadata().get("authorization") {
        Some(key) if key == KEY => Ok(request),
        _ => Err(Status::unauthenticated("no key")),
    }
}

async fn grpc() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = ImageServiceServer::with_interceptor(Strict, keyed);
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

async fn http() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let check = |headers: HeaderMap, request: axum::extract::Request, next: Next| async move {
        match headers.get("authorization") {
            Some(key) if key == KEY => Ok(next.run(request).await),
            _ => Err(StatusCode::UNAUTHORIZED),
        }
    };
    let app = axum::Router::new()
        .route("/imagine", axum::routing::get(imagine))
        .layer(middleware::from_fn(check));
    tokio::spawn(axum::serve(listener, app).into_future());
    address
}

#[tokio::test]
async fn a_closed_mesh_is_loaded_with_certificate_and_key_at_both_doors() {
    let certificates = Certificates::new();
    let path = |name: &str| certificates.file(name).to_str().unwrap().to_owned();
    let [ca, cert, key] = ["ca", "alice", "alice-key"].map(path);
    let grpc = certificates.front(grpc().await, b"h2").await;
    let http = certificates.front(http().await, b"http/1.1").await;
    for target in [format!("grpcs://{grpc}"), format!("https://{http}")] {
        let secure = ["--target", &target, "--tls-ca", &ca, "--tls-server-name", "mesh"];
        let shown = ["--tls-cert", &cert, "--tls-key", &key];
        let all = [&secure[..], &shown, &["--api-key", "key-of-alice"], &AS_TOLD].concat();
        let (outcome, report) = report(&all).await;
        let good = report["counts"]["good"].as_u64();
        assert!(outcome.passed && good > Some(0), "{target}: {}", outcome.text);
        assert!(!outcome.text.contains("key-of-alice") && !report.to_string().contains("key-of-alice"));

        // Without the key it is a mesh that refuses; without a certificate, or with a name that is not in it, none at all.
        let keyless = run(&[&secure[..], &shown, &AS_TOLD].concat()).await;
        let why = keyless.unwrap_err().to_string();
        assert!(why.contains("401") || why.contains("Unauthenticated"), "{why}");
        assert!(run(&[&secure[..], &AS_TOLD].concat()).await.is_err());
        let nameless = run(&[&secure[..4], &shown, &AS_TOLD].concat()).await;
        let why = nameless.unwrap_err().to_string();
        assert!(why.contains("TLS") && why.contains("127.0.0.1"), "{why}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_or_makes_no_sense_is_told_before_the_load() {
    let certificates = Certificates::new();
    let ca = certificates.file("ca").to_str().unwrap().to_owned();
    let empty = certificates.file("empty").to_str().unwrap().to_owned();
    std::fs::write(&empty, "nothing").unwrap();
    let told = async |arguments: &[&str]| {
        let failed = run(&[arguments, &["--callers", "1"]].concat()).await.unwrap_err();
        let source = std::error::Error::source(&failed).map(ToString::to_string);
        format!("{failed} {}", source.unwrap_or_default())
    };
    let plain = told(&["--target", "127.0.0.1:1", "--tls-ca", &ca]).await;
    assert!(plain.contains("grpcs://"), "{plain}");
    let none = told(&["--target", "grpcs://127.0.0.1:1", "--tls-ca", &empty]).await;
    assert!(
        none.contains("empty.pem") && none.contains("no certificate"),
        "{none}"
    );
    let missing = told(&["--target", "grpcs://127.0.0.1:1", "--tls-ca", "/nowhere.pem"]).await;
    assert!(missing.contains("/nowhere.pem"), "{missing}");
    let name = told(&[
        "--target",
        "grpcs://127.0.0.1:1",
        "--tls-ca",
        &ca,
        "--tls-server-name",
        "a b",
    ])
    .await;
    assert!(name.contains("tls-server-name"), "{name}");
    let key = told(&["--target", "127.0.0.1:1", "--api-key", "a\nb"]).await;
    assert!(key.contains("api-key") && !key.contains("a\nb"), "{key}");
}
