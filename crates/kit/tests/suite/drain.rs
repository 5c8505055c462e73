//! Draining over a real socket: what runs may finish, what does not is cut, nothing new comes in.
use std::time::Duration;

use crate::common::{GRACE, ask, client, serve};
use mobula_kit::{Drained, Stop, channel};
use mobula_proto::control::v1::{WatchRoutesRequest, control_service_client::ControlServiceClient};
use tokio::time::Instant;

#[tokio::test]
async fn a_running_stream_finishes_and_then_the_server_is_gone() {
    let server = serve(Stop::new(GRACE), None).await;
    let mut control = ControlServiceClient::new(channel::lazy(&server.address.to_string()).unwrap());
    server.knobs.items.add_permits(1);
    let mut stream = control
        .watch_routes(WatchRoutesRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().version, 1);
    server.stop.trigger();
    server.knobs.items.add_permits(2);
    assert_eq!(stream.message().await.unwrap().unwrap().version, 2);
    assert_eq!(stream.message().await.unwrap().unwrap().version, 3);
    assert!(stream.message().await.unwrap().is_none());
    server.serving.await.unwrap().unwrap();
    assert_eq!(server.stop.wait().await, Drained::Clean);
    assert!(tokio::net::TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn calls_are_taken_until_the_notice_is_over() {
    let server = serve(Stop::new(GRACE), None).await;
    let mut client = client(server.address);
    client.get_status(ask("answer")).await.unwrap();
    server.stop.trigger();
    let drained = server.readiness.changed();
    if server.readiness.is_ready() {
        drained.await;
    }
    assert_eq!(server.readiness.waiting_for(), ["draining"]);
    client.get_status(ask("answer")).await.unwrap();
    server.serving.await.unwrap().unwrap();
    assert!(!server.readiness.is_ready());
}

#[tokio::test]
async fn a_call_that_does_not_end_is_cut_at_the_deadline() {
    let grace = Duration::from_millis(300);
    let server = serve(Stop::new(grace), None).await;
    let mut client = client(server.address);
    let call = tokio::spawn(async move { client.get_status(ask("hang")).await });
    server.knobs.begun.notified().await;
    let start = Instant::now();
    server.stop.trigger();
    server.serving.await.unwrap().unwrap();
    assert!(
        start.elapsed() >= grace && start.elapsed() < 10 * grace,
        "{:?}",
        start.elapsed()
    );
    assert!(call.await.unwrap().is_err());
    server.knobs.dropped.notified().await;
}

#[tokio::test]
async fn an_idle_connection_holds_nothing_up() {
    let server = serve(Stop::new(GRACE), None).await;
    let mut client = client(server.address);
    client.get_status(ask("answer")).await.unwrap();
    let start = Instant::now();
    server.stop.trigger();
    server.serving.await.unwrap().unwrap();
    assert!(start.elapsed() < GRACE / 2, "{:?}", start.elapsed());
}
