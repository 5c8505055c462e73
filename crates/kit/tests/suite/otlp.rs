//! One trace over two services, as a collector receives it.
use std::time::Duration;

use crate::common::{GRACE, ask, client, serve};
use mobula_kit::{Common, Stop, Telemetry, trace};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};
use tracing::Instrument;

struct Collector(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.send(request.into_inner()).unwrap();
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn child_of<'a>(spans: &'a [Span], parent: &Span) -> &'a Span {
    spans
        .iter()
        .find(|span| span.parent_span_id == parent.span_id)
        .expect("a child")
}

#[tokio::test]
async fn client_and_server_spans_of_two_hops_are_one_trace() {
    let stop = Stop::new(GRACE);
    let (sender, mut received) = mpsc::unbounded_channel();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let collector =
        tonic::transport::Server::builder().add_service(TraceServiceServer::new(Collector(sender)));
    tokio::spawn(collector.serve_with_incoming(incoming));

    let common = Common {
        otlp_endpoint: Some(endpoint),
        ..Common::default()
    };
    let telemetry = Telemetry::start("mobula-test", &common).unwrap();
    let back = serve(stop.clone(), None).await;
    let front = serve(stop.clone(), Some(back.address)).await;

    let span = tracing::info_span!("root", otel.kind = "client");
    let mut request = ask("forward");
    span.in_scope(|| trace::inject(request.metadata_mut()));
    client(front.address)
        .get_status(request)
        .instrument(span)
        .await
        .unwrap();
    stop.trigger();
    front.serving.await.unwrap().unwrap();
    back.serving.await.unwrap().unwrap();
    tokio::time::timeout(Duration::from_secs(10), telemetry.flush())
        .await
        .unwrap();

    let mut spans = Vec::new();
    while let Ok(export) = received.try_recv() {
        for resource in export.resource_spans {
            let attributes = &resource.resource.as_ref().unwrap().attributes;
            assert!(attributes.iter().any(|attribute| attribute.key == "service.name"
                && format!("{:?}", attribute.value).contains("mobula-test")));
            spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }
    let root = spans
        .iter()
        .find(|span| span.name == "root")
        .expect("the client's span");
    assert!(
        spans.iter().all(|span| span.trace_id == root.trace_id),
        "{spans:#?}"
    );
    let first = child_of(&spans, root);
    assert_eq!(first.name, "mobula.control.v1.ServeService/GetStatus");
    let call = child_of(&spans, first);
    assert_eq!(call.name, "call");
    let second = child_of(&spans, call);
    assert_eq!(second.name, "mobula.control.v1.ServeService/GetStatus");
    // Exporting itself leaves no spans.
    assert_eq!(spans.len(), 4, "{spans:#?}");
}
