//! Frames of HTTP/2 that nobody sends who means well, written by hand (RFC 9113).

use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::{mesh, send, still_serves};
use crate::support::{Worker, soon};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A header as it is, not to be indexed (RFC 7541, 6.2.2).
fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        // An integer with a prefix of seven bits.
        let mut length = text.len();
        if length < 127 {
            bytes.push(length as u8);
        } else {
            bytes.push(127);
            length -= 127;
            while length >= 128 {
                bytes.push((length % 128 + 128) as u8);
                length /= 128;
            }
            bytes.push(length as u8);
        }
        bytes.extend(text.bytes());
    }
    bytes
}

/// The head of a call.
fn head(more: &[(&str, &str)]) -> Vec<u8> {
    let usual = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/mobula.image.v1.ImageService/Generate"),
        (":authority", "mobula"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    usual
        .iter()
        .chain(more)
        .flat_map(|(name, value)| literal(name, value))
        .collect()
}

/// A connection that has begun, with more behind it.
fn begun(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes.extend(frames.concat());
    bytes
}

/// The types of the frames that came back, and the code of the last GOAWAY.
fn told(mut answer: &[u8]) -> (Vec<u8>, Option<u32>) {
    let (mut kinds, mut code) = (Vec::new(), None);
    while let Some((head, rest)) = answer.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        kinds.push(head[3]);
        let Some((payload, rest)) = rest.split_at_checked(length) else {
            break;
        };
        if head[3] == GOAWAY {
            code = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
        answer = rest;
    }
    (kinds, code)
}

#[tokio::test]
async fn broken_frames_end_their_connection_with_a_word_and_nobody_elses() {
    let worker = Worker::start("a").await;
    let mesh = mesh(&worker).await;
    let ping = frame(PING, 0, 0, &[0; 8]);
    let open = frame(HEADERS, END_HEADERS, 1, &head(&[]));
    let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
        (
            "a frame larger than any may be",
            vec![frame(DATA, 0, 1, &[0; 16_385])],
        ),
        ("data on a stream that is not open", vec![frame(DATA, 0, 1, b"x")]),
        ("data on the connection", vec![frame(DATA, 0, 0, b"x")]),
        (
            "a head on an even stream",
            vec![frame(HEADERS, END_HEADERS | END_STREAM, 2, &head(&[]))],
        ),
        (
            "a head on the connection",
            vec![frame(HEADERS, END_HEADERS, 0, &head(&[]))],
        ),
        (
            "a stream below one that was",
            vec![
                frame(HEADERS, END_HEADERS | END_STREAM, 5, &head(&[])),
                frame(HEADERS, END_HEADERS | END_STREAM, 3, &head(&[])),
            ],
        ),
        (
            "another frame within a head",
            vec![frame(HEADERS, 0, 1, &head(&[])), ping.clone()],
        ),
        (
            "the rest of no head",
            vec![frame(CONTINUATION, END_HEADERS, 1, &head(&[]))],
        ),
        (
            "an index of no table",
            vec![frame(HEADERS, END_HEADERS, 1, &[0xff, 0xff, 0xff, 0x0f])],
        ),
        (
            "a head cut off",
            vec![frame(HEADERS, END_HEADERS, 1, &[0, 200, b'a'])],
        ),
        ("settings of half a field", vec![frame(SETTINGS, 0, 0, &[0; 5])]),
        ("settings on a stream", vec![frame(SETTINGS, 0, 1, &[])]),
        (
            "a window that no stream may have",
            vec![frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff])],
        ),
        ("a ping of seven bytes", vec![frame(PING, 0, 0, &[0; 7])]),
        ("a ping on a stream", vec![frame(PING, 0, 1, &[0; 8])]),
        (
            "a reset of a stream that never was",
            vec![frame(RESET, 0, 1, &[0; 4])],
        ),
        (
            "a promise",
            vec![open.clone(), frame(PUSH, END_HEADERS, 1, &[0, 0, 0, 2])],
        ),
        (
            "a window that grows by nothing",
            vec![frame(WINDOW, 0, 0, &[0; 4])],
        ),
        (
            "a window that grows too far",
            vec![frame(WINDOW, 0, 0, &[0x7f, 0xff, 0xff, 0xff])],
        ),
    ];
    for (what, frames) in cases {
        let answer = send(mesh.grpc, &begun(&frames)).await;
        let (kinds, code) = told(&answer);
        assert!(kinds.contains(&GOAWAY), "{what}: {kinds:?}");
        assert_ne!(code, Some(0), "{what}");
    }
    for (what, bytes) in [
        ("no preface", &b"\0\0\0\x04\0\0\0\0\0"[..]),
        ("half a preface", &PREFACE[..20]),
        (
            "another protocol",
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03 hello",
        ),
        ("nothing but zeros", &[0; 100]),
    ] {
        send(mesh.grpc, bytes).await;
        send(mesh.http, bytes).await;
        still_serves(&mesh).await;
        assert!(!what.is_empty());
    }
    assert!(worker.requests().iter().all(|request| request.prompt.is_some()));
}

#[tokio::test]
async fn frames_that_are_no_kind_are_passed_over() {
    let worker = Worker::start("a").await;
    let mesh = mesh(&worker).await;
    let frames = [frame(0x77, 0xff, 0, &[1; 100]), frame(PING, 0, 0, &[7; 8])];
    let (kinds, _) = told(&send(mesh.grpc, &begun(&frames)).await);
    assert!(kinds.contains(&PING), "{kinds:?}");
}

#[tokio::test]
async fn a_head_without_end_and_a_head_too_large_are_ended() {
    let worker = Worker::start("a").await;
    let mesh = mesh(&worker).await;
    // A head of 64 MiB in pieces.
    let piece = frame(CONTINUATION, 0, 1, &[0x40; 16_384]);
    let mut frames = vec![frame(HEADERS, 0, 1, &head(&[]))];
    frames.extend(std::iter::repeat_n(piece, 4_096));
    let (kinds, code) = told(&send(mesh.grpc, &begun(&frames)).await);
    assert!(kinds.contains(&GOAWAY) && code != Some(0), "{kinds:?} {code:?}");
    // Pieces without a byte cost a frame each.
    let empty = frame(CONTINUATION, 0, 1, &[]);
    let mut frames = vec![frame(HEADERS, 0, 1, &head(&[]))];
    frames.extend(std::iter::repeat_n(empty, 100_000));
    let (kinds, code) = told(&send(mesh.grpc, &begun(&frames)).await);
    assert!(kinds.contains(&GOAWAY) && code != Some(0), "{kinds:?} {code:?}");
    // A value of 64 KiB, and a thousand headers, are answered: 431.
    let long = "x".repeat(12_000);
    let many: Vec<_> = (0..600).map(|_| ("x-a", "0123456789012345")).collect();
    for more in [vec![("x-a", long.as_str()), ("x-b", long.as_str())], many] {
        let block = head(&more);
        let mut frames = Vec::new();
        for (at, part) in block.chunks(16_000).enumerate() {
            let kind = if at == 0 { HEADERS } else { CONTINUATION };
            let is_last = (at + 1) * 16_000 >= block.len();
            let end = if is_last { END_HEADERS } else { 0 };
            frames.push(frame(kind, end, 1, part));
        }
        let (kinds, _) = told(&send(mesh.grpc, &begun(&frames)).await);
        assert!(kinds.contains(&HEADERS) || kinds.contains(&RESET), "{kinds:?}");
    }
    // One entry of the table, named ten thousand times: a little that unpacks to much.
    let mut block = head(&[]);
    let mut entry = literal("x-a", &"y".repeat(3_900));
    entry[0] = 0x40;
    block.extend(entry);
    block.extend(std::iter::repeat_n(0x80 | 62, 9_000));
    let (kinds, _) = told(&send(mesh.grpc, &begun(&[frame(HEADERS, END_HEADERS, 1, &block)])).await);
    assert!(
        kinds.contains(&HEADERS) || kinds.contains(&RESET) || kinds.contains(&GOAWAY),
        "{kinds:?}"
    );
    assert!(worker.requests().is_empty(), "none of them is a request");
    still_serves(&mesh).await;
}

#[tokio::test]
async fn calls_that_are_opened_and_reset_at_once_are_bounded_and_keep_no_place() {
    let worker = Worker::start("a").await;
    let mesh = mesh(&worker).await;
    let mut bytes = begun(&[]);
    for stream in (1..40_000).step_by(2) {
        bytes.extend(frame(HEADERS, END_HEADERS, stream, &head(&[])));
        bytes.extend(frame(RESET, 0, stream, &[0, 0, 0, 8]));
    }
    let (kinds, code) = told(&send(mesh.grpc, &bytes).await);
    assert_eq!(code, Some(11), "ENHANCE_YOUR_CALM: {}", kinds.len());
    still_serves(&mesh).await;
}

#[tokio::test]
async fn settings_and_pings_without_end_that_are_never_read_do_not_fill_memory() {
    let worker = Worker::start("a").await;
    let mesh = mesh(&worker).await;
    for flood in [
        frame(PING, 0, 0, &[1; 8]),
        frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]),
    ] {
        let mut stream = TcpStream::connect(mesh.grpc).await.unwrap();
        stream.write_all(&begun(&[])).await.unwrap();
        let block = flood.repeat(10_000);
        // Taken until the answers fill the way back, and then not any more: nothing is kept beyond that.
        let pouring = async {
            for _ in 0..1_000 {
                if stream.write_all(&block).await.is_err() {
                    return;
                }
            }
            panic!("ten million frames were taken without an answer being read");
        };
        tokio::select! {
            () = pouring => {}
            () = soon("others are served", still_serves(&mesh)) => {}
        }
    }
    still_serves(&mesh).await;
}
