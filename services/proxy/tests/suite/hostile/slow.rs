//! Callers that hold what they have and do nothing with it.

use std::net::SocketAddr;

use mobula_hostile::heads;

use super::{mesh, still_serves};
use crate::support::{Mesh, Worker};

async fn until_ended(mesh: &Mesh, address: SocketAddr, says: &[u8]) -> String {
    crate::support::until_ended(address, says, still_serves(mesh)).await
}

#[tokio::test]
async fn who_says_nothing_or_half_a_head_is_let_go_of() {
    let worker = Worker::start("a").await;
    let mesh = mesh(&worker).await;
    for address in [mesh.http, mesh.grpc] {
        for says in heads::halves() {
            until_ended(&mesh, address, says).await;
        }
    }
    still_serves(&mesh).await;
}

#[tokio::test]
async fn a_connection_that_is_kept_alive_for_nothing_is_let_go_of() {
    let worker = Worker::start("a").await;
    let mesh = mesh(&worker).await;
    let told = until_ended(&mesh, mesh.http, b"GET /-/healthz HTTP/1.1\r\nhost: a\r\n\r\n").await;
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
        let told = until_ended(&mesh, mesh.http, says.as_bytes()).await;
        assert!(told.starts_with("HTTP/1.1 408"), "{path}: {told}");
    }
    assert!(worker.requests().len() <= 6, "only what was asked beside");
}
