//! The controller as a real process that starts real worker processes, and what is left when either is killed.
//!
//! The workers are this test executable itself, started through small scripts under the names of the real binaries.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use clap::Parser;
use mobula_kit::{
    Common, Error, Readiness, Stop, admin,
    channel::Dial,
    grpc, listen,
    worker::{Replicas, WorkerArgs, WorkerKind, attach},
};
use mobula_proto::control::v1::{
    ApplicationState, GetStatusRequest, GetStatusResponse, serve_service_client::ServeServiceClient,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::support::Loads;

/// Nothing here takes as long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where a script puts the arguments that it was started with.
const ARGUMENTS: &str = "MOBULA_TEST_WORKER_ARGUMENTS";

#[derive(Parser)]
struct Args {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    admin_listen: SocketAddr,
    #[command(flatten)]
    worker: WorkerArgs,
    #[command(flatten)]
    common: Common,
}

/// Not a test of anything: what the scripts run.
#[test]
#[ignore = "is the worker process of the other tests"]
fn worker_process() {
    let given = std::env::var(ARGUMENTS).unwrap();
    let args = Args::parse_from(given.split_whitespace());
    let kind = if given.contains("mobula-preprocess") {
        WorkerKind::Preprocess
    } else {
        WorkerKind::Inference
    };
    let Args {
        listen: address,
        admin_listen,
        worker,
        common,
    } = args;
    mobula_kit::main("worker", &common, |stop: Stop| async move {
        let listener = listen::bind("gRPC", address).await?;
        let admin_listener = listen::bind("admin", admin_listen).await?;
        let identity = worker.identity(kind, listener.local_addr().unwrap());
        let replicas = Replicas::new(Loads, stop.clone());
        attach((&worker.controller, &Dial::default()), identity, replicas, &stop)?;
        let readiness = Readiness::new();
        tokio::try_join!(
            grpc::Server::new("worker").serve(listener, readiness.clone(), stop.clone()),
            admin::serve(admin_listener, readiness, stop),
        )?;
        Ok::<(), Error>(())
    });
}

/// A controller process; killed when the test is over, and its workers with it.
struct Controller {
    child: Child,
    address: SocketAddr,
}

impl Controller {
    fn start(dir: &Path, address: SocketAddr) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_mobula-controller"))
            .args([
                "--provider",
                "process",
                "--model",
                "fake",
                "--heartbeat-ms",
                "100",
            ])
            .args(["--adoption-grace-ms", "20000", "--admin-listen", "127.0.0.1:0"])
            .args(["--rest-listen", "127.0.0.1:0"])
            .args(["--listen", &address.to_string()])
            .arg("--bin-dir")
            .arg(dir)
            .arg("--state-dir")
            .arg(dir.join("state"))
            .args(["--worker-logs", "files"])
            // Whatever becomes of the test, nothing is left behind.
            .env("MOBULA_EXIT_WITH_PID", std::process::id().to_string())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, address }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    async fn status(&self) -> Option<GetStatusResponse> {
        let channel = Channel::from_shared(format!("http://{}", self.address)).unwrap();
        let mut client = ServeServiceClient::new(channel.connect_lazy());
        Some(client.get_status(GetStatusRequest {}).await.ok()?.into_inner())
    }

    async fn status_until(&self, right: impl Fn(&GetStatusResponse) -> bool) -> GetStatusResponse {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status().await;
            match status {
                Some(status) if right(&status) => return status,
                status => assert!(Instant::now() < deadline, "{status:#?}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn running(&self) -> GetStatusResponse {
        self.status_until(|s| s.applications[0].state() == ApplicationState::Running)
            .await
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory with "binaries", and a free port.
fn prepare() -> (tempfile::TempDir, SocketAddr) {
    let dir = tempfile::tempdir().unwrap();
    let own = std::env::current_exe().unwrap();
    for name in ["mobula-preprocess", "mobula-inference"] {
        let script = format!(
            "#!/bin/sh\nexport {ARGUMENTS}=\"{name} $*\"\nexec '{}' process::worker_process --exact --ignored --nocapture\n",
            own.display()
        );
        let path = dir.path().join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    // A controller that comes back must have the port it had, so the test has to know one.
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    (dir, probe.local_addr().unwrap())
}

fn pids(status: &GetStatusResponse) -> Vec<u32> {
    status.workers.iter().map(|worker| worker.pid).collect()
}

fn replicas(status: &GetStatusResponse) -> Vec<String> {
    let deployments = status.applications.iter().flat_map(|a| &a.deployments);
    deployments
        .flat_map(|d| &d.replicas)
        .map(|r| r.replica_id.clone())
        .collect()
}

fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

async fn until_dead(pids: &[u32]) {
    let deadline = Instant::now() + PATIENCE;
    while let Some(pid) = pids.iter().find(|pid| is_alive(**pid)) {
        assert!(Instant::now() < deadline, "process {pid} is still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_killed_worker_process_is_started_again_and_a_stop_ends_all() {
    let (dir, address) = prepare();
    let began = Instant::now();
    let controller = Controller::start(dir.path(), address);
    let first = controller.running().await;
    println!("running after {:?}", began.elapsed());
    assert_eq!(first.workers.len(), 2);
    let victim = first
        .workers
        .iter()
        .find(|w| w.worker_id.starts_with("inference"))
        .unwrap()
        .pid;

    let killed = Instant::now();
    kill(Pid::from_raw(victim.try_into().unwrap()), Signal::SIGKILL).unwrap();
    let second = controller
        .status_until(|s| {
            s.applications[0].state() == ApplicationState::Running && !pids(s).contains(&victim)
        })
        .await;
    println!("replaced after {:?}", killed.elapsed());
    assert_eq!(second.workers.len(), 2);
    let (before, after) = (replicas(&first), replicas(&second));
    assert_eq!(
        before.iter().filter(|id| after.contains(id)).count(),
        1,
        "the other replica is untouched"
    );

    controller.signal(Signal::SIGTERM);
    until_dead(&pids(&second)).await;
    until_dead(&[controller.child.id()]).await;
}

#[tokio::test]
async fn a_killed_controller_leaves_its_workers_running_and_the_next_one_adopts_and_ends_them() {
    let (dir, address) = prepare();
    let mut controller = Controller::start(dir.path(), address);
    let before = controller.running().await;
    controller.signal(Signal::SIGKILL);
    controller.child.wait().unwrap();
    assert!(pids(&before).into_iter().all(is_alive));

    let controller = Controller::start(dir.path(), address);
    let after = controller.running().await;
    assert_eq!(
        (pids(&after), replicas(&after)),
        (pids(&before), replicas(&before))
    );

    // One that is no child of this controller is seen to die, too.
    let victim = pids(&after)[0];
    kill(Pid::from_raw(victim.try_into().unwrap()), Signal::SIGKILL).unwrap();
    let third = controller
        .status_until(|s| {
            s.applications[0].state() == ApplicationState::Running && !pids(s).contains(&victim)
        })
        .await;
    controller.signal(Signal::SIGTERM);
    until_dead(&pids(&third)).await;
    until_dead(&[controller.child.id()]).await;
}

#[tokio::test]
async fn binaries_that_are_nowhere_are_named_before_anything_is_served() {
    let (dir, address) = prepare();
    fs::remove_file(dir.path().join("mobula-inference")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_mobula-controller"))
        .args([
            "--provider",
            "process",
            "--model",
            "fake",
            "--admin-listen",
            "127.0.0.1:0",
            "--rest-listen",
            "127.0.0.1:0",
        ])
        .args(["--listen", &address.to_string()])
        .arg("--bin-dir")
        .arg(dir.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("mobula-inference was not found"), "{said}");
    assert!(said.contains("--bin-dir"), "{said}");
}
