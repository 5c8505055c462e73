//! The admin port: `/metrics` for Prometheus, `/healthz` (the process answers), `/readyz` (200, or 503 with what is
//! waited for). Nothing here changes anything.

use std::time::Duration;

use axum::{Router, extract::State, http::StatusCode, routing::get};

use crate::{Error, Readiness, Stop, guests, http as door, listen::Listener, metrics};

/// How often histograms are folded: between scrapes they keep every sample.
const UPKEEP: Duration = Duration::from_secs(5);

/// Serves the admin pages. Returns when the stop is triggered; the pages stay up until [`Stop::wait`] is over, so that a
/// drain can be watched.
///
/// # Errors
/// None today; the signature is that of all servers.
pub async fn serve(listener: impl Into<Listener>, readiness: Readiness, stop: Stop) -> Result<(), Error> {
    let listener = listener.into();
    let handle = metrics::install();
    let pages = Router::new()
        .route(
            "/metrics",
            get({
                let handle = handle.clone();
                move || std::future::ready(page(metrics::render(&handle)))
            }),
        )
        .route("/healthz", get(|| std::future::ready("ok\n")))
        .route("/readyz", get(readyz))
        .with_state(readiness);
    // Never told to stop: what drops it is the end of the process's own.
    stop.spawn_aside(door::serve_to(
        guests::admin(),
        listener,
        pages,
        Stop::new(Duration::ZERO),
    ));
    stop.spawn_aside(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            handle.run_upkeep();
        }
    });
    stop.triggered().await;
    Ok(())
}

fn page(text: String) -> ([(http::HeaderName, &'static str); 1], String) {
    (
        [(
            http::header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    )
}

async fn readyz(State(readiness): State<Readiness>) -> (StatusCode, String) {
    if readiness.is_ready() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("waiting for: {}\n", readiness.waiting_for().join(", ")),
        )
    }
}
