//! Connections that say something and do something else than a client would.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::soon;

/// Sends bytes as far as they are taken, half-closes, and gives what comes back until the other side has closed. Whoever is
/// cut off while it still sends may see a broken connection; that is an end too.
///
/// # Panics
/// When nobody listens, or no end comes soon.
pub async fn send(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    send_again(address, bytes, &[], 0).await
}

/// Sends bytes, and more behind them again and again, as [`send`] does.
///
/// # Panics
/// As [`send`].
pub async fn send_again(address: SocketAddr, first: &[u8], again: &[u8], times: usize) -> Vec<u8> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let mut answer = Vec::new();
    let reading = async {
        let mut piece = vec![0; 4096];
        while let Ok(length @ 1..) = read.read(&mut piece).await {
            answer.extend_from_slice(&piece[..length]);
        }
    };
    let writing = async {
        let mut written = write.write_all(first).await;
        for _ in 0..times {
            if written.is_err() {
                break;
            }
            written = write.write_all(again).await;
        }
        // Half-closed: what was sent is all there is.
        let _ = write.shutdown().await;
    };
    soon("the end", async { tokio::join!(reading, writing) }).await;
    answer
}

/// Opens twenty connections that say so much, does something else meanwhile, and waits until they are ended; gives what the
/// last was told. Time is stopped then: it goes on by itself to the next thing that is due whenever nothing else happens.
///
/// # Panics
/// When nobody listens.
pub async fn until_ended(address: SocketAddr, says: &[u8], meanwhile: impl Future<Output = ()>) -> String {
    let mut held = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(says).await.unwrap();
        held.push(stream);
    }
    meanwhile.await;
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

/// Opens so many connections and holds those that were let in; gives them, and how many were not.
///
/// # Panics
/// When nobody listens, or it does not say soon which they are.
pub async fn flood(address: SocketAddr, connections: usize) -> (Vec<TcpStream>, usize) {
    let (mut held, mut refused) = (Vec::new(), 0);
    for _ in 0..connections {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // Whoever is let in hears nothing before it has asked; whoever is not hears the end.
        let asked = stream
            .write_all(b"GET /-/nowhere HTTP/1.1\r\nhost: a\r\n\r\n")
            .await;
        let mut told = [0; 4096];
        let told = soon("an answer or an end", stream.read(&mut told)).await;
        match (asked, told) {
            (Ok(()), Ok(1..)) => held.push(stream),
            _ => refused += 1,
        }
    }
    (held, refused)
}

/// Pours a block of bytes into a connection, again and again, behind its beginning, and never reads an answer; comes to its
/// end when the other side ends the connection.
///
/// # Panics
/// When so much is taken that it must be held somewhere.
pub async fn pour(address: SocketAddr, begins: &[u8], block: &[u8]) {
    const BLOCKS: usize = 1_000;
    let mut stream = TcpStream::connect(address).await.unwrap();
    if stream.write_all(begins).await.is_err() {
        return;
    }
    // Taken until the answers fill the way back, and then not any more.
    for _ in 0..BLOCKS {
        if stream.write_all(block).await.is_err() {
            return;
        }
    }
    panic!(
        "{BLOCKS} blocks of {} bytes were taken without an answer being read",
        block.len()
    );
}
