//! The gRPC server over a real socket: health, reflection, deadlines, statuses, panics, counts.
use std::time::Duration;

use crate::common::{GRACE, ask, client, serve};
use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mobula_kit::{Stop, channel, metrics, status};
use mobula_proto::control::v1::{WatchRoutesRequest, control_service_client::ControlServiceClient};
use tonic::{Code, Request};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

const SERVE: &str = "mobula.control.v1.ServeService";
const CONTROL: &str = "mobula.control.v1.ControlService";

fn about(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

#[tokio::test]
async fn health_of_the_server_and_of_each_service_follows_readiness() {
    let server = serve(Stop::new(GRACE), None).await;
    let loaded = server.readiness.latch("model");
    let mut health = HealthClient::new(channel::lazy(&server.address.to_string()).unwrap());
    let names = ["", SERVE, CONTROL, "grpc.health.v1.Health"];
    for name in names {
        let answer = health.check(about(name)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::NotServing, "{name:?}");
    }
    let mut watch = health.watch(about(SERVE)).await.unwrap().into_inner();
    assert_eq!(
        watch.message().await.unwrap().unwrap().status(),
        ServingStatus::NotServing
    );
    loaded.release();
    assert_eq!(
        watch.message().await.unwrap().unwrap().status(),
        ServingStatus::Serving
    );
    for name in names {
        let answer = health.check(about(name)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{name:?}");
    }
    assert_eq!(
        health.check(about("nothing")).await.unwrap_err().code(),
        Code::NotFound
    );
    let mut unknown = health.watch(about("nothing")).await.unwrap().into_inner();
    assert_eq!(
        unknown.message().await.unwrap().unwrap().status(),
        ServingStatus::ServiceUnknown
    );

    // Draining is told first, then the watch ends by itself and holds nothing up.
    server.stop.trigger();
    assert_eq!(
        watch.message().await.unwrap().unwrap().status(),
        ServingStatus::NotServing
    );
    assert!(watch.message().await.unwrap().is_none());
    server.serving.await.unwrap().unwrap();
}

macro_rules! reflection {
    ($name:ident, $version:ident) => {
        #[tokio::test]
        async fn $name() {
            use tonic_reflection::pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
            };
            let server = serve(Stop::new(GRACE), None).await;
            let mut reflection =
                ServerReflectionClient::new(channel::lazy(&server.address.to_string()).unwrap());
            let symbols = [
                SERVE,
                CONTROL,
                "grpc.health.v1.Health",
                "grpc.reflection.v1.ServerReflection",
                "google.rpc.BadRequest",
            ];
            let symbols = symbols.map(|symbol| MessageRequest::FileContainingSymbol(symbol.to_owned()));
            let questions: Vec<_> = [MessageRequest::ListServices(String::new())]
                .into_iter()
                .chain(symbols)
                .collect();
            let questions = questions
                .into_iter()
                .map(|question| ServerReflectionRequest {
                    host: String::new(),
                    message_request: Some(question),
                });
            let questions: Vec<_> = questions.collect();
            let answers = reflection
                .server_reflection_info(futures::stream::iter(questions))
                .await
                .unwrap();
            let answers: Vec<_> = answers
                .into_inner()
                .map(|answer| answer.unwrap().message_response)
                .collect()
                .await;
            let Some(MessageResponse::ListServicesResponse(list)) = &answers[0] else {
                panic!("{answers:?}")
            };
            let mut names: Vec<_> = list
                .service
                .iter()
                .map(|service| service.name.as_str())
                .collect();
            names.sort_unstable();
            assert_eq!(
                names,
                [
                    "grpc.health.v1.Health",
                    "grpc.reflection.v1.ServerReflection",
                    "grpc.reflection.v1alpha.ServerReflection",
                    CONTROL,
                    SERVE,
                ]
            );
            for answer in &answers[1..] {
                let Some(MessageResponse::FileDescriptorResponse(files)) = answer else {
                    panic!("{answer:?}")
                };
                assert!(!files.file_descriptor_proto.is_empty());
            }
        }
    };
}

reflection!(reflection_v1_lists_and_describes_what_is_served, v1);
reflection!(reflection_v1alpha_lists_and_describes_what_is_served, v1alpha);

#[tokio::test]
async fn an_expired_deadline_is_answered_deadline_exceeded_and_the_handler_is_dropped() {
    let server = serve(Stop::new(GRACE), None).await;
    // A bare HTTP/2 client: tonic's own would give up by itself and never see the answer.
    let socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::post(format!("http://{}/{SERVE}/GetStatus", server.address))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "400m")
        .header("x-do", "hang")
        .body(Full::new(Bytes::from_static(&[0; 5])))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "4");
    assert!(
        response
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .is_empty()
    );
    server.knobs.dropped.notified().await;
    connection.abort();
}

#[tokio::test]
async fn a_deadline_that_our_own_client_gave_up_on_reads_as_deadline_exceeded_too() {
    let server = serve(Stop::new(GRACE), None).await;
    let mut request = ask("hang");
    request.set_timeout(Duration::from_millis(30));
    let status = client(server.address).get_status(request).await.unwrap_err();
    assert_eq!(status::received(status).code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_stream_is_cut_at_its_deadline() {
    let server = serve(Stop::new(GRACE), None).await;
    let mut control = ControlServiceClient::new(channel::lazy(&server.address.to_string()).unwrap());
    let mut request = Request::new(WatchRoutesRequest::default());
    request.set_timeout(Duration::from_millis(900));
    server.knobs.items.add_permits(1);
    let mut stream = control.watch_routes(request).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().version, 1);
    assert_eq!(stream.message().await.unwrap_err().code(), Code::DeadlineExceeded);
    server.knobs.dropped.notified().await;
}

#[tokio::test]
async fn a_handler_sees_the_deadline_of_its_caller() {
    let server = serve(Stop::new(GRACE), None).await;
    let mut request = ask("deadline");
    request.set_timeout(Duration::from_secs(5));
    let left = client(server.address)
        .get_status(request)
        .await
        .unwrap()
        .into_inner()
        .uptime_ms;
    assert!((1..=5000).contains(&left), "{left}");
    assert_eq!(
        client(server.address)
            .get_status(ask("deadline"))
            .await
            .unwrap()
            .into_inner()
            .uptime_ms,
        0
    );
}

#[tokio::test]
async fn the_details_of_a_status_reach_the_caller() {
    let server = serve(Stop::new(GRACE), None).await;
    let status = client(server.address).get_status(ask("full")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status::reason(&status).as_deref(), Some("REPLICA_FULL"));
    assert_eq!(status::retry_after(&status), Some(Duration::from_secs(3)));
}

#[tokio::test]
async fn a_panic_is_one_requests_failure_and_not_the_connections() {
    let server = serve(Stop::new(GRACE), None).await;
    let mut client = client(server.address);
    assert_eq!(
        client.get_status(ask("panic")).await.unwrap_err().code(),
        Code::Internal
    );
    assert!(client.get_status(ask("answer")).await.is_ok());
    let mut control = ControlServiceClient::new(channel::lazy(&server.address.to_string()).unwrap());
    server.knobs.items.add_permits(1);
    let request = WatchRoutesRequest {
        proxy_id: "panic".to_owned(),
        ..Default::default()
    };
    let mut stream = control.watch_routes(request).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().version, 1);
    server.knobs.items.add_permits(1);
    assert_eq!(stream.message().await.unwrap_err().code(), Code::Internal);
}

#[tokio::test]
async fn a_caller_who_leaves_frees_the_handler() {
    let server = serve(Stop::new(GRACE), None).await;
    let mut client = client(server.address);
    let call = tokio::spawn(async move { client.get_status(ask("hang")).await });
    server.knobs.begun.notified().await;
    call.abort();
    server.knobs.dropped.notified().await;
}

#[tokio::test]
async fn a_service_that_is_not_there_is_unimplemented() {
    let server = serve(Stop::new(GRACE), None).await;
    let mut client = mobula_proto::image::v1::image_service_client::ImageServiceClient::new(
        channel::lazy(&server.address.to_string()).unwrap(),
    );
    let status = client
        .list_models(mobula_proto::image::v1::ListModelsRequest::default())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("ImageService"), "{status}");
}

#[tokio::test]
async fn requests_are_counted_by_method_and_code() {
    let page = metrics::install();
    let server = serve(Stop::new(GRACE), None).await;
    let mut client = client(server.address);
    client.get_status(ask("answer")).await.unwrap();
    client.get_status(ask("full")).await.unwrap_err();
    drop(client);
    server.stop.trigger();
    server.serving.await.unwrap().unwrap();
    let page = page.render();
    let labels = format!("service=\"{SERVE}\",method=\"GetStatus\"");
    for line in [
        format!("mobula_grpc_requests_total{{{labels},code=\"OK\"}} 1"),
        format!("mobula_grpc_requests_total{{{labels},code=\"RESOURCE_EXHAUSTED\"}} 1"),
        format!("mobula_grpc_requests_started_total{{{labels}}} 2"),
        format!("mobula_grpc_request_seconds_count{{{labels}}} 2"),
    ] {
        assert!(page.contains(&line), "{line} in\n{page}");
    }
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let server = serve(Stop::new(GRACE), None).await;
    let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    // The clock runs ahead while everybody waits.
    tokio::time::pause();
    let heard = tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 8]).await;
    assert_eq!(heard.unwrap(), 0);
}
