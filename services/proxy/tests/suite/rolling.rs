//! Tables that change under load: no request is lost, and none goes where the table does not say.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use crate::support::{Act, Mesh, Worker, call, get, names, prompt, soon};
use mobula_proto::image::v1::ListModelsRequest;
use mobula_proxy::Config;
use tokio::sync::Notify;
use tonic::Status;

fn config() -> Config {
    Config {
        no_replica_timeout_s: 10.0,
        ..Config::default()
    }
}

#[tokio::test]
async fn while_every_replica_is_replaced_again_and_again_no_request_fails() {
    const CALLERS: usize = 8;
    const SWAPS: usize = 30;
    let mut workers = Vec::new();
    for name in ["a", "b", "c", "d"] {
        workers.push(Worker::start(name).await);
    }
    let mesh = Mesh::start(config(), &[&workers[0], &workers[1]], 2).await;
    let stop = Arc::<AtomicBool>::default();
    let served = Arc::<AtomicUsize>::default();
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (mut client, stop, served) = (mesh.client.clone(), Arc::clone(&stop), Arc::clone(&served));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let mut stream = client.generate(prompt(|_| ())).await?.into_inner();
                    let mut events = Vec::new();
                    while let Some(message) = stream.message().await? {
                        events.extend(message.event);
                    }
                    let expected = ["accepted", "started", "step", "image", "done"];
                    assert_eq!(names(&events), expected, "and none starts again");
                    served.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, Status>(())
            })
        })
        .collect();
    for swap in 0..SWAPS {
        let before = served.load(Ordering::Relaxed);
        let (first, second) = (swap % 4, (swap + 1) % 4);
        mesh.publish(&[&workers[first], &workers[second]], 2, -1);
        soon("some more requests", async {
            while served.load(Ordering::Relaxed) < before + CALLERS {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        soon("the last request", caller).await.unwrap().unwrap();
    }
    let drawn: usize = workers.iter().map(|worker| worker.requests().len()).sum();
    assert_eq!(drawn, served.load(Ordering::Relaxed), "each was drawn once");
    assert!(workers.iter().all(|worker| !worker.requests().is_empty()));
}

#[tokio::test]
async fn a_replica_that_leaves_finishes_what_it_has_and_gets_nothing_new() {
    let (a, b) = (Worker::start("a").await, Worker::start("b").await);
    let mesh = Mesh::start(config(), &[&a], 4).await;
    let opens = Arc::<Notify>::default();
    a.will(Act::Gate(Arc::clone(&opens)));
    let mut running = mesh.generate(prompt(|_| ())).await;
    running.started().await;
    mesh.publish(&[&b], 4, -1);
    // The table is taken in as a whole: once `b` draws, `a` is out.
    soon("a request on the new one", async {
        while b.requests().is_empty() {
            mesh.all(prompt(|_| ())).await.unwrap();
        }
    })
    .await;
    let before = a.requests().len();
    for _ in 0..10 {
        mesh.all(prompt(|_| ())).await.unwrap();
    }
    assert_eq!(a.requests().len(), before);
    for _ in 0..4 {
        opens.notify_one();
    }
    let mut seen = Vec::new();
    while let Some(event) = running.next().await.unwrap() {
        seen.push(event);
    }
    assert_eq!(names(&seen), ["step", "image", "done"], "it was not cut");
}

#[tokio::test]
async fn limits_and_prefixes_change_for_requests_that_are_there() {
    let mut worker = Worker::start("a").await;
    let mesh = Mesh::bare(config()).await;
    mesh.route(&[&worker], 1, 1).await;
    for _ in 0..2 {
        worker.will(Act::Hang);
    }
    let mut first = mesh.generate(prompt(|_| ())).await;
    first.started().await;
    let mut second = mesh.generate(prompt(|_| ())).await;
    second.next().await.unwrap();
    let full = mesh.generate(prompt(|_| ())).await.failed().await;
    assert_eq!(full.code(), tonic::Code::ResourceExhausted);
    // Room for one more at the replica: the one that waits goes there.
    mesh.publish(&[&worker], 2, 1);
    second.started().await;
    // Room for two more in the line.
    mesh.publish(&[&worker], 2, 2);
    for _ in 0..2 {
        soon("a call", worker.called.recv()).await;
    }
    let mut waiting = Vec::new();
    soon("room in the line", async {
        while waiting.len() < 2 {
            let mut events = mesh.generate(prompt(|_| ())).await;
            if events.next().await.is_ok() {
                waiting.push(events);
            }
        }
    })
    .await;
    assert_eq!(worker.requests().len(), 2, "they wait");
    mesh.change(|table| table.applications[0].route_prefix = "/new".into());
    soon("the new prefix", async {
        while !get(mesh.http, "/-/routes").await.text().contains("/new") {}
    })
    .await;
    assert_eq!(get(mesh.http, "/imagine?prompt=cat").await.status, 404);
    drop((first, second, waiting));
    soon("a picture", async {
        while get(mesh.http, "/new/imagine?prompt=cat").await.status != 200 {}
    })
    .await;
}

#[tokio::test]
async fn a_full_queue_is_answered_as_its_deployment_says() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::bare(config()).await;
    mesh.route(&[&worker], 1, 0).await;
    worker.will(Act::Hang);
    let mut running = mesh.generate(prompt(|_| ())).await;
    running.started().await;
    assert_eq!(get(mesh.http, "/imagine?prompt=cat").await.status, 503);
    mesh.reroute(|deployment| {
        deployment.backpressure_status = 429;
        deployment.retry_after_s = 12.5;
    });
    let answer = soon("the new status", async {
        loop {
            let answer = get(mesh.http, "/imagine?prompt=cat").await;
            if answer.status != 503 {
                return answer;
            }
        }
    })
    .await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, "13"));
    let status = mesh.all(prompt(|_| ())).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    let after = mobula_kit::status::retry_after(&status);
    assert_eq!(after, Some(std::time::Duration::from_millis(12_500)));
}

#[tokio::test]
async fn a_table_without_a_model_that_was_known_lists_it_still() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 1).await;
    mesh.publish(&[], 1, -1);
    mesh.has_replicas(0).await;
    let models = mesh.client.clone().list_models(ListModelsRequest {}).await;
    assert_eq!(models.unwrap().into_inner().models[0].default_width, 128);
    let request = "GET /nowhere HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n";
    assert_eq!(call(mesh.http, request).await.status, 404);
}
