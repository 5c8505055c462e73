//! grpc.health.v1 as the readiness of the service says: one answer for the server as a whole (the empty name) and for
//! each service that it has.
//!
//! Own and not tonic-health's, because that one calls the server SERVING before anybody said so, keeps watches open
//! while the server drains, and fails a watch for an unknown service where the protocol wants SERVICE_UNKNOWN.

use std::pin::Pin;

use futures::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server,
};

use crate::Readiness;

#[derive(Debug)]
pub(crate) struct Health {
    pub(crate) readiness: Readiness,
    /// All names that are answered for.
    pub(crate) services: Vec<&'static str>,
    /// Ends the watches, so that they do not hold up a drain.
    pub(crate) closing: CancellationToken,
}

impl Health {
    fn knows(&self, service: &str) -> bool {
        service.is_empty() || self.services.contains(&service)
    }
}

fn answer(readiness: &Readiness) -> HealthCheckResponse {
    let status = if readiness.is_ready() {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    HealthCheckResponse {
        status: status.into(),
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        // NOT_FOUND: the server has no service of this name.
        let service = &request.get_ref().service;
        if self.knows(service) {
            Ok(Response::new(answer(&self.readiness)))
        } else {
            Err(Status::not_found(format!("there is no service {service:?} here")))
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        // OK always; an unknown service is watched as SERVICE_UNKNOWN, since it may come.
        let known = self.knows(&request.get_ref().service);
        let (readiness, closing) = (self.readiness.clone(), self.closing.clone());
        let stream = futures::stream::unfold(None, move |last: Option<i32>| {
            let (readiness, closing) = (readiness.clone(), closing.clone());
            async move {
                loop {
                    let changed = readiness.changed();
                    let now = if known {
                        answer(&readiness)
                    } else {
                        HealthCheckResponse {
                            status: ServingStatus::ServiceUnknown.into(),
                        }
                    };
                    if last != Some(now.status) {
                        return Some((Ok(now), Some(now.status)));
                    }
                    tokio::select! {
                        biased;
                        () = closing.cancelled() => return None,
                        () = changed => {}
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }
}
