//! The judge judged: its clients against servers of tonic and axum, its null server against tonic's client.

use std::time::Duration;

use axum::extract::Query;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use mobula_loadtest::null::{Behaviour, picture};
use mobula_proto::common::v1::Priority;
use mobula_proto::image::v1::generate_response::Event;
use mobula_proto::image::v1::image_service_client::ImageServiceClient;
use mobula_proto::image::v1::image_service_server::{ImageService, ImageServiceServer};
use mobula_proto::image::v1::{
    CancelRequest, CancelResponse, Done, GenerateRequest, GenerateResponse, GetModelRequest,
    GetModelResponse, Image, ListModelsRequest, ListModelsResponse, Step,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};

use crate::support::{null, report};

/// Draws what it is asked for and fails every request that is not as the command line below says.
pub(crate) struct Strict;

type Events = tokio_stream::Iter<std::vec::IntoIter<Result<GenerateResponse, Status>>>;

#[async_trait::async_trait]
impl ImageService for Strict {
    type GenerateStream = Events;

    async fn generate(&self, request: Request<GenerateRequest>) -> Result<Response<Events>, Status> {
        let deadline = request.metadata().get("grpc-timeout").cloned();
        let asked = request.into_inner();
        let as_told = deadline.is_some_and(|deadline| deadline == "5000m")
            && (asked.width, asked.height, asked.steps) == (Some(24), Some(24), Some(3))
            && asked.priority() == Priority::High
            && asked.model == "painter"
            && asked.seeds.len() == 1
            && !asked.prompt.is_empty();
        if !as_told {
            return Err(Status::invalid_argument(format!("{asked:?}")));
        }
        let image = Image {
            data: picture(24, asked.seeds[0] as u8),
            ..Image::default()
        };
        let events = [
            Event::Step(Step { index: 1, of: 1 }),
            Event::Image(image),
            Event::Done(Done::default()),
        ];
        let events = events.map(|event| Ok(GenerateResponse { event: Some(event) }));
        Ok(Response::new(tokio_stream::iter(
            events.into_iter().collect::<Vec<_>>(),
        )))
    }

    async fn cancel(&self, _: Request<CancelRequest>) -> Result<Response<CancelResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn list_models(
        &self,
        _: Request<ListModelsRequest>,
    ) -> Result<Response<ListModelsResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn get_model(&self, _: Request<GetModelRequest>) -> Result<Response<GetModelResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

pub(crate) const AS_TOLD: [&str; 14] = [
    "--callers",
    "3",
    "--duration",
    "300ms",
    "--warmup",
    "50ms",
    "--class",
    "size=24,steps=3,priority=high",
    "--model",
    "painter",
    "--timeout",
    "5s",
    "--seeds",
    "8",
];

#[tokio::test]
async fn a_server_of_tonic_understands_its_requests_and_is_understood() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tonic::transport::Server::builder().add_service(ImageServiceServer::new(Strict));
    let serving = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let (outcome, report) = report(&[&["--target", &address][..], &AS_TOLD].concat()).await;
    assert!(
        outcome.passed && report["counts"]["good"].as_u64().unwrap() > 0,
        "{}",
        outcome.text
    );
    serving.abort();
}

#[tokio::test]
async fn a_connection_more_is_opened_where_a_server_takes_few_streams() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tonic::transport::Server::builder()
        .max_concurrent_streams(2)
        .add_service(ImageServiceServer::new(Strict));
    let serving = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let arguments = [&["--target", &address, "--callers", "20"][..], &AS_TOLD[2..]].concat();
    let (outcome, report) = report(&arguments).await;
    assert!(
        outcome.passed && report["counts"]["good"].as_u64().unwrap() > 0,
        "{}",
        outcome.text
    );
    serving.abort();
}

pub(crate) async fn imagine(
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> impl IntoResponse {
    let field = |name: &str| {
        query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    let fields = ["img_size", "steps", "priority"].map(field);
    let prompt = field("prompt").unwrap_or_default();
    if fields != [Some("24"), Some("3"), Some("high")]
        || !prompt.contains(" on a ")
        || headers.get("host").is_none()
    {
        return Err(axum::http::StatusCode::UNPROCESSABLE_ENTITY);
    }
    Ok(picture(24, field("seed").unwrap().parse().unwrap()).to_vec())
}

#[tokio::test]
async fn a_server_of_axum_understands_its_requests_and_is_understood() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}/painter", listener.local_addr().unwrap());
    let app = axum::Router::new().route("/painter/imagine", axum::routing::get(imagine));
    let serving = tokio::spawn(axum::serve(listener, app).into_future());
    let (outcome, report) = report(&[&["--target", &target][..], &AS_TOLD].concat()).await;
    assert!(
        outcome.passed && report["counts"]["good"].as_u64().unwrap() > 0,
        "{}",
        outcome.text
    );
    serving.abort();
}

#[tokio::test]
async fn a_client_of_tonic_understands_the_null_server() {
    let server = null(Behaviour {
        service: Duration::from_millis(1),
        slots: 4,
        queue: 4,
    })
    .await;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", server.grpc)).unwrap();
    let mut client = ImageServiceClient::new(endpoint.connect().await.unwrap());
    let ask = |prompt: &str, width| GenerateRequest {
        prompt: prompt.into(),
        width,
        ..GenerateRequest::default()
    };
    let mut events = client
        .generate(ask("a star", Some(32)))
        .await
        .unwrap()
        .into_inner();
    let first = events.message().await.unwrap().unwrap();
    assert!(matches!(first.event, Some(Event::Image(image)) if image.data == picture(32, 0x80)));
    assert!(matches!(
        events.message().await.unwrap().unwrap().event,
        Some(Event::Done(_))
    ));
    assert!(events.message().await.unwrap().is_none());
    for (request, code) in [
        (ask("fault:refuse", None), Code::ResourceExhausted),
        (ask("a star", Some(33)), Code::InvalidArgument),
    ] {
        assert_eq!(client.generate(request).await.unwrap_err().code(), code);
    }
    let unknown = client.list_models(ListModelsRequest {}).await.unwrap_err();
    assert_eq!(unknown.code(), Code::Unimplemented);
    server.stop();
}
