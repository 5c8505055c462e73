//! What a config says of the doors, as proxies are told it with the routes: how long requests may take, and what size a
//! picture has that names none.

use std::sync::Arc;

use mobula_proto::control::v1::WatchRoutesResponse;
use mobula_proxy::Config;
use tokio::sync::Notify;

use crate::support::{Act, Mesh, Worker, get, prompt, soon};

fn config() -> Config {
    Config {
        no_replica_timeout_s: 10.0,
        ..Config::default()
    }
}

/// Gives the application a path of its own together with what else changes, and waits until the proxy has heard of it.
async fn moved(mesh: &Mesh, path: &str, change: impl FnOnce(&mut WatchRoutesResponse)) {
    mesh.change(|table| {
        table.applications[0].route_prefix = path.to_owned();
        change(table);
    });
    soon("the new table", async {
        loop {
            let routes = get(mesh.http, "/-/routes").await.json();
            if routes.get(path).is_some() {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn the_configs_time_limit_of_the_http_door_goes_before_the_proxys_flag_and_frees_the_place() {
    let mut worker = Worker::start("a").await;
    let config = Config {
        request_timeout_s: Some(3_600.0),
        ..config()
    };
    let mesh = Mesh::start(config, &[&worker], 2).await;
    moved(&mesh, "/limited", |table| {
        table.http_request_timeout_ms = Some(200)
    })
    .await;
    // Callers of the gRPC door are not limited by it, though this one came first.
    let opens = Arc::new(Notify::new());
    worker.will(Act::Gate(Arc::clone(&opens)));
    let mut other = mesh.generate(prompt(|_| ())).await;
    other.started().await;
    worker.will(Act::Hang);
    let answer = soon("the end", get(mesh.http, "/limited/imagine?prompt=a")).await;
    assert_eq!(answer.status, 408);
    assert_eq!(answer.json()["error"]["reason"], "DEADLINE_PASSED");
    soon("the stream's drop", worker.dropped.recv()).await;
    opens.notify_one();
    soon("the other's pictures", async {
        while other.next().await.unwrap().is_some() {}
    })
    .await;
    // What the config does not say any more is the flag's again.
    moved(&mesh, "/free", |table| table.http_request_timeout_ms = None).await;
    worker.will(Act::Draw);
    assert_eq!(get(mesh.http, "/free/imagine?prompt=a").await.status, 200);
}

#[tokio::test]
async fn the_configs_time_limit_of_the_grpc_door_is_a_deadline() {
    let mut worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 2).await;
    moved(&mesh, "/limited", |table| {
        table.grpc_request_timeout_ms = Some(200)
    })
    .await;
    worker.will(Act::Hang);
    let status = mesh.generate(prompt(|_| ())).await.failed().await;
    assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
    soon("the stream's drop", worker.dropped.recv()).await;
}

#[tokio::test]
async fn a_picture_without_a_size_has_that_of_the_applications_code_where_the_model_can() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 1).await;
    let own = (128, 128);
    for (side, path, drawn) in [
        (0, "/imagine?prompt=a", own),
        (256, "/imagine?prompt=a", (256, 256)),
        (256, "/imagine?prompt=a&img_size=64", (64, 64)),
        (256, "/imagine?prompt=a&width=64", (64, 128)),
        (100, "/imagine?prompt=a", own),
        (8_192, "/imagine?prompt=a", own),
    ] {
        let prefix = format!("/{side}");
        moved(&mesh, &prefix, |table| table.applications[0].img_size = side).await;
        let answer = get(mesh.http, &format!("{prefix}{path}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let asked = worker.requests().pop().unwrap();
        assert_eq!((asked.width, asked.height), drawn, "{side} {path}");
    }
    let pictures = mesh.all(prompt(|_| ())).await.unwrap();
    assert!(!pictures.is_empty());
    let asked = worker.requests().pop().unwrap();
    assert_eq!(
        (asked.width, asked.height),
        own,
        "callers of gRPC have the model's"
    );
}
