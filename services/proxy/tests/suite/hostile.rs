//! Callers that mean harm, or are broken: nothing they do stops the proxy, costs more memory than it may, keeps a place, or is
//! answered as if it were the server's fault.

mod bodies;
mod frames;
mod slow;

use mobula_proxy::Config;

use crate::support::{Mesh, Worker, get, prompt};

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
