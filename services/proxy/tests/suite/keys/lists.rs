//! Lists name what a key opens and nothing else, at every door; what it does not open is told alike whether it is there or not.

use std::collections::BTreeSet;

use mobula_proto::{
    control::v1::{HeldModel, WorkerKind},
    oip::{
        ModelConfigRequest, ModelInferRequest, ModelMetadataRequest, ModelReadyRequest,
        ModelStatisticsRequest, RepositoryIndexRequest, RepositoryModelLoadRequest,
        grpc_inference_service_client::GrpcInferenceServiceClient,
    },
    ray::serve::{ListApplicationsRequest, ray_serve_api_service_client::RayServeApiServiceClient},
};
use serde_json::{Value, json};
use tonic::{Code, Status, transport::Channel};

use super::{ask, config, line, with};
use crate::support::{Answered, Mesh, Worker, call, get, model, soon};

/// A mesh with the applications `demo` and `secret`, of which the second serves the models `ink` and `oil` as well.
async fn mesh(worker: &Worker) -> Mesh {
    let held = ["ink", "oil"].map(str::to_owned);
    let infos = held.clone().map(|id| (id, model()));
    worker.models.lock().unwrap().extend(infos);
    let list = line("acme", "some", ", models: [demo]")
        + &line("art", "ink", ", models: [\"secret:ink\"]")
        + &line("all", "all", "");
    let mesh = Mesh::start(config(list), &[worker], 4).await;
    mesh.change(|table| {
        let mut secret = table.applications[0].clone();
        secret.name = "secret".into();
        secret.route_prefix = "/secret".into();
        for deployment in &mut secret.deployments {
            if deployment.kind() == WorkerKind::Inference {
                deployment.models = held.to_vec();
                let models = held.iter().map(|id| HeldModel {
                    model_id: id.clone(),
                    info: Some(model()),
                });
                deployment.replicas[0].models = models.collect();
            }
        }
        table.applications.push(secret);
    });
    soon("the second application", async {
        while !ask(&mesh, "all", "/-/routes").await.text().contains("secret") {}
    })
    .await;
    mesh
}

fn client(mesh: &Mesh) -> GrpcInferenceServiceClient<Channel> {
    GrpcInferenceServiceClient::new(mobula_kit::channel::lazy(&mesh.grpc.to_string()).unwrap())
}

/// Posts JSON with a key.
async fn post(mesh: &Mesh, key: &str, path: &str, body: &Value) -> Answered {
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: mobula\r\nconnection: close\r\nx-api-key: {key}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    call(mesh.http, head + &body).await
}

/// The models, without their stages, that each of the protocol's lists has for a key.
async fn listed(mesh: &Mesh, key: &str) -> [BTreeSet<String>; 4] {
    let mut client = client(mesh);
    let index = client
        .repository_index(with(key, RepositoryIndexRequest::default()))
        .await;
    let index = index
        .unwrap()
        .into_inner()
        .models
        .into_iter()
        .map(|model| model.name);
    let counted = client
        .model_statistics(with(key, ModelStatisticsRequest::default()))
        .await;
    let counted = counted
        .unwrap()
        .into_inner()
        .model_stats
        .into_iter()
        .map(|model| model.name);
    let names = |list: &Value| -> Vec<String> {
        let name = |model: &Value| model["name"].as_str().unwrap().to_owned();
        list.as_array().unwrap().iter().map(name).collect()
    };
    let over_http = names(&post(mesh, key, "/v2/repository/index", &json!({})).await.json());
    let counted_over_http = names(&ask(mesh, key, "/v2/models/stats").await.json()["model_stats"]);
    let whole = |names: Vec<String>| -> BTreeSet<String> {
        let models = names
            .iter()
            .map(|name| name.split('.').next().unwrap().to_owned());
        models.collect()
    };
    [index.collect(), counted.collect(), over_http, counted_over_http].map(whole)
}

#[tokio::test]
async fn the_lists_of_every_door_name_what_a_key_opens() {
    let worker = Worker::start("a").await;
    let mesh = mesh(&worker).await;
    let channel = mobula_kit::channel::lazy(&mesh.grpc.to_string()).unwrap();
    let mut ray = RayServeApiServiceClient::new(channel);
    for (key, models, applications) in [
        ("some", &["demo"][..], &["demo"][..]),
        ("ink", &["secret:ink"], &["secret"]),
        (
            "all",
            &["demo", "secret", "secret:ink", "secret:oil"],
            &["demo", "secret"],
        ),
    ] {
        let models: BTreeSet<_> = models.iter().map(|name| (*name).to_owned()).collect();
        for names in listed(&mesh, key).await {
            assert_eq!(names, models, "{key}");
        }
        let openais = ask(&mesh, key, "/v1/models").await.json();
        let openais = openais["data"].as_array().unwrap().iter();
        let openais: BTreeSet<_> = openais
            .map(|model| model["id"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(openais, models, "{key}");

        let routes = ask(&mesh, key, "/-/routes").await.json();
        let routed: Vec<_> = routes.as_object().unwrap().values().cloned().collect();
        assert_eq!(routed, applications, "{key}");
        let told = ray.list_applications(with(key, ListApplicationsRequest {})).await;
        assert_eq!(
            told.unwrap().into_inner().application_names,
            applications,
            "{key}"
        );
    }
    // Probes have no keys: they are answered, and told no names.
    let answer = get(mesh.http, "/-/routes").await;
    assert_eq!((answer.status, answer.json()), (200, json!({})));
    let told = ray.list_applications(ListApplicationsRequest {}).await.unwrap();
    assert!(told.into_inner().application_names.is_empty());
    assert_eq!(ask(&mesh, "bad", "/-/routes").await.status, 401);
    let status = ray
        .list_applications(with("bad", ListApplicationsRequest {}))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

/// What each method of the protocol says of a model, by its name, and of the model on demand that the metadata name.
async fn refused(mesh: &Mesh, name: &str, model_id: Option<&str>) -> Vec<Status> {
    let mut client = client(mesh);
    let name = || name.to_owned();
    let infer = ModelInferRequest {
        model_name: name(),
        ..Default::default()
    };
    let mut infer = with("some", infer);
    if let Some(id) = model_id {
        infer
            .metadata_mut()
            .insert("multiplexed_model_id", id.parse().unwrap());
        return vec![client.model_infer(infer).await.unwrap_err()];
    }
    let metadata = ModelMetadataRequest {
        name: name(),
        ..Default::default()
    };
    let config = ModelConfigRequest {
        name: name(),
        ..Default::default()
    };
    let statistics = ModelStatisticsRequest {
        name: name(),
        ..Default::default()
    };
    let load = RepositoryModelLoadRequest {
        model_name: name(),
        ..Default::default()
    };
    vec![
        client.model_infer(infer).await.unwrap_err(),
        client.model_metadata(with("some", metadata)).await.unwrap_err(),
        client.model_config(with("some", config)).await.unwrap_err(),
        client
            .model_statistics(with("some", statistics))
            .await
            .unwrap_err(),
        client
            .repository_model_load(with("some", load))
            .await
            .unwrap_err(),
    ]
}

#[tokio::test]
async fn a_name_that_a_key_does_not_open_is_told_alike_there_or_not() {
    let worker = Worker::start("a").await;
    let mesh = mesh(&worker).await;
    for (there, absent, model_id) in [
        ("secret", "nothin", None),
        ("secret.tokenize", "nothin.tokenize", None),
        ("secret:oil", "nothin:oil", None),
        ("secret:oil.denoiser", "nothin:oil.denoiser", None),
        ("secret", "nothin", Some("oil")),
    ] {
        let of_there = refused(&mesh, there, model_id).await;
        let of_absent = refused(&mesh, absent, model_id).await;
        for (there, absent) in of_there.iter().zip(&of_absent) {
            assert_eq!(there.code(), Code::PermissionDenied);
            assert_eq!(absent.code(), Code::PermissionDenied);
            assert_eq!(there.message().replace("secret", "nothin"), absent.message());
        }
        let mut client = client(&mesh);
        for name in [there, absent] {
            let asked = ModelReadyRequest {
                name: name.into(),
                ..Default::default()
            };
            let told = client.model_ready(with("some", asked)).await.unwrap();
            assert!(!told.into_inner().ready, "{name}");
            for of in ["", "/ready", "/config", "/stats"] {
                let answer = ask(&mesh, "some", &format!("/v2/models/{name}{of}")).await;
                assert_eq!(answer.status, 403, "{name}{of}");
            }
            let answer = post(&mesh, "some", &format!("/v2/models/{name}/infer"), &json!({})).await;
            assert_eq!(answer.status, 403, "{name}");
        }
    }
    assert_eq!(worker.requests().len(), 0);
}

#[tokio::test]
async fn a_model_that_a_key_opens_may_be_named_by_the_metadata() {
    let worker = Worker::start("a").await;
    let mesh = mesh(&worker).await;
    let body = json!({ "inputs": [{ "name": "prompt", "datatype": "BYTES", "shape": [1], "data": ["a"] }] });
    let draw = async |model_id: &str| {
        let body = body.to_string();
        let head = format!(
            "POST /v2/models/secret/infer HTTP/1.1\r\nhost: mobula\r\nconnection: close\r\nx-api-key: ink\r\n\
             serve_multiplexed_model_id: {model_id}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        call(mesh.http, head + &body).await
    };
    assert_eq!(draw("oil").await.status, 403);
    let answer = draw("ink").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(worker.requests()[0].model_id, "ink");
    // So may those of a stream, all of them.
    let named = || ModelInferRequest {
        model_name: "secret".into(),
        ..crate::v2::ask("", "a", 1)
    };
    for (model_id, error) in [
        ("oil", "this API key does not open the model \"secret:oil\""),
        ("ink", ""),
    ] {
        let mut requests = with("ink", tokio_stream::iter([named()]));
        requests
            .metadata_mut()
            .insert("multiplexed_model_id", model_id.parse().unwrap());
        let answers = client(&mesh).model_stream_infer(requests).await.unwrap();
        let answer = soon("an answer", answers.into_inner().message()).await.unwrap();
        assert_eq!(answer.unwrap().error_message, error);
    }
    assert_eq!(worker.requests()[1].model_id, "ink");
}
