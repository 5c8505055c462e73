//! Updates, rollbacks and scaling over real sockets: config in at one end, workers and route tables at the other.

use std::{net::SocketAddr, path::Path, time::Duration};

use mobula_controller::{Config, Error, Listeners};
use mobula_kit::{
    Stop,
    channel::Dial,
    worker::{Identity, Replicas, Resources, WorkerKind, attach},
};
use mobula_proto::control::v1::{
    self as pb, ApplicationState, RolloutState, control_service_client::ControlServiceClient,
    serve_service_client::ServeServiceClient,
};
use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use crate::support::Loads;

/// Short, so that a gate is passed in 300 ms.
const HEARTBEAT_MS: u32 = 100;
/// Nothing here takes as long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(30);

struct Controller {
    address: SocketAddr,
    serve: ServeServiceClient<Channel>,
    stop: Stop,
    task: JoinHandle<Result<(), Error>>,
}

impl Controller {
    async fn start(dir: &Path, address: &str) -> Self {
        let grpc = TcpListener::bind(address).await.unwrap();
        let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let rest = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = grpc.local_addr().unwrap();
        let stop = Stop::new(Duration::from_secs(2));
        let config = Config {
            heartbeat_ms: HEARTBEAT_MS,
            // Longer than workers need to dial again, so that only their return ends it.
            adoption_grace_ms: Some(600_000),
            ephemeral: false,
            state_dir: Some(dir.to_path_buf()),
            ..Config::default()
        };
        let listeners = Listeners {
            grpc: grpc.into(),
            rest: rest.into(),
            admin: admin.into(),
        };
        let task = tokio::spawn(mobula_controller::run(config, listeners, stop.clone()));
        let channel = Channel::from_shared(format!("http://{address}")).unwrap();
        Self {
            address,
            serve: ServeServiceClient::new(channel.connect_lazy()),
            stop,
            task,
        }
    }

    fn control(&self) -> ControlServiceClient<Channel> {
        let channel = Channel::from_shared(format!("http://{}", self.address)).unwrap();
        ControlServiceClient::new(channel.connect_lazy())
    }

    async fn put(&mut self, model: &str, count: &str) {
        let config = format!(
            "name: a\nroute_prefix: /\nimport_path: mobula.image:text_to_image\nargs: {{model: {model}, engine: fake}}\n\
             deployments:\n- name: pipeline\n  {count}\n"
        );
        let request = pb::PutApplicationRequest {
            config,
            ..Default::default()
        };
        self.serve.put_application(request).await.unwrap();
    }

    async fn until(&mut self, right: impl Fn(&pb::ApplicationStatus) -> bool) -> pb::ApplicationStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self
                .serve
                .get_status(pb::GetStatusRequest {})
                .await
                .unwrap()
                .into_inner();
            if let Some(app) = status.applications.into_iter().find(|app| app.name == "a") {
                if right(&app) {
                    return app;
                }
                assert!(Instant::now() < deadline, "{app:#?}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn running(&mut self) -> pb::ApplicationStatus {
        self.until(|app| app.state() == ApplicationState::Running).await
    }

    async fn stop(self) {
        self.stop.trigger();
        timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
        timeout(PATIENCE, self.stop.wait()).await.unwrap();
    }
}

/// Attaches a worker; the stop ends it.
fn worker(controller: SocketAddr, id: &str, kind: WorkerKind) -> Stop {
    let stop = Stop::new(Duration::from_secs(1));
    let identity = Identity {
        worker_id: id.into(),
        kind,
        address: format!("{id}:7200"),
        resources: Resources {
            cpus: 2.0,
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

fn workers(controller: SocketAddr) -> Vec<Stop> {
    let inference = ["a", "b"].map(|id| worker(controller, id, WorkerKind::Inference));
    let mut all = vec![worker(controller, "p", WorkerKind::Preprocess)];
    all.extend(inference);
    all
}

fn rollout(app: &pb::ApplicationStatus, deployment: &str) -> RolloutState {
    let of = app.deployments.iter().find(|d| d.name == deployment).unwrap();
    of.rollout
        .as_ref()
        .map_or(RolloutState::Unspecified, pb::Rollout::state)
}

fn pipelines(table: &pb::WatchRoutesResponse) -> Vec<String> {
    let app = table.applications.iter().find(|app| app.name == "a");
    let pipeline = app.and_then(|app| app.deployments.iter().find(|d| d.name == "pipeline"));
    let replicas = pipeline.map(|d| d.replicas.as_slice()).unwrap_or_default();
    replicas.iter().map(|r| r.replica_id.clone()).collect()
}

/// Reads tables until one has these many pipelines and none of those; gives the fewest that any table had.
async fn until_told(
    routes: &mut Streaming<pb::WatchRoutesResponse>,
    count: usize,
    none_of: &[String],
) -> (usize, Vec<String>) {
    let mut fewest = usize::MAX;
    timeout(PATIENCE, async {
        loop {
            let table = routes.message().await.unwrap().unwrap();
            let found = pipelines(&table);
            fewest = fewest.min(found.len());
            if found.len() == count && !found.iter().any(|id| none_of.contains(id)) {
                return (fewest, found);
            }
        }
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn another_model_takes_over_replica_by_replica_and_a_broken_one_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(dir.path(), "127.0.0.1:0").await;
    let _workers = workers(controller.address);
    controller.put("one", "num_replicas: 2").await;
    controller.running().await;
    let request = pb::WatchRoutesRequest {
        proxy_id: "proxy".into(),
        ..Default::default()
    };
    let mut routes = controller
        .control()
        .watch_routes(request)
        .await
        .unwrap()
        .into_inner();
    let (_, first) = until_told(&mut routes, 2, &[]).await;

    controller.put("two", "num_replicas: 2").await;
    let (fewest, second) = until_told(&mut routes, 2, &first).await;
    assert_eq!(fewest, 2, "no table ever had fewer");
    let status = controller
        .until(|app| rollout(app, "pipeline") == RolloutState::Complete)
        .await;
    let replicas = status.deployments[1].replicas.iter();
    let running = replicas.filter(|r| r.state() == pb::ReplicaState::Running);
    assert_eq!(running.clone().count(), 2);
    assert!(running.clone().all(|r| !r.outdated));

    // Of one application both deployments load the model; the first that fails often enough takes both back.
    controller.put("broken", "num_replicas: 2").await;
    let status = controller
        .until(|app| rollout(app, "preprocess") == RolloutState::RolledBack)
        .await;
    assert!(
        status.message.contains("unet/model.onnx is missing"),
        "{}",
        status.message
    );
    // The ledger follows: what is wanted is what runs, and everybody can see why.
    let status = controller.running().await;
    let history = controller
        .serve
        .get_history(pb::GetHistoryRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(history.revisions[0].action, "automatic rollback");
    assert!(history.revisions[0].reason.contains("unet/model.onnx is missing"));
    let config = controller
        .serve
        .get_config(pb::GetConfigRequest { name: "a".into() })
        .await
        .unwrap()
        .into_inner();
    assert!(config.config.contains("\"two\""), "{}", config.config);
    let running: Vec<String> = status.deployments[1]
        .replicas
        .iter()
        .map(|r| r.replica_id.clone())
        .collect();
    assert!(
        second.iter().all(|id| running.contains(id)),
        "none of them was disturbed"
    );
    controller.stop().await;
}

#[tokio::test]
async fn a_stream_of_reports_speaks_for_one_proxy() {
    let dir = tempfile::tempdir().unwrap();
    let controller = Controller::start(dir.path(), "127.0.0.1:0").await;
    let report = |proxy: &str| pb::ReportDemandRequest {
        proxy_id: proxy.into(),
        ..Default::default()
    };
    let reports = tokio_stream::iter([report("one"), report("one"), report("other")]);
    let error = controller.control().report_demand(reports).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::InvalidArgument, "{error}");
    assert!(error.message().contains("proxy_id"), "{error}");
}

#[tokio::test]
async fn a_deployment_at_zero_is_woken_by_a_report_and_stays_awake_over_a_restart_of_the_controller() {
    let dir = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(dir.path(), "127.0.0.1:0").await;
    let address = controller.address;
    let _workers = workers(address);
    let scaled = "autoscaling_config: {min_replicas: 0, max_replicas: 3, downscale_delay_s: 600}";
    controller.put("one", scaled).await;
    let status = controller.running().await;
    assert_eq!(status.deployments[1].replicas.len(), 0);

    let (say, said) = mpsc::channel(1);
    let mut control = controller.control();
    let reporting = tokio::spawn(async move { control.report_demand(ReceiverStream::new(said)).await });
    let report = pb::ReportDemandRequest {
        proxy_id: "proxy".into(),
        demands: vec![pb::Demand {
            application: "a".into(),
            deployment: "pipeline".into(),
            queued: 1,
            ..Default::default()
        }],
        ..Default::default()
    };
    let began = Instant::now();
    say.send(report).await.unwrap();
    let status = controller
        .until(|app| {
            let replicas = app.deployments[1].replicas.iter();
            replicas
                .filter(|r| r.state() == pb::ReplicaState::Running)
                .count()
                == 1
        })
        .await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let scaling = status.deployments[1].scaling.clone().unwrap();
    assert_eq!((scaling.decisions[0].from, scaling.decisions[0].to), (0, 1));
    let replica = status.deployments[1].replicas[0].replica_id.clone();
    drop(say);
    assert!(reporting.await.unwrap().is_ok());
    controller.stop().await;

    let mut controller = Controller::start(dir.path(), &address.to_string()).await;
    let status = controller
        .until(|app| app.state() == ApplicationState::Running && !app.deployments[1].replicas.is_empty())
        .await;
    assert_eq!(status.deployments[1].target_replicas, 1);
    assert_eq!(status.deployments[1].replicas[0].replica_id, replica);
    controller.stop().await;
}
