//! Frames of HTTP/2 that nobody sends who means well, at the gRPC port.

use mobula_hostile::{
    frames::{self, GOAWAY, HEADERS, PING, RESET, begun, frame, told},
    pour, send_again,
};

use super::{mesh, still_serves};
use crate::support::{Worker, send, soon};

const PATH: &str = "/mobula.image.v1.ImageService/Generate";

#[tokio::test]
async fn broken_frames_end_their_connection_with_a_word_and_nobody_elses() {
    let worker = Worker::start("a").await;
    let mesh = mesh(&worker).await;
    for (what, frames) in frames::broken(PATH) {
        let answer = send(mesh.grpc, &begun(&frames)).await;
        let (kinds, code) = told(&answer);
        assert!(kinds.contains(&GOAWAY), "{what}: {kinds:?}");
        assert_ne!(code, Some(0), "{what}");
    }
    for (_, bytes) in frames::no_frames() {
        send(mesh.grpc, bytes).await;
        send(mesh.http, bytes).await;
        still_serves(&mesh).await;
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
    for head in frames::endless(PATH) {
        let (kinds, code) = told(&send_again(mesh.grpc, &head.first, &head.again, head.times).await);
        assert!(
            kinds.contains(&GOAWAY) && code != Some(0),
            "{}: {kinds:?} {code:?}",
            head.what
        );
    }
    for (what, frames) in frames::large(PATH) {
        let (kinds, _) = told(&send(mesh.grpc, &begun(&frames)).await);
        assert!(
            kinds.contains(&HEADERS) || kinds.contains(&RESET) || kinds.contains(&GOAWAY),
            "{what}: {kinds:?}"
        );
    }
    assert!(worker.requests().is_empty(), "none of them is a request");
    still_serves(&mesh).await;
}

#[tokio::test]
async fn calls_that_are_opened_and_reset_at_once_are_bounded_and_keep_no_place() {
    let worker = Worker::start("a").await;
    let mesh = mesh(&worker).await;
    let (kinds, code) = told(&send(mesh.grpc, &frames::resets(PATH)).await);
    assert_eq!(code, Some(11), "ENHANCE_YOUR_CALM: {}", kinds.len());
    still_serves(&mesh).await;
}

#[tokio::test]
async fn settings_and_pings_without_end_that_are_never_read_do_not_fill_memory() {
    let worker = Worker::start("a").await;
    let mesh = mesh(&worker).await;
    for questions in frames::questions() {
        let first = begun(&[]);
        tokio::select! {
            () = pour(mesh.grpc, &first, &questions) => {}
            () = soon("others are served", still_serves(&mesh)) => {}
        }
    }
    still_serves(&mesh).await;
}
