//! The HTTP door over real sockets, as the Ray sample and its clients know it.

use crate::support::{Act, Mesh, Worker, call, encoded, get, picture, prompt, soon};
use mobula_proto::{common::v1::Priority, image::v1::CancelRequest};
use mobula_proxy::Config;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

fn config() -> Config {
    Config {
        no_replica_timeout_s: 10.0,
        ..Config::default()
    }
}

#[tokio::test]
async fn the_ray_client_gets_its_picture() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let path = "/imagine?prompt=a%20cute%20cat%20is%20dancing%20on%20the%20grass.&img_size=512";
    let answer = get(mesh.http, path).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "image/png");
    let asked = &worker.requests()[0];
    assert_eq!((asked.width, asked.height), (512, 512));
    assert_eq!(answer.body, picture(asked.seeds[0]));
    assert_eq!(answer.header("x-mobula-seed"), asked.seeds[0].to_string());
    assert_eq!(answer.header("x-request-id").len(), 36);
}

#[tokio::test]
async fn what_a_picture_was_made_with_is_in_its_headers() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let request = concat!(
        "GET /imagine?prompt=a+cat&seed=7&steps=3&guidance_scale=2.5&scheduler=euler_a&negative_prompt=dog HTTP/1.1\r\n",
        "host: mobula\r\nx-request-id: mine\r\nconnection: close\r\n\r\n",
    );
    let answer = call(mesh.http, request).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, picture(7));
    let digest = "ab".repeat(32);
    for (name, value) in [
        ("x-request-id", "mine"),
        ("x-mobula-seed", "7"),
        ("x-mobula-scheduler", "euler_a"),
        ("x-mobula-steps", "3"),
        ("x-mobula-guidance-scale", "2.5"),
        ("x-mobula-model", "demo"),
        ("x-mobula-model-digest", &digest),
        ("x-mobula-image-digest", "digest 7"),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    assert!(
        answer.header("server-timing").contains("denoise;dur=0.007"),
        "{}",
        answer.header("server-timing")
    );
    assert_eq!(worker.requests()[0].negative_prompt, Some(encoded("dog")));
    assert_eq!(worker.requests()[0].width, 128, "the model's own size");
}

#[tokio::test]
async fn seldom_fields_have_query_names_and_priority_a_header() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let request = |query: &str, priority: &str| {
        format!(
            "GET /imagine?prompt=cat&{query} HTTP/1.1\r\nhost: m\r\nx-mobula-priority: {priority}\r\nconnection: close\r\n\r\n"
        )
    };
    let good = request(
        "scheduler=Euler%20a&clip_skip=1&guidance_end=0.5&priority=low",
        "high",
    );
    assert_eq!(call(mesh.http, &good).await.status, 200);
    let asked = &worker.requests()[0];
    assert_eq!((asked.scheduler.as_str(), asked.clip_skip), ("euler_a", 1));
    assert_eq!(asked.guidance_interval.map(|part| part.end), Some(0.5));
    assert_eq!(asked.priority(), Priority::High, "the header has the last word");
    let bad = request(
        "guidance_rescale=2&guidance_start=-1&eta=x&refiner=nobody&switch_at=0.5",
        "urgent",
    );
    let answer = call(mesh.http, &bad).await;
    assert_eq!(answer.status, 422);
    let json = answer.json();
    let places = json["detail"].as_array().unwrap().iter();
    let places: Vec<_> = places.map(|entry| entry["loc"].clone()).collect();
    let expected = [
        json!(["query", "eta"]),
        json!(["header", "x-mobula-priority"]),
        json!(["query", "refiner"]),
        json!(["query", "guidance_rescale"]),
        json!(["query", "guidance_start"]),
    ];
    assert_eq!(places, expected);
}

#[tokio::test]
async fn a_body_on_a_get_is_tolerated() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let request = concat!(
        "GET /imagine?prompt=cat HTTP/1.1\r\nhost: mobula\r\nconnection: close\r\n",
        "content-type: application/json\r\ncontent-length: 17\r\n\r\n{\"prompt\": \"dog\"}",
    );
    assert_eq!(call(mesh.http, request).await.status, 200);
}

#[tokio::test]
async fn bad_queries_are_told_as_fastapi_tells_them() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let answer = get(mesh.http, "/imagine").await;
    assert_eq!(answer.status, 422);
    assert_eq!(answer.header("content-type"), "application/json");
    let missing =
        json!({ "type": "missing", "loc": ["query", "prompt"], "msg": "Field required", "input": null });
    assert_eq!(answer.json(), json!({ "detail": [missing] }));
    let types = async |query: &str| {
        let answer = get(mesh.http, &format!("/imagine?{query}")).await;
        assert_eq!(answer.status, 422, "{query}");
        let json = answer.json();
        let entries = json["detail"].as_array().unwrap().iter();
        let entry = |e: &serde_json::Value| {
            format!(
                "{} {}",
                e["loc"][1].as_str().unwrap(),
                e["type"].as_str().unwrap()
            )
        };
        entries.map(entry).collect::<Vec<_>>()
    };
    assert_eq!(types("prompt=").await, ["prompt string_too_short"]);
    assert_eq!(types("prompt=a&img_size=abc").await, ["img_size int_parsing"]);
    assert_eq!(types("prompt=a&img_size=100").await, ["img_size multiple_of"]);
    assert_eq!(
        types("prompt=a&img_size=0").await,
        ["img_size greater_than_equal"]
    );
    assert_eq!(
        types("prompt=a&img_size=4096").await,
        ["img_size less_than_equal"]
    );
    assert_eq!(
        types("prompt=a&steps=0&guidance_scale=nan").await,
        ["steps greater_than_equal", "guidance_scale finite_number"]
    );
    assert_eq!(
        types("prompt=a&scheduler=turbo").await,
        ["scheduler literal_error"]
    );
    assert_eq!(types("prompt=%ff").await, ["prompt string_unicode"]);
    assert_eq!(types("prompt=a&sampler=x").await, ["sampler extra_forbidden"]);
    assert_eq!(
        types("steps=x&seed=-1").await,
        ["prompt missing", "steps int_parsing", "seed greater_than_equal"]
    );
    assert!(worker.requests().is_empty());
}

#[tokio::test]
async fn other_paths_and_methods_are_answered_as_ray_answers_them() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let answer = get(mesh.http, "/nope").await;
    assert_eq!(
        (answer.status, answer.json()),
        (404, json!({ "detail": "Not Found" }))
    );
    let answer = call(
        mesh.http,
        "POST /imagine?prompt=a HTTP/1.1\r\nhost: m\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(
        (answer.status, answer.json()),
        (405, json!({ "detail": "Method Not Allowed" }))
    );
    assert_eq!(answer.header("allow"), "GET");
    let answer = get(mesh.http, "/imagine/?prompt=a").await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (307, "../imagine?prompt=a")
    );
    let answer = get(mesh.http, "/-/routes").await;
    assert_eq!((answer.status, answer.json()), (200, json!({ "/": "demo" })));
    let answer = get(mesh.http, "/-/healthz").await;
    assert_eq!((answer.status, answer.text()), (200, "success"));
    mesh.routes.send_modify(|table| {
        table.version += 1;
        table.applications[0].route_prefix = "/demo".into();
    });
    let answer = soon("the new table", async {
        loop {
            let answer = get(mesh.http, "/other/imagine").await;
            if !answer.text().starts_with('{') {
                return answer;
            }
        }
    })
    .await;
    assert_eq!(answer.status, 404);
    // Ray's words, and what to do about an application that is not there yet.
    let rays = "Path '/other/imagine' not found. Ping http://mobula/-/routes for available routes.";
    assert!(answer.text().starts_with(rays), "{}", answer.text());
    assert!(answer.text().contains("mobula status"), "{}", answer.text());
    assert_eq!(get(mesh.http, "/demo/imagine?prompt=a").await.status, 200);
}

#[tokio::test]
async fn without_a_route_table_the_door_says_so() {
    let mesh = Mesh::bare(config()).await;
    for path in ["/-/healthz", "/-/routes", "/imagine?prompt=a"] {
        let answer = get(mesh.http, path).await;
        assert_eq!(
            (answer.status, answer.text()),
            (503, "Route table is not populated yet."),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_time_limit_is_408() {
    let mut worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    worker.will(Act::Hang);
    let request =
        "GET /imagine?prompt=a HTTP/1.1\r\nhost: m\r\nx-mobula-timeout-ms: 200\r\nconnection: close\r\n\r\n";
    let answer = call(mesh.http, request).await;
    assert_eq!(answer.status, 408);
    assert_eq!(answer.json()["error"]["reason"], "DEADLINE_PASSED");
    soon("the stream's drop", worker.dropped.recv()).await;
}

#[tokio::test]
async fn a_full_queue_is_503_and_says_when_to_come_back() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::bare(config()).await;
    mesh.route(&[&worker], 1, 0).await;
    worker.will(Act::Hang);
    let mut first = mesh.generate(prompt(|_| ())).await;
    first.started().await;
    let answer = get(mesh.http, "/imagine?prompt=a").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["error"]["code"], "RESOURCE_EXHAUSTED");
    assert_eq!(answer.header("retry-after"), "1");
}

#[tokio::test]
async fn without_a_replica_it_is_503() {
    let mesh = Mesh::start(
        Config {
            no_replica_timeout_s: 0.1,
            ..config()
        },
        &[],
        1,
    )
    .await;
    let answer = get(mesh.http, "/imagine?prompt=a").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["error"]["reason"], "NO_REPLICA");
}

#[tokio::test]
async fn a_caller_who_hangs_up_frees_the_replica() {
    let mut worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 1).await;
    worker.will(Act::Hang);
    let mut stream = TcpStream::connect(mesh.http).await.unwrap();
    stream
        .write_all(b"GET /imagine?prompt=a HTTP/1.1\r\nhost: m\r\ncontent-length: 2\r\n\r\n{}")
        .await
        .unwrap();
    soon("a call", worker.called.recv()).await;
    drop(stream);
    soon("the stream's drop", worker.dropped.recv()).await;
    assert_eq!(get(mesh.http, "/imagine?prompt=a").await.status, 200);
}

#[tokio::test]
async fn a_request_can_be_cancelled_by_its_id_and_an_id_is_used_once_at_a_time() {
    let mut worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    worker.will(Act::Hang);
    let request =
        "GET /imagine?prompt=a HTTP/1.1\r\nhost: m\r\nx-request-id: one\r\nconnection: close\r\n\r\n";
    let first = tokio::spawn(call(mesh.http, request));
    soon("a call", worker.called.recv()).await;
    assert_eq!(call(mesh.http, request).await.status, 409);
    mesh.client
        .clone()
        .cancel(CancelRequest {
            request_id: "one".into(),
        })
        .await
        .unwrap();
    assert_eq!(first.await.unwrap().status, 499);
}

#[tokio::test]
async fn a_request_id_that_cannot_be_one_is_told_of_its_header() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let long = "x".repeat(129);
    let request = format!(
        "GET /imagine?prompt=a HTTP/1.1\r\nhost: m\r\nx-request-id: {long}\r\nconnection: close\r\n\r\n"
    );
    let answer = call(mesh.http, &request).await;
    assert_eq!(answer.status, 422);
    assert_eq!(
        answer.json()["detail"][0]["loc"],
        json!(["header", "x-request-id"])
    );
}

#[tokio::test]
async fn a_draining_door_says_so_and_finishes_what_it_has() {
    let mut worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 1).await;
    worker.will(Act::Hang);
    let hanging =
        "GET /imagine?prompt=a HTTP/1.1\r\nhost: m\r\nx-request-id: one\r\nconnection: close\r\n\r\n";
    let first = tokio::spawn(call(mesh.http, hanging));
    soon("a call", worker.called.recv()).await;
    let second = tokio::spawn(get(mesh.http, "/imagine?prompt=a&seed=3"));
    mesh.stop.trigger();
    let answer = get(mesh.http, "/-/healthz").await;
    assert_eq!(
        (answer.status, answer.text()),
        (503, "This node is being drained.")
    );
    mesh.client
        .clone()
        .cancel(CancelRequest {
            request_id: "one".into(),
        })
        .await
        .unwrap();
    assert_eq!(first.await.unwrap().status, 499);
    assert_eq!(second.await.unwrap().body, picture(3));
    soon("the end", mesh.proxy).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_address_that_is_too_long_is_told_so_and_not_cut_off() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    for length in [70_000, 1_000_000] {
        let answer = get(mesh.http, &format!("/imagine?prompt={}", "a".repeat(length))).await;
        assert_eq!(answer.status, 414, "{length}");
    }
    assert_eq!(
        get(mesh.http, &format!("/imagine?prompt={}", "a".repeat(60_000)))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn whoever_holds_a_connection_for_nothing_loses_it() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    for (said, answered) in [
        ("", ""),
        // May still become HTTP/2, and HTTP/1.
        ("PRI * HT", ""),
        ("GET /imagine?pro", ""),
        (
            "GET /imagine?prompt=a HTTP/1.1\r\nhost: mobula\r\ncontent-length: 9\r\n\r\nbody",
            "HTTP/1.1 408 ",
        ),
    ] {
        let mut stream = TcpStream::connect(mesh.http).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        let mut heard = String::new();
        // The clock runs ahead while everybody waits.
        tokio::time::pause();
        stream.read_to_string(&mut heard).await.unwrap();
        tokio::time::resume();
        assert!(
            heard.starts_with(answered) && heard.is_empty() == answered.is_empty(),
            "{said}: {heard}"
        );
    }
    assert!(worker.requests().is_empty());
}
