//! A proxy on real sockets with a controller, a preprocess worker and inference workers made of a few lines each.

mod http;
mod mesh;
mod preprocess;
mod workers;

use std::time::Duration;

pub(crate) use http::{Answered, call, get};
pub(crate) use mesh::{Mesh, images, model, names, of, prompt};
pub(crate) use preprocess::{broken_png, encoded, pixels, png};
pub(crate) use workers::{Act, Worker, latents, picture};

/// Longer than anything here takes, shorter than the test runner's patience.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what} did not happen"))
}
