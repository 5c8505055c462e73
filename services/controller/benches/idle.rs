//! What a controller costs while nothing happens but heartbeats: the real binary, with workers and proxies over real sockets.
//!
//! The workers are tasks of this process, each with a connection of its own, and say what the kit's life line says; the
//! controller's processor time is read from /proc, so that how busy the machine is otherwise does not count. Prints figures
//! and asserts none.
//!
//! `cargo bench -p mobula-controller --bench idle -- [WORKERS] [PROXIES] [SECONDS]`
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on ends here")]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use mobula_proto::control::v1::{
    AttachRequest, Heartbeat, Hello, ModelInfo, ReplicaReport, ReplicaState, Resources, WatchRoutesRequest,
    Welcome, WorkerKind, attach_request, attach_response::Message,
    control_service_client::ControlServiceClient,
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

const PER_WORKER: u32 = 5;
const APPLICATIONS: u32 = 10;
/// Of each application.
const PREPROCESS: u32 = 10;
/// Until everything runs, and has run for longer than any gate.
const PATIENCE: Duration = Duration::from_secs(240);
const SETTLE: Duration = Duration::from_secs(10);
/// The kit's default, which workers and proxies have. A busy machine may answer a ping late.
const PING: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(60);
/// USER_HZ, which Linux fixes for everything that programs see.
const TICKS_PER_SECOND: f64 = 100.0;

/// A worker that says what the kit's life line says, and whose replicas run as soon as they are assigned.
struct Worker {
    kind: WorkerKind,
    replicas: BTreeMap<String, ReplicaReport>,
}

impl Worker {
    fn obey(&mut self, message: Message) {
        match message {
            Message::Assign(assign) => {
                let spec = assign.replica.unwrap();
                let report = ReplicaReport {
                    replica_id: spec.replica_id.clone(),
                    state: ReplicaState::Running.into(),
                    light: spec.light.clone().unwrap().version,
                    load: Some(Default::default()),
                    model: (self.kind == WorkerKind::Inference).then(model),
                    spec: Some(spec.clone()),
                    healthy_ms_ago: Some(1),
                    ..ReplicaReport::default()
                };
                self.replicas.insert(spec.replica_id, report);
            }
            Message::Drain(drain) => drop(self.replicas.remove(&drain.replica_id)),
            Message::Welcome(_) | Message::Shutdown(_) | Message::Reconfigure(_) => {}
        }
    }

    fn heartbeat(&self) -> attach_request::Message {
        attach_request::Message::Heartbeat(Heartbeat {
            replicas: self.replicas.values().cloned().collect(),
            resident_bytes: 1 << 30,
        })
    }

    async fn live(mut self, number: u32, channel: Channel) {
        let (sender, receiver) = mpsc::channel(8);
        let say = async |message: attach_request::Message| {
            let message = Some(message);
            sender.send(AttachRequest { message }).await.unwrap();
        };
        let hello = Hello {
            worker_id: format!("worker-{number:04}"),
            kind: self.kind.into(),
            address: format!("10.0.{}.{}:7200", number / 250, number % 250 + 1),
            resources: Some(Resources {
                cpus: f64::from(PER_WORKER),
                ..Resources::default()
            }),
            version: "bench".into(),
            pid: number + 1,
            ..Hello::default()
        };
        say(attach_request::Message::Hello(hello)).await;
        let mut client = ControlServiceClient::new(channel);
        let attached = client.attach(ReceiverStream::new(receiver)).await;
        let mut inbox = attached.unwrap().into_inner();
        // The first message says how often; another says so anew when the mesh grows.
        let every = |welcome: &Welcome| {
            let every = Duration::from_millis(welcome.heartbeat_interval_ms.into());
            let mut beat = tokio::time::interval(every);
            beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
            beat
        };
        let mut beat = every(&Welcome {
            heartbeat_interval_ms: 1000,
            ..Welcome::default()
        });
        loop {
            tokio::select! {
                biased;
                message = inbox.message() => match message {
                    Ok(Some(said)) => match said.message.unwrap() {
                        Message::Welcome(welcome) => beat = every(&welcome),
                        other @ (Message::Assign(_)
                        | Message::Drain(_)
                        | Message::Shutdown(_)
                        | Message::Reconfigure(_)) => self.obey(other),
                    },
                    ended => panic!("worker {number} lost the controller: {:?}", ended.err()),
                },
                _ = beat.tick() => say(self.heartbeat()).await,
            }
        }
    }
}

/// As large as that of Stable Diffusion 1.5.
fn model() -> ModelInfo {
    ModelInfo {
        digest: "0".repeat(64),
        pipeline_class: "StableDiffusionPipeline".into(),
        default_width: 512,
        default_height: 512,
        default_steps: 50,
        default_guidance_scale: 7.5,
        default_scheduler: "pndm".into(),
        schedulers: (0..18).map(|n| format!("scheduler_{n}")).collect(),
        ..ModelInfo::default()
    }
}

/// The controller; killed when the bench is over.
struct Controller {
    child: Child,
    grpc: SocketAddr,
    admin: SocketAddr,
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Controller {
    fn start(dir: &Path, pipelines: u32) -> Self {
        let config = dir.join("apps.yaml");
        std::fs::write(&config, applications(pipelines)).unwrap();
        let (grpc, admin) = (free_port(), free_port());
        let binary = std::env::var("MOBULA_CONTROLLER_BIN")
            .unwrap_or_else(|_| env!("CARGO_BIN_EXE_mobula-controller").into());
        let child = Command::new(binary)
            .args(["--rest-listen", "127.0.0.1:0", "--log", "warn"])
            .args([
                "--listen",
                &grpc.to_string(),
                "--admin-listen",
                &admin.to_string(),
            ])
            .arg("--config")
            .arg(&config)
            .arg("--state-dir")
            .arg(dir.join("state"))
            .env("MOBULA_EXIT_WITH_PID", std::process::id().to_string())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, grpc, admin }
    }

    fn channel(&self, ping: Duration) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.grpc))
            .unwrap()
            .http2_keep_alive_interval(ping)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect_lazy()
    }

    /// Processor seconds since its start.
    fn cpu(&self) -> (f64, f64) {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let seconds = |nth: usize| fields[nth].parse::<f64>().unwrap() / TICKS_PER_SECOND;
        (seconds(11), seconds(12))
    }

    /// How many replicas run, as its metrics say.
    async fn running(&self) -> usize {
        let page = self.page().await;
        let line = r#"mobula_controller_replicas{state="running"} "#;
        let count = page.lines().find_map(|l| l.strip_prefix(line));
        count.map_or(0, |count| count.parse().unwrap())
    }

    /// The metrics.
    async fn page(&self) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(self.admin).await.unwrap();
        let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).await.unwrap();
        page
    }
}

fn applications(pipelines: u32) -> String {
    let mut text = String::from("applications:\n");
    for n in 0..APPLICATIONS {
        text += &format!(
            "- name: app{n}\n  route_prefix: /app{n}\n  import_path: mobula.image:text_to_image\n  args: {{model: fake}}\n  \
             deployments:\n  - {{name: preprocess, num_replicas: {PREPROCESS}}}\n  - {{name: pipeline, num_replicas: {pipelines}}}\n"
        );
    }
    text
}

fn free_port() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

async fn measure(workers: u32, proxies: u32, time: Duration) {
    let dir = tempfile::tempdir().unwrap();
    let prep = PREPROCESS * APPLICATIONS / PER_WORKER;
    let pipelines = (workers - prep) * PER_WORKER / APPLICATIONS;
    let all = ((PREPROCESS + pipelines) * APPLICATIONS) as usize;
    let controller = Controller::start(dir.path(), pipelines);
    while controller.channel_is_closed().await {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..workers {
        let kind = match number < prep {
            true => WorkerKind::Preprocess,
            false => WorkerKind::Inference,
        };
        let worker = Worker {
            kind,
            replicas: BTreeMap::new(),
        };
        tasks.spawn(worker.live(number, controller.channel(PING)));
        // Whole meshes do not start in one millisecond, and their heartbeats are not in step.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for number in 0..proxies {
        let mut client =
            ControlServiceClient::new(controller.channel(PING)).max_decoding_message_size(64 << 20);
        let request = WatchRoutesRequest {
            proxy_id: format!("proxy-{number}"),
            ..WatchRoutesRequest::default()
        };
        let mut routes = client.watch_routes(request).await.unwrap().into_inner();
        tasks.spawn(async move { while let Ok(Some(_)) = routes.message().await {} });
    }
    let begun = Instant::now();
    while controller.running().await < all {
        assert!(
            begun.elapsed() < PATIENCE,
            "{} of {all} run",
            controller.running().await
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let started = controller.cpu();
    tokio::time::sleep(SETTLE).await;

    let (begun, (user, system)) = (Instant::now(), controller.cpu());
    tokio::time::sleep(time).await;
    let (took, now) = (begun.elapsed().as_secs_f64(), controller.cpu());
    let (user, system) = (now.0 - user, now.1 - system);
    println!(
        "controller  idle with {workers} workers, {all} replicas, {proxies} proxies: {:.2} % of a core over {took:.0} s (user {user:.2} s, system {system:.2} s; asked: under 2)",
        100.0 * (user + system) / took
    );
    println!(
        "controller  until all ran: {:.1} s of processor time",
        started.0 + started.1
    );
    let before = controller.cpu();
    let page = controller.page().await;
    let after = controller.cpu();
    println!(
        "controller  a page of metrics: {} KiB, {:.0} ms",
        page.len() >> 10,
        1e3 * (after.0 + after.1 - before.0 - before.1)
    );
    assert_eq!(controller.running().await, all, "it was not idle");
    tasks.abort_all();
}

impl Controller {
    async fn channel_is_closed(&self) -> bool {
        tokio::net::TcpStream::connect(self.grpc).await.is_err()
    }
}

fn main() {
    // cargo hands on `--bench`.
    let numbers: Vec<u32> = std::env::args()
        .skip(1)
        .filter_map(|arg| arg.parse().ok())
        .collect();
    let number = |nth: usize, default| numbers.get(nth).copied().unwrap_or(default);
    let (workers, proxies, seconds) = (number(0, 1_000), number(1, 50), number(2, 60));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(measure(workers, proxies, Duration::from_secs(seconds.into())));
    runtime.shutdown_background();
}
