//! Tools that know nothing of Mobula find out what it speaks, by either version of gRPC reflection.

use mobula_e2e::Mesh;
use mobula_kit::channel;
use tonic_reflection::pb::{v1, v1alpha};

const SERVICES: [&str; 5] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "inference.GRPCInferenceService",
    "mobula.image.v1.ImageService",
    "ray.serve.RayServeAPIService",
];

#[tokio::test]
async fn the_proxy_lists_its_services_by_reflection_v1_and_v1alpha() -> anyhow::Result<()> {
    let mesh = Mesh::builder().start().await?;
    let channel = channel::lazy(&mesh.grpc().to_string())?;

    let request = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let mut answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await?
        .into_inner();
    let answer = answers
        .message()
        .await?
        .and_then(|answer| answer.message_response);
    let Some(v1::server_reflection_response::MessageResponse::ListServicesResponse(list)) = answer else {
        anyhow::bail!("v1 answers {answer:?}");
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for service in SERVICES {
        assert!(
            names.iter().any(|name| name == service),
            "{service} is not in {names:?}"
        );
    }

    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let mut answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await?
        .into_inner();
    let answer = answers
        .message()
        .await?
        .and_then(|answer| answer.message_response);
    let Some(v1alpha::server_reflection_response::MessageResponse::ListServicesResponse(list)) = answer
    else {
        anyhow::bail!("v1alpha answers {answer:?}");
    };
    let alpha: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    assert_eq!(alpha, names);
    mesh.stop().await
}
