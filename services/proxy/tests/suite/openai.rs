//! OpenAI's Images API over real sockets: shapes, events, links, and what is refused how. The `openai` package itself is
//! run against a whole mesh, in `e2e`.

mod refused;
mod stream;

use std::net::SocketAddr;

use crate::support::{Answered, Mesh, Worker, call, get, model, picture, pixels, png, soon};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use mobula_proto::{control::v1::ModelInfo, image::v1::Task, preprocess::v1::ImageKind};
use mobula_proxy::Config;
use serde_json::{Value, json};

const GENERATIONS: &str = "/v1/images/generations";
const EDITS: &str = "/v1/images/edits";
const VARIATIONS: &str = "/v1/images/variations";

fn config() -> Config {
    Config {
        no_replica_timeout_s: 10.0,
        ..Config::default()
    }
}

async fn post(address: SocketAddr, path: &str, body: &Value) -> Answered {
    with(address, path, "", body).await
}

/// Posts JSON with more lines of the head.
async fn with(address: SocketAddr, path: &str, head: &str, body: &Value) -> Answered {
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: mobula\r\nconnection: close\r\ncontent-type: application/json\r\n\
        content-length: {}\r\n{head}\r\n{body}",
        body.len()
    );
    call(address, &request).await
}

/// Posts a form.
async fn form(address: SocketAddr, path: &str, parts: &[(&str, &[u8])]) -> Answered {
    let mut body = Vec::new();
    for (name, data) in parts {
        body.extend(format!("--xyz\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n").bytes());
        body.extend(*data);
        body.extend(b"\r\n");
    }
    body.extend(b"--xyz--\r\n");
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nhost: mobula\r\nconnection: close\r\n\
        content-type: multipart/form-data; boundary=xyz\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend(body);
    call(address, request).await
}

fn b64(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap()).unwrap()
}

/// The error object of an answer.
fn error(answer: &Answered) -> (u16, Value, Value) {
    let error = &answer.json()["error"];
    for field in ["message", "type", "param", "code"] {
        assert!(error.get(field).is_some(), "{field} in {error}");
    }
    (answer.status, error["param"].clone(), error["code"].clone())
}

/// The names and data of an answer's events.
fn events(answer: &Answered) -> Vec<(String, Value)> {
    assert_eq!(
        answer.header("content-type"),
        "text/event-stream; charset=utf-8",
        "{}",
        answer.text()
    );
    let read = |event: &str| {
        let (name, data) = event.split_once('\n').unwrap();
        let data = data.strip_prefix("data: ").unwrap();
        let name = name.strip_prefix("event: ").unwrap();
        (name.to_owned(), serde_json::from_str(data).unwrap())
    };
    let text = answer.unchunked();
    let text = text.strip_suffix("\n\n").unwrap();
    text.split("\n\n").map(read).collect()
}

#[tokio::test]
async fn pictures_come_as_base64_with_the_fields_of_diffusion_models() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let body = json!({
        "model": "demo", "prompt": "a cat", "n": 2, "size": "256x128", "negative_prompt": "dog", "seed": 7,
        "num_inference_steps": 3, "guidance_scale": 2.5, "scheduler": "euler_a", "quality": "high", "user": "me",
    });
    let answer = with(mesh.http, GENERATIONS, "x-request-id: mine\r\n", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("x-request-id"), "mine");
    assert_eq!(answer.header("content-length"), answer.body.len().to_string());
    let told = answer.json();
    assert!(told["created"].as_u64() > Some(1_700_000_000), "{told}");
    for (field, value) in [
        ("size", json!("256x128")),
        ("output_format", json!("png")),
        ("background", json!("opaque")),
    ] {
        assert_eq!(told[field], value, "{field}");
    }
    let data = told["data"].as_array().unwrap();
    assert_eq!(data.len(), 2);
    for (entry, seed) in data.iter().zip([7, 8]) {
        assert_eq!(b64(&entry["b64_json"]), picture(seed));
        assert_eq!(entry["seed"], seed);
    }
    let asked = &worker.requests()[0];
    assert_eq!(
        (asked.width, asked.height, asked.steps, asked.guidance_scale),
        (256, 128, 3, 2.5)
    );
    assert_eq!(
        (asked.scheduler.as_str(), &asked.seeds[..]),
        ("euler_a", &[7, 8][..])
    );
}

#[tokio::test]
async fn links_lead_to_the_pictures_at_this_proxy_for_an_hour() {
    let worker = Worker::start("a").await;
    let config = Config {
        // Three pictures of seeds with one digit.
        max_kept_image_bytes: 3 * picture(7).len() as u64,
        ..config()
    };
    let mesh = Mesh::start(config, &[&worker], 4).await;
    let body = json!({ "prompt": "a cat", "response_format": "url", "seed": 6, "n": 2 });
    let answer = with(mesh.http, GENERATIONS, "x-forwarded-proto: https\r\n", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told = answer.json();
    let path = |nth: usize| {
        let url = told["data"][nth]["url"].as_str().unwrap();
        url.strip_prefix("https://mobula").unwrap().to_owned()
    };
    for (nth, seed) in [(0, 6), (1, 7)] {
        let file = get(mesh.http, &path(nth)).await;
        assert_eq!((file.status, file.header("content-type")), (200, "image/png"));
        assert!(file.header("cache-control").contains("max-age=3"), "of 3600 s");
        assert_eq!(file.body, picture(seed));
    }
    let head = format!(
        "HEAD {} HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n",
        path(0)
    );
    let head = call(mesh.http, &head).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    for unknown in ["00000000000000000000000000000000.png", "x", "..%2f", ""] {
        let answer = get(mesh.http, &format!("/v1/images/files/{unknown}")).await;
        assert_eq!(answer.status, 404, "{unknown}");
    }
    // Two more: the first has to go.
    assert_eq!(post(mesh.http, GENERATIONS, &body).await.status, 200);
    assert_eq!(get(mesh.http, &path(0)).await.status, 404);
}

#[tokio::test]
async fn an_edit_draws_into_a_picture_where_its_mask_is_transparent() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let (image, mask) = (png(200, 100), png(200, 100));
    let parts: [(&str, &[u8]); 5] = [
        ("image", &image),
        ("mask", &mask),
        ("prompt", b"a hat"),
        ("seed", b"7"),
        ("strength", b"0.9"),
    ];
    let answer = form(mesh.http, EDITS, &parts).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(b64(&answer.json()["data"][0]["b64_json"]), picture(7));
    assert_eq!(
        answer.json()["size"],
        "200x96",
        "the picture's own, as the model can draw it"
    );
    let asked = &worker.requests()[0];
    assert_eq!(asked.init_image, Some(pixels(200, 96, ImageKind::Picture)));
    assert_eq!(asked.mask_image, Some(pixels(200, 96, ImageKind::Transparency)));
    assert_eq!(asked.strength, 0.9);
    let mut parts = parts[..1].to_vec();
    parts.extend([
        ("prompt", &b"a hat"[..]),
        ("stream", b"true"),
        ("partial_images", b"1"),
        ("size", b"128x128"),
    ]);
    let told = events(&form(mesh.http, EDITS, &parts).await);
    assert_eq!(told.last().unwrap().0, "image_edit.completed");
    assert_eq!(worker.requests()[1].mask_image, None);
}

#[tokio::test]
async fn a_variation_needs_nothing_but_a_picture() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let image = png(128, 64);
    let answer = form(mesh.http, VARIATIONS, &[("image", &image), ("n", b"2")]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["data"].as_array().unwrap().len(), 2);
    let asked = &worker.requests()[0];
    assert_eq!((asked.width, asked.height, asked.strength), (128, 64, 0.8));
    assert_eq!(asked.guidance_scale, 1.0, "there is nothing to guide to");
}

#[tokio::test]
async fn models_are_the_applications_that_have_a_path_and_what_they_serve_on_demand() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let ids = async |path: &str| {
        let answer = get(mesh.http, path).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let told = answer.json();
        assert_eq!(told["object"], "list");
        let models = told["data"].as_array().unwrap().iter();
        models
            .map(|model| model["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids("/v1/models").await, ["demo"]);
    let told = get(mesh.http, "/v1/models/demo").await.json();
    assert_eq!(
        (&told["id"], &told["object"], &told["owned_by"]),
        (&json!("demo"), &json!("model"), &json!("mobula"))
    );
    assert!(told["created"].is_u64());
    assert_eq!(
        error(&get(mesh.http, "/v1/models/gpt-image-1").await),
        (404, json!("model"), json!("model_not_found"))
    );
    let other = ModelInfo {
        tasks: vec![Task::TextToImage.into()],
        ..model()
    };
    let mut other = mesh.application("other", other, &[&worker], (4, -1));
    other.route_prefix = "/other".into();
    let mut hidden = mesh.application("hidden", model(), &[&worker], (4, -1));
    hidden.route_prefix = String::new();
    mesh.change(|table| table.applications.extend([other, hidden]));
    soon("the other application", async {
        while ids("/v1/models").await.len() < 2 {}
    })
    .await;
    assert_eq!(ids("/v1/models").await, ["demo", "other"]);
    assert_eq!(ids("/other/v1/models").await, ["other"]);
    let prompt = json!({ "prompt": "a" });
    let unnamed = post(mesh.http, GENERATIONS, &prompt).await;
    assert_eq!(error(&unnamed), (400, json!("model"), json!("invalid_value")));
    for (path, model, status) in [
        (GENERATIONS, "other", 200),
        (GENERATIONS, "hidden", 404),
        ("/other/v1/images/generations", "", 200),
        ("/other/v1/images/generations", "other", 200),
        ("/other/v1/images/generations", "demo", 404),
    ] {
        let body = json!({ "prompt": "a", "model": model });
        assert_eq!(
            post(mesh.http, path, &body).await.status,
            status,
            "{path} {model}"
        );
    }
    let drawn = worker.requests();
    let drawn: Vec<_> = drawn.iter().map(|request| request.replica_id.as_str()).collect();
    assert_eq!(drawn, ["other#a"; 3]);
}
