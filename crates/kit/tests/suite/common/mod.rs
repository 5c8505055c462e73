//! A service for tests: Mobula's own contracts, answered as the request's metadata says.

use std::{net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use mobula_kit::{Deadline, Error, Readiness, Stop, channel, grpc, listen, status, trace, web::Origins};
use mobula_proto::control::v1::{
    self as pb, AttachRequest, AttachResponse, GetStatusRequest, GetStatusResponse, WatchRoutesRequest,
    WatchRoutesResponse,
    control_service_server::{ControlService, ControlServiceServer},
    serve_service_client::ServeServiceClient,
    serve_service_server::{ServeService, ServeServiceServer},
};
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinHandle,
};
use tonic::{
    Code, Request, Response, Status, Streaming, codec::CompressionEncoding::Gzip, transport::Channel,
};

pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// Bytes of an answer that no window of a client's holds.
pub(crate) const LARGE: usize = 4 << 20;

/// What the tests and the handlers share.
#[derive(Debug)]
pub(crate) struct Knobs {
    /// Told when a handler begins.
    pub(crate) begun: Notify,
    /// Told when a handler that never ends was dropped.
    pub(crate) dropped: Arc<Notify>,
    /// One permit lets a stream give one item.
    pub(crate) items: Semaphore,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            begun: Notify::new(),
            dropped: Arc::default(),
            items: Semaphore::new(0),
        }
    }
}

struct Bell(Arc<Notify>);

impl Drop for Bell {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[derive(Clone)]
pub(crate) struct Probe {
    pub(crate) knobs: Arc<Knobs>,
    /// Where `forward` sends.
    pub(crate) next: Option<SocketAddr>,
}

#[tonic::async_trait]
impl ServeService for Probe {
    async fn get_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        self.knobs.begun.notify_one();
        let what = request
            .metadata()
            .get("x-do")
            .map(|what| what.to_str().unwrap().to_owned());
        match what.as_deref() {
            Some("panic") => panic!("handler bug"),
            Some("full") => Err(status::retryable(
                Code::ResourceExhausted,
                "REPLICA_FULL",
                "full",
                Duration::from_secs(3),
            )),
            Some("large") => Ok(Response::new(GetStatusResponse {
                version: "v".repeat(LARGE),
                ..Default::default()
            })),
            Some("hang") => {
                let _bell = Bell(self.knobs.dropped.clone());
                std::future::pending().await
            }
            Some("deadline") => {
                let left = Deadline::of(&request).map(|deadline| deadline.remaining());
                let uptime_ms = left.map_or(0, |left| left.as_millis().try_into().unwrap());
                Ok(Response::new(GetStatusResponse {
                    uptime_ms,
                    ..Default::default()
                }))
            }
            Some("forward") => {
                let span = tracing::debug_span!(target: "mobula_test", "call", otel.kind = "client");
                let mut forwarded = Request::new(GetStatusRequest {});
                span.in_scope(|| trace::inject(forwarded.metadata_mut()));
                client(self.next.unwrap()).get_status(forwarded).await
            }
            _ => {
                let mut response = Response::new(GetStatusResponse {
                    version: "1".to_owned(),
                    ..Default::default()
                });
                let trailing = grpc::Trailing(
                    http::HeaderName::from_static("x-end"),
                    http::HeaderValue::from_static("here"),
                );
                response.extensions_mut().insert(trailing);
                Ok(response)
            }
        }
    }

    async fn deploy(&self, _: Request<pb::DeployRequest>) -> Result<Response<pb::DeployResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn put_application(
        &self,
        _: Request<pb::PutApplicationRequest>,
    ) -> Result<Response<pb::PutApplicationResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn delete_application(
        &self,
        _: Request<pb::DeleteApplicationRequest>,
    ) -> Result<Response<pb::DeleteApplicationResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn get_config(
        &self,
        _: Request<pb::GetConfigRequest>,
    ) -> Result<Response<pb::GetConfigResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn scale(&self, _: Request<pb::ScaleRequest>) -> Result<Response<pb::ScaleResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn get_history(
        &self,
        _: Request<pb::GetHistoryRequest>,
    ) -> Result<Response<pb::GetHistoryResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn rollback(
        &self,
        _: Request<pb::RollbackRequest>,
    ) -> Result<Response<pb::RollbackResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn check(&self, _: Request<pb::CheckRequest>) -> Result<Response<pb::CheckResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn explain(&self, _: Request<pb::ExplainRequest>) -> Result<Response<pb::ExplainResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    type BackupStream = Pin<Box<dyn Stream<Item = Result<pb::BackupResponse, Status>> + Send>>;

    async fn backup(&self, _: Request<pb::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    /// Reads the pieces to their end.
    async fn restore(
        &self,
        request: Request<Streaming<pb::RestoreRequest>>,
    ) -> Result<Response<pb::RestoreResponse>, Status> {
        let mut pieces = request.into_inner();
        while pieces.message().await?.is_some() {
            self.knobs.begun.notify_one();
        }
        Ok(Response::new(pb::RestoreResponse::default()))
    }
}

#[tonic::async_trait]
impl ControlService for Probe {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<AttachResponse, Status>> + Send>>;

    async fn attach(
        &self,
        _: Request<Streaming<AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn report_demand(
        &self,
        _: Request<Streaming<pb::ReportDemandRequest>>,
    ) -> Result<Response<pb::ReportDemandResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    type WatchRoutesStream = Pin<Box<dyn Stream<Item = Result<WatchRoutesResponse, Status>> + Send>>;

    /// Three items, each when the test allows it; `panic` instead of the second.
    async fn watch_routes(
        &self,
        request: Request<WatchRoutesRequest>,
    ) -> Result<Response<Self::WatchRoutesStream>, Status> {
        let knobs = self.knobs.clone();
        knobs.begun.notify_one();
        let panics = request.into_inner().proxy_id == "panic";
        let bell = Bell(knobs.dropped.clone());
        let stream = futures::stream::iter(1..=3).then(move |version| {
            let knobs = knobs.clone();
            let _bell = &bell;
            async move {
                knobs.items.acquire().await.unwrap().forget();
                assert!(!(panics && version == 2), "stream bug");
                Ok(WatchRoutesResponse {
                    version,
                    ..Default::default()
                })
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) knobs: Arc<Knobs>,
    pub(crate) readiness: Readiness,
    pub(crate) stop: Stop,
    pub(crate) serving: JoinHandle<Result<(), Error>>,
}

/// Long enough for one more call on a busy machine.
pub(crate) const NOTICE: Duration = Duration::from_millis(500);

pub(crate) async fn serve(stop: Stop, next: Option<SocketAddr>) -> Server {
    serve_for(stop, next, None).await
}

/// The same, open to browsers with pages of these origins.
pub(crate) async fn serve_for(stop: Stop, next: Option<SocketAddr>, origins: Option<Origins>) -> Server {
    let listener = listen::bind("gRPC", "127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    let knobs = Arc::new(Knobs::default());
    let probe = Probe {
        knobs: knobs.clone(),
        next,
    };
    let readiness = Readiness::new();
    let server = grpc::Server::new("probe")
        .notice(NOTICE)
        .add(ServeServiceServer::new(probe.clone()).accept_compressed(Gzip))
        .add(ControlServiceServer::new(probe));
    let server = match origins {
        Some(origins) => server.web(origins),
        None => server,
    };
    let serving = tokio::spawn(server.serve(listener, readiness.clone(), stop.clone()));
    Server {
        address,
        knobs,
        readiness,
        stop,
        serving,
    }
}

pub(crate) fn client(address: SocketAddr) -> ServeServiceClient<Channel> {
    ServeServiceClient::new(channel::lazy(&address.to_string()).unwrap())
}

pub(crate) fn ask(what: &'static str) -> Request<GetStatusRequest> {
    let mut request = Request::new(GetStatusRequest {});
    request.metadata_mut().insert("x-do", what.parse().unwrap());
    request
}
