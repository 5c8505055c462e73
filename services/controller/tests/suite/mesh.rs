//! The controller over real sockets, with the kit's life line and a loader that loads nothing.

use std::{net::SocketAddr, path::Path, time::Duration};

use mobula_controller::{Config, Error, Listeners};
use mobula_kit::{
    Stop,
    channel::Dial,
    worker::{Identity, Replicas, Resources, WorkerKind, attach},
};
use mobula_proto::control::v1::{
    ApplicationState, AttachRequest, GetStatusRequest, GetStatusResponse, Hello, WatchRoutesRequest,
    WatchRoutesResponse, attach_request, control_service_client::ControlServiceClient,
    serve_service_client::ServeServiceClient,
};
use tokio::{
    net::TcpListener,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tonic::{Code, Streaming, transport::Channel};

use crate::support::Loads;

/// Short, so that a lease is over in 300 ms.
const HEARTBEAT_MS: u32 = 100;
/// Nothing here takes as long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

struct Controller {
    address: SocketAddr,
    stop: Stop,
    task: JoinHandle<Result<(), Error>>,
}

impl Controller {
    async fn start(config: Config, listen: SocketAddr) -> Self {
        let grpc = TcpListener::bind(listen).await.unwrap();
        let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let rest = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = grpc.local_addr().unwrap();
        let stop = Stop::new(Duration::from_secs(2));
        let task = tokio::spawn(mobula_controller::run(
            config,
            Listeners {
                grpc: grpc.into(),
                rest: rest.into(),
                admin: admin.into(),
            },
            stop.clone(),
        ));
        Self { address, stop, task }
    }

    async fn external(model: &str) -> Self {
        let config = Config {
            model: Some(model.into()),
            heartbeat_ms: HEARTBEAT_MS,
            ..Config::default()
        };
        Self::start(config, "127.0.0.1:0".parse().unwrap()).await
    }

    async fn stop(self) {
        self.stop.trigger();
        timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
        timeout(PATIENCE, self.stop.wait()).await.unwrap();
    }

    fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address))
            .unwrap()
            .connect_lazy()
    }

    async fn routes(&self) -> Streaming<WatchRoutesResponse> {
        let mut client = ControlServiceClient::new(self.channel());
        let request = WatchRoutesRequest {
            proxy_id: "proxy".into(),
            ..Default::default()
        };
        client.watch_routes(request).await.unwrap().into_inner()
    }

    async fn status(&self) -> GetStatusResponse {
        let mut client = ServeServiceClient::new(self.channel());
        client.get_status(GetStatusRequest {}).await.unwrap().into_inner()
    }

    /// Asks until the answer is right.
    async fn status_until(&self, right: impl Fn(&GetStatusResponse) -> bool) -> GetStatusResponse {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status().await;
            if right(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "{status:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Attaches a worker; the stop ends it.
fn worker(controller: SocketAddr, id: &str, kind: WorkerKind, address: &str) -> Stop {
    let stop = Stop::new(Duration::from_secs(1));
    let identity = Identity {
        worker_id: id.into(),
        kind,
        address: address.into(),
        resources: Resources {
            cpus: 1.0,
            ..Resources::default()
        },
        labels: Default::default(),
        version: "test".into(),
    };
    let replicas = Replicas::new(Loads, stop.clone());
    attach(
        (&controller.to_string(), &Dial::default()),
        identity,
        replicas,
        &stop,
    )
    .unwrap();
    stop
}

/// Reads tables until the pipeline has exactly these addresses.
async fn pipeline_at(routes: &mut Streaming<WatchRoutesResponse>, addresses: &[&str]) -> WatchRoutesResponse {
    timeout(PATIENCE, async {
        loop {
            let table = routes.message().await.unwrap().unwrap();
            let deployments = &table.applications[0].deployments;
            let pipeline = deployments.iter().find(|d| d.name == "pipeline").unwrap();
            let found: Vec<&str> = pipeline.replicas.iter().map(|r| r.address.as_str()).collect();
            if found == addresses {
                return table;
            }
        }
    })
    .await
    .unwrap_or_else(|_| panic!("no table with the pipeline at {addresses:?}"))
}

#[tokio::test]
async fn a_worker_that_goes_is_replaced_within_the_lease_and_the_proxy_hears_of_it() {
    let controller = Controller::external("fake").await;
    let mut routes = controller.routes().await;
    let _preprocess = worker(controller.address, "p", WorkerKind::Preprocess, "10.0.0.1:7100");
    let first = worker(controller.address, "a", WorkerKind::Inference, "10.0.0.2:7200");
    let table = pipeline_at(&mut routes, &["10.0.0.2:7200"]).await;
    assert_eq!(table.applications[0].route_prefix, "/");
    let _second = worker(controller.address, "b", WorkerKind::Inference, "10.0.0.3:7200");
    controller.status_until(|status| status.workers.len() == 3).await;

    first.trigger();
    let after = pipeline_at(&mut routes, &["10.0.0.3:7200"]).await;
    assert!(after.version > table.version);

    let status = controller
        .status_until(|s| s.applications[0].state() == ApplicationState::Running)
        .await;
    assert_eq!(status.proxies.len(), 1);
    assert!(
        status
            .workers
            .iter()
            .any(|w| w.worker_id == "b" && w.alive && w.pid == std::process::id())
    );
    drop(routes);
    controller.status_until(|status| status.proxies.is_empty()).await;
    controller.stop().await;
}

#[tokio::test]
async fn a_worker_whose_connection_breaks_has_a_heartbeat_to_come_back() {
    let controller = Controller::external("fake").await;
    let hello = Hello {
        worker_id: "a".into(),
        kind: WorkerKind::Inference.into(),
        address: "10.0.0.2:7200".into(),
        ..Default::default()
    };
    let (say, said) = tokio::sync::mpsc::channel(1);
    let message = Some(attach_request::Message::Hello(hello));
    say.send(AttachRequest { message }).await.unwrap();
    let mut client = ControlServiceClient::new(controller.channel());
    let said = tokio_stream::wrappers::ReceiverStream::new(said);
    let stream = client.attach(said).await.unwrap();
    assert_eq!(controller.status().await.workers.len(), 1);
    drop((stream, client, say));
    controller.status_until(|status| status.workers.is_empty()).await;
    controller.stop().await;
}

#[tokio::test]
async fn a_restarted_controller_finds_its_replicas_again() {
    let controller = Controller::external("fake").await;
    let address = controller.address;
    let mut routes = controller.routes().await;
    let _preprocess = worker(address, "p", WorkerKind::Preprocess, "10.0.0.1:7100");
    let _inference = worker(address, "a", WorkerKind::Inference, "10.0.0.2:7200");
    let before = pipeline_at(&mut routes, &["10.0.0.2:7200"]).await;
    controller
        .status_until(|s| s.applications[0].state() == ApplicationState::Running)
        .await;
    controller.stop().await;

    let config = Config {
        model: Some("fake".into()),
        heartbeat_ms: HEARTBEAT_MS,
        // Longer than the workers need to dial again, so that only their return can end it.
        adoption_grace_ms: Some(600_000),
        ..Config::default()
    };
    let controller = Controller::start(config, address).await;
    let mut routes = controller.routes().await;
    let first = timeout(PATIENCE, routes.message())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let replicas = |table: &WatchRoutesResponse| -> Vec<String> {
        table.applications[0].deployments[1]
            .replicas
            .iter()
            .map(|r| r.replica_id.clone())
            .collect()
    };
    assert_eq!(
        replicas(&first),
        replicas(&before),
        "the first table has what the last one had"
    );
    assert_ne!(first.controller_id, before.controller_id);
    controller.stop().await;
}

#[tokio::test]
async fn a_broken_model_is_told_in_the_status() {
    let controller = Controller::external("broken").await;
    let _inference = worker(controller.address, "a", WorkerKind::Inference, "10.0.0.2:7200");
    let status = controller
        .status_until(|status| {
            status.applications[0]
                .message
                .contains("unet/model.onnx is missing")
        })
        .await;
    assert_ne!(status.applications[0].state(), ApplicationState::Running);
    controller.stop().await;
}

#[tokio::test]
async fn what_is_no_worker_is_refused_with_the_field() {
    let controller = Controller::external("fake").await;
    let hello = |id: &str, kind: WorkerKind, address: &str| Hello {
        worker_id: id.into(),
        kind: kind.into(),
        address: address.into(),
        ..Default::default()
    };
    let cases = [
        (None, "hello"),
        (Some(hello("", WorkerKind::Inference, "a:1")), "hello.worker_id"),
        (Some(hello("a", WorkerKind::Unspecified, "a:1")), "hello.kind"),
        (
            Some(hello("a", WorkerKind::Inference, "nowhere")),
            "hello.address",
        ),
    ];
    for (hello, field) in cases {
        let message = match hello {
            Some(hello) => attach_request::Message::Hello(hello),
            None => attach_request::Message::Heartbeat(Default::default()),
        };
        let request = AttachRequest {
            message: Some(message),
        };
        let mut client = ControlServiceClient::new(controller.channel());
        let status = client.attach(tokio_stream::iter([request])).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert_eq!(mobula_kit::status::violations(&status)[0].0, field);
    }
    let mut client = ControlServiceClient::new(controller.channel());
    let status = client
        .watch_routes(WatchRoutesRequest::default())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    controller.stop().await;
}

#[tokio::test]
async fn a_second_worker_with_a_live_workers_id_is_refused() {
    let controller = Controller::external("fake").await;
    let _first = worker(controller.address, "a", WorkerKind::Inference, "10.0.0.2:7200");
    controller.status_until(|status| status.workers.len() == 1).await;
    let hello = Hello {
        worker_id: "a".into(),
        kind: WorkerKind::Inference.into(),
        address: "10.0.0.9:7200".into(),
        ..Default::default()
    };
    let request = AttachRequest {
        message: Some(attach_request::Message::Hello(hello)),
    };
    let mut client = ControlServiceClient::new(controller.channel());
    let status = client.attach(tokio_stream::iter([request])).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    assert!(status.message().contains("10.0.0.2:7200"), "{status}");
    controller.stop().await;
}

#[tokio::test]
async fn a_file_with_mistakes_is_refused_before_anything_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("app.yaml");
    std::fs::write(
        &file,
        "applications: [{name: a, replicas: 2, import_path: x:y, args: {engine: torch}}]",
    )
    .unwrap();
    let refused = |config: Config| async {
        let controller = Controller::start(config, "127.0.0.1:0".parse().unwrap()).await;
        timeout(PATIENCE, controller.task)
            .await
            .unwrap()
            .unwrap()
            .unwrap_err()
    };
    let error = refused(Config {
        config: Some(file),
        ..Config::default()
    })
    .await;
    assert_eq!(error.code(), Code::InvalidArgument);
    let text = error.to_string();
    for path in [
        "applications[0].replicas",
        "applications[0].import_path",
        "applications[0].args.engine",
    ] {
        assert!(text.contains(path), "{text}");
    }
    let error = refused(Config {
        config: Some(Path::new("/nowhere.yaml").into()),
        ..Config::default()
    })
    .await;
    assert!(error.to_string().contains("/nowhere.yaml"), "{error}");
}
