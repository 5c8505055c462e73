//! Ray Serve's own gRPC service beside ours: its clients, and probes that were written for it, ask for health and names.
//!
//! It refuses when `/-/healthz` of the HTTP door does, in the same words of Ray's.

use mobula_kit::Stop;
use mobula_proto::ray::serve::{
    HealthzRequest, HealthzResponse, ListApplicationsRequest, ListApplicationsResponse,
    ray_serve_api_service_server::RayServeApiService,
};
use tonic::{Request, Response, Status};

use crate::{caller::Caller, generate::Generator, table::Table};

/// Ray's words while a proxy drains.
pub(crate) const DRAINING: &str = "This node is being drained.";
/// Ray's words before the controller was heard.
pub(crate) const NO_ROUTES: &str = "Route table is not populated yet.";

/// The service.
#[derive(Debug)]
pub(crate) struct RayApi {
    pub(crate) generator: Generator,
    pub(crate) stop: Stop,
}

impl RayApi {
    /// Why nothing should be sent here, if so.
    fn refuse(&self, table: &Table) -> Result<(), Status> {
        match () {
            () if self.stop.is_triggered() => Err(Status::unavailable(DRAINING)),
            () if !table.is_populated => Err(Status::unavailable(NO_ROUTES)),
            () => Ok(()),
        }
    }
}

#[tonic::async_trait]
impl RayServeApiService for RayApi {
    async fn list_applications(
        &self,
        request: Request<ListApplicationsRequest>,
    ) -> Result<Response<ListApplicationsResponse>, Status> {
        // UNAVAILABLE: the proxy drains, or the controller was never heard. UNAUTHENTICATED: a key that is not known; without
        // one nothing is named where there are keys.
        let table = self.generator.table();
        self.refuse(&table)?;
        let (keys, caller) = (self.generator.keys(), Caller::of(request.extensions()));
        let names = table.applications().iter().map(|application| &application.name);
        let names = names.filter(|name| keys.names(&caller, name)).cloned();
        let mut application_names: Vec<String> = names.collect();
        application_names.sort_unstable();
        Ok(Response::new(ListApplicationsResponse { application_names }))
    }

    async fn healthz(&self, _: Request<HealthzRequest>) -> Result<Response<HealthzResponse>, Status> {
        // UNAVAILABLE: the proxy drains, or the controller was never heard.
        self.refuse(&self.generator.table())?;
        let message = "success".to_owned();
        Ok(Response::new(HealthzResponse { message }))
    }
}
