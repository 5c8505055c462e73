//! One connection from its first byte to its end, whatever it carries.

use std::{error::Error, pin::pin, time::Duration};

use hyper_util::server::graceful::GracefulConnection;
use tokio_util::sync::CancellationToken;

use crate::Stop;

/// Serves a connection: until its peer leaves, or is `silent`; or, draining, until its calls are over; or until the deadline.
pub(crate) async fn serve<C>(
    connection: C,
    silent: impl Future<Output = ()>,
    closing: &CancellationToken,
    stop: &Stop,
) where
    C: GracefulConnection<Error = Box<dyn Error + Send + Sync>>,
{
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => Some(ended),
        () = closing.cancelled() => None,
        () = silent => return,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                biased;
                ended = connection => ended,
                () = stop.expired() => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error, "a connection broke");
    }
}

/// Comes to its end when a peer has not `said` by the limit what it has to; else never.
pub(crate) async fn silent(said: CancellationToken, limit: Duration) {
    if tokio::time::timeout(limit, said.cancelled_owned()).await.is_ok() {
        std::future::pending::<()>().await;
    }
}
