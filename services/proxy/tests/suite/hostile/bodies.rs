//! Heads and bodies that are too much, or that are small and unpack to much.

use mobula_hostile::{heads, json};
use serde_json::json;

use super::{mesh, still_serves};
use crate::support::{Answered, Mesh, Worker, call, encoded, prompt, send};
use mobula_kit::status;
use tonic::Code;

async fn post(mesh: &Mesh, body: impl AsRef<[u8]>) -> Answered {
    let body = body.as_ref();
    let mut request = format!(
        "POST /v1/images/generations HTTP/1.1\r\nhost: mobula\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend(body);
    call(mesh.http, request).await
}

#[tokio::test]
async fn json_that_is_a_bomb_is_the_callers_fault() {
    let worker = Worker::start("a").await;
    let mesh = mesh(&worker).await;
    let digits = format!("{{\"prompt\": \"a\", \"n\": {}}}", "9".repeat(100_000));
    let fraction = format!(
        "{{\"prompt\": \"a\", \"guidance_scale\": 0.{}}}",
        "1".repeat(100_000)
    );
    let own = [
        ("a number of a hundred thousand digits", digits.as_str()),
        (
            "a number beyond all",
            r#"{"prompt": "a", "guidance_scale": 1e999}"#,
        ),
        ("a number below all", r#"{"prompt": "a", "n": -1e308}"#),
    ];
    let own = own.map(|(what, body)| (what, body.to_owned()));
    for (what, body) in json::bombs("prompt").into_iter().chain(own) {
        let answer = post(&mesh, body).await;
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error", "{what}");
        assert!(answer.body.len() < 4_096, "{what}: {} bytes", answer.body.len());
    }
    assert_eq!(post(&mesh, b"{\"prompt\": \"\xff\xfe\"}").await.status, 400);
    // A long fraction is a number; the last of two fields counts, as JSON's readers have it.
    assert!([200, 400].contains(&post(&mesh, &fraction).await.status));
    let twice = r#"{"prompt": "first", "prompt": "second"}"#;
    assert_eq!(post(&mesh, twice).await.status, 200);
    assert_eq!(worker.requests().pop().unwrap().prompt, Some(encoded("second")));
    still_serves(&mesh).await;
}

#[tokio::test]
async fn prompts_of_control_characters_are_drawn_or_refused_by_their_field_and_never_break_a_file() {
    let worker = Worker::start("a").await;
    let mesh = mesh(&worker).await;
    for text in [
        "\0",
        "a\0b",
        "\u{1}\u{2}\u{1b}[31m",
        "\r\n\r\nHTTP/1.1 200 OK",
        "\u{202e}abc",
        "\u{feff}",
        "\u{ffff}",
        "\u{10ffff}",
        "a\u{300}\u{301}",
        "</x:xmpmeta><script>",
        "]]>",
    ] {
        let answer = post(&mesh, json!({ "prompt": text }).to_string()).await;
        assert!([200, 400].contains(&answer.status), "{text:?}: {}", answer.text());
        match mesh.all(prompt(|r| r.prompt = text.into())).await {
            Ok(_) => assert_eq!(answer.status, 200, "{text:?}"),
            Err(status) => {
                assert_eq!(
                    (status.code(), answer.status),
                    (Code::InvalidArgument, 400),
                    "{text:?}"
                );
                assert!(!status::violations(&status).is_empty(), "{status:?}");
            }
        }
        let query: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let got = crate::support::get(mesh.http, &format!("/imagine?prompt={query}")).await;
        assert!([200, 422].contains(&got.status), "{text:?}: {}", got.text());
    }
    let odd = crate::support::get(mesh.http, "/imagine?prompt=%ff%fe").await;
    assert_eq!(odd.status, 422, "{}", odd.text());
}

/// PNG, JPEG and WebP whose heads say that they are as large as their formats allow, in a few bytes.
fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    png.extend([
        0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 16, 6, 0, 0, 0, 0, 0, 0, 0,
    ]);
    let jpeg =
        b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03\x01\x11\0\x02\x11\x01\x03\x11\x01\xff\xda".to_vec();
    let webp = b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff".to_vec();
    let mut many_segments = b"\xff\xd8".to_vec();
    many_segments.extend(b"\xff\xe1\0\x02".repeat(500_000));
    let lossless = b"RIFF\x16\0\0\0WEBPVP8L\x0a\0\0\0\x2f\xff\xff\xff\x0f\0\0\0\0\0".to_vec();
    vec![
        ("png", png),
        ("jpeg", jpeg),
        ("webp", webp),
        ("webp without loss", lossless),
        ("jpeg of empty segments", many_segments),
        ("half a png", b"\x89PNG\r\n\x1a\n\0\0".to_vec()),
        ("gif", b"GIF89a\xff\xff\xff\xff".to_vec()),
        (
            "svg",
            b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>".to_vec(),
        ),
        ("gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec()),
    ]
}

#[tokio::test]
async fn pictures_that_are_bombs_are_refused_by_their_head_before_anything_is_unpacked() {
    let worker = Worker::start("a").await;
    let mesh = mesh(&worker).await;
    for (what, bomb) in bombs() {
        let request = prompt(|r| r.init_image = bomb.clone().into());
        let status = mesh.all(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status:?}");
        let fields = status::violations(&status);
        assert!(
            fields.iter().any(|(field, _)| field == "init_image"),
            "{what}: {fields:?}"
        );
    }
    assert!(worker.requests().is_empty());
    still_serves(&mesh).await;
}

#[tokio::test]
async fn heads_of_any_size_are_answered_and_end_nothing_else() {
    let worker = Worker::start("a").await;
    let mesh = mesh(&worker).await;
    for head in heads::odd("/imagine?prompt=a") {
        let answer = call(mesh.http, &head.bytes).await;
        assert!(
            head.statuses.contains(&answer.status),
            "{}: {}",
            head.what,
            answer.status
        );
    }
    // Length and chunks at once: whoever stands in front may read it otherwise (request smuggling).
    let smuggled = "POST /v1/images/generations HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n\
                    0\r\n\r\nGET /imagine?prompt=smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let _ = send(mesh.http, smuggled.as_bytes()).await;
    let is_smuggled = |prompt: &_| *prompt == Some(encoded("smuggled"));
    // hyper reads chunks where both are given, as RFC 9112 (6.3) allows, and closes behind it.
    assert!(
        worker
            .requests()
            .iter()
            .filter(|request| is_smuggled(&request.prompt))
            .count()
            <= 1
    );
    still_serves(&mesh).await;
}
