//! `ServeService`: what people and their tools say to the controller.

use mobula_proto::control::v1::{self as pb, serve_service_server::ServeService};
use tonic::{Request, Response, Status};

use crate::owner::Handle;

/// The service.
#[derive(Debug)]
pub(crate) struct Serve {
    pub(crate) handle: Handle,
}

#[tonic::async_trait]
impl ServeService for Serve {
    // UNAVAILABLE: stopping.
    async fn get_status(
        &self,
        _: Request<pb::GetStatusRequest>,
    ) -> Result<Response<pb::GetStatusResponse>, Status> {
        Ok(Response::new(self.handle.status().await?))
    }
}
