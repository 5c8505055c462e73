//! What the gRPC door says and takes beside messages: compression, limits, ids behind a stream, browsers.

use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use mobula_kit::status;
use mobula_proto::image::v1::{
    GenerateResponse, GetModelRequest, ListModelsRequest, generate_response::Event,
};
use mobula_proxy::Config;
use prost::Message as _;
use tonic::{Code, Request, codec::CompressionEncoding::Gzip};

use crate::support::{Act, Mesh, Worker, images, names, picture, prompt};

fn config() -> Config {
    Config {
        no_replica_timeout_s: 10.0,
        ..Config::default()
    }
}

#[tokio::test]
async fn requests_may_be_compressed_and_pictures_never_are() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let mut client = mesh.client.clone().send_compressed(Gzip).accept_compressed(Gzip);
    let asked = prompt(|r| {
        r.prompt = "a red circle ".repeat(200);
        r.seeds = vec![7];
    });
    let response = client.generate(asked).await.unwrap();
    assert!(
        response.metadata().get("grpc-encoding").is_none(),
        "{:?}",
        response.metadata()
    );
    let mut stream = response.into_inner();
    let mut events = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        events.extend(message.event);
    }
    assert_eq!(images(&events)[0].data.to_vec(), picture(7));
}

#[tokio::test]
async fn head_gets_what_get_does_without_its_body() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    for is_http2 in [false, true] {
        let client: Client<_, Full<bytes::Bytes>> = Client::builder(TokioExecutor::new())
            .http2_only(is_http2)
            .build_http();
        for (path, status) in [("/-/healthz", 200), ("/-/routes", 200), ("/nowhere", 404)] {
            let ask = async |method| {
                let uri = format!("http://{}{path}", mesh.http);
                let request = http::Request::builder().method(method).uri(uri);
                let response = client
                    .request(request.body(Full::default()).unwrap())
                    .await
                    .unwrap();
                assert_eq!(response.status(), status, "{path}");
                let length = response.headers().get("content-length").cloned();
                let body = response.into_body().collect().await.unwrap().to_bytes();
                (length.unwrap().to_str().unwrap().parse().unwrap(), body.len())
            };
            let (length, read): (usize, _) = ask("GET").await;
            assert!(length > 0 && read == length, "{path}");
            assert_eq!(ask("HEAD").await, (length, 0), "{path}");
        }
    }
}

#[tokio::test]
async fn lists_are_compressed_for_who_asks_once_they_are_long() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    // As they go over the wire: a client of ours would hide it.
    let flag = async |takes: &str| {
        let client: Client<_, Full<bytes::Bytes>> = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build_http();
        let uri = format!("http://{}/mobula.image.v1.ImageService/ListModels", mesh.grpc);
        let request = http::Request::post(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-accept-encoding", takes)
            .body(Full::from(vec![0; 5]))
            .unwrap();
        let response = client.request(request).await.unwrap();
        let encoding = response.headers().get("grpc-encoding").cloned();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (encoding, body[0], body.len())
    };
    let (_, is_compressed, short) = flag("identity,deflate,gzip").await;
    assert_eq!(is_compressed, 0, "{short} bytes fit a packet");
    mesh.change(|table| {
        let one = table.applications[0].clone();
        table.applications = (0..40)
            .map(|n| {
                let mut application = one.clone();
                application.name = format!("demo-{n}");
                application.route_prefix = format!("/{n}");
                application
            })
            .collect();
    });
    let mut client = mesh.client.clone();
    loop {
        let models = client
            .list_models(ListModelsRequest {})
            .await
            .unwrap()
            .into_inner()
            .models;
        if models.len() == 40 {
            break;
        }
        tokio::task::yield_now().await;
    }
    let (encoding, is_compressed, small) = flag("identity,deflate,gzip").await;
    assert_eq!((encoding.unwrap().to_str().unwrap(), is_compressed), ("gzip", 1));
    let (encoding, is_compressed, large) = flag("identity").await;
    assert_eq!((encoding, is_compressed), (None, 0));
    assert!(small * 5 < large, "{small} of {large} bytes");
}

#[tokio::test]
async fn a_request_that_decompresses_to_too_much_is_its_callers_fault() {
    let worker = Worker::start("a").await;
    let config = Config {
        max_image_bytes: 1 << 20,
        ..config()
    };
    let mesh = Mesh::start(config, &[&worker], 4).await;
    let mut bomb = mesh.client.clone().send_compressed(Gzip);
    let status = bomb
        .generate(prompt(|r| r.prompt = "x".repeat(8 << 20)))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    let (field, why) = status::violations(&status).remove(0);
    assert_eq!(field, "request");
    assert!(why.contains("the limit") || why.contains("size limit"), "{why}");
    assert!(why.contains("--max-image-bytes"), "{why}");
    // The same in the open.
    let status = mesh
        .all(prompt(|r| r.prompt = "x".repeat(8 << 20)))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains("--max-image-bytes"), "{status}");
    mesh.all(prompt(|_| ())).await.unwrap();
}

#[tokio::test]
async fn the_requests_id_is_behind_the_stream_too_as_rays_is_however_it_ends() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let ask = |id: &'static str| {
        let mut request = Request::new(prompt(|_| ()));
        request.metadata_mut().insert("request_id", id.parse().unwrap());
        request
    };
    let mut stream = mesh
        .client
        .clone()
        .generate(ask("well"))
        .await
        .unwrap()
        .into_inner();
    while stream.message().await.unwrap().is_some() {}
    let trailers = stream.trailers().await.unwrap().unwrap();
    assert_eq!(trailers.get("request_id").unwrap(), "well");

    worker.will(Act::Hang);
    let mut stream = mesh
        .client
        .clone()
        .generate(ask("late"))
        .await
        .unwrap()
        .into_inner();
    let cancel = mobula_proto::image::v1::CancelRequest {
        request_id: "late".into(),
    };
    mesh.client.clone().cancel(cancel).await.unwrap();
    let status = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it succeeded"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Cancelled);
    assert_eq!(status.metadata().get("request_id").unwrap(), "late");

    let mut request = ask("wrong");
    request.get_mut().prompt.clear();
    let status = mesh.generate(request).await.failed().await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.metadata().get("request_id").unwrap(), "wrong");
}

#[tokio::test]
async fn rays_application_names_the_model_that_is_described() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    mesh.add_refiner(&[&worker]).await;
    let mut client = mesh.client.clone();
    let status = client.get_model(GetModelRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "there are two");
    let mut request = Request::new(GetModelRequest::default());
    request
        .metadata_mut()
        .insert("application", "refiner".parse().unwrap());
    let model = client
        .get_model(request)
        .await
        .unwrap()
        .into_inner()
        .model
        .unwrap();
    assert_eq!(model.name, "refiner");
}

#[tokio::test]
async fn a_browser_draws_over_http1_and_reads_the_id_behind_the_pictures() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let asked = prompt(|r| r.seeds = vec![7]).encode_to_vec();
    let mut body = vec![0];
    body.extend(u32::try_from(asked.len()).unwrap().to_be_bytes());
    body.extend(asked);
    let client: Client<_, Full<bytes::Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let request = http::Request::post(format!(
        "http://{}/mobula.image.v1.ImageService/Generate",
        mesh.grpc
    ))
    .header("content-type", "application/grpc-web+proto")
    .header("x-request-id", "from-a-page")
    .body(Full::from(body))
    .unwrap();
    let response = client.request(request).await.unwrap();
    assert_eq!(response.headers()["x-request-id"], "from-a-page");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let (mut rest, mut events, mut end) = (&body[..], Vec::<Event>::new(), String::new());
    while let Some((head, frame)) = rest.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let (frame, behind) = frame.split_at(length);
        match head[0] {
            0 => events.extend(GenerateResponse::decode(frame).unwrap().event),
            kind => {
                assert_eq!(kind, 0x80);
                end = String::from_utf8(frame.to_vec()).unwrap();
            }
        }
        rest = behind;
    }
    assert_eq!(names(&events), ["accepted", "started", "step", "image", "done"]);
    assert_eq!(images(&events)[0].data.to_vec(), picture(7));
    assert!(
        end.contains("grpc-status:0\r\n") && end.contains("request_id:from-a-page\r\n"),
        "{end}"
    );
}

#[tokio::test]
async fn rubbish_from_a_browser_is_its_own_fault_and_hurts_nobody() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let text = "application/grpc-web-text";
    for (kind, body) in [
        ("application/grpc-web", &b""[..]),
        ("application/grpc-web", b"\0\0\0\0\x09half"),
        ("application/grpc-web", b"\0\xff\xff\xff\xff"),
        ("application/grpc-web", b"rubbish"),
        ("application/grpc-web", b"\x80\0\0\0\x04a: b"),
        ("application/grpc-web", b"\0\0\0\0\x02\xff\xff"),
        (text, b"@@@@@@@@"),
        (text, b"AAAAAAA"),
        (text, b"AAAAAAA=AAAA"),
    ] {
        let client: Client<_, Full<bytes::Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let uri = format!("http://{}/mobula.image.v1.ImageService/Generate", mesh.grpc);
        let request = http::Request::post(uri).header("content-type", kind);
        let response = client
            .request(request.body(Full::from(body)).unwrap())
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        let code = response.headers().get("grpc-status");
        assert_eq!(
            code.map(|code| code.as_bytes()),
            Some(&b"3"[..]),
            "{kind} {body:?}"
        );
    }
    assert!(worker.requests().is_empty());
    mesh.all(prompt(|_| ())).await.unwrap();
}

#[tokio::test]
async fn pages_of_named_origins_may_use_the_http_door_too() {
    for (origins, may) in [("https://pictures.example", true), ("", false)] {
        let worker = Worker::start("a").await;
        let config = Config {
            allowed_origins: origins.parse().unwrap(),
            ..config()
        };
        let mesh = Mesh::start(config, &[&worker], 4).await;
        let request = "OPTIONS /v1/images/generations HTTP/1.1\r\nhost: m\r\nconnection: close\r\norigin: https://pictures.example\r\naccess-control-request-method: POST\r\naccess-control-request-headers: authorization\r\n\r\n";
        let answer = crate::support::call(mesh.http, request).await;
        let allowed = answer.header("access-control-allow-origin");
        assert_eq!(
            allowed == "https://pictures.example",
            may,
            "{origins:?}: {allowed:?}"
        );
    }
}
