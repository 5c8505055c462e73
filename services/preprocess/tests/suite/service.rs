//! The service over a real socket.

use std::{path::Path, time::Duration};

use mobula_kit::{Stop, channel, status};
use mobula_preprocess::{Config, Error, Listeners, run};
use mobula_proto::{
    common::v1::Emphasis,
    image::v1::PromptSyntax,
    preprocess::v1::{
        ImageKind, PrepareImageRequest, TokenizeRequest, TokenizedText,
        preprocess_service_client::PreprocessServiceClient,
    },
};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{Code, transport::Channel};

struct Running {
    client: PreprocessServiceClient<Channel>,
    admin: std::net::SocketAddr,
    stop: Stop,
    ended: JoinHandle<Result<(), Error>>,
}

impl Running {
    /// Starts a service without a controller and waits until its replicas answer.
    async fn start(replicas: &[(&str, &str)], config: Config) -> Self {
        let bind = || TcpListener::bind("127.0.0.1:0");
        let listeners = Listeners {
            grpc: bind().await.unwrap().into(),
            admin: bind().await.unwrap().into(),
        };
        let (address, admin) = (
            listeners.grpc.local_addr().unwrap(),
            listeners.admin.local_addr().unwrap(),
        );
        let replicas: Vec<(String, String)> = replicas
            .iter()
            .map(|(id, model)| ((*id).into(), (*model).into()))
            .collect();
        let stop = Stop::new(Duration::from_secs(10));
        let ids: Vec<String> = replicas.iter().map(|(id, _)| id.clone()).collect();
        let ended = tokio::spawn(run(Config { replicas, ..config }, listeners, stop.clone()));
        let client = PreprocessServiceClient::new(channel::lazy(&address.to_string()).unwrap());
        let running = Self {
            client,
            admin,
            stop,
            ended,
        };
        for id in ids {
            while let Err(status) = running.tokenize(&id, &["x"]).await {
                assert_eq!(
                    status::reason(&status).as_deref(),
                    Some("REPLICA_STARTING"),
                    "{status}"
                );
                tokio::task::yield_now().await;
            }
        }
        running
    }

    async fn tokenize(&self, replica: &str, texts: &[&str]) -> Result<Vec<TokenizedText>, tonic::Status> {
        let texts = texts.iter().map(|text| (*text).to_owned()).collect();
        let request = TokenizeRequest {
            replica_id: replica.into(),
            texts,
            ..TokenizeRequest::default()
        };
        self.client
            .clone()
            .tokenize(request)
            .await
            .map(|response| response.into_inner().texts)
    }

    async fn stop(self) {
        drop(self.client);
        self.stop.trigger();
        self.ended.await.unwrap().unwrap();
    }
}

/// The ids of a text's only window.
fn ids(text: &TokenizedText) -> &[u32] {
    &text.prompt.as_ref().unwrap().spans[0].variants[0].windows[0].ids
}

/// A model folder with the golden vocabulary.
fn model() -> tempfile::TempDir {
    let model = tempfile::tempdir().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let folder = model.path().join("tokenizer");
    std::fs::create_dir(&folder).unwrap();
    for name in ["vocab.json", "merges.txt"] {
        std::fs::copy(golden.join(name), folder.join(name)).unwrap();
    }
    model
}

#[tokio::test]
async fn texts_come_back_as_windows_in_order_whichever_thread_made_them() {
    let model = model();
    let path = model.path().to_str().unwrap();
    let long = "a red circle ".repeat(100);
    let mut answers = Vec::new();
    for inline_bytes in [0, 1 << 20] {
        let running = Running::start(
            &[("r", path)],
            Config {
                inline_bytes,
                ..Config::default()
            },
        )
        .await;
        let sequences = running.tokenize("r", &["a red circle", "", &long]).await.unwrap();
        assert!(sequences.iter().all(|sequence| ids(sequence).len() == 77));
        let counts: Vec<_> = sequences
            .iter()
            .map(|s| (s.token_count, s.truncated_count))
            .collect();
        assert_eq!((counts[1], counts[2].0), ((2, 0), 77));
        assert_eq!(counts[2].1 % 3, 0, "three words, as many tokens each time");
        assert!(sequences[0].truncated_text.is_empty());
        assert!(sequences[2].truncated_text.ends_with("a red circle"));
        answers.push(sequences);
        running.stop().await;
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn bad_requests_are_refused_with_the_field_and_good_ones_beside_them_are_served() {
    let running = Running::start(&[("r", "fake")], Config::default()).await;
    let field = |status: &tonic::Status| status::violations(status)[0].0.clone();

    let large = "x".repeat(64 * 1024 + 1);
    let status = running.tokenize("r", &["fine", &large]).await.unwrap_err();
    assert_eq!(
        (status.code(), field(&status).as_str()),
        (Code::InvalidArgument, "texts[1]")
    );
    let status = running.tokenize("r", &["x"; 17]).await.unwrap_err();
    assert_eq!(
        (status.code(), field(&status).as_str()),
        (Code::InvalidArgument, "texts")
    );
    let status = running.tokenize("r", &[]).await.unwrap_err();
    assert_eq!(
        (status.code(), field(&status).as_str()),
        (Code::InvalidArgument, "texts")
    );
    let status = running.tokenize("elsewhere", &["x"]).await.unwrap_err();
    assert_eq!(
        (status.code(), status::reason(&status).as_deref()),
        (Code::NotFound, Some("REPLICA_UNKNOWN"))
    );

    let sequences = running.tokenize("r", &[&large[1..], "two words"]).await.unwrap();
    assert_eq!((sequences[0].token_count, sequences[1].token_count), (3, 4));
    running.stop().await;
}

#[tokio::test]
async fn texts_with_syntax_are_read_and_an_unknown_one_is_refused() {
    let running = Running::start(&[("r", "fake")], Config::default()).await;
    let request = |syntax: i32| TokenizeRequest {
        replica_id: "r".into(),
        texts: vec!["a (red:1.5) [circle:square:2]".into(), String::new()],
        syntax,
        steps: 4,
        ..Default::default()
    };
    let answer = running
        .client
        .clone()
        .tokenize(request(PromptSyntax::A1111.into()))
        .await
        .unwrap();
    let prompt = answer.into_inner().texts[0].prompt.clone().unwrap();
    let ends: Vec<u32> = prompt.spans.iter().map(|span| span.until_step).collect();
    assert_eq!(ends, [2, 0]);
    assert_eq!(prompt.emphasis(), Emphasis::Mean);
    assert_eq!(
        prompt.spans[0].variants[0].windows[0].weights[..4],
        [1.0, 1.0, 1.5, 1.0]
    );
    let status = running.client.clone().tokenize(request(9)).await.unwrap_err();
    assert_eq!(status::violations(&status)[0].0, "syntax");
    running.stop().await;
}

#[tokio::test]
async fn a_file_comes_back_as_pixels_and_a_broken_one_is_refused_with_the_field() {
    let running = Running::start(&[("r", "fake")], Config::default()).await;
    // A grey PNG of 2 x 1 pixels, 0 and 255, uncompressed.
    let png = b"\x89\x50\x4e\x47\x0d\x0a\x1a\x0a\x00\x00\x00\x0d\x49\x48\x44\x52\x00\x00\x00\x02\x00\x00\x00\x01\x08\x00\x00\x00\x00\xd1\x49\x20\x56\x00\x00\
        \x00\x0e\x49\x44\x41\x54\x78\x01\x01\x03\x00\xfc\xff\x00\x00\xff\x01\x02\x01\x00\xb7\x01\x2e\xf7\x00\x00\x00\x00\x49\x45\x4e\x44\xae\x42\x60\x82";
    let prepare = |data: &[u8], kind: ImageKind, width| {
        let request = PrepareImageRequest {
            replica_id: "r".into(),
            data: data.to_vec().into(),
            width,
            height: u32::from(width > 0),
            kind: kind.into(),
            ..Default::default()
        };
        let mut client = running.client.clone();
        async move {
            client
                .prepare_image(request)
                .await
                .map(|answer| answer.into_inner().pixels.unwrap())
        }
    };
    let mask = prepare(png, ImageKind::Mask, 0).await.unwrap();
    assert_eq!((mask.width, mask.height, &mask.data[..]), (2, 1, &[0, 255][..]));
    let picture = prepare(png, ImageKind::Picture, 4).await.unwrap();
    assert_eq!((picture.width, picture.data.len()), (4, 12));
    // Three pixels: fully transparent, all but fully, opaque.
    let clear = b"\x89\x50\x4e\x47\x0d\x0a\x1a\x0a\x00\x00\x00\x0d\x49\x48\x44\x52\x00\x00\x00\x03\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1b\xe0\x14\xb4\x00\x00\x00\x18\x49\x44\x41\x54\x78\x01\x01\x0d\x00\xf2\xff\
        \x00\xff\x00\x00\x00\x00\xff\x00\x01\x00\x00\xff\xff\x15\xfc\x03\xfe\xcb\xe6\x4f\x56\x00\x00\x00\x00\x49\x45\x4e\x44\xae\x42\x60\x82";
    let mask = prepare(clear, ImageKind::Transparency, 0).await.unwrap();
    assert_eq!(
        (mask.width, mask.height, &mask.data[..]),
        (3, 1, &[255, 0, 0][..])
    );
    for (data, kind, field) in [
        (&png[..20], ImageKind::Picture, "data"),
        (png, ImageKind::Transparency, "data"),
        (png, ImageKind::Unspecified, "kind"),
    ] {
        let status = prepare(data, kind, 0).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status::violations(&status)[0].0, field);
    }
    running.stop().await;
}

#[tokio::test]
async fn what_was_done_is_on_the_metrics_page() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let running = Running::start(&[("r", "fake")], Config::default()).await;
    running.tokenize("r", &[&"word ".repeat(80)]).await.unwrap();
    let mut page = String::new();
    let mut socket = tokio::net::TcpStream::connect(running.admin).await.unwrap();
    socket
        .write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    socket.read_to_string(&mut page).await.unwrap();
    for line in [
        "mobula_preprocess_truncated_tokens_total 5",
        "mobula_preprocess_truncated_texts_total 1",
        "mobula_preprocess_tokenize_seconds_bucket{place=\"inline\",le=\"0.0001\"}",
    ] {
        assert!(page.contains(line), "{line} is not in {page}");
    }
    running.stop().await;
}
