//! Callers that hold what they have and do nothing with it. Time is stopped once all is set up: it goes on by itself to the next
//! thing that is due whenever nothing else happens.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{mesh, still_serves};
use crate::support::{Mesh, Worker};

/// Opens connections that say so much, and waits until they are ended; gives what they were told.
async fn until_ended(mesh: &Mesh, is_grpc: bool, says: &[u8]) -> String {
    let address = if is_grpc { mesh.grpc } else { mesh.http };
    let mut held = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(says).await.unwrap();
        held.push(stream);
    }
    still_serves(mesh).await;
    tokio::time::pause();
    let mut told = Vec::new();
    for mut stream in held {
        told.clear();
        // Cut off or closed, it has ended.
        let _ = stream.read_to_end(&mut told).await;
    }
    tokio::time::resume();
    String::from_utf8_lossy(&told).into_owned()
}

#[tokio::test]
async fn who_says_nothing_or_half_a_head_is_let_go_of() {
    let worker = Worker::start("a").await;
    let mesh = mesh(&worker).await;
    for is_grpc in [false, true] {
        for says in [
            &b""[..],
            b"P",
            b"PRI * HTTP/2.0\r\n\r\nSM",
            b"GET /imagine?prompt=a HT",
            b"GET /imagine?prompt=a HTTP/1.1\r\nhost: a\r\nx-a: ",
        ] {
            until_ended(&mesh, is_grpc, says).await;
        }
    }
    still_serves(&mesh).await;
}

#[tokio::test]
async fn a_connection_that_is_kept_alive_for_nothing_is_let_go_of() {
    let worker = Worker::start("a").await;
    let mesh = mesh(&worker).await;
    let told = until_ended(&mesh, false, b"GET /-/healthz HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(told.starts_with("HTTP/1.1 200"), "{told}");
}

#[tokio::test]
async fn a_body_that_never_ends_is_told_so_in_time() {
    let worker = Worker::start("a").await;
    let mesh = mesh(&worker).await;
    for (path, more) in [
        ("GET /imagine?prompt=a", ""),
        (
            "POST /v1/images/generations",
            "content-type: application/json\r\n",
        ),
        (
            "POST /v1/images/edits",
            "content-type: multipart/form-data; boundary=b\r\n",
        ),
    ] {
        let says = format!(
            "{path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{more}content-length: 1000\r\n\r\n{{"
        );
        let told = until_ended(&mesh, false, says.as_bytes()).await;
        assert!(told.starts_with("HTTP/1.1 408"), "{path}: {told}");
    }
    assert!(worker.requests().len() <= 6, "only what was asked beside");
}
