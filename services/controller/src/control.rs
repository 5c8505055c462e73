//! `ControlService`: what workers and proxies say to the controller.

use std::time::Duration;

use mobula_kit::Stop;
use mobula_proto::control::v1::{self as pb, attach_request, control_service_server::ControlService};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info, warn};

use crate::{
    Error,
    owner::{Attached, Handle, Routes},
};

/// A worker says hello at once.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest id; ids are in every log line. A replica's has its application's name (100) and its deployment's in it.
const MAX_ID_BYTES: usize = 200;
/// A name of DNS has at most 253 letters; then come a colon and a port.
const MAX_ADDRESS_BYTES: usize = 260;

/// The service.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) handle: Handle,
    pub(crate) stop: Stop,
}

#[tonic::async_trait]
impl ControlService for Control {
    type AttachStream = ReceiverStream<Result<pb::AttachResponse, Status>>;
    type WatchRoutesStream = ReceiverStream<Result<pb::WatchRoutesResponse, Status>>;

    // INVALID_ARGUMENT: the first message is no hello, or a field of it cannot be used.
    // ALREADY_EXISTS: another live worker has this id. DEADLINE_EXCEEDED: no hello came. UNAVAILABLE: stopping.
    async fn attach(
        &self,
        request: Request<Streaming<pb::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        self.refuse_if_stopping()?;
        let mut inbound = request.into_inner();
        let first = tokio::time::timeout(HELLO_TIMEOUT, inbound.message()).await;
        let first = first.map_err(|_| Error::NoHello(HELLO_TIMEOUT.as_secs()))??;
        let hello = checked(first.and_then(|request| request.message))?;
        let Attached {
            session,
            commands,
            closed,
        } = self.handle.attach(hello).await?;
        let listener = Listener {
            session,
            closed,
            handle: self.handle.clone(),
        };
        self.stop.spawn("worker stream", listener.listen(inbound));
        Ok(Response::new(ReceiverStream::new(commands)))
    }

    // INVALID_ARGUMENT: no proxy_id. UNAVAILABLE: stopping.
    async fn watch_routes(
        &self,
        request: Request<pb::WatchRoutesRequest>,
    ) -> Result<Response<Self::WatchRoutesStream>, Status> {
        self.refuse_if_stopping()?;
        let pb::WatchRoutesRequest {
            proxy_id,
            http_address,
            grpc_address,
        } = request.into_inner();
        check_id("proxy_id", &proxy_id)?;
        check_address("http_address", &http_address)?;
        check_address("grpc_address", &grpc_address)?;
        info!(proxy = %proxy_id, http = %http_address, grpc = %grpc_address, "proxy watches the routes");
        let proxy = pb::ProxyStatus {
            proxy_id,
            http_address,
            grpc_address,
            ..Default::default()
        };
        let (watch, routes) = self.handle.watch(proxy).await?;
        // One table on its way is enough: a slow proxy gets the newest next.
        let (sender, receiver) = mpsc::channel(1);
        let (handle, stop) = (self.handle.clone(), self.stop.clone());
        self.stop.spawn("route stream", async move {
            publish(routes, sender, &stop).await;
            let _ = handle.unwatch(watch).await;
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    // INVALID_ARGUMENT: no proxy_id, or another one than in the stream's first report. UNAVAILABLE: stopping.
    async fn report_demand(
        &self,
        request: Request<Streaming<pb::ReportDemandRequest>>,
    ) -> Result<Response<pb::ReportDemandResponse>, Status> {
        self.refuse_if_stopping()?;
        let mut inbound = request.into_inner();
        let mut proxy: Option<String> = None;
        let ended = loop {
            let said = tokio::select! {
                biased;
                () = self.stop.triggered() => break Err(Error::Stopping.into()),
                said = inbound.message() => said,
            };
            match said {
                Ok(Some(report)) => {
                    // What a stream said is forgotten with it, so it speaks for one proxy alone.
                    let checked = match &proxy {
                        Some(proxy) => same_id(proxy, &report.proxy_id),
                        None => check_id("proxy_id", &report.proxy_id),
                    };
                    if let Err(error) = checked {
                        break Err(error.into());
                    }
                    proxy.get_or_insert_with(|| report.proxy_id.clone());
                    if let Err(error) = self.handle.demand(report.proxy_id.clone(), report).await {
                        break Err(error.into());
                    }
                }
                Ok(None) => break Ok(Response::new(pb::ReportDemandResponse {})),
                Err(status) => break Err(status),
            }
        };
        if let Some(proxy) = proxy {
            let _ = self.handle.proxy_gone(proxy).await;
        }
        ended
    }
}

impl Control {
    /// The server takes calls for a moment longer than the loop does.
    fn refuse_if_stopping(&self) -> Result<(), Error> {
        if self.stop.is_triggered() {
            Err(Error::Stopping)
        } else {
            Ok(())
        }
    }
}

/// Passes on what a worker says.
struct Listener {
    session: u64,
    closed: CancellationToken,
    handle: Handle,
}

impl Listener {
    /// Listens until the worker's stream ends, or its session does.
    async fn listen(self, mut inbound: Streaming<pb::AttachRequest>) {
        let session = self.session;
        loop {
            let message = tokio::select! {
                biased;
                () = self.closed.cancelled() => return,
                message = inbound.message() => message,
            };
            let message = match message {
                Ok(Some(request)) => request.message,
                Ok(None) => break,
                // Whatever the error is, it comes from the worker's side: a silent network ends the lease long before it
                // ends the connection.
                Err(status) => {
                    debug!(session, %status, "a worker's stream broke");
                    break;
                }
            };
            match message {
                Some(attach_request::Message::Heartbeat(mut heartbeat)) => {
                    // Nothing of ours has such an id, and ids are in every log line.
                    heartbeat
                        .replicas
                        .retain(|report| check_id("replica_id", &report.replica_id).is_ok());
                    let Ok(()) = self.handle.heartbeat(session, heartbeat).await else {
                        return;
                    };
                }
                Some(attach_request::Message::Hello(_)) => {
                    warn!(session, "a worker said hello twice; its stream is ended");
                    break;
                }
                // A message that this version does not know.
                None => {}
            }
        }
        let _ = self.handle.lost(session).await;
    }
}

/// Sends every table that is published, the newest if some were missed.
async fn publish(
    mut routes: Routes,
    sender: mpsc::Sender<Result<pb::WatchRoutesResponse, Status>>,
    stop: &Stop,
) {
    loop {
        let table = routes.borrow_and_update().clone();
        let sent = async {
            if let Some(table) = table {
                let _ = sender.send(Ok(table.as_ref().clone())).await;
            }
            routes.changed().await
        };
        tokio::select! {
            biased;
            () = stop.triggered() => return,
            () = sender.closed() => return,
            changed = sent => if changed.is_err() { return },
        }
    }
}

fn checked(message: Option<attach_request::Message>) -> Result<pb::Hello, Error> {
    let Some(attach_request::Message::Hello(hello)) = message else {
        return Err(Error::Field {
            field: "hello",
            why: "must be the first message".into(),
        });
    };
    check_id("hello.worker_id", &hello.worker_id)?;
    for report in &hello.replicas {
        check_id("hello.replicas.replica_id", &report.replica_id)?;
    }
    if hello.kind() == pb::WorkerKind::Unspecified {
        return Err(Error::Field {
            field: "hello.kind",
            why: "must be said".into(),
        });
    }
    if !hello
        .address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    {
        let why = format!("must be host:port, not {:?}", hello.address);
        return Err(Error::Field {
            field: "hello.address",
            why,
        });
    }
    let amounts = hello
        .resources
        .iter()
        .flat_map(|r| r.custom.values().chain([&r.cpus, &r.gpus]));
    if !amounts
        .into_iter()
        .all(|amount| amount.is_finite() && *amount >= 0.0)
    {
        return Err(Error::Field {
            field: "hello.resources",
            why: "must be finite and not negative".into(),
        });
    }
    Ok(hello)
}

/// One that is not said is empty.
fn check_address(field: &'static str, address: &str) -> Result<(), Error> {
    if address.len() > MAX_ADDRESS_BYTES || address.chars().any(char::is_control) {
        let why = format!("must have at most {MAX_ADDRESS_BYTES} bytes and no control characters");
        return Err(Error::Field { field, why });
    }
    Ok(())
}

fn same_id(first: &str, id: &str) -> Result<(), Error> {
    if first == id {
        return Ok(());
    }
    Err(Error::Field {
        field: "proxy_id",
        why: format!("must be {first:?}, as in the first report of the stream"),
    })
}

fn check_id(field: &'static str, id: &str) -> Result<(), Error> {
    if id.is_empty() || id.len() > MAX_ID_BYTES || id.chars().any(char::is_control) {
        let why = format!("must have 1 to {MAX_ID_BYTES} bytes and no control characters");
        return Err(Error::Field { field, why });
    }
    Ok(())
}
