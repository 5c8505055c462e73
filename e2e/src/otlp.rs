//! A collector of traces that remembers what it was sent.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// A span, as far as tests look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// `service.name` of the process that made it.
    pub service: String,
    /// What it is.
    pub name: String,
    /// Which trace it belongs to.
    pub trace_id: Id,
    /// Which one it is.
    pub span_id: Id,
    /// What it is part of; empty for a root.
    pub parent_id: Id,
}

/// An identifier that reads as hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
pub struct Id(Vec<u8>);

impl Id {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A running collector; it ends when it is dropped.
#[derive(Debug)]
pub struct Collector {
    /// Where it listens.
    pub address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
    task: JoinHandle<()>,
}

impl Collector {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let spans = Arc::default();
        let service = TraceServiceServer::new(Store {
            spans: Arc::clone(&spans),
        });
        let task = tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service);
            // It serves until it is aborted; a broken listener shows as missing spans.
            let _ = server.serve_with_incoming(TcpListenerStream::new(listener)).await;
        });
        Ok(Self { address, spans, task })
    }

    /// Everything that came so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Store {
    spans: Arc<Mutex<Vec<Span>>>,
}

#[tonic::async_trait]
impl TraceService for Store {
    // Never refuses.
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        for resource in request.into_inner().resource_spans {
            let service = service_name(resource.resource.as_ref());
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                spans.push(Span {
                    service: service.clone(),
                    name: span.name,
                    trace_id: Id(span.trace_id),
                    span_id: Id(span.span_id),
                    parent_id: Id(span.parent_span_id),
                });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn service_name(resource: Option<&Resource>) -> String {
    let mut attributes = resource.into_iter().flat_map(|resource| &resource.attributes);
    let name = attributes.find(|attribute| attribute.key == "service.name");
    match name
        .and_then(|attribute| attribute.value.as_ref())
        .and_then(|value| value.value.as_ref())
    {
        Some(Value::StringValue(name)) => name.clone(),
        _ => String::new(),
    }
}
