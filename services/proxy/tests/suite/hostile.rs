//! Callers that mean harm, or are broken: nothing they do stops the proxy, costs more memory than it may, keeps a place, or is
//! answered as if it were the server's fault.

mod bodies;
mod frames;
mod slow;

use std::net::SocketAddr;

use mobula_proxy::Config;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{Mesh, Worker, get, prompt, soon};

async fn mesh(worker: &Worker) -> Mesh {
    let config = Config {
        no_replica_timeout_s: 10.0,
        ..Config::default()
    };
    Mesh::start(config, &[worker], 4).await
}

/// The proxy serves others as if nothing had been.
async fn still_serves(mesh: &Mesh) {
    assert!(!mesh.all(prompt(|_| ())).await.unwrap().is_empty());
    assert_eq!(get(mesh.http, "/imagine?prompt=a").await.status, 200);
}

/// Sends bytes as far as they are taken, and gives what comes back until the other side has closed. Whoever is cut off while
/// it still sends may see a broken connection; that is an end too.
async fn send(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
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
        let _ = write.write_all(bytes).await;
        // Half-closed: what was sent is all there is.
        let _ = write.shutdown().await;
    };
    soon("the end", async { tokio::join!(reading, writing) }).await;
    answer
}
