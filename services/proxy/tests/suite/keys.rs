//! API keys at every door: who may come in, what a key opens, how much of it, and that none of it is in a log.

mod lists;
mod secrets;

use std::fmt::Write as _;

use mobula_kit::status;
use mobula_proto::{
    common::v1::Priority,
    image::v1::{self as image, CancelRequest, GetModelRequest, ListModelsRequest},
    ray::serve::{ListApplicationsRequest, ray_serve_api_service_client::RayServeApiServiceClient},
};
use mobula_proxy::Config;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tonic::{Code, Request, Status};

use crate::support::{Act, Answered, Mesh, Worker, call, get, prompt, soon};

/// The line of a list that opens the doors to a key, with more of its fields.
fn line(tenant: &str, key: &str, more: &str) -> String {
    let mut digest = String::new();
    for byte in Sha256::digest(key) {
        write!(digest, "{byte:02x}").unwrap();
    }
    format!("- {{tenant: {tenant}, sha256: {digest}{more}}}\n")
}

fn config(list: String) -> Config {
    Config {
        no_replica_timeout_s: 10.0,
        api_keys: Some(list.into()),
        ..Config::default()
    }
}

/// A message with a key.
fn with<T>(key: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-api-key", key.parse().unwrap());
    request
}

/// Draws a picture to its end, over gRPC.
async fn draw(mesh: &Mesh, request: Request<image::GenerateRequest>) -> Result<(), Status> {
    let mut stream = mesh.client.clone().generate(request).await?.into_inner();
    while soon("an event", stream.message()).await?.is_some() {}
    Ok(())
}

async fn ask(mesh: &Mesh, key: &str, path: &str) -> Answered {
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: mobula\r\nconnection: close\r\nx-api-key: {key}\r\n\r\n");
    call(mesh.http, request).await
}

/// Asks OpenAI's door for a picture as its clients do.
async fn openai(mesh: &Mesh, key: Option<&str>, body: &Value) -> Answered {
    let body = body.to_string();
    let bearer = key.map_or_else(String::new, |key| format!("authorization: Bearer {key}\r\n"));
    let head = format!(
        "POST /v1/images/generations HTTP/1.1\r\nhost: mobula\r\nconnection: close\r\n{bearer}\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    call(mesh.http, head + &body).await
}

fn code(answer: &Answered) -> (u16, Value) {
    (answer.status, answer.json()["error"]["code"].clone())
}

#[tokio::test]
async fn without_a_key_that_is_known_no_door_draws_and_probes_are_answered() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(line("acme", "good", "")), &[&worker], 4).await;

    let status = mesh.all(prompt(|_| ())).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(status::reason(&status).as_deref(), Some("API_KEY_MISSING"));
    let status = draw(&mesh, with("bad", prompt(|_| ()))).await.unwrap_err();
    assert_eq!(status::reason(&status).as_deref(), Some("API_KEY_INVALID"));
    let mut client = mesh.client.clone();
    let refused = [
        client.list_models(ListModelsRequest {}).await.unwrap_err(),
        client.get_model(GetModelRequest::default()).await.unwrap_err(),
        client
            .cancel(CancelRequest {
                request_id: "a".into(),
            })
            .await
            .unwrap_err(),
    ];
    assert!(
        refused
            .iter()
            .all(|status| status.code() == Code::Unauthenticated)
    );
    draw(&mesh, with("good", prompt(|_| ()))).await.unwrap();
    let mut bearer = Request::new(prompt(|_| ()));
    bearer
        .metadata_mut()
        .insert("authorization", "Bearer good".parse().unwrap());
    draw(&mesh, bearer).await.unwrap();

    let answer = get(mesh.http, "/imagine?prompt=a").await;
    assert_eq!(
        (answer.status, answer.header("www-authenticate")),
        (401, "Bearer realm=\"mobula\"")
    );
    assert_eq!(answer.json()["error"]["reason"], "API_KEY_MISSING");
    let answer = ask(&mesh, "bad", "/imagine?prompt=a").await;
    assert_eq!(answer.status, 401);
    assert!(answer.header("www-authenticate").contains("invalid_token"));
    assert_eq!(ask(&mesh, "good", "/imagine?prompt=a").await.status, 200);

    for key in [None, Some("bad")] {
        let answer = openai(&mesh, key, &json!({ "prompt": "a" })).await;
        assert_eq!(code(&answer), (401, json!("invalid_api_key")));
        assert!(answer.header("www-authenticate").starts_with("Bearer"));
    }
    assert_eq!(
        openai(&mesh, Some("good"), &json!({ "prompt": "a" }))
            .await
            .status,
        200
    );
    assert_eq!(get(mesh.http, "/v1/models").await.status, 401);
    assert_eq!(
        get(mesh.http, "/anything").await.status,
        401,
        "nor is told what is not there"
    );

    let answer = get(mesh.http, "/v2/models/demo").await;
    assert_eq!(answer.status, 401);
    assert!(answer.json()["error"].is_string(), "{}", answer.text());
    for page in ["/-/healthz", "/-/routes", "/v2/health/live", "/v2/health/ready"] {
        assert_eq!(get(mesh.http, page).await.status, 200, "{page}");
    }
    let link = get(mesh.http, "/v1/images/files/none.png").await;
    assert_eq!(link.status, 404, "links are their own secret");
    let channel = mobula_kit::channel::lazy(&mesh.grpc.to_string()).unwrap();
    let mut ray = RayServeApiServiceClient::new(channel);
    assert!(ray.list_applications(ListApplicationsRequest {}).await.is_ok());
    assert_eq!(worker.requests().len(), 4);
}

#[tokio::test]
async fn a_large_upload_without_a_key_is_answered_and_not_cut_off() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(line("acme", "good", "")), &[&worker], 4).await;
    let body = "x".repeat(1 << 20);
    let head = format!(
        "POST /v1/images/edits HTTP/1.1\r\nhost: mobula\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let answer = call(mesh.http, head + &body).await;
    assert_eq!(code(&answer), (401, json!("invalid_api_key")));
}

#[tokio::test]
async fn a_key_opens_the_models_of_its_list_and_tells_of_no_others() {
    let worker = Worker::start("a").await;
    let list = line("acme", "some", ", models: [demo]") + &line("all", "all", "");
    let mesh = Mesh::start(config(list), &[&worker], 4).await;
    mesh.change(|table| {
        let mut secret = table.applications[0].clone();
        secret.name = "secret".into();
        secret.route_prefix = "/secret".into();
        table.applications.push(secret);
    });
    soon("the second application", async {
        while !ask(&mesh, "all", "/-/routes").await.text().contains("secret") {}
    })
    .await;

    let mut client = mesh.client.clone();
    let mut listed = async |key: &str| {
        let models = client.list_models(with(key, ListModelsRequest {})).await.unwrap();
        let names = models.into_inner().models.into_iter().map(|model| model.name);
        names.collect::<Vec<_>>()
    };
    assert_eq!(listed("some").await, ["demo"]);
    assert_eq!(listed("all").await, ["demo", "secret"]);
    let models = ask(&mesh, "some", "/v1/models").await.json();
    assert_eq!(models["data"].as_array().unwrap().len(), 1);
    assert_eq!(ask(&mesh, "all", "/v1/models/secret").await.status, 200);

    // The only one that it opens needs no name.
    draw(&mesh, with("some", prompt(|_| ()))).await.unwrap();
    assert_eq!(
        openai(&mesh, Some("some"), &json!({ "prompt": "a" }))
            .await
            .status,
        200
    );
    // What is there and what is not are told alike.
    for name in ["secret", "nothing"] {
        let request = prompt(|r| r.model = name.into());
        let status = draw(&mesh, with("some", request)).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
        assert_eq!(
            status.message(),
            format!("this API key does not open the model {name:?}")
        );
        assert_eq!(status::reason(&status).as_deref(), Some("MODEL_NOT_ALLOWED"));
        let model = GetModelRequest {
            model: name.into(),
            ..Default::default()
        };
        let status = client.get_model(with("some", model)).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
        let answer = openai(&mesh, Some("some"), &json!({ "prompt": "a", "model": name })).await;
        assert_eq!(code(&answer), (403, json!("permission_denied")));
        let answer = ask(&mesh, "some", &format!("/v1/models/{name}")).await;
        assert_eq!(code(&answer), (403, json!("permission_denied")));
        let refined = prompt(|r| {
            r.refiner = Some(image::Refiner {
                model: name.into(),
                ..Default::default()
            });
        });
        let status = draw(&mesh, with("some", refined)).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
    }
    assert_eq!(ask(&mesh, "some", "/secret/imagine?prompt=a").await.status, 403);
    assert_eq!(ask(&mesh, "all", "/secret/imagine?prompt=a").await.status, 200);
}

#[tokio::test]
async fn a_rate_that_is_used_up_is_told_with_when_to_come_back() {
    let worker = Worker::start("a").await;
    // An hour until the next: no test is as slow.
    let list = line("acme", "one", ", requests_per_second: 0.0003, burst: 2");
    let mesh = Mesh::start(config(list), &[&worker], 4).await;
    let answer = openai(&mesh, Some("one"), &json!({ "prompt": "a" })).await;
    let left = |answer: &Answered| {
        ["limit", "remaining"].map(|what| answer.header(&format!("x-ratelimit-{what}-requests")).to_owned())
    };
    assert_eq!(
        (answer.status, left(&answer)),
        (200, ["2", "1"].map(str::to_owned))
    );
    draw(&mesh, with("one", prompt(|_| ()))).await.unwrap();
    let status = draw(&mesh, with("one", prompt(|_| ()))).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status::reason(&status).as_deref(), Some("RATE_LIMIT_EXCEEDED"));
    assert_eq!(status::quotas(&status)[0].0, "tenant:acme");
    let after = status::retry_after(&status).unwrap().as_secs();
    assert!((3_000..=3_334).contains(&after), "{after}");
    assert!(status.metadata().contains_key("grpc-retry-pushback-ms"));
    let answer = openai(&mesh, Some("one"), &json!({ "prompt": "a" })).await;
    assert_eq!(code(&answer), (429, json!("rate_limit_exceeded")));
    assert_eq!(left(&answer), ["2", "0"].map(str::to_owned));
    assert!(answer.header("retry-after").parse::<u64>().unwrap() > 3_000);
    assert!(!answer.header("x-ratelimit-reset-requests").is_empty());
    let answer = ask(&mesh, "one", "/imagine?prompt=a").await;
    assert_eq!(
        (answer.status, answer.header("retry-after").is_empty()),
        (429, false)
    );
    assert_eq!(worker.requests().len(), 2);
}

#[tokio::test]
async fn requests_at_a_time_are_counted_until_they_have_ended_or_their_caller_has_left() {
    let mut worker = Worker::start("a").await;
    let mesh = Mesh::start(config(line("acme", "one", ", max_concurrent: 1")), &[&worker], 4).await;
    worker.will(Act::Hang);
    let mut first = mesh.generate(with("one", prompt(|_| ()))).await;
    first.started().await;
    let status = draw(&mesh, with("one", prompt(|_| ()))).await.unwrap_err();
    assert_eq!(
        status::reason(&status).as_deref(),
        Some("CONCURRENCY_LIMIT_EXCEEDED")
    );
    assert!(status::retry_after(&status).is_some());
    drop(first);
    soon("the stream's drop", worker.dropped.recv()).await;
    draw(&mesh, with("one", prompt(|_| ()))).await.unwrap();
    draw(&mesh, with("one", prompt(|_| ()))).await.unwrap();
}

#[tokio::test]
async fn pixels_are_charged_for_pictures_and_not_for_failures() {
    let mut worker = Worker::start("a").await;
    // Two pictures of 128 x 128 and a bit.
    let list = line("acme", "one", ", megapixels_per_day: 0.033");
    let mesh = Mesh::start(config(list), &[&worker], 4).await;
    for _ in 0..3 {
        worker.will(Act::Refuse(Status::invalid_argument("no")));
        assert!(draw(&mesh, with("one", prompt(|_| ()))).await.is_err());
    }
    for _ in 0..3 {
        worker.will(Act::Break(0, Status::failed_precondition("not finite")));
        assert!(draw(&mesh, with("one", prompt(|_| ()))).await.is_err());
    }
    draw(&mesh, with("one", prompt(|_| ()))).await.unwrap();
    // Given up while it is drawn: the work was done.
    worker.will(Act::Hang);
    let mut given_up = mesh.generate(with("one", prompt(|_| ()))).await;
    given_up.started().await;
    drop(given_up);
    soon("the stream's drop", worker.dropped.recv()).await;
    let status = draw(&mesh, with("one", prompt(|_| ()))).await.unwrap_err();
    assert_eq!(status::reason(&status).as_deref(), Some("PIXEL_QUOTA_EXCEEDED"));
    assert_eq!(status.message(), "this API key allows 0.033 megapixels per day");
    let answer = openai(&mesh, Some("one"), &json!({ "prompt": "a" })).await;
    assert_eq!(code(&answer), (429, json!("rate_limit_exceeded")));
}

#[tokio::test]
async fn who_goes_first_is_bounded_by_the_key() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(line("batch", "low", ", max_priority: low")), &[&worker], 4).await;
    draw(&mesh, with("low", prompt(|_| ()))).await.unwrap();
    let high = prompt(|r| r.priority = Priority::High.into());
    let status = draw(&mesh, with("low", high)).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(status.message(), "priority: this API key allows low at most");
    assert_eq!(worker.requests()[0].priority(), Priority::Low);
}

#[tokio::test]
async fn request_ids_are_a_tenants_own_and_so_are_cancels() {
    let mut worker = Worker::start("a").await;
    let list = line("acme", "a", "") + &line("other", "b", "");
    let mesh = Mesh::start(config(list), &[&worker], 4).await;
    let named = || prompt(|r| r.request_id = "mine".into());
    worker.will(Act::Hang);
    let mut running = mesh.generate(with("a", named())).await;
    running.started().await;
    let taken = draw(&mesh, with("a", named())).await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists);
    draw(&mesh, with("b", named())).await.unwrap();
    let cancel = || CancelRequest {
        request_id: "mine".into(),
    };
    let mut client = mesh.client.clone();
    let status = client.cancel(with("b", cancel())).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    client.cancel(with("a", cancel())).await.unwrap();
    assert_eq!(running.failed().await.code(), Code::Cancelled);
    soon("the stream's drop", worker.dropped.recv()).await;
}

#[tokio::test]
async fn a_file_of_keys_is_heeded_soon_after_it_changes() {
    let worker = Worker::start("a").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.yaml");
    std::fs::write(&path, line("acme", "old", "")).unwrap();
    let config = Config {
        api_keys_file: Some(path.clone()),
        ..Config::default()
    };
    let mesh = Mesh::start(config, &[&worker], 4).await;
    draw(&mesh, with("old", prompt(|_| ()))).await.unwrap();
    std::fs::write(&path, line("acme", "new-key", "")).unwrap();
    soon("the new key", async {
        while draw(&mesh, with("new-key", prompt(|_| ()))).await.is_err() {}
    })
    .await;
    let status = draw(&mesh, with("old", prompt(|_| ()))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}
