//! A mesh as processes: `mobula up` with everything that it starts, found again by a mark in their environment.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};

use anyhow::Context;
use mobula_kit::channel;
use mobula_proto::control::v1::serve_service_client::ServeServiceClient;
use mobula_proto::control::v1::{GetStatusRequest, GetStatusResponse};
use mobula_proto::image::v1::image_service_client::ImageServiceClient;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tonic::transport::Channel;

use crate::wait::until;

/// Every process of a mesh inherits it; its value is unique.
const MARK: &str = "MOBULA_E2E_MARK";

/// A process of a mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Name of its binary, such as `mobula-proxy`.
    pub name: String,
}

impl Process {
    /// Where it listens.
    #[must_use]
    pub fn listens(&self) -> Vec<SocketAddr> {
        crate::listening::of(self.pid)
    }

    /// Kills it as `kill -9` does.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn kill(&self) -> anyhow::Result<()> {
        kill(Pid::from_raw(self.pid), Signal::SIGKILL)
            .with_context(|| format!("kill -9 {} ({})", self.pid, self.name))
    }
}

/// A running `mobula up`. Dropping it kills every process of the mesh.
#[derive(Debug)]
pub struct Up {
    child: Child,
    mark: String,
    folder: TempDir,
    http: SocketAddr,
    grpc: SocketAddr,
    controller: SocketAddr,
    rest: SocketAddr,
    variables: Vec<(String, String)>,
}

impl Up {
    /// Runs `mobula up` with these arguments and variables on free ports, and waits until it draws.
    ///
    /// # Errors
    /// When a binary is missing, or the mesh does not come up.
    pub async fn start(arguments: &[&str], variables: &[(&str, String)]) -> anyhow::Result<Self> {
        let mut up = Self::spawn(arguments, variables, None)?;
        up.ready().await?;
        Ok(up)
    }

    /// Like [`Up::start`], with the applications of a config file's text.
    ///
    /// # Errors
    /// As [`Up::start`].
    pub async fn serving(config: &str) -> anyhow::Result<Self> {
        let mut up = Self::spawn(&[], &[], Some(config))?;
        up.ready().await?;
        Ok(up)
    }

    /// Runs `mobula up` and waits for nothing.
    ///
    /// # Errors
    /// When a binary is missing.
    pub fn spawn(
        arguments: &[&str],
        variables: &[(&str, String)],
        config: Option<&str>,
    ) -> anyhow::Result<Self> {
        let mobula = Self::command()?;
        let [http, grpc, controller, rest, proxy_admin, controller_admin] = free_ports()?;
        let folder = TempDir::new()?;
        let mark = uuid::Uuid::new_v4().to_string();
        let output = fs::File::create(folder.path().join("up.log"))?;
        let mut command = Command::new(mobula);
        command.arg("up");
        if let Some(config) = config {
            let file = folder.path().join("mesh.yaml");
            fs::write(&file, config)?;
            command.arg("--config").arg(file);
        }
        let child = command
            .args(["--http", &http.to_string(), "--grpc", &grpc.to_string()])
            .args(["--controller", &controller.to_string()])
            .args(["--rest", &rest.to_string()])
            .args(["--proxy-admin", &proxy_admin.to_string()])
            .args(["--controller-admin", &controller_admin.to_string()])
            .arg("--state-dir")
            .arg(folder.path().join("state"))
            .args(arguments)
            .env(MARK, &mark)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("mobula up")?;
        Ok(Self {
            child,
            mark,
            folder,
            http,
            grpc,
            controller,
            rest,
            variables: variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
        })
    }

    /// The `mobula` binary.
    ///
    /// # Errors
    /// When it is not built.
    pub fn command() -> anyhow::Result<PathBuf> {
        binary("mobula")
    }

    /// Runs a command of `mobula` to its end, against this mesh.
    ///
    /// # Errors
    /// When it cannot be run.
    pub async fn mobula(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let output = Command::new(Self::command()?)
            .args(arguments)
            .env("MOBULA_SERVER", self.grpc.to_string())
            .env("MOBULA_CONTROLLER", self.controller.to_string())
            .current_dir(self.folder.path())
            .output();
        Ok(output.await?)
    }

    /// Runs a command that must succeed, and gives what it wrote to standard output.
    ///
    /// # Errors
    /// When it fails; the text holds everything that it wrote.
    pub async fn told(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.mobula(arguments).await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, errors) = (text(&output.stdout), text(&output.stderr));
        anyhow::ensure!(
            output.status.success(),
            "mobula {}: {}\n{out}{errors}",
            arguments.join(" "),
            output.status
        );
        Ok(out)
    }

    /// Writes a file where commands of this mesh run.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        Ok(fs::write(self.folder.path().join(name), text)?)
    }

    /// Waits for the banner: the command shows it when every replica runs and the proxy knows them.
    async fn ready(&mut self) -> anyhow::Result<()> {
        let mut ended = false;
        let ready = until("the banner", || {
            // In this order: a command that ends at once has written all its words before.
            ended |= matches!(self.child.try_wait(), Ok(Some(_)));
            let up = self.output().contains("Mobula is up");
            std::future::ready((up || ended).then_some(up))
        });
        match ready.await {
            Ok(true) => Ok(()),
            Ok(false) => anyhow::bail!("mobula up ended: {}", self.output()),
            Err(error) => Err(error.context(self.output())),
        }
    }

    /// A client of the proxy.
    ///
    /// # Errors
    /// Never, for an address that was bound.
    pub fn client(&self) -> anyhow::Result<ImageServiceClient<Channel>> {
        Ok(ImageServiceClient::new(channel::lazy(&self.grpc.to_string())?))
    }

    /// Where the proxy speaks HTTP.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Where the proxy speaks gRPC.
    #[must_use]
    pub fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    /// Where the controller speaks gRPC.
    #[must_use]
    pub fn controller(&self) -> SocketAddr {
        self.controller
    }

    /// Where the controller speaks Ray Serve's REST.
    #[must_use]
    pub fn rest(&self) -> SocketAddr {
        self.rest
    }

    /// The folder of its state.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// What its services were told by variables.
    pub(crate) fn variables(&self) -> &[(String, String)] {
        &self.variables
    }

    /// The variable by which the mesh's processes are found, and its value.
    pub(crate) fn mark(&self) -> (&'static str, &str) {
        (MARK, &self.mark)
    }

    /// Everything that the command and the services wrote, for messages of failed tests.
    #[must_use]
    pub fn output(&self) -> String {
        let logs = self.state_dir().join("logs");
        let files = fs::read_dir(logs)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()));
        let files = std::iter::once(self.folder.path().join("up.log")).chain(files);
        let text = |path: PathBuf| {
            format!(
                "--- {}\n{}",
                path.display(),
                fs::read_to_string(&path).unwrap_or_default()
            )
        };
        files.map(text).collect()
    }

    /// What the controller says of everything.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn status(&self) -> anyhow::Result<GetStatusResponse> {
        let mut client = ServeServiceClient::new(channel::lazy(&self.controller.to_string())?);
        Ok(client.get_status(GetStatusRequest {}).await?.into_inner())
    }

    /// All living processes of the mesh, the command itself included.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        marked(&self.mark)
    }

    /// The living processes of this binary.
    #[must_use]
    pub fn named(&self, name: &str) -> Vec<Process> {
        self.processes()
            .into_iter()
            .filter(|process| process.name == name)
            .collect()
    }

    /// Sends a signal to `mobula up` alone.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self
            .child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .context("mobula up has ended")?;
        kill(Pid::from_raw(pid), signal)?;
        Ok(())
    }

    /// Waits for the end of `mobula up`.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        let ended = tokio::time::timeout(crate::PATIENCE, self.child.wait()).await;
        let ended = ended.map_err(|_| anyhow::anyhow!("mobula up does not end: {}", self.output()))?;
        Ok(ended?)
    }

    /// Waits until no process of the mesh is left.
    ///
    /// # Errors
    /// When some are.
    pub async fn gone(&self) -> anyhow::Result<()> {
        let gone = until("no process of the mesh", || async {
            self.processes().is_empty().then_some(())
        })
        .await;
        gone.with_context(|| format!("{:?} {}", self.processes(), self.output()))
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        for process in self.processes() {
            // It may have ended since the look.
            let _ = process.kill();
        }
    }
}

/// A binary of this workspace, beside the test that runs.
pub(crate) fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    // target/<profile>/deps/<test>
    let folder = test
        .parent()
        .and_then(Path::parent)
        .context("the test is not in a target folder")?;
    let binary = folder.join(name);
    anyhow::ensure!(
        binary.is_file(),
        "{} is not built: run `cargo build --bins` first",
        binary.display()
    );
    Ok(binary)
}

/// Free ports, all different. They are released before they are used, as for any command line.
pub(crate) fn free_ports<const N: usize>() -> anyhow::Result<[SocketAddr; N]> {
    let listeners: Vec<_> = (0..N)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()?;
    let addresses = listeners
        .iter()
        .map(TcpListener::local_addr)
        .collect::<Result<Vec<_>, _>>()?;
    addresses
        .try_into()
        .map_err(|_| anyhow::anyhow!("another number of ports"))
}

/// Living processes whose environment has the mark.
fn marked(mark: &str) -> Vec<Process> {
    let wanted = format!("{MARK}={mark}");
    let pids = fs::read_dir("/proc").into_iter().flatten();
    let pids = pids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let ours = environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == wanted.as_bytes());
        // A zombie has no program any more.
        let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let name = program
            .file_name()?
            .to_str()?
            .trim_end_matches(" (deleted)")
            .to_owned();
        ours.then_some(Process { pid, name })
    })
    .collect()
}
