//! Connections that are one too many, over real sockets. Limits are a process's: every test has its own.

use std::net::SocketAddr;

use mobula_kit::{Connections, Stop, limit_connections};
use tokio::{io::AsyncReadExt as _, net::TcpStream};

use crate::common::{GRACE, ask, client, serve};

/// True when the other side lets go of a new connection without a word.
async fn is_refused(address: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // An HTTP/2 server speaks only after its client.
    let mut byte = [0];
    tokio::select! {
        read = stream.read(&mut byte) => !matches!(read, Ok(1..)),
        () = tokio::time::sleep(GRACE) => false,
    }
}

#[tokio::test]
async fn who_comes_when_all_places_are_taken_is_let_go_of_and_a_place_is_free_again_when_somebody_leaves() {
    limit_connections(Connections { all: 2, each: None });
    let server = serve(Stop::new(GRACE), None).await;
    let first = TcpStream::connect(server.address).await.unwrap();
    let mut second = client(server.address);
    second.get_status(ask("answer")).await.unwrap();
    assert!(is_refused(server.address).await);
    second.get_status(ask("answer")).await.unwrap();
    drop(first);
    let mut third = client(server.address);
    while third.get_status(ask("answer")).await.is_err() {}
}

#[tokio::test]
async fn one_address_has_no_more_places_than_it_may() {
    let each = Some(1);
    limit_connections(Connections { all: 100, each });
    let server = serve(Stop::new(GRACE), None).await;
    let mut first = client(server.address);
    first.get_status(ask("answer")).await.unwrap();
    assert!(is_refused(server.address).await);
    first.get_status(ask("answer")).await.unwrap();
}
