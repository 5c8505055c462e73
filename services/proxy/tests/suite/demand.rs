//! What the controller hears of the callers: demand while there is any, and the requests that ended.

use std::sync::Arc;

use crate::support::{Act, Mesh, Worker, call, get, of, prompt, soon};
use mobula_kit::metrics::{install, render};
use mobula_proto::{
    control::v1::{FinishedRequest, ReportDemandRequest},
    image::v1::CancelRequest,
};
use mobula_proxy::Config;
use tokio::sync::Notify;
use tonic::Code;

fn config() -> Config {
    Config {
        proxy_id: Some("me".into()),
        no_replica_timeout_s: 10.0,
        ..Config::default()
    }
}

/// A mesh whose table asks for reports this often.
async fn mesh(workers: &[&Worker], interval_ms: u32) -> Mesh {
    let mesh = Mesh::bare(config()).await;
    mesh.change(|table| table.report_interval_ms = interval_ms);
    mesh.route(workers, 1, -1).await;
    mesh
}

fn finished(reports: &[ReportDemandRequest]) -> Vec<FinishedRequest> {
    reports
        .iter()
        .flat_map(|report| report.finished.clone())
        .collect()
}

#[tokio::test]
async fn demand_is_reported_while_there_is_any_and_at_once_that_there_is_none() {
    let worker = Worker::start("a").await;
    let mesh = mesh(&[&worker], 10).await;
    worker.will(Act::Hang);
    let mut first = mesh.generate(prompt(|r| r.steps = Some(20))).await;
    first.started().await;
    let second = mesh.generate(prompt(|_| ())).await;
    let reports = mesh
        .reported("one that runs and one that waits", |reports| {
            // The second one is prepared first.
            let told = |last| (of(last, "pipeline"), of(last, "preprocess"));
            reports
                .last()
                .is_some_and(|last| told(last) == (Some((1, 1)), Some((0, 0))))
        })
        .await;
    let last = reports.last().unwrap();
    assert_eq!(last.proxy_id, "me");
    assert_eq!(last.demands[0].application, "demo");
    drop((first, second));
    let zero = |reports: &Vec<ReportDemandRequest>| {
        reports
            .last()
            .is_some_and(|last| of(last, "pipeline") == Some((0, 0)))
    };
    let reports = mesh.reported("that nothing is left", zero).await;
    let zeros = reports
        .iter()
        .rev()
        .take_while(|report| report.demands.iter().all(|d| d.queued + d.running == 0))
        .count();
    assert!(
        (1..=2).contains(&zeros),
        "one when it is over, one with how it ended: {zeros}"
    );
}

#[tokio::test]
async fn a_stream_counts_until_its_last_event_was_taken() {
    let worker = Worker::start("a").await;
    let mesh = mesh(&[&worker], 10).await;
    let opens = Arc::<Notify>::default();
    worker.will(Act::Gate(Arc::clone(&opens)));
    let mut events = mesh.generate(prompt(|_| ())).await;
    events.started().await;
    let running = |reports: &Vec<ReportDemandRequest>| {
        let reports = reports.iter().rev().take(3);
        reports.filter(|r| of(r, "pipeline") == Some((0, 1))).count() == 3
    };
    mesh.reported("three reports of one that runs", running).await;
    for _ in 0..4 {
        opens.notify_one();
    }
    while events.next().await.unwrap().is_some() {}
    mesh.reported("its end", |reports| {
        reports
            .last()
            .is_some_and(|last| of(last, "pipeline") == Some((0, 0)))
    })
    .await;
}

#[tokio::test]
async fn a_deployment_without_replicas_is_told_of_at_once() {
    let worker = Worker::start("a").await;
    // Nobody hears of anything in time by the interval.
    let mesh = mesh(&[&worker], 60_000).await;
    mesh.all(prompt(|_| ())).await.unwrap();
    mesh.reported("the first one", |reports| !reports.is_empty())
        .await;
    mesh.reroute(|deployment| {
        deployment.expected = true;
        if deployment.name == "pipeline" {
            deployment.replicas.clear();
        }
    });
    mesh.has_replicas(0).await;
    let waiting = mesh.generate(prompt(|_| ())).await;
    mesh.reported("one that waits", |reports| {
        reports
            .last()
            .is_some_and(|last| of(last, "pipeline") == Some((1, 0)))
    })
    .await;
    drop(waiting);
}

#[tokio::test]
async fn one_that_waits_for_an_application_is_demand_of_all_its_deployments() {
    let mesh = Mesh::bare(config()).await;
    mesh.route(&[], 1, -1).await;
    mesh.reroute(|deployment| {
        deployment.expected = true;
        deployment.replicas.clear();
    });
    let waiting = mesh.generate(prompt(|_| ())).await;
    let both = |report: &ReportDemandRequest| {
        of(report, "preprocess") == Some((1, 0)) && of(report, "pipeline") == Some((1, 0))
    };
    mesh.reported("demand of both", |reports| reports.last().is_some_and(both))
        .await;
    drop(waiting);
    mesh.reported("the end of it", |reports| {
        let last = reports.last();
        last.is_some_and(|last| {
            of(last, "preprocess") == Some((0, 0)) && of(last, "pipeline") == Some((0, 0))
        })
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_is_lost_is_opened_again() {
    let worker = Worker::start("a").await;
    let mesh = mesh(&[&worker], 10).await;
    worker.will(Act::Hang);
    let mut events = mesh.generate(prompt(|_| ())).await;
    events.started().await;
    for _ in 0..3 {
        let before = mesh.reports.borrow().len();
        mesh.reported("another report", |reports| reports.len() > before)
            .await;
        mesh.hang_up.notify_one();
        let before = mesh.reports.borrow().len();
        mesh.reported("one on the next stream", |reports| reports.len() > before + 1)
            .await;
    }
}

#[tokio::test]
async fn requests_that_ended_are_reported_with_how_and_where() {
    let (a, b) = (Worker::start("a").await, Worker::start("b").await);
    let mesh = mesh(&[&a, &b], 10).await;
    for worker in [&a, &b] {
        worker.will(Act::Break(0, tonic::Status::unavailable("engine failed")));
    }
    mesh.all(prompt(|r| {
        r.request_id = "lost twice".into();
        r.width = Some(64);
        r.steps = Some(9);
        r.image_count = 2;
    }))
    .await
    .unwrap();
    mesh.all(prompt(|r| {
        r.request_id = "wrong".into();
        r.width = Some(3);
    }))
    .await
    .unwrap_err();
    mesh.all(prompt(|r| {
        r.request_id = "nowhere".into();
        r.model = "nope".into();
    }))
    .await
    .unwrap_err();
    mesh.all(prompt(|r| r.request_id = "no\nid".into()))
        .await
        .unwrap_err();
    let http =
        "GET /imagine?prompt=cat HTTP/1.1\r\nhost: m\r\nx-request-id: by http\r\nconnection: close\r\n\r\n";
    assert_eq!(call(mesh.http, http).await.status, 200);
    let reports = mesh
        .reported("four ends", |reports| finished(reports).len() >= 4)
        .await;
    let ended = finished(&reports);
    let ids: Vec<_> = ended.iter().map(|ended| ended.request_id.as_str()).collect();
    assert_eq!(ids, ["lost twice", "wrong", "nowhere", "by http"]);
    let lost = &ended[0];
    assert_eq!(
        (lost.application.as_str(), lost.code, lost.message.as_str()),
        ("demo", 0, "")
    );
    assert_eq!(
        (lost.width, lost.height, lost.steps, lost.pictures),
        (64, 128, 9, 2)
    );
    assert_eq!(lost.replica_ids.len(), 3, "each of its replicas, in order");
    assert_ne!(lost.replica_ids[0], lost.replica_ids[1]);
    assert_eq!(lost.timings.unwrap().denoise_us, 7);
    assert!(lost.arrived_unix_ms > 1_700_000_000_000);
    let wrong = &ended[1];
    assert_eq!(wrong.code, Code::InvalidArgument as u32);
    assert!(wrong.message.starts_with("width: "), "{}", wrong.message);
    assert!(wrong.replica_ids.is_empty());
    assert_eq!((ended[2].code, ended[2].application.as_str()), (5, "nope"));
}

#[tokio::test]
async fn a_cancelled_request_and_the_time_without_a_replica_are_told() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::bare(config()).await;
    mesh.change(|table| table.report_interval_ms = 10);
    mesh.route(&[], 1, -1).await;
    mesh.reroute(|deployment| deployment.expected = true);
    worker.will(Act::Hang);
    let mut events = mesh.generate(prompt(|r| r.request_id = "cold".into())).await;
    mesh.reported("one that waits", |reports| {
        let waits = |report: &&ReportDemandRequest| of(report, "pipeline") == Some((1, 0));
        reports.iter().filter(waits).count() > 2
    })
    .await;
    mesh.publish(&[&worker], 1, -1);
    events.started().await;
    let cancel = CancelRequest {
        request_id: "cold".into(),
    };
    mesh.client.clone().cancel(cancel).await.unwrap();
    let reports = mesh
        .reported("its end", |reports| !finished(reports).is_empty())
        .await;
    let ended = &finished(&reports)[0];
    assert_eq!(ended.code, Code::Cancelled as u32);
    assert_eq!(ended.replica_ids, ["demo#a"]);
    // Three reports came while it waited, 10 ms apart.
    assert!((20..=ended.total_ms).contains(&ended.no_replica_ms), "{ended:?}");
}

#[tokio::test]
async fn requests_are_counted_as_ray_serve_counts_them() {
    let handle = install();
    let (actor, node) = (r#"actor_id="me""#, r#"node_id="me",node_ip_address="127.0.0.1""#);
    let worker = Worker::start("a").await;
    let mesh = mesh(&[&worker], 10).await;
    worker.will(Act::Hang);
    let mut running = mesh.generate(prompt(|_| ())).await;
    running.started().await;
    soon("a gauge", async {
        while !render(&handle).contains(&format!("serve_num_ongoing_grpc_requests{{{node}}} 1")) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let gauges = render(&handle);
    drop(running);
    assert_eq!(get(mesh.http, "/imagine?prompt=cat").await.status, 200);
    assert_eq!(get(mesh.http, "/imagine").await.status, 422);
    assert_eq!(get(mesh.http, "/nowhere").await.status, 404);
    mesh.all(prompt(|r| r.model = "nope".into())).await.unwrap_err();
    let page = render(&handle);
    let pipeline = r#"application="demo",deployment="pipeline""#;
    for line in [
        format!(r#"serve_num_ongoing_requests_at_replicas{{{pipeline},handle="demo#pipeline",{actor}}} 1"#),
        format!(r#"serve_deployment_queued_queries{{{pipeline},handle="demo#pipeline",{actor}}} 0"#),
        format!(
            r#"serve_request_router_queue_len{{{pipeline},replica_id="demo#a",handle_source="PROXY",{actor}}} 1"#
        ),
    ] {
        assert!(gauges.contains(&line), "{line} in {gauges}");
    }
    for line in [
        r#"serve_num_http_requests_total{route="/",method="GET",application="demo",status_code="200"} 1"#.to_owned(),
        r#"serve_num_http_error_requests_total{route="/",method="GET",application="demo",error_code="422"} 1"#.to_owned(),
        r#"serve_num_http_requests_total{route="/",method="GET",application="demo",status_code="404"} 1"#.to_owned(),
        r#"serve_num_grpc_requests_total{route="demo",method="/mobula.image.v1.ImageService/Generate",application="demo",status_code="CANCELLED"} 1"#.to_owned(),
        r#"serve_num_grpc_error_requests_total{route="",method="/mobula.image.v1.ImageService/Generate",application="",error_code="NOT_FOUND"} 1"#.to_owned(),
        format!(r#"serve_handle_request_counter_total{{{pipeline},handle="demo#pipeline",route="/"}} 2"#),
        format!(r#"serve_num_router_requests_total{{{pipeline},handle="demo#pipeline",route="/",{actor}}} 2"#),
        format!(r#"serve_request_router_fulfillment_time_ms_count{{{pipeline},handle_source="PROXY",{actor}}} 2"#),
    ] {
        assert!(page.contains(&line), "{line} in {page}");
    }
    mesh.change(|table| table.applications.clear());
    soon("a page without the application that is gone", async {
        while render(&handle).contains("\"demo\"") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // The door's own are there for as long as it is.
    assert!(
        render(&handle).contains(&format!("serve_num_ongoing_http_requests{{{node}}} 0")),
        "{}",
        render(&handle)
    );
}
