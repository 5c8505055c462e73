//! The command lines of controller and proxy. Pure: settings in, programs with arguments and variables out.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::locate::Binaries;
use super::logs::Log;
use super::ports::reached;
use super::service::Spec;

/// Of the time for stopping, what the proxy may take for requests that run. The rest is the controller's and its workers',
/// which have nothing left to do by then.
const PROXY_SHARE: f64 = 0.75;

/// The name of the model that has no files and is drawn by the fake engine.
pub(crate) const FAKE: &str = "fake";

/// Tells workers which model they draw with where a config names none.
pub(crate) const DEFAULT_MODEL: &str = "MOBULA_DEFAULT_MODEL";

/// Variables by which the services could be told something else than what this command was told.
const CLEARED: &[&str] = &["MOBULA_CONFIG", "MOBULA_MODEL"];
/// The same for the proxy, which talks to strangers and needs no token that changes the mesh.
const CLEARED_OF_PROXY: &[&str] = &[
    "MOBULA_CONFIG",
    "MOBULA_MODEL",
    "MOBULA_ADMIN_TOKEN",
    "MOBULA_ADMIN_TOKEN_FILE",
];

/// Where everything listens; no port is 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) controller: SocketAddr,
    pub(crate) rest: SocketAddr,
    pub(crate) proxy_admin: SocketAddr,
    pub(crate) controller_admin: SocketAddr,
}

/// What is deployed.
#[derive(Clone, Debug)]
pub(crate) enum Deploy {
    /// The applications of a config file.
    Config(PathBuf),
    /// One application that draws with this model folder.
    Model(PathBuf),
    /// One application that draws without a model.
    Fake,
}

impl fmt::Display for Deploy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(path) | Self::Model(path) => path.display().fmt(f),
            Self::Fake => f.write_str("the fake engine"),
        }
    }
}

/// Everything the command lines are made of.
#[derive(Debug)]
pub(crate) struct Settings<'a> {
    pub(crate) binaries: &'a Binaries,
    pub(crate) addresses: Addresses,
    pub(crate) deploy: &'a Deploy,
    /// What a config that names no model means: a folder, or fake. None leaves it to the workers' own variables.
    pub(crate) default_model: Option<&'a Path>,
    pub(crate) state_dir: &'a Path,
    pub(crate) drain: Drain,
    /// This process; no service outlives it.
    pub(crate) pid: u32,
    /// Variables by which the services are told of TLS and tokens.
    pub(crate) told: &'a [(&'static str, OsString)],
}

/// How the time for stopping is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Drain {
    pub(crate) proxy: Duration,
    pub(crate) total: Duration,
}

impl Drain {
    pub(crate) fn within(total: Duration) -> Self {
        Self {
            proxy: total.mul_f64(PROXY_SHARE),
            total,
        }
    }
}

impl Settings<'_> {
    pub(crate) fn controller(&self, log: Log) -> Spec {
        let mut arguments = vec![
            flag("--listen", self.addresses.controller.to_string()),
            flag("--rest-listen", self.addresses.rest.to_string()),
            flag("--admin-listen", self.addresses.controller_admin.to_string()),
            flag("--provider", "process"),
            flag("--bin-dir", &self.binaries.folder),
            flag("--state-dir", self.state_dir),
            // Workers log where the services do.
            flag(
                "--worker-logs",
                if matches!(log, Log::File(_)) {
                    "files"
                } else {
                    "stderr"
                },
            ),
        ];
        match self.deploy {
            Deploy::Config(file) => arguments.push(flag("--config", file)),
            Deploy::Model(folder) => arguments.push(flag("--model", folder)),
            Deploy::Fake => arguments.push(flag("--model", FAKE)),
        }
        let left = self.drain.total.saturating_sub(self.drain.proxy);
        let mut variables = self.variables(left);
        // Its workers inherit it.
        variables.extend(self.default_model.map(|model| (DEFAULT_MODEL, model.into())));
        Spec {
            name: "controller",
            program: self.binaries.controller.clone(),
            arguments,
            variables,
            cleared: CLEARED,
            log,
        }
    }

    pub(crate) fn proxy(&self, log: Log) -> Spec {
        let mut variables = self.variables(self.drain.proxy);
        variables.retain(|(name, _)| !CLEARED_OF_PROXY.contains(name));
        Spec {
            name: "proxy",
            program: self.binaries.proxy.clone(),
            arguments: vec![
                flag("--http-listen", self.addresses.http.to_string()),
                flag("--listen", self.addresses.grpc.to_string()),
                flag("--admin-listen", self.addresses.proxy_admin.to_string()),
                flag("--controller", reached(self.addresses.controller).to_string()),
            ],
            variables,
            cleared: CLEARED_OF_PROXY,
            log,
        }
    }

    fn variables(&self, drain: Duration) -> Vec<(&'static str, OsString)> {
        let own = [
            ("MOBULA_EXIT_WITH_PID", self.pid.to_string().into()),
            (
                "MOBULA_DRAIN_TIMEOUT_S",
                drain.as_secs().max(1).to_string().into(),
            ),
        ];
        own.into_iter().chain(self.told.iter().cloned()).collect()
    }
}

/// `--flag=value`: a value that begins with a dash is still a value.
fn flag(name: &str, value: impl AsRef<std::ffi::OsStr>) -> OsString {
    let mut argument = OsString::from(name);
    argument.push("=");
    argument.push(value);
    argument
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs(deploy: &Deploy) -> (Spec, Spec) {
        let binaries = Binaries {
            folder: "/bin".into(),
            controller: "/bin/c".into(),
            proxy: "/bin/p".into(),
        };
        let at = |port| SocketAddr::from(([0, 0, 0, 0], port));
        let settings = Settings {
            binaries: &binaries,
            addresses: Addresses {
                http: at(1),
                grpc: at(2),
                controller: at(3),
                rest: at(6),
                proxy_admin: at(4),
                controller_admin: at(5),
            },
            deploy,
            default_model: Some(Path::new("/models/demo")),
            state_dir: Path::new("/state"),
            drain: Drain::within(Duration::from_secs(20)),
            pid: 42,
            told: &[
                ("MOBULA_TLS_CA", "/ca.pem".into()),
                ("MOBULA_ADMIN_TOKEN_FILE", "/admin".into()),
            ],
        };
        (settings.controller(Log::Inherit), settings.proxy(Log::Inherit))
    }

    #[test]
    fn the_proxy_is_sent_to_an_address_that_can_be_dialled() {
        let (_, proxy) = specs(&Deploy::Config("mesh.yaml".into()));
        assert!(
            proxy.arguments.contains(&"--controller=127.0.0.1:3".into()),
            "{proxy:?}"
        );
    }

    #[test]
    fn the_fake_engine_is_a_model_without_a_folder() {
        let (controller, _) = specs(&Deploy::Fake);
        assert!(
            controller.arguments.contains(&"--model=fake".into()),
            "{controller:?}"
        );
        let (controller, _) = specs(&Deploy::Model("/models/sd15".into()));
        assert!(
            controller.arguments.contains(&"--model=/models/sd15".into()),
            "{controller:?}"
        );
    }

    #[test]
    fn nothing_outlives_the_command_and_stopping_takes_no_longer_than_said() {
        let (controller, proxy) = specs(&Deploy::Config("mesh.yaml".into()));
        let variable = |spec: &Spec, name: &str| {
            spec.variables
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| value.to_string_lossy().into_owned())
        };
        assert_eq!(
            variable(&controller, DEFAULT_MODEL).as_deref(),
            Some("/models/demo")
        );
        for spec in [&controller, &proxy] {
            assert_eq!(variable(spec, "MOBULA_EXIT_WITH_PID").as_deref(), Some("42"));
            assert_eq!(variable(spec, "MOBULA_TLS_CA").as_deref(), Some("/ca.pem"));
        }
        let admin = |spec| variable(spec, "MOBULA_ADMIN_TOKEN_FILE");
        assert_eq!(
            (admin(&controller).as_deref(), admin(&proxy)),
            (Some("/admin"), None)
        );
        assert!(proxy.cleared.contains(&"MOBULA_ADMIN_TOKEN"));
        let seconds = |spec| {
            variable(spec, "MOBULA_DRAIN_TIMEOUT_S")
                .unwrap()
                .parse::<u64>()
                .unwrap()
        };
        assert_eq!(seconds(&controller) + seconds(&proxy), 20);
    }
}
