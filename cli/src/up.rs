//! `mobula up`: a whole mesh on this machine, in the foreground, until it is told to stop.
//!
//! Starts the controller (whose process provider starts the workers) and the proxy, starts each again when it dies, and
//! stops them in order: the proxy drains first, then the controller and its workers. Decides nothing about replicas; that
//! is the controller's. Nothing that it started outlives it, not even after `kill -9`.

mod banner;
mod command;
mod locate;
mod logs;
mod ports;
mod ready;
mod restarts;
mod service;
mod tokens;

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use indicatif::ProgressBar;
use mobula_kit::{channel::Dial, tls, token};
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::banner::{Banner, Shown};
use self::command::{Addresses, Deploy, Drain, Settings};
pub(crate) use self::locate::Binaries;
use self::logs::{Log, StateDir};
use self::ports::reached;
use self::ready::{Ready, Watcher};
use self::service::{Death, Service};
use self::tokens::Tokens;
use crate::human::tell;
use crate::interrupt::Interrupts;
use crate::paint::Paint;
use crate::remote::{Remote, Who};
use crate::{Error, human};

/// Deaths that may wait to be told; the two services cannot die faster than they are started.
const DEATHS: usize = 8;
/// How often the waiting line moves.
const TICK: Duration = Duration::from_millis(100);

const EXAMPLES: &str = "\
Examples:
  mobula up                                           the demo model at http://127.0.0.1:8000 and 127.0.0.1:9000 (gRPC)
  mobula up --model ~/models/stable-diffusion-v1-5    any folder that Optimum exported as ONNX
  mobula up --config mesh.yaml                        the applications of a config file
  mobula up --config sd.yaml --model ~/models/sd15    and the model of those that name no folder, as in Ray's samples
  mobula up --http 0.0.0.0:8000 --grpc 0.0.0.0:9000   open to other machines
  mobula up --tls-cert me.pem --tls-key me.key --tls-ca ca.pem --tls-client-ca ca.pem     everything under mutual TLS
  mobula up --engine fake                             no model and no computing: to try clients

Exit codes: 0 stopped by Ctrl-C or SIGTERM, 1 failed, 2 wrong usage, 130 interrupted before it was up.";

/// Flags of `mobula up`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Model folder to serve, and that of configs which name none [default: $MOBULA_MODEL, then the demo model]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Config file with the applications to deploy
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What draws: ONNX Runtime, or nothing (fake: patterns without a model, in no time)
    #[arg(long, value_enum, default_value_t = Engine::Onnx, conflicts_with = "config")]
    engine: Engine,
    /// Where HTTP listens; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8000")]
    http: SocketAddr,
    /// Where gRPC listens
    #[arg(long, value_name = "ADDR:PORT", default_value = banner::DEFAULT_GRPC)]
    grpc: SocketAddr,
    /// Where the controller listens
    #[arg(long, value_name = "ADDR:PORT", default_value = banner::DEFAULT_CONTROLLER)]
    controller: SocketAddr,
    /// Where Ray Serve's REST API listens
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8265")]
    rest: SocketAddr,
    /// Where the proxy's metrics and health are
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9100")]
    proxy_admin: SocketAddr,
    /// Where the controller's metrics and health are
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9265")]
    controller_admin: SocketAddr,
    /// Folder for logs and state [default: mobula in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "DIR", env = "MOBULA_STATE_DIR")]
    state_dir: Option<PathBuf>,
    /// Folder of the services' binaries [default: beside this command, then PATH]
    #[arg(long, value_name = "DIR", env = "MOBULA_BIN_DIR")]
    bin_dir: Option<PathBuf>,
    /// Seconds that stopping may take, requests that run included
    #[arg(long, value_name = "SECONDS", env = "MOBULA_DRAIN_TIMEOUT_S", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    drain_timeout_s: u64,
    #[command(flatten)]
    tls: tls::Args,
    #[command(flatten)]
    public_tls: tls::PublicArgs,
    #[command(flatten)]
    admin: token::AdminArgs,
    #[command(flatten)]
    mesh: token::MeshArgs,
    /// Write the services' logs to the terminal instead of to files
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Engine {
    Onnx,
    Fake,
}

impl Args {
    fn deploy(&self) -> Result<Deploy, Error> {
        if let Some(config) = &self.config {
            if !config.is_file() {
                return Err(Error::Usage(format!(
                    "--config {}: no such file",
                    config.display()
                )));
            }
            return Ok(Deploy::Config(
                std::path::absolute(config).unwrap_or_else(|_| config.clone()),
            ));
        }
        match self.engine {
            Engine::Onnx => Ok(Deploy::Model(locate::model(self.model.as_deref())?)),
            Engine::Fake if self.model.is_some() => Err(Error::Usage(
                "--engine fake draws without a model; leave --model out".into(),
            )),
            Engine::Fake => Ok(Deploy::Fake),
        }
    }

    /// The model of configs that name none, as Ray's samples do, and of those that are deployed later.
    fn default_model(&self, deploy: &Deploy) -> Result<Option<PathBuf>, Error> {
        match deploy {
            Deploy::Model(folder) => Ok(Some(folder.clone())),
            Deploy::Fake => Ok(Some(command::FAKE.into())),
            Deploy::Config(_) => locate::default_model(self.model.as_deref()),
        }
    }

    /// Who looks whether the mesh draws.
    fn looks(&self, addresses: &Addresses, token: Option<token::Token>) -> Result<Watcher, Error> {
        let mesh = Dial {
            tls: self.tls.client.open().map_err(Error::Setting)?,
            token: None,
        };
        let remote = |address: SocketAddr, who, dial| Remote {
            address: reached(address).to_string(),
            who,
            dial,
        };
        // The certificate of doors that have one of their own is for other names and callers than this command.
        let proxy = if self.public_tls.public_tls_cert.is_some() {
            None
        } else if self.public_tls.public_plaintext {
            Some(remote(addresses.grpc, Who::Mesh, Dial::default()).channel()?)
        } else {
            Some(remote(addresses.grpc, Who::Mesh, mesh.clone()).channel()?)
        };
        let controller = remote(addresses.controller, Who::Controller, Dial { token, ..mesh });
        Ok(Watcher::new(controller.link()?, proxy))
    }

    fn addresses(&self) -> Result<Addresses, Error> {
        let [http, grpc, controller, rest, proxy_admin, controller_admin] = ports::reserve([
            ("--http", self.http),
            ("--grpc", self.grpc),
            ("--controller", self.controller),
            ("--rest", self.rest),
            ("--proxy-admin", self.proxy_admin),
            ("--controller-admin", self.controller_admin),
        ])?;
        Ok(Addresses {
            http,
            grpc,
            controller,
            rest,
            proxy_admin,
            controller_admin,
        })
    }
}

/// Runs a mesh until it is told to stop.
pub(crate) async fn run(args: Args) -> Result<(), Error> {
    let began = Instant::now();
    let mut interrupts = Interrupts::listen()?;
    let deploy = args.deploy()?;
    let default_model = args.default_model(&deploy)?;
    let binaries = Binaries::find(args.bin_dir.as_deref())?;
    let addresses = args.addresses()?;
    let state = StateDir::take(args.state_dir.as_deref())?;
    let tokens = Tokens::of(&args, &addresses, state.path())?;
    let told = [
        args.tls.variables(),
        args.public_tls.variables(),
        tokens.variables,
    ]
    .concat();
    let settings = Settings {
        binaries: &binaries,
        addresses,
        deploy: &deploy,
        default_model: default_model.as_deref(),
        state_dir: state.path(),
        drain: Drain::within(Duration::from_secs(args.drain_timeout_s)),
        pid: std::process::id(),
        told: &told,
    };
    let logs = (!args.verbose).then(|| state.logs());
    let log = |service| {
        logs.as_deref()
            .map_or(Ok(Log::Inherit), |folder| Log::fresh(folder, service))
    };
    let mut mesh = Mesh::start(&settings, log("controller")?, log("proxy")?)?;

    let looks = args.looks(&addresses, tokens.admin)?;
    let outcome = mesh.become_ready(looks, &mut interrupts).await;
    if let Ok(ready) = &outcome {
        for warning in &ready.warnings {
            tell(format_args!("warning: {warning}"));
        }
        let banner = Banner {
            applications: &ready.applications,
            model: &deploy.to_string(),
            took: began.elapsed(),
            http: reached(addresses.http),
            grpc: reached(addresses.grpc),
            controller: reached(addresses.controller),
            tls: Shown::of(&args.tls, &args.public_tls).with(tokens.file.as_deref()),
            logs: logs.as_deref(),
        };
        let mut out = std::io::stdout();
        // A mesh whose banner nobody reads is still a mesh.
        let _ = out
            .write_all(banner.render(Paint::for_stream(&out)).as_bytes())
            .and_then(|()| out.flush());
        mesh.keep(&mut interrupts).await;
        tell("stopping; requests that run may finish (Ctrl-C again stops at once)");
    }
    mesh.stop(&mut interrupts).await;
    outcome.map(|_| ())
}

/// The two services that this process keeps alive.
struct Mesh {
    controller: Service,
    proxy: Service,
    deaths: mpsc::Receiver<Death>,
    drain: Drain,
}

impl Mesh {
    fn start(settings: &Settings<'_>, controller: Log, proxy: Log) -> Result<Self, Error> {
        let (tell, deaths) = mpsc::channel(DEATHS);
        Ok(Self {
            controller: Service::start(settings.controller(controller), tell.clone())?,
            proxy: Service::start(settings.proxy(proxy), tell)?,
            deaths,
            drain: settings.drain,
        })
    }

    /// Waits until a picture could be drawn. A service that ends by itself before that will do so again: it is not waited for.
    async fn become_ready(
        &mut self,
        mut watcher: Watcher,
        interrupts: &mut Interrupts,
    ) -> Result<Ready, Error> {
        let waiting = Waiting::new();
        let settled = watcher.settled(|missing| waiting.show(missing));
        tokio::pin!(settled);
        loop {
            tokio::select! {
                biased;
                () = interrupts.next() => return Err(Error::Interrupted),
                Some(death) = self.deaths.recv() => {
                    if death.by_itself {
                        return Err(Error::Died { name: death.name, how: death.how, log: death.log });
                    }
                    waiting.note(&obituary(&death));
                }
                settled = &mut settled => return settled.map_err(Error::Deploy),
            }
        }
    }

    /// Tells of deaths until somebody says stop.
    async fn keep(&mut self, interrupts: &mut Interrupts) {
        loop {
            tokio::select! {
                biased;
                () = interrupts.next() => return,
                Some(death) = self.deaths.recv() => tell(obituary(&death)),
            }
        }
    }

    /// Stops the proxy, so that nothing new comes in and what runs may finish, then the controller with its workers.
    async fn stop(self, interrupts: &mut Interrupts) {
        // Closed, so that a service that dies now does not wait for somebody to hear it.
        drop(self.deaths);
        let now = Instant::now();
        let in_order = async {
            self.proxy.stop(now + self.drain.proxy).await;
            self.controller.stop(now + self.drain.total).await;
        };
        tokio::pin!(in_order);
        tokio::select! {
            () = &mut in_order => {}
            () = interrupts.next() => {
                self.proxy.kill();
                self.controller.kill();
                in_order.await;
            }
        }
    }
}

/// What is told of a death: how, when the next life begins, and the last words of a service that ended by itself.
fn obituary(death: &Death) -> String {
    let again = if death.again_in.is_zero() {
        "; started again".to_owned()
    } else {
        format!("; starting again in {}", human::duration(death.again_in))
    };
    let words = if death.by_itself { death.log.as_str() } else { "" };
    format!("{} {}{again}{words}", death.name, death.how)
}

/// What the user sees until the mesh is up: one moving line on a terminal, plain lines elsewhere.
struct Waiting {
    bar: Option<ProgressBar>,
}

impl Waiting {
    fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner().with_message("starting");
            bar.enable_steady_tick(TICK);
            bar
        });
        Self { bar }
    }

    fn show(&self, missing: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(missing.to_owned()),
            None => tell(format_args!("waiting: {missing}")),
        }
    }

    fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| tell(text)),
            None => tell(text),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn death(by_itself: bool, again_ms: u64) -> Death {
        Death {
            name: "proxy",
            how: "exited with code 1".into(),
            by_itself,
            again_in: Duration::from_millis(again_ms),
            log: "; the end of proxy.log:\n  oh".into(),
        }
    }

    #[test]
    fn a_death_is_told_with_last_words_only_when_the_service_spoke_them() {
        assert_eq!(
            obituary(&death(true, 200)),
            "proxy exited with code 1; starting again in 200 ms; the end of proxy.log:\n  oh"
        );
        assert_eq!(
            obituary(&death(false, 0)),
            "proxy exited with code 1; started again"
        );
    }
}
