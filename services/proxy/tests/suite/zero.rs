//! Applications without replicas: scaled to zero, on their way, not to be had, deleted.

use std::time::Duration;

use crate::support::{Act, Mesh, Worker, get, names, of, prompt, soon};
use mobula_kit::status;
use mobula_proto::{
    control::v1::{ReportDemandRequest, WatchRoutesResponse},
    image::v1::generate_response::Event,
};
use mobula_proxy::Config;
use tonic::{Code, IntoRequest};

/// Nobody waits so long without hope.
fn config() -> Config {
    Config {
        no_replica_timeout_s: 0.1,
        ..Config::default()
    }
}

/// Whose replicas are all gone, and can be had by asking.
fn scale_to_zero(mesh: &Mesh) {
    mesh.reroute(|deployment| {
        deployment.replicas.clear();
        deployment.expected = true;
    });
}

/// Waits until so many requests wait for the pipeline.
async fn wait_for(mesh: &Mesh, queued: u32) {
    mesh.reported("those that wait", |reports| {
        reports
            .last()
            .is_some_and(|last| of(last, "pipeline") == Some((queued, 0)))
    })
    .await;
}

#[tokio::test]
async fn requests_to_what_was_scaled_to_zero_are_all_served_by_the_first_replica() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 2).await;
    mesh.all(prompt(|_| ())).await.unwrap();
    mesh.change(|table| table.report_interval_ms = 10);
    scale_to_zero(&mesh);
    mesh.has_replicas(0).await;
    let mut waiting = Vec::new();
    for _ in 0..20 {
        waiting.push(mesh.generate(prompt(|_| ())).await);
    }
    wait_for(&mesh, 20).await;
    // Several times as long as they would wait without hope.
    let waited = |reports: &Vec<ReportDemandRequest>| {
        let those = reports
            .iter()
            .filter(|report| of(report, "pipeline") == Some((20, 0)));
        those.count() > 40
    };
    mesh.reported("that they still wait, 400 ms later", waited).await;
    mesh.publish(&[&worker], 2, -1);
    let ends = futures::future::join_all(waiting.into_iter().map(|mut events| async move {
        let mut seen = Vec::new();
        while let Some(event) = events.next().await.unwrap() {
            seen.push(event);
        }
        names(&seen).last().copied()
    }));
    let ends = soon("all of them", ends).await;
    assert!(ends.iter().all(|end| *end == Some("done")), "{ends:?}");
    assert_eq!(worker.requests().len(), 21, "each once");
}

#[tokio::test]
async fn requests_to_what_never_ran_wait_in_a_bounded_line_and_are_all_served() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::bare(config()).await;
    mesh.route(&[], 1, 3).await;
    scale_to_zero(&mesh);
    let mut waiting = Vec::new();
    for seed in 1..=3 {
        waiting.push(mesh.generate(prompt(|r| r.seeds = vec![seed])).await);
        wait_for(&mesh, u32::try_from(seed).unwrap()).await;
    }
    let status = mesh.generate(prompt(|_| ())).await.failed().await;
    assert_eq!(
        status.code(),
        Code::ResourceExhausted,
        "the line is bounded here too"
    );
    mesh.publish(&[&worker], 1, 3);
    let served = waiting
        .into_iter()
        .enumerate()
        .map(|(ahead, mut events)| async move {
            let Some(Event::Accepted(accepted)) = events.next().await.unwrap() else {
                panic!("not accepted")
            };
            assert!(accepted.queue_position as usize <= ahead);
            while events.next().await.unwrap().is_some() {}
        });
    soon("all of them", futures::future::join_all(served)).await;
    let mut seeds: Vec<_> = worker.requests().iter().map(|r| r.seeds[0]).collect();
    seeds.sort_unstable();
    assert_eq!(seeds, [1, 2, 3]);
}

#[tokio::test]
async fn a_deadline_holds_for_those_who_wait_for_a_first_replica() {
    let mesh = Mesh::bare(config()).await;
    mesh.route(&[], 1, -1).await;
    scale_to_zero(&mesh);
    let mut request = prompt(|_| ()).into_request();
    request.set_timeout(Duration::from_millis(200));
    let status = status::received(mesh.generate(request).await.failed().await);
    assert_eq!(status.code(), Code::DeadlineExceeded);
    wait_for(&mesh, 0).await;
}

#[tokio::test]
async fn what_is_not_expected_is_refused_at_once_with_why() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(
        Config {
            no_replica_timeout_s: 1_000.0,
            ..config()
        },
        &[&worker],
        1,
    )
    .await;
    mesh.reroute(|deployment| {
        if deployment.name == "pipeline" {
            deployment.replicas.clear();
            deployment.why_none = "no worker has a GPU".into();
        }
    });
    mesh.has_replicas(0).await;
    let status = mesh.all(prompt(|_| ())).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status::reason(&status).as_deref(), Some("NO_REPLICA"));
    assert_eq!(
        status.message(),
        "demo#pipeline has no replica: no worker has a GPU"
    );
    let answer = get(mesh.http, "/imagine?prompt=cat").await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("no worker has a GPU"), "{}", answer.text());
}

#[tokio::test]
async fn who_waits_when_hope_ends_is_told_why_after_the_limit() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 1).await;
    scale_to_zero(&mesh);
    mesh.has_replicas(0).await;
    let waiting = mesh.generate(prompt(|_| ())).await;
    wait_for(&mesh, 1).await;
    mesh.reroute(|deployment| {
        deployment.expected = false;
        deployment.why_none = "it does not start".into();
    });
    let status = waiting.failed().await;
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().ends_with(": it does not start"), "{status}");
}

#[tokio::test]
async fn an_application_that_is_deleted_finishes_what_it_has_and_takes_nothing_new() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 2).await;
    let opens = std::sync::Arc::<tokio::sync::Notify>::default();
    worker.will(Act::Gate(std::sync::Arc::clone(&opens)));
    let mut running = mesh.generate(prompt(|_| ())).await;
    running.started().await;
    mesh.change(|table| table.applications[0].deleting = true);
    soon("the route's end", async {
        while get(mesh.http, "/-/routes").await.text().contains("demo") {}
    })
    .await;
    let status = mesh.all(prompt(|r| r.model = "demo".into())).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let answer = get(mesh.http, "/imagine?prompt=cat").await;
    assert_eq!(answer.status, 404);
    assert!(
        answer.text().starts_with("Path '/imagine' not found."),
        "{}",
        answer.text()
    );
    for _ in 0..4 {
        opens.notify_one();
    }
    let mut seen = Vec::new();
    while let Some(event) = running.next().await.unwrap() {
        seen.push(event);
    }
    assert_eq!(names(&seen).last(), Some(&"done"));
}

/// One request draws, one waits, and then the table says this of their application.
async fn goes(leaves: impl FnOnce(&mut WatchRoutesResponse)) {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(
        Config {
            no_replica_timeout_s: 1_000.0,
            ..config()
        },
        &[&worker],
        1,
    )
    .await;
    worker.will(Act::Hang);
    let mut running = mesh.generate(prompt(|_| ())).await;
    running.started().await;
    let mut waiting = mesh.generate(prompt(|_| ())).await;
    assert!(matches!(waiting.next().await.unwrap(), Some(Event::Accepted(_))));
    mesh.reported("one that waits", |reports| {
        reports
            .last()
            .is_some_and(|last| of(last, "pipeline") == Some((1, 1)))
    })
    .await;
    mesh.change(leaves);
    let status = waiting.failed().await;
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        status.message().ends_with("its application was deleted"),
        "{status}"
    );
}

#[tokio::test]
async fn who_waits_for_an_application_that_is_gone_is_told_at_once() {
    goes(|table| table.applications.clear()).await;
}

#[tokio::test]
async fn who_waits_for_an_application_that_finishes_what_it_draws_is_told_at_once() {
    goes(|table| {
        table.applications[0].deleting = true;
        for deployment in &mut table.applications[0].deployments {
            deployment.replicas.clear();
        }
    })
    .await;
    // And where the deployment that it waits at goes before the application.
    goes(|table| {
        table.applications[0].deleting = true;
        table.applications[0].deployments.truncate(1);
    })
    .await;
}

#[tokio::test]
async fn who_waits_for_the_only_application_waits_for_that_one_when_another_comes() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 2).await;
    scale_to_zero(&mesh);
    mesh.has_replicas(0).await;
    let mut nameless = mesh.application("demo", crate::support::model(), &[], (2, -1));
    nameless.deployments[1].expected = true;
    nameless.deployments.remove(0);
    // Without a preprocess replica the request waits before it is accepted.
    mesh.change(|table| table.applications = vec![nameless]);
    let meanwhile = async {
        wait_for(&mesh, 1).await;
        let mut other = mesh.application("other", crate::support::model(), &[&worker], (2, -1));
        other.route_prefix = "/other".into();
        mesh.change(|table| table.applications.push(other.clone()));
        soon("the other one", async {
            while !get(mesh.http, "/-/routes").await.text().contains("other") {}
        })
        .await;
        let demo = mesh.application("demo", crate::support::model(), &[&worker], (2, -1));
        mesh.change(|table| table.applications = vec![demo, other]);
    };
    let (seen, ()) = tokio::join!(mesh.all(prompt(|_| ())), meanwhile);
    let seen = seen.unwrap();
    let Some(Event::Done(done)) = seen.last() else {
        panic!("{:?}", names(&seen))
    };
    assert_eq!(done.parameters.as_ref().unwrap().model, "demo");
}
