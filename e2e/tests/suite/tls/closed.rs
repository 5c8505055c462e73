//! A controller that others can reach: closed without a token, with words that say what to do, and open with one.

use std::{net::SocketAddr, process::Stdio};

use mobula_e2e::{Up, get, send, until};
use tokio::process::{Child, Command};

const APPLICATIONS: &str = "/api/serve/applications/";
const CONFIG: &str = r#"{"applications": []}"#;

/// A controller alone, as a process; killed by drop.
struct Controller {
    _process: Child,
    folder: tempfile::TempDir,
    rest: SocketAddr,
    grpc: SocketAddr,
    admin: SocketAddr,
}

impl Controller {
    /// At this address, with these variables.
    async fn at(ip: &str, variables: &[(&str, &str)]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("log");
        let output = std::fs::File::create(&log)?;
        let any = format!("{ip}:0");
        let process = Command::new(Up::command()?.with_file_name("mobula-controller"))
            .args([
                "--listen",
                &any,
                "--rest-listen",
                &any,
                "--admin-listen",
                "127.0.0.1:0",
            ])
            .args(["--provider", "external", "--log-format", "json", "--state-dir"])
            .arg(folder.path().join("state"))
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()?;
        let port = |what: &str| {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            let line = log
                .lines()
                .find(|line| line.contains(&format!("listening for {what}")))?;
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            let bound = line.pointer("/fields/bound").or_else(|| line.get("bound"))?;
            let bound: SocketAddr = bound.as_str()?.parse().ok()?;
            // 0.0.0.0 is reached here as everywhere.
            Some(SocketAddr::from(([127, 0, 0, 1], bound.port())))
        };
        let ports = || {
            let ports = || Some((port("gRPC")?, port("REST")?, port("admin")?));
            std::future::ready(ports())
        };
        let (grpc, rest, admin) = until("the controller's ports", ports)
            .await
            .map_err(|error| error.context(std::fs::read_to_string(&log).unwrap_or_default()))?;
        Ok(Self {
            _process: process,
            folder,
            rest,
            grpc,
            admin,
        })
    }

    /// Puts a config; gives the status and the words.
    async fn put(&self, token: Option<&str>) -> anyhow::Result<(u16, String)> {
        let mut request = http::Request::put(APPLICATIONS);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let answer = send(self.rest, request.body(CONFIG.to_owned())?).await?;
        Ok((answer.status.as_u16(), answer.text()))
    }

    /// Runs a command of `mobula`; gives whether it was done, and its words.
    async fn mobula(&self, arguments: &[&str], token: Option<&str>) -> anyhow::Result<(bool, String)> {
        let mut command = Command::new(Up::command()?);
        command
            .args(arguments)
            .env("MOBULA_CONTROLLER", self.grpc.to_string())
            .current_dir(self.folder.path());
        if let Some(token) = token {
            command.env("MOBULA_ADMIN_TOKEN", token);
        }
        let output = command.output().await?;
        let words = [output.stdout, output.stderr].concat();
        Ok((
            output.status.success(),
            String::from_utf8_lossy(&words).into_owned(),
        ))
    }
}

/// What somebody has to do who is not let in.
fn says_what_to_do(words: &str) -> bool {
    [
        "no token is set",
        "set MOBULA_ADMIN_TOKEN (or MOBULA_ADMIN_TOKEN_FILE)",
        "--tls-client-ca",
        "listen on 127.0.0.1",
    ]
    .iter()
    .all(|part| words.contains(part))
}

#[tokio::test]
async fn a_controller_that_others_can_reach_refuses_changes_without_a_token_and_says_what_to_do()
-> anyhow::Result<()> {
    let controller = Controller::at("0.0.0.0", &[]).await?;
    let (status, words) = controller.put(None).await?;
    assert!(status == 403 && says_what_to_do(&words), "{status}: {words}");
    // There is none to show.
    let (status, words) = controller.put(Some("guess")).await?;
    assert!(status == 403 && says_what_to_do(&words), "{status}: {words}");
    let answer = get(controller.rest, APPLICATIONS).await?;
    assert_eq!(answer.status, 403, "what runs is nobody's to read either");
    std::fs::write(controller.folder.path().join("mesh.yaml"), CONFIG)?;
    for arguments in [
        &["status"][..],
        &["deploy", "mesh.yaml"],
        &["scale", "a/b", "2"],
        &["delete", "a"],
    ] {
        let (done, words) = controller.mobula(arguments, None).await?;
        assert!(!done && says_what_to_do(&words), "{arguments:?}: {words}");
    }
    // Probes are let in, and told who was not.
    assert_eq!(get(controller.admin, "/healthz").await?.status, 200);
    let page = get(controller.admin, "/metrics").await?.text();
    assert!(page.contains("mobula_guard_refused_total"), "{page}");

    // The same with a token, and without one where nobody else comes.
    let controller = Controller::at("0.0.0.0", &[("MOBULA_ADMIN_TOKEN", "s3cret")]).await?;
    for (token, expected) in [(None, 401), (Some("guess"), 401), (Some("s3cret"), 200)] {
        let (status, words) = controller.put(token).await?;
        assert_eq!(status, expected, "{token:?}: {words}");
    }
    let (done, words) = controller.mobula(&["status"], Some("s3cret")).await?;
    assert!(done, "{words}");
    let controller = Controller::at("127.0.0.1", &[]).await?;
    let (status, words) = controller.put(None).await?;
    assert_eq!(status, 200, "{words}");
    Ok(())
}
