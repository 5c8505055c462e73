//! gRPC-Web and the rights of pages, by hand: bytes as a browser sends them, over HTTP/1.1 and HTTP/2.

use std::net::SocketAddr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use mobula_kit::{Stop, metrics, web::Origins};
use mobula_proto::control::v1::GetStatusResponse;
use prost::Message as _;

use crate::common::{GRACE, Server, ask, client, serve, serve_for};

const STATUS: &str = "/mobula.control.v1.ServeService/GetStatus";
const WATCH: &str = "/mobula.control.v1.ControlService/WatchRoutes";
const PAGE: &str = "https://pictures.example";

async fn door(origins: &str) -> Server {
    serve_for(Stop::new(GRACE), None, Some(origins.parse().unwrap())).await
}

/// What a browser asks with: an empty message in its frame.
fn post(kind: &str, what: &str) -> http::Request<Full<Bytes>> {
    let mut body = vec![0; 5];
    if kind.contains("-text") {
        body = STANDARD.encode(body).into();
    }
    http::Request::post(STATUS)
        .header("content-type", kind)
        .header("x-grpc-web", "1")
        .header("x-do", what)
        .header("origin", PAGE)
        .body(Full::from(body))
        .unwrap()
}

async fn send(address: SocketAddr, request: http::Request<Full<Bytes>>, h2: bool) -> http::Response<Bytes> {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).http2_only(h2).build_http();
    let (mut parts, body) = request.into_parts();
    parts.uri = format!("http://{address}{}", parts.uri).parse().unwrap();
    let response = client
        .request(http::Request::from_parts(parts, body))
        .await
        .unwrap();
    let (parts, body) = response.into_parts();
    http::Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
}

/// The frames of an answer: messages, then the trailers as lines.
fn frames(mut body: &[u8]) -> (Vec<Vec<u8>>, Vec<String>) {
    let (mut messages, mut trailers) = (Vec::new(), Vec::new());
    while let Some((head, rest)) = body.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let (frame, rest) = rest.split_at(length);
        match head[0] {
            0 => {
                assert!(trailers.is_empty(), "nothing comes behind the trailers");
                messages.push(frame.to_vec());
            }
            0x80 => trailers.extend(
                String::from_utf8(frame.to_vec())
                    .unwrap()
                    .lines()
                    .map(str::to_owned),
            ),
            other => panic!("frame of kind {other}"),
        }
        body = rest;
    }
    assert!(body.is_empty(), "half a frame");
    (messages, trailers)
}

#[tokio::test]
async fn a_browser_calls_over_both_versions_of_http_and_in_both_spellings() {
    let server = door("").await;
    for h2 in [false, true] {
        for kind in [
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpc-web+proto; charset=utf-8",
            "application/grpc-web-text",
            "application/grpc-web-text+proto",
        ] {
            let answer = send(server.address, post(kind, ""), h2).await;
            assert_eq!(answer.status(), 200, "{kind}");
            let is_text = kind.contains("-text");
            let told = answer.headers()["content-type"].to_str().unwrap();
            assert_eq!(told.contains("-text"), is_text, "{kind} is answered as {told}");
            let body = if is_text {
                pieces(answer.body())
            } else {
                answer.body().to_vec()
            };
            let (messages, trailers) = frames(&body);
            let message = GetStatusResponse::decode(messages[0].as_slice()).unwrap();
            assert_eq!((messages.len(), message.version.as_str()), (1, "1"), "{kind}");
            assert!(trailers.contains(&"grpc-status:0".to_owned()), "{trailers:?}");
            assert!(trailers.contains(&"x-end:here".to_owned()), "{trailers:?}");
        }
    }
}

/// Undoes base64 that is padded wherever a piece ended.
fn pieces(text: &[u8]) -> Vec<u8> {
    let whole = text.chunks(4).map(|quartet| STANDARD.decode(quartet).unwrap());
    whole.flatten().collect()
}

#[tokio::test]
async fn an_error_reaches_a_browser_with_its_details() {
    let server = door("").await;
    let answer = send(server.address, post("application/grpc-web+proto", "full"), false).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["grpc-status"], "8");
    assert_eq!(answer.headers()["grpc-message"], "full");
    assert!(answer.headers().contains_key("grpc-status-details-bin"));
    assert!(answer.body().is_empty());
}

#[tokio::test]
async fn a_stream_reaches_a_browser_as_it_comes_and_who_leaves_ends_it() {
    let server = door("").await;
    let socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let mut request = post("application/grpc-web+proto", "");
    *request.uri_mut() = WATCH.parse().unwrap();
    request.headers_mut().insert("host", "mobula".parse().unwrap());
    let mut body = sender.send_request(request).await.unwrap().into_body();
    server.knobs.items.add_permits(1);
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    let (messages, trailers) = frames(&first);
    assert_eq!(
        (messages.len(), trailers.len()),
        (1, 0),
        "before the second item is there"
    );
    drop((body, sender));
    connection.abort();
    server.knobs.dropped.notified().await;
}

#[tokio::test]
async fn who_comes_to_the_wrong_port_is_told_so() {
    let server = door("").await;
    for (method, kind) in [
        ("GET", None),
        ("POST", Some("application/json")),
        ("POST", Some("application/grpc")),
    ] {
        let mut request = http::Request::builder().method(method).uri(STATUS);
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let answer = send(server.address, request.body(Full::default()).unwrap(), false).await;
        assert_eq!(answer.status(), 415, "{method} {kind:?}");
        let told = String::from_utf8_lossy(answer.body()).into_owned();
        assert!(told.contains("gRPC-Web") && told.contains("HTTP port"), "{told}");
    }
    let mut request = post("application/grpc-web", "");
    *request.method_mut() = http::Method::PUT;
    assert_eq!(send(server.address, request, false).await.status(), 405);
}

#[tokio::test]
async fn plain_calls_pass_by_at_the_same_door() {
    let server = door("*").await;
    let mut client = client(server.address);
    assert_eq!(
        client
            .get_status(ask("answer"))
            .await
            .unwrap()
            .into_inner()
            .version,
        "1"
    );
}

#[tokio::test]
async fn a_server_without_a_door_for_browsers_speaks_no_http1() {
    let server = serve(Stop::new(GRACE), None).await;
    let socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let mut request = post("application/grpc-web", "");
    request.headers_mut().insert("host", "mobula".parse().unwrap());
    assert!(sender.send_request(request).await.is_err());
    connection.abort();
}

fn preflight(origin: &str) -> http::Request<Full<Bytes>> {
    http::Request::options(STATUS)
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "content-type,x-grpc-web,x-request-id",
        )
        .body(Full::default())
        .unwrap()
}

#[tokio::test]
async fn pages_call_from_the_origins_that_were_named_and_from_no_others() {
    for (origins, caller, may) in [
        (PAGE, PAGE, true),
        (PAGE, "https://evil.example", false),
        (PAGE, "null", false),
        ("*", "https://anybody.example", true),
        ("", PAGE, false),
    ] {
        let server = door(origins).await;
        let answer = send(server.address, preflight(caller), false).await;
        let told = |name: &str| {
            answer
                .headers()
                .get(name)
                .map(|value| value.to_str().unwrap().to_owned())
        };
        let allowed = told("access-control-allow-origin");
        let named = allowed
            .as_deref()
            .is_some_and(|origin| origin == caller || origin == "*");
        assert_eq!(named, may, "{origins:?} {caller}: {allowed:?}");
        assert!(told("access-control-allow-credentials").is_none());
        if may {
            assert!(
                told("access-control-allow-headers")
                    .unwrap()
                    .contains("x-request-id")
            );
            assert!(told("access-control-allow-methods").unwrap().contains("POST"));
            let answer = send(server.address, post("application/grpc-web", ""), false).await;
            let exposed = answer.headers()["access-control-expose-headers"]
                .to_str()
                .unwrap();
            assert!(exposed.contains("grpc-status-details-bin"), "{exposed}");
        }
    }
}

#[tokio::test]
async fn what_browsers_ask_is_counted_by_kind() {
    let page = metrics::install();
    let server = door("*").await;
    send(server.address, preflight(PAGE), false).await;
    send(server.address, post("application/grpc-web", ""), true).await;
    send(server.address, post("application/grpc-web", "full"), false).await;
    send(server.address, post("text/plain", ""), false).await;
    let page = page.render();
    for line in [
        "mobula_grpc_web_requests_total{kind=\"preflight\"} 1",
        "mobula_grpc_web_requests_total{kind=\"call\"} 2",
        "mobula_grpc_web_requests_total{kind=\"other\"} 1",
    ] {
        assert!(page.contains(line), "{line} in\n{page}");
    }
}

#[tokio::test]
async fn origins_of_nobody_are_the_default() {
    assert_eq!(Origins::default(), Origins::None);
    assert!(Origins::default().cors().is_none());
}
