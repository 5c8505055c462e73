//! The REST door, on Ray's port 8265: Ray Serve's paths with Ray's shapes, and what Ray has not.
//!
//! | path | does |
//! | --- | --- |
//! | `GET PUT DELETE /api/serve/applications/` | as Ray: status of everything, a whole config, everything away |
//! | `GET PUT DELETE /api/serve/applications/{name}` | one application; `ETag` is its resource version, `If-Match` the one expected |
//! | `GET /api/serve/config`, `…/{name}/config` | what was accepted last |
//! | `POST /api/serve/check` | what is made of a config, and what it would change |
//! | `GET /api/serve/history`, `POST /api/serve/rollback` | what was accepted, and back to it |
//! | `GET …/{name}/deployments/{deployment}/decisions?limit=` | what its scaler decided, and why; restarts included |
//! | `GET /api/serve/explain?replica_id=` … | why it is as it is |
//! | `POST /api/v1/applications/{app}/deployments/{deployment}/scale` | as Ray, and below `/api/serve/applications/` too |
//! | `GET /api/ray/version`, `GET /api/version` | what Ray's own `serve` command asks first |
//!
//! What Ray's `serve` reads has Ray's fields and no other; `?all=true` on it gives Mobula's too. Bodies are JSON or YAML.
//! `?dry_run=true` changes nothing and answers with what would change. `If-Match: "0"` and `If-None-Match: *` put only what is not
//! there yet. Who calls is let in by a token, or by where the port is (`mobula_kit::guard`). It decides nothing itself: the ledger does. Every answer is bounded in time, every body in size.

mod answer;
mod asked;
mod body;
mod changes;
mod details;
mod pages;
#[cfg(test)]
mod tests;

use std::time::Duration;

use axum::{
    Router,
    routing::{get, post},
};
use mobula_kit::{Stop, guard::Guard, listen::Listener};

use crate::{intent::Ledger, owner::Handle};

/// An answer comes from memory, or after one write to the disk.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What the pages need.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) ledger: Ledger,
    pub(crate) handle: Handle,
    /// `host:port` where this door is reached, for Ray's `controller_info`.
    pub(crate) address: String,
}

/// Serves who is let in, until the stop is triggered and what was under way has ended.
pub(crate) async fn serve(listener: Listener, (door, guard): (Door, Guard), stop: Stop) {
    let app = app(door).layer(axum::middleware::from_fn_with_state(guard, answer::let_in));
    mobula_kit::http::serve(listener, app, stop).await;
}

fn app(door: Door) -> Router {
    Router::new()
        .route(
            "/api/serve/applications/",
            get(pages::status).put(pages::deploy).delete(pages::delete_all),
        )
        .route(
            "/api/serve/applications",
            get(pages::status).put(pages::deploy).delete(pages::delete_all),
        )
        .route(
            "/api/serve/applications/{name}",
            get(pages::application).put(pages::put).delete(pages::delete),
        )
        .route("/api/serve/applications/{name}/config", get(pages::config_of))
        .route(
            "/api/serve/applications/{name}/deployments/{deployment}/scale",
            post(pages::scale),
        )
        .route(
            "/api/serve/applications/{name}/deployments/{deployment}/decisions",
            get(pages::decisions),
        )
        .route(
            "/api/v1/applications/{name}/deployments/{deployment}/scale",
            post(pages::scale),
        )
        .route("/api/serve/config", get(pages::config))
        .route("/api/serve/check", post(pages::check))
        .route("/api/serve/history", get(pages::history))
        .route("/api/serve/rollback", post(pages::rollback))
        .route("/api/serve/explain", get(pages::explain))
        .route("/api/ray/version", get(pages::version))
        .route("/api/version", get(pages::version))
        .fallback(pages::no_page)
        .layer(axum::middleware::from_fn(answer::in_time))
        .layer(axum::middleware::from_fn(body::whole))
        .with_state(door)
}
