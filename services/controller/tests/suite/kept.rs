//! The controller as a real process that is killed while it is told what shall run; nothing that it answered is lost.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use mobula_proto::control::v1::{self as pb, serve_service_client::ServeServiceClient};
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

/// Nothing here takes as long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// Kills.
const ROUNDS: u64 = 8;

/// A controller process; killed when the test is over.
struct Controller(Child);

impl Controller {
    fn start(dir: &Path, address: SocketAddr) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_mobula-controller"))
            .args([
                "--listen",
                &address.to_string(),
                "--admin-listen",
                "127.0.0.1:0",
                "--rest-listen",
                "127.0.0.1:0",
                "--state-dir",
            ])
            .arg(dir)
            .env("MOBULA_EXIT_WITH_PID", std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn client(address: SocketAddr) -> ServeServiceClient<Channel> {
    let channel = Channel::from_shared(format!("http://{address}")).unwrap();
    ServeServiceClient::new(channel.connect_lazy())
}

fn request(number: u64) -> pb::PutApplicationRequest {
    pb::PutApplicationRequest {
        config: format!(
            "{{name: a, import_path: 'mobula.image:text_to_image', args: {{model: fake, options: {{row_us: {number}}}}}}}"
        ),
        ..Default::default()
    }
}

/// The number that was put last.
async fn number(address: SocketAddr) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let request = pb::GetConfigRequest { name: "a".into() };
        match client(address).get_config(request).await {
            Ok(response) => {
                let text = response.into_inner().config;
                let document: serde_json::Value = serde_json::from_str(&text).unwrap();
                return document["args"]["options"]["row_us"].as_u64().unwrap();
            }
            Err(status) if status.code() == tonic::Code::NotFound => return 0,
            Err(status) => assert!(Instant::now() < deadline, "{status}"),
        }
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_kill_at_any_moment() {
    let dir = tempfile::tempdir().unwrap();
    // A controller that comes back must have the port it had, so the test has to know one.
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = probe.local_addr().unwrap();
    drop(probe);
    let mut answered = 0;
    for round in 0..ROUNDS {
        let mut controller = Controller::start(dir.path(), address);
        let found = number(address).await;
        assert!(
            found == answered || found == answered + 1,
            "{found} after {answered}"
        );
        answered = found;
        let mut client = client(address);
        for _ in 0..=round {
            client.put_application(request(answered + 1)).await.unwrap();
            answered += 1;
        }
        // One more is on its way when the process dies, a little further each round.
        let last = tokio::spawn(async move { client.put_application(request(answered + 1)).await.is_ok() });
        for _ in 0..round * 40 {
            tokio::task::yield_now().await;
        }
        controller.kill();
        answered += u64::from(last.await.unwrap());
    }
    let _controller = Controller::start(dir.path(), address);
    let found = number(address).await;
    assert!(
        found == answered || found == answered + 1,
        "{found} after {answered}"
    );
    assert!(answered >= ROUNDS * (ROUNDS + 1) / 2);
}
