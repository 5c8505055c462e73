//! The HTTP door: the pages on the kit's connections.

use std::sync::Arc;

use mobula_kit::{Stop, listen::Listener};
use tower::Layer as _;
use tower_http::cors::CorsLayer;

use super::{door, openai};
use crate::{metrics::Metrics, v2::Oip};

/// Serves until the stop is triggered and what was under way has ended, or until the drain's deadline.
pub(crate) async fn serve(
    listener: Listener,
    (metrics, openai, oip): (Arc<Metrics>, openai::Door, Oip),
    cors: Option<CorsLayer>,
    stop: Stop,
) {
    let app = door::app((metrics, openai, oip), stop.clone());
    let app = tower::util::option_layer(cors).layer(app);
    mobula_kit::http::serve(listener, app, stop).await;
}
