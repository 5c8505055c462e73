//! What is refused, how, and within which limits.

use mobula_proxy::Config;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{EDITS, GENERATIONS, config, error, form, post, with};
use crate::support::{Act, Mesh, Worker, broken_png, call, get, png, soon};

#[tokio::test]
async fn a_proxy_that_keeps_nothing_gives_no_links() {
    let worker = Worker::start("a").await;
    let config = Config {
        max_kept_image_bytes: 0,
        ..config()
    };
    let mesh = Mesh::start(config, &[&worker], 4).await;
    let body = json!({ "prompt": "a cat", "response_format": "url" });
    let answer = post(mesh.http, GENERATIONS, &body).await;
    assert_eq!(
        error(&answer),
        (400, json!("response_format"), json!("invalid_value"))
    );
    assert!(worker.requests().is_empty(), "before anything is drawn");
}

#[tokio::test]
async fn what_is_wrong_is_told_in_openais_words() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    for (body, status, param, code) in [
        (json!({}), 400, json!("prompt"), "missing_required_parameter"),
        (
            json!({ "prompt": "" }),
            400,
            json!("prompt"),
            "string_below_min_length",
        ),
        (json!({ "prompt": 7 }), 400, json!("prompt"), "invalid_value"),
        (
            json!({ "prompt": "a", "n": 0 }),
            400,
            json!("n"),
            "integer_below_min_value",
        ),
        (
            json!({ "prompt": "a", "n": 11 }),
            400,
            json!("n"),
            "integer_above_max_value",
        ),
        (
            json!({ "prompt": "a", "sampler": "x" }),
            400,
            json!("sampler"),
            "unknown_parameter",
        ),
        (
            json!({ "prompt": "a", "size": "100x128" }),
            400,
            json!("size"),
            "invalid_value",
        ),
        (
            json!({ "prompt": "a", "size": "4096x4096" }),
            400,
            json!("size"),
            "integer_above_max_value",
        ),
        (
            json!({ "prompt": "a", "num_inference_steps": 500 }),
            400,
            json!("num_inference_steps"),
            "integer_above_max_value",
        ),
        (
            json!({ "prompt": "a", "scheduler": "x" }),
            400,
            json!("scheduler"),
            "invalid_value",
        ),
        (
            json!({ "prompt": "a", "background": "transparent" }),
            400,
            json!("background"),
            "invalid_value",
        ),
        (
            json!({ "prompt": "a", "output_format": "gif" }),
            400,
            json!("output_format"),
            "invalid_value",
        ),
        (
            json!({ "prompt": "a", "model": "dall-e-3" }),
            404,
            json!("model"),
            "model_not_found",
        ),
        (
            json!({ "prompt": "a", "model": "demo:x" }),
            404,
            json!("model"),
            "model_not_found",
        ),
    ] {
        let answer = post(mesh.http, GENERATIONS, &body).await;
        assert_eq!(
            error(&answer),
            (status, param, json!(code)),
            "{body}: {}",
            answer.text()
        );
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
    }
    let head = "x-mobula-timeout-ms: soon\r\n";
    let answer = with(mesh.http, GENERATIONS, head, &json!({ "prompt": "a" })).await;
    assert_eq!(error(&answer).1, json!("x-mobula-timeout-ms"));
    let broken = broken_png(64, 64);
    let image = png(64, 64);
    for (parts, param) in [
        (&[("prompt", &b"a"[..])][..], "image"),
        (&[("prompt", b"a"), ("image", b"no picture")], "image"),
        (&[("prompt", b"a"), ("image", &broken)], "image"),
        (&[("prompt", b"a"), ("image", &image), ("mask", &broken)], "mask"),
        (&[("prompt", b"a"), ("image", &image), ("image", &image)], "image"),
    ] {
        let answer = form(mesh.http, EDITS, parts).await;
        assert_eq!(
            (error(&answer).0, error(&answer).1),
            (400, json!(param)),
            "{}",
            answer.text()
        );
    }
    assert!(worker.requests().is_empty());
}

#[tokio::test]
async fn bodies_that_are_none_are_refused() {
    let worker = Worker::start("a").await;
    let config = Config {
        max_prompt_bytes: 100,
        max_image_bytes: 1000,
        ..config()
    };
    let mesh = Mesh::start(config, &[&worker], 4).await;
    let raw = async |path: &str, head: &str, body: &str| {
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: m\r\nconnection: close\r\ncontent-length: {length}\r\n{head}\r\n{body}"
        );
        let answer = call(mesh.http, &request).await;
        error(&answer)
    };
    let bomb = "[".repeat(50_000);
    for (path, head, body) in [
        (GENERATIONS, "", ""),
        (GENERATIONS, "", "prompt=a"),
        (GENERATIONS, "", "[]"),
        (GENERATIONS, "", &bomb),
        (EDITS, "content-type: application/json\r\n", "{}"),
        (EDITS, "", "x"),
        (EDITS, "content-type: multipart/form-data; boundary=b\r\n", "--b"),
    ] {
        let told = raw(path, head, body).await;
        assert_eq!(told, (400, Value::Null, json!("invalid_body")), "{path} {head}");
    }
    let long = "x".repeat(2 << 20);
    let form = "content-type: multipart/form-data; boundary=b\r\n";
    for (path, head) in [(GENERATIONS, ""), (EDITS, form)] {
        let told = raw(path, head, &long).await;
        assert_eq!(told, (413, Value::Null, json!("request_too_large")), "{path}");
    }
    // Who asks before sending does not send.
    let request = format!(
        "POST {EDITS} HTTP/1.1\r\nhost: m\r\nconnection: close\r\nexpect: 100-continue\r\n{form}content-length: 99999999\r\n\r\n"
    );
    assert_eq!(call(mesh.http, &request).await.status, 413);
    for (path, method) in [
        (GENERATIONS, "POST"),
        ("/v1/models", "GET"),
        ("/v1/models/demo", "GET"),
    ] {
        let request = format!("DELETE {path} HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n");
        let answer = call(mesh.http, &request).await;
        assert_eq!((answer.status, answer.header("allow")), (405, method));
    }
}

#[tokio::test]
async fn a_slow_body_loses_its_connection() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let form = "content-type: multipart/form-data; boundary=b\r\n";
    for (path, head) in [(GENERATIONS, ""), (EDITS, form)] {
        let mut stream = TcpStream::connect(mesh.http).await.unwrap();
        let request = format!("POST {path} HTTP/1.1\r\nhost: m\r\n{head}content-length: 99\r\n\r\n--b");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut heard = String::new();
        // The clock runs ahead while everybody waits.
        tokio::time::pause();
        stream.read_to_string(&mut heard).await.unwrap();
        tokio::time::resume();
        assert!(heard.starts_with("HTTP/1.1 408 "), "{path}: {heard}");
    }
}

#[tokio::test]
async fn uploads_are_held_within_the_limit_of_all_pictures() {
    let worker = Worker::start("a").await;
    let config = Config {
        max_held_image_bytes: 1000,
        ..config()
    };
    let mesh = Mesh::start(config, &[&worker], 4).await;
    let image = [&png(64, 64)[..], &[0; 2000]].concat();
    let answer = form(mesh.http, EDITS, &[("prompt", b"a"), ("image", &image)]).await;
    assert_eq!(error(&answer), (429, Value::Null, json!("rate_limit_exceeded")));
    assert_eq!(answer.header("retry-after"), "1");
    let small = form(mesh.http, EDITS, &[("prompt", b"a"), ("image", &png(64, 64))]).await;
    assert!(
        small.text().contains("hold all of the 1000 bytes"),
        "its pixels are too many"
    );
}

#[tokio::test]
async fn a_full_queue_is_429_a_time_limit_408_and_no_replica_503() {
    let mut worker = Worker::start("a").await;
    let mesh = Mesh::bare(Config {
        no_replica_timeout_s: 0.1,
        ..config()
    })
    .await;
    mesh.route(&[&worker], 1, 0).await;
    worker.will(Act::Hang);
    let (address, body) = (mesh.http, json!({ "prompt": "a" }));
    let first = tokio::spawn({
        let body = body.clone();
        async move { post(address, GENERATIONS, &body).await }
    });
    soon("a call", worker.called.recv()).await;
    let answer = post(mesh.http, GENERATIONS, &body).await;
    assert_eq!(error(&answer), (429, Value::Null, json!("rate_limit_exceeded")));
    assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);
    assert!(answer.header("retry-after-ms").parse::<u64>().unwrap() > 0);
    first.abort();
    soon("the stream's drop", worker.dropped.recv()).await;
    worker.will(Act::Hang);
    let answer = with(mesh.http, GENERATIONS, "x-mobula-timeout-ms: 200\r\n", &body).await;
    assert_eq!(error(&answer), (408, Value::Null, json!("deadline_passed")));
    assert_eq!(
        answer.header("x-should-retry"),
        "false",
        "or the package tries again"
    );
    mesh.publish(&[], 1, -1);
    mesh.has_replicas(0).await;
    let answer = post(mesh.http, GENERATIONS, &body).await;
    assert_eq!(error(&answer), (503, Value::Null, json!("unavailable")));
}

#[tokio::test]
async fn without_a_route_table_openais_clients_are_told_to_come_back() {
    let mesh = Mesh::bare(Config {
        no_replica_timeout_s: 0.1,
        ..config()
    })
    .await;
    let answer = get(mesh.http, "/v1/models").await;
    assert_eq!(error(&answer), (503, Value::Null, json!("unavailable")));
    assert_eq!(answer.header("retry-after"), "1");
    let answer = post(mesh.http, GENERATIONS, &json!({ "prompt": "a" })).await;
    assert_eq!(answer.status, 503);
}
