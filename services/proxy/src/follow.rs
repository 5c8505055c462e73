//! Follows the controller's route tables, and goes on with the last one while the controller is away.
//!
//! Invariant: the proxy is ready once it has a table, and never becomes unready for want of a controller.

use std::{convert::Infallible, sync::Arc, time::Duration};

use mobula_kit::{
    Backoff, Error, Latch,
    channel::{Dial, Link},
};
use mobula_proto::control::v1::{
    WatchRoutesRequest, WatchRoutesResponse, control_service_client::ControlServiceClient,
};
use tokio::time::Instant;
use tonic::Status;

use crate::{metrics::Metrics, table::Fleet};

/// First wait before the controller is dialled again.
pub(crate) const REDIAL_FIRST: Duration = Duration::from_millis(50);
/// Longest wait: a controller that comes back is heard within a second.
pub(crate) const REDIAL_LAST: Duration = Duration::from_secs(1);

/// The follower and what it owns.
pub(crate) struct Follower {
    client: ControlServiceClient<Link>,
    request: WatchRoutesRequest,
    fleet: Arc<Fleet>,
    metrics: Arc<Metrics>,
    latch: Option<Latch>,
    last: Option<WatchRoutesResponse>,
    /// The controller is heard.
    heard: bool,
    /// It was said that the controller was never heard.
    complained: bool,
}

impl Follower {
    /// Will follow the controller at `address`, dialled as said, and release `latch` with the first table.
    pub(crate) fn new(
        (address, dial): (&str, &Dial),
        request: WatchRoutesRequest,
        fleet: Arc<Fleet>,
        metrics: Arc<Metrics>,
        latch: Latch,
    ) -> Result<Self, Error> {
        let client = ControlServiceClient::new(dial.link(address)?)
            .max_decoding_message_size(mobula_kit::grpc::MAX_MESSAGE_BYTES);
        Ok(Self {
            client,
            request,
            fleet,
            metrics,
            latch: Some(latch),
            last: None,
            heard: false,
            complained: false,
        })
    }

    /// Follows for ever. A draining proxy goes on following: a replica that is lost then is still placed again.
    pub(crate) async fn run(mut self) -> Infallible {
        let mut backoff = Backoff::new(REDIAL_FIRST, REDIAL_LAST);
        loop {
            let status = self.watch(&mut backoff).await;
            self.metrics.controller.set(0.0);
            self.fleet.unheard();
            // Once per loss, not once per attempt.
            if std::mem::take(&mut self.heard) || !std::mem::replace(&mut self.complained, true) {
                let why = status.message();
                tracing::warn!(
                    why,
                    "the controller is not heard; serving from the last route table"
                );
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    async fn watch(&mut self, backoff: &mut Backoff) -> Status {
        let mut tables = match self.client.watch_routes(self.request.clone()).await {
            Ok(response) => response.into_inner(),
            Err(status) => return status,
        };
        let mut again = None;
        loop {
            let adopted = async {
                match again {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                table = tables.message() => match table {
                    Ok(Some(table)) => {
                        backoff.reset();
                        self.metrics.controller.set(1.0);
                        if !std::mem::replace(&mut self.heard, true) {
                            tracing::info!(controller = table.controller_id, "the controller is heard");
                        }
                        again = self.take(table);
                    }
                    Ok(None) => return Status::unavailable("the controller ended the stream"),
                    Err(status) => return status,
                },
                () = adopted => again = self.last.clone().and_then(|last| self.take(last)),
            }
        }
    }

    fn take(&mut self, table: WatchRoutesResponse) -> Option<Instant> {
        tracing::debug!(
            version = table.version,
            controller = table.controller_id,
            "route table"
        );
        self.metrics.table.set(table.version as f64);
        let left = self.fleet.apply(&table);
        self.last = Some(table);
        if let Some(latch) = self.latch.take() {
            latch.release();
        }
        left.map(|left| Instant::now() + left)
    }
}
