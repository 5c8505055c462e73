//! Ports and connections under TLS, over real sockets.

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{Extension, Router, routing::get};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};
use tonic::{Status, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use self::certs::{Authority, Pair};
use super::{
    live::{Found, Live},
    material::{Files, Use},
    *,
};
use crate::{Readiness, Stop, channel::Dial, grpc, http as door, listen, listen::Listener};

pub(crate) mod certs;
mod dialled;
mod reload;

const ANY: &str = "127.0.0.1:0";
const HOST: &[&str] = &["127.0.0.1", "localhost"];

/// A port with this certificate, which asks callers for one of `client_ca` if there is one.
fn live(pair: &Pair, client_ca: Option<PathBuf>) -> Arc<Live> {
    let files = Files {
        own: Some((pair.cert.clone(), pair.key.clone())),
        client_ca,
        ..Files::default()
    };
    Arc::new(Live::open(Use::Mesh, files).unwrap())
}

/// Who trusts `ca` and shows this certificate.
fn dial(ca: PathBuf, own: Option<&Pair>) -> Dial {
    let args = ClientArgs {
        tls_ca: Some(ca),
        tls_cert: own.map(|own| own.cert.clone()),
        tls_key: own.map(|own| own.key.clone()),
        tls_server_name: None,
    };
    Dial {
        tls: args.open().unwrap(),
        ..Dial::default()
    }
}

async fn bound(server: Option<Server>) -> (Listener, SocketAddr) {
    let listener = listen::bind("test", ANY.parse().unwrap())
        .await
        .unwrap()
        .over(server);
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A server that has nothing but what all have: health and reflection.
struct Port {
    address: SocketAddr,
    stop: Stop,
    serving: JoinHandle<()>,
}

impl Port {
    async fn grpc(server: Option<Server>) -> Self {
        let (listener, address) = bound(server).await;
        let stop = Stop::new(Duration::from_secs(5));
        let stopping = stop.clone();
        let serving = tokio::spawn(async move {
            let server = grpc::Server::new("test").notice(Duration::ZERO);
            server.serve(listener, Readiness::new(), stopping).await.unwrap();
        });
        Self {
            address,
            stop,
            serving,
        }
    }

    /// `/who` says whose certificate was shown.
    async fn http(server: Option<Server>) -> Self {
        let (listener, address) = bound(server).await;
        let stop = Stop::new(Duration::from_secs(5));
        let who = |secured: Option<Extension<Connection>>| async move {
            match secured {
                Some(Extension(Connection { peer: Some(names) })) => names.join(" "),
                Some(Extension(Connection { peer: None })) => "nobody".to_owned(),
                None => "plain".to_owned(),
            }
        };
        let app = Router::new().route("/who", get(who));
        let serving = tokio::spawn(door::serve(listener, app, stop.clone()));
        Self {
            address,
            stop,
            serving,
        }
    }

    async fn end(self) {
        self.stop.trigger();
        self.serving.await.unwrap();
    }
}

async fn check(channel: Channel) -> Result<(), Status> {
    let asked = HealthClient::new(channel)
        .check(HealthCheckRequest::default())
        .await;
    asked.map(|_| ())
}

/// What a person would read of a call that came to nothing.
fn told(status: &Status) -> String {
    crate::chain(status)
}

/// One request over HTTP/1.1 on a stream of whatever kind.
async fn ask(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) -> String {
    let request = b"GET /who HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    // A peer that closes without a word of TLS is an error to rustls, after everything was read.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Dials an HTTP port as curl does: no HTTP/2 is offered.
async fn ask_under_tls(address: SocketAddr, ca: PathBuf, own: Option<&Pair>) -> std::io::Result<String> {
    let files = Files {
        own: own.map(|own| (own.cert.clone(), own.key.clone())),
        ca: Some(ca),
        ..Files::default()
    };
    let content = files.read().unwrap();
    let mut config = (*files.make(&content).unwrap().client).clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let stream = connector
        .connect(name, TcpStream::connect(address).await?)
        .await?;
    Ok(ask(stream).await)
}

#[tokio::test]
async fn a_call_under_tls_is_answered() {
    let authority = Authority::new();
    let port = Port::grpc(Some(Server::new(
        live(&authority.issue("port", HOST), None),
        true,
    )))
    .await;
    let dial = dial(authority.ca(), None);
    for address in [
        port.address.to_string(),
        format!("https://localhost:{}", port.address.port()),
    ] {
        check(dial.lazy(&address).unwrap()).await.unwrap();
    }
    port.end().await;
}

#[tokio::test]
async fn a_plain_call_to_a_tls_port_is_told_what_the_port_speaks() {
    let authority = Authority::new();
    let server = Server::new(live(&authority.issue("port", HOST), None), true);
    let port = Port::grpc(Some(server.clone())).await;
    let refused = check(crate::channel::lazy(&port.address.to_string()).unwrap()).await;
    let text = told(&refused.unwrap_err());
    assert!(text.contains("this port speaks TLS"), "{text}");
    port.end().await;

    let port = Port::http(Some(server)).await;
    let answer = ask(TcpStream::connect(port.address).await.unwrap()).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("this port speaks TLS"), "{answer}");
    port.end().await;
}

#[tokio::test]
async fn tls_to_a_plain_port_is_told_that_the_port_is_plain() {
    let authority = Authority::new();
    let dial = dial(authority.ca(), None);
    for port in [Port::http(None).await, Port::grpc(None).await] {
        let refused = check(dial.lazy(&port.address.to_string()).unwrap()).await;
        let text = told(&refused.unwrap_err());
        let says = text.contains("does not speak TLS") || text.contains("may speak no TLS");
        assert!(says, "{text}");
        port.end().await;
    }
}

#[tokio::test]
async fn a_port_that_asks_for_certificates_takes_who_has_one_and_knows_its_names() {
    let authority = Authority::new();
    let own = authority.issue("port", HOST);
    let caller = authority.issue("caller", &["worker-1.mesh", "10.1.2.3"]);
    let server = Server::new(live(&own, Some(authority.ca())), true);
    assert!(server.is_mutual());

    let port = Port::http(Some(server.clone())).await;
    let answer = ask_under_tls(port.address, authority.ca(), Some(&caller))
        .await
        .unwrap();
    assert!(answer.ends_with("worker-1.mesh 10.1.2.3"), "{answer}");
    let answer = ask_under_tls(port.address, authority.ca(), None).await;
    assert!(!answer.is_ok_and(|answer| answer.contains("200 OK")));
    port.end().await;

    let port = Port::http(Some(server.clone().for_anybody())).await;
    let answer = ask_under_tls(port.address, authority.ca(), None).await.unwrap();
    assert!(answer.ends_with("nobody"), "{answer}");
    port.end().await;

    let port = Port::grpc(Some(server)).await;
    let address = port.address.to_string();
    check(dial(authority.ca(), Some(&caller)).lazy(&address).unwrap())
        .await
        .unwrap();
    let strangers = Authority::new();
    for (own, says) in [
        (None, "demands a certificate"),
        (
            Some(strangers.issue("stranger", &["worker-1.mesh"])),
            "does not trust the certificate",
        ),
        (
            Some(authority.issue_until("ended", &["worker-1.mesh"], 2001)),
            "has ended",
        ),
    ] {
        let refused = check(dial(authority.ca(), own.as_ref()).lazy(&address).unwrap()).await;
        let text = told(&refused.unwrap_err());
        assert!(text.contains(says), "{says}: {text}");
    }
    port.end().await;
}

#[tokio::test(start_paused = true)]
async fn who_does_not_shake_hands_is_given_up_and_holds_up_nobody() {
    let authority = Authority::new();
    let port = Port::grpc(Some(Server::new(
        live(&authority.issue("port", HOST), None),
        true,
    )))
    .await;
    let mut silent = TcpStream::connect(port.address).await.unwrap();
    let mut halfway = TcpStream::connect(port.address).await.unwrap();
    // The head of a record of 512 bytes, and nothing of them.
    halfway.write_all(&[22, 3, 1, 2, 0]).await.unwrap();
    for stream in [&mut silent, &mut halfway] {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.len() < 16, "an alert at most: {rest:?}");
    }
    port.end().await;
}

#[tokio::test]
async fn rubbish_in_place_of_a_handshake_ends_that_connection_alone() {
    let authority = Authority::new();
    let port = Port::grpc(Some(Server::new(
        live(&authority.issue("port", HOST), None),
        true,
    )))
    .await;
    let rubbish: [&[u8]; 4] = [
        &[22, 3, 1, 0, 4, 9, 9, 9, 9],
        &[22, 255, 255, 255, 255, 0],
        &[128, 46, 1, 3, 1],
        b"PROPFIND / HTTP/1.1\r\n\r\n",
    ];
    for bytes in rubbish {
        let mut stream = TcpStream::connect(port.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    check(
        dial(authority.ca(), None)
            .lazy(&port.address.to_string())
            .unwrap(),
    )
    .await
    .unwrap();
    port.end().await;
}
