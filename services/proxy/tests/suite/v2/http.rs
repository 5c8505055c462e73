//! `/v2`.

use std::{io::Write as _, net::SocketAddr};

use crate::support::{Answered, Mesh, Worker, call, get, picture};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};
use serde_json::{Value, json};

use super::{config, elements};

const INFER: &str = "/v2/models/demo/infer";

/// Posts a body with more lines of the head.
async fn post(address: SocketAddr, path: &str, head: &str, body: &[u8]) -> Answered {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nhost: mobula\r\nconnection: close\r\ncontent-length: {}\r\n{head}\r\n",
        body.len()
    )
    .into_bytes();
    request.extend(body);
    call(address, request).await
}

async fn infer(mesh: &Mesh, body: &Value) -> Answered {
    post(mesh.http, INFER, "", body.to_string().as_bytes()).await
}

fn ask() -> Value {
    json!({
        "id": "7",
        "parameters": { "steps": 4 },
        "inputs": [
            { "name": "prompt", "shape": [1], "datatype": "BYTES", "data": ["a red circle"] },
            { "name": "seed", "shape": [1], "datatype": "UINT64", "data": [42] },
        ],
    })
}

#[tokio::test]
async fn tensors_go_as_json_and_as_binary_data() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let answer = infer(&mesh, &ask()).await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/json"),
        "{}",
        answer.text()
    );
    assert_eq!(answer.header("x-request-id").len(), 36);
    let told = answer.json();
    assert_eq!(
        (&told["model_name"], &told["id"], &told["parameters"]["steps"]),
        (&json!("demo"), &json!("7"), &json!(4))
    );
    let image = told["outputs"][0]["data"][0].as_str().unwrap();
    assert_eq!(STANDARD.decode(image).unwrap(), picture(42));
    assert_eq!(told["outputs"][1]["data"], json!([42]));
    // The same as tritonclient sends it by default.
    let json = json!({
        "inputs": [
            { "name": "prompt", "shape": [1], "datatype": "BYTES", "parameters": { "binary_data_size": 5 } },
            { "name": "seed", "shape": [1], "datatype": "UINT64", "parameters": { "binary_data_size": 8 } },
        ],
        "parameters": { "binary_data_output": true },
    })
    .to_string();
    let mut body = json.clone().into_bytes();
    body.extend(b"\x01\0\0\0a\x2a\0\0\0\0\0\0\0");
    let head = format!("Inference-Header-Content-Length: {}\r\n", json.len());
    let answer = post(mesh.http, "/v2/models/demo/versions/1/infer", &head, &body).await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/octet-stream")
    );
    let length: usize = answer.header("inference-header-content-length").parse().unwrap();
    let (json, binary) = answer.body.split_at(length);
    let told: Value = serde_json::from_slice(json).unwrap();
    let size = told["outputs"][0]["parameters"]["binary_data_size"]
        .as_u64()
        .unwrap() as usize;
    assert_eq!(elements(&binary[..size]), [picture(42)]);
    assert_eq!(binary[size..], 42u64.to_le_bytes());
}

#[tokio::test]
async fn bodies_may_be_packed() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let body = ask().to_string();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(body.as_bytes()).unwrap();
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
    zlib.write_all(body.as_bytes()).unwrap();
    for (encoding, body) in [
        ("gzip", gzip.finish().unwrap()),
        ("deflate", zlib.finish().unwrap()),
    ] {
        let head = format!("content-encoding: {encoding}\r\n");
        let answer = post(mesh.http, INFER, &head, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer = post(mesh.http, INFER, &head, b"not packed").await;
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains("Content-Encoding"), "{}", answer.text());
    }
    let mut bomb = GzEncoder::new(Vec::new(), Compression::fast());
    let zeros = vec![0; 1 << 20];
    for _ in 0..64 {
        bomb.write_all(&zeros).unwrap();
    }
    let answer = post(
        mesh.http,
        INFER,
        "content-encoding: gzip\r\n",
        &bomb.finish().unwrap(),
    )
    .await;
    assert_eq!(answer.status, 413, "{}", answer.text());
    let answer = post(mesh.http, INFER, "content-encoding: br\r\n", b"x").await;
    assert_eq!(
        (answer.status, answer.header("accept-encoding")),
        (415, "gzip, deflate")
    );
}

#[tokio::test]
async fn errors_have_one_form() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let with = |name: &str, value: Value| {
        let mut asked = ask();
        asked["parameters"][name] = value;
        asked
    };
    for (answer, status, words) in [
        (
            infer(&mesh, &json!([])).await,
            400,
            "request: is no JSON of a request",
        ),
        (
            infer(&mesh, &with("width", json!(100))).await,
            400,
            "width: is 100 and must be a multiple of 8",
        ),
        (infer(&mesh, &with("timeout", json!(1))).await, 408, ""),
        (
            infer(&mesh, &with("stepps", json!(1))).await,
            400,
            "stepps: is not known",
        ),
        (
            post(mesh.http, "/v2/models/other/infer", "", b"{}").await,
            404,
            "there is no model \"other\"",
        ),
        (
            post(mesh.http, "/v2/models/demo/versions/3/infer", "", b"{}").await,
            404,
            "demo has version 1",
        ),
        (
            post(mesh.http, INFER, "Inference-Header-Content-Length: 9\r\n", b"{}").await,
            400,
            "Inference-Header",
        ),
        (get(mesh.http, INFER).await, 405, "this path has POST only"),
        (get(mesh.http, "/v2/models/other").await, 404, "there is no model"),
        (
            get(mesh.http, "/v2/strange").await,
            404,
            "the protocol has no such path",
        ),
        (
            get(mesh.http, "/v2/trace/setting").await,
            501,
            "traces are not set up",
        ),
        (
            post(mesh.http, "/v2/repository/models/demo/unload", "", b"").await,
            501,
            "nothing is unloaded",
        ),
        (
            post(mesh.http, "/v2/systemsharedmemory/region/x/register", "", b"{}").await,
            501,
            "memory is not shared",
        ),
    ] {
        assert_eq!(answer.status, status, "{}", answer.text());
        let told = answer.json();
        let told = told["error"].as_str().unwrap();
        assert!(told.starts_with(words), "{told} / {words}");
    }
    assert!(
        worker.requests().len() <= 1,
        "only the one that came too late may have begun"
    );
}

#[tokio::test]
async fn what_there_is_can_be_read() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    assert_eq!(infer(&mesh, &ask()).await.status, 200);
    let server = get(mesh.http, "/v2").await.json();
    assert_eq!(server["name"], "mobula");
    assert!(
        server["extensions"]
            .as_array()
            .unwrap()
            .contains(&json!("binary_tensor_data"))
    );
    for path in [
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/demo/ready",
        "/v2/models/demo/versions/1/ready",
    ] {
        assert_eq!(get(mesh.http, path).await.status, 200, "{path}");
    }
    assert_eq!(get(mesh.http, "/v2/models/other/ready").await.status, 404);
    let metadata = get(mesh.http, "/v2/models/demo").await.json();
    assert_eq!(
        metadata["inputs"][0],
        json!({ "name": "prompt", "datatype": "BYTES", "shape": [-1] })
    );
    let config = get(mesh.http, "/v2/models/demo/config").await.json();
    assert_eq!(config["input"][0]["data_type"], "TYPE_STRING");
    assert_eq!(config["parameters"]["default_scheduler"]["string_value"], "pndm");
    for path in ["/v2/models/demo/stats", "/v2/models/stats"] {
        let stats = get(mesh.http, path).await.json();
        let demo = &stats["model_stats"][0];
        assert_eq!(
            (&demo["name"], &demo["execution_count"]),
            (&json!("demo"), &json!(1)),
            "{path}"
        );
        assert_eq!(demo["inference_stats"]["success"]["count"], 1);
        assert_eq!(demo["batch_stats"][0]["batch_size"], 1);
    }
    let index = post(mesh.http, "/v2/repository/index", "", br#"{"ready":true}"#)
        .await
        .json();
    assert_eq!(
        index[0],
        json!({ "name": "demo", "version": "1", "state": "READY", "reason": "" })
    );
    assert_eq!(
        post(mesh.http, "/v2/repository/models/demo/load", "", b"")
            .await
            .status,
        200
    );
    let answer = post(
        mesh.http,
        "/v2/repository/models/demo/load",
        "",
        br#"{"parameters":{"config":"{}"}}"#,
    )
    .await;
    assert_eq!(answer.status, 400);
    assert_eq!(
        get(mesh.http, "/v2/cudasharedmemory/status").await.json(),
        json!([])
    );
    // An application may have the path for itself.
    mesh.change(|table| table.applications[0].route_prefix = "/v2".into());
    crate::support::soon("the route", async {
        while get(mesh.http, "/v2/models/demo").await.status != 404 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(get(mesh.http, "/v2/imagine?prompt=a").await.status, 200);
}
