//! Replicas that are lost, full, wrong, or not there yet; a controller that is away. What the caller sees of it.

use crate::support::{Act, Mesh, Worker, get, images, names, picture, prompt, soon};
use mobula_kit::status;
use mobula_proto::{
    control::v1::{ReportDemandRequest, RestrainedReplica},
    image::v1::generate_response::Event,
};
use mobula_proxy::Config;
use tonic::{Code, Status};

fn config() -> Config {
    Config {
        no_replica_timeout_s: 10.0,
        ..Config::default()
    }
}

#[tokio::test]
async fn a_lost_replica_is_replaced_and_pictures_are_not_sent_twice() {
    let (a, b) = (Worker::start("a").await, Worker::start("b").await);
    let mesh = Mesh::start(config(), &[&a, &b], 4).await;
    for worker in [&a, &b] {
        worker.will(Act::Break(1, Status::unavailable("engine failed")));
    }
    let events = mesh.all(prompt(|r| r.image_count = 3)).await.unwrap();
    let expected = [
        "accepted",
        "started",
        "step",
        "image",
        "restarted",
        "started",
        "step",
        "image",
    ];
    assert_eq!(&names(&events)[..8], expected);
    assert_eq!(
        &names(&events)[8..],
        ["restarted", "started", "step", "image", "done"]
    );
    let images = images(&events);
    assert_eq!(images.iter().map(|i| i.index).collect::<Vec<_>>(), [0, 1, 2]);
    let mut asked = a.requests();
    asked.extend(b.requests());
    assert_eq!(asked.len(), 3);
    assert!(
        asked.iter().all(|r| r.seeds == asked[0].seeds),
        "the same seeds each time"
    );
    let mut skipped: Vec<_> = asked.iter().map(|r| r.skip_images.clone()).collect();
    skipped.sort();
    assert_eq!(skipped, [vec![], vec![0], vec![0, 1]]);
}

#[tokio::test]
async fn a_killed_worker_costs_its_requests_a_restart_and_nothing_else() {
    let (mut a, b) = (Worker::start("a").await, Worker::start("b").await);
    let mesh = Mesh::start(config(), &[&a], 8).await;
    for _ in 0..8 {
        a.will(Act::Hang);
    }
    let mut running = Vec::new();
    for _ in 0..8 {
        let mut events = mesh.generate(prompt(|_| ())).await;
        events.started().await;
        running.push(events);
    }
    for _ in 0..8 {
        soon("a call", a.called.recv()).await;
    }
    mesh.publish(&[&a, &b], 8, -1);
    a.server.kill().await;
    for mut events in running {
        let mut seen = Vec::new();
        while let Some(event) = events.next().await.unwrap() {
            seen.push(event);
        }
        let seen = names(&seen);
        assert!(
            seen.contains(&"restarted") && seen.ends_with(&["image", "done"]),
            "{seen:?}"
        );
    }
    assert_eq!(b.requests().len(), 8);
}

#[tokio::test]
async fn with_its_only_replica_lost_a_request_waits_for_the_next_one() {
    let (a, b) = (Worker::start("a").await, Worker::start("b").await);
    let mesh = Mesh::start(config(), &[&a], 4).await;
    a.will(Act::Hang);
    let mut events = mesh.generate(prompt(|r| r.seeds = vec![9])).await;
    events.started().await;
    a.server.kill().await;
    loop {
        if let Some(Event::Restarted(restarted)) = events.next().await.unwrap() {
            assert_eq!(restarted.attempt, 1);
            break;
        }
    }
    mesh.publish(&[&b], 4, -1);
    let mut seen = Vec::new();
    while let Some(event) = events.next().await.unwrap() {
        seen.push(event);
    }
    assert_eq!(images(&seen)[0].data.to_vec(), picture(9));
}

#[tokio::test]
async fn a_stream_that_ends_before_every_picture_is_a_lost_replica() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    worker.will(Act::EndEarly(1));
    let events = mesh.all(prompt(|r| r.image_count = 2)).await.unwrap();
    assert_eq!(images(&events).len(), 2);
    assert_eq!(names(&events).iter().filter(|n| **n == "restarted").count(), 1);
}

#[tokio::test]
async fn a_replica_lost_after_its_last_picture_costs_nothing() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    worker.will(Act::EndEarly(1));
    let events = mesh.all(prompt(|_| ())).await.unwrap();
    assert_eq!(names(&events), ["accepted", "started", "step", "image", "done"]);
    assert_eq!(worker.requests().len(), 1);
}

#[tokio::test]
async fn a_request_that_kills_its_replicas_is_given_up() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    for _ in 0..5 {
        worker.will(Act::Break(0, Status::unavailable("engine failed")));
    }
    let status = mesh.all(prompt(|_| ())).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status::reason(&status).as_deref(), Some("REPLICAS_LOST"));
    assert_eq!(worker.requests().len(), 3);
}

#[tokio::test]
async fn a_full_replica_is_passed_over() {
    let (a, b) = (Worker::start("a").await, Worker::start("b").await);
    let mesh = Mesh::start(config(), &[&a, &b], 4).await;
    for worker in [&a, &b] {
        worker.will(Act::Refuse(Status::resource_exhausted("full")));
    }
    let events = mesh.all(prompt(|_| ())).await.unwrap();
    assert_eq!(names(&events), ["accepted", "started", "step", "image", "done"]);
    assert_eq!(a.requests().len() + b.requests().len(), 3);
}

#[tokio::test]
async fn what_the_worker_finds_wrong_goes_to_the_caller() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    worker.will(Act::Refuse(status::invalid("width", "this model draws 512 only")));
    let status = mesh.all(prompt(|_| ())).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status::violations(&status)[0].0, "width");
    worker.will(Act::Break(0, Status::internal("the model failed")));
    let status = mesh.all(prompt(|_| ())).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Internal, "the model failed")
    );
    assert_eq!(worker.requests().len(), 2);
}

#[tokio::test]
async fn a_request_that_comes_before_the_first_replica_waits_for_it() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[], 1).await;
    let waiting = {
        let mut client = mesh.client.clone();
        tokio::spawn(async move {
            let mut stream = client.generate(prompt(|_| ())).await?.into_inner();
            let mut count = 0;
            while stream.message().await?.is_some() {
                count += 1;
            }
            Ok::<_, Status>(count)
        })
    };
    mesh.publish(&[&worker], 1, -1);
    assert_eq!(soon("the end", waiting).await.unwrap().unwrap(), 5);
}

#[tokio::test]
async fn without_any_replica_a_request_is_told_to_come_back() {
    let mesh = Mesh::start(
        Config {
            no_replica_timeout_s: 0.1,
            ..config()
        },
        &[],
        1,
    )
    .await;
    let status = mesh.generate(prompt(|_| ())).await.failed().await;
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status::reason(&status).as_deref(), Some("NO_REPLICA"));
    assert!(status::retry_after(&status).is_some());
}

#[tokio::test]
async fn without_the_controller_requests_are_served_as_before() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let Mesh { control, client, .. } = mesh;
    control.kill().await;
    let mut stream = client
        .clone()
        .generate(prompt(|_| ()))
        .await
        .unwrap()
        .into_inner();
    let mut count = 0;
    while stream.message().await.unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 5);
}

#[tokio::test]
async fn a_model_that_fails_is_500_over_http_and_internal_over_grpc_and_the_next_request_is_drawn() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    worker.will(Act::Break(0, Status::internal("the model failed")));
    let answer = get(mesh.http, "/imagine?prompt=a").await;
    assert_eq!(answer.status, 500, "{}", answer.text());
    assert!(answer.text().contains("the model failed"), "{}", answer.text());
    assert_eq!(answer.header("x-request-id").len(), 36);
    worker.will(Act::Break(0, Status::internal("the model failed")));
    let status = mesh.all(prompt(|_| ())).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert_eq!(get(mesh.http, "/imagine?prompt=a").await.status, 200);
}

/// What the proxy's last report says of a replica that it sends less than its share.
fn restrained(reports: &[ReportDemandRequest], id: &str) -> Option<RestrainedReplica> {
    let told = &reports.last()?.restrained;
    told.iter().find(|replica| replica.replica_id == id).cloned()
}

#[tokio::test]
async fn a_replica_that_is_ejected_or_new_is_told_of_with_the_time() {
    let (a, b) = (Worker::start("a").await, Worker::start("b").await);
    let mesh = Mesh::start(config(), &[&a], 4).await;
    // Nobody has asked for anything.
    mesh.publish(&[&a, &b], 4, -1);
    let reports = mesh.reported("the new replica", |reports| {
        restrained(reports, "demo#b").is_some()
    });
    let told = restrained(&reports.await, "demo#b").unwrap();
    assert_eq!((told.ejected_ms, told.ejections), (0, 0));
    assert!((1..=10_000).contains(&told.slow_start_ms), "{told:?}");
    for _ in 0..5 {
        a.will(Act::Break(0, Status::internal("the model failed")));
    }
    let ejected = |reports: &Vec<ReportDemandRequest>| {
        restrained(reports, "demo#a").is_some_and(|told| told.ejected_ms > 0)
    };
    soon("the ejection", async {
        while !ejected(&mesh.reports.borrow()) {
            // Those that `a` gets fail.
            let _ = mesh.all(prompt(|_| ())).await;
        }
    })
    .await;
    let told = restrained(&mesh.reports.borrow(), "demo#a").unwrap();
    assert_eq!(told.ejections, 1);
    assert!(
        told.ejected_ms <= 5_000 && told.slow_start_ms > 10_000,
        "{told:?}"
    );
}
