//! Who goes first, what those are told who wait, and who does not wait.

use mobula_kit::status;
use mobula_proto::{common::v1::Priority, image::v1::generate_response::Event};
use mobula_proxy::Config;
use tonic::{Code, IntoRequest};

use crate::support::{Act, Mesh, Worker, call, prompt, soon};

fn config() -> Config {
    Config {
        no_replica_timeout_s: 10.0,
        ..Config::default()
    }
}

#[tokio::test]
async fn who_waits_is_told_its_place_in_the_stream_and_people_go_before_batches() {
    let mut worker = Worker::start("a").await;
    let mesh = Mesh::bare(config()).await;
    mesh.route(&[&worker], 1, 10).await;
    worker.will(Act::Hang);
    let mut first = mesh.generate(prompt(|_| ())).await;
    first.started().await;
    soon("a call", worker.called.recv()).await;
    let ask = |priority: Priority| prompt(|r| r.priority = priority.into());
    let mut batch = mesh.generate(ask(Priority::Low)).await;
    assert!(matches!(batch.next().await.unwrap(), Some(Event::Accepted(_))));
    let Some(Event::Waiting(waiting)) = batch.next().await.unwrap() else {
        panic!("not told")
    };
    assert_eq!(waiting.queue_position, 0);
    let mut person = mesh.generate(ask(Priority::High)).await;
    let Some(Event::Accepted(accepted)) = person.next().await.unwrap() else {
        panic!("not accepted")
    };
    assert_eq!(accepted.queue_position, 0, "the batch is not ahead of it");
    let behind = async {
        loop {
            if let Some(Event::Waiting(waiting)) = batch.next().await.unwrap()
                && waiting.queue_position == 1
            {
                return;
            }
        }
    };
    // The one that is not read waits all the same.
    let read = async { while !matches!(person.next().await.unwrap(), Some(Event::Started(_))) {} };
    tokio::select! {
        () = read => panic!("the only slot is taken"),
        () = soon("a new place", behind) => {}
    }
    drop(first);
    person.started().await;
}

#[tokio::test]
async fn who_does_not_wait_for_a_replica_is_told_at_once_through_either_door() {
    let mesh = Mesh::bare(config()).await;
    let worker = Worker::start("a").await;
    mesh.route(&[&worker], 1, 10).await;
    mesh.reroute(|deployment| deployment.replicas.clear());
    mesh.has_replicas(0).await;
    let mut request = prompt(|_| ()).into_request();
    request
        .metadata_mut()
        .insert("x-mobula-failfast", "true".parse().unwrap());
    let status = mesh.generate(request).await.failed().await;
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status::reason(&status).as_deref(), Some("NO_REPLICA"));
    let asked =
        "GET /imagine?prompt=a HTTP/1.1\r\nhost: x\r\nx-mobula-failfast: 1\r\nconnection: close\r\n\r\n";
    let answered = call(mesh.http, asked).await;
    assert_eq!(answered.status, 503);
    let mut request = prompt(|_| ()).into_request();
    request
        .metadata_mut()
        .insert("x-mobula-failfast", "perhaps".parse().unwrap());
    let status = mesh.generate(request).await.failed().await;
    assert_eq!(status.code(), Code::InvalidArgument);
}
