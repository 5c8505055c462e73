//! Events as they come.

use mobula_proto::image::v1::CancelRequest;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{GENERATIONS, b64, config, error, events, post, with};
use crate::support::{Act, Mesh, Worker, picture, soon};

#[tokio::test]
async fn a_stream_tells_of_pictures_on_the_way_and_of_those_that_are_done() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let body = json!({
        "prompt": "a cat", "stream": true, "partial_images": 2, "num_inference_steps": 3, "seed": 7, "n": 2, "size": "128x128",
    });
    let answer = post(mesh.http, GENERATIONS, &body).await;
    assert_eq!(worker.requests()[0].preview_interval, 1);
    let told = events(&answer);
    let names: Vec<_> = told.iter().map(|(name, _)| name.as_str()).collect();
    let (partial, completed) = ("image_generation.partial_image", "image_generation.completed");
    assert_eq!(names, [partial, completed, completed]);
    for (name, data) in &told {
        assert_eq!(
            (data["type"].as_str(), &data["size"]),
            (Some(name.as_str()), &json!("128x128"))
        );
    }
    assert_eq!(told[0].1["partial_image_index"], 0);
    assert_eq!(b64(&told[1].1["b64_json"]), picture(7));
    assert_eq!(b64(&told[2].1["b64_json"]), picture(8));
    assert_eq!(told[2].1["image_index"], 1);
}

#[tokio::test]
async fn a_stream_that_is_refused_has_a_status_and_one_that_fails_an_event() {
    let mut worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let answer = post(
        mesh.http,
        GENERATIONS,
        &json!({ "prompt": "a", "stream": true, "size": "100x128" }),
    )
    .await;
    assert_eq!(error(&answer), (400, json!("size"), json!("invalid_value")));
    worker.will(Act::Hang);
    let body = json!({ "prompt": "a", "stream": true });
    let address = mesh.http;
    let stream =
        tokio::spawn(async move { with(address, GENERATIONS, "x-request-id: one\r\n", &body).await });
    soon("a call", worker.called.recv()).await;
    let one = CancelRequest {
        request_id: "one".into(),
    };
    mesh.client.clone().cancel(one).await.unwrap();
    let answer = stream.await.unwrap();
    assert_eq!(answer.status, 200);
    let told = events(&answer);
    assert_eq!(told[0].0, "error");
    assert_eq!(told[0].1["error"]["code"], "cancelled", "{told:?}");
}

#[tokio::test]
async fn a_caller_who_leaves_a_stream_frees_the_replica() {
    let mut worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 1).await;
    for body in [r#"{"prompt": "a", "stream": true}"#, r#"{"prompt": "a"}"#] {
        worker.will(Act::Hang);
        let mut stream = TcpStream::connect(mesh.http).await.unwrap();
        let request = format!(
            "POST {GENERATIONS} HTTP/1.1\r\nhost: m\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        soon("a call", worker.called.recv()).await;
        if body.contains("stream") {
            let mut head = [0; 12];
            soon("the head", stream.read_exact(&mut head)).await.unwrap();
            assert_eq!(&head, b"HTTP/1.1 200");
        }
        drop(stream);
        soon("the stream's drop", worker.dropped.recv()).await;
    }
    assert_eq!(
        post(mesh.http, GENERATIONS, &json!({ "prompt": "a" }))
            .await
            .status,
        200
    );
}
