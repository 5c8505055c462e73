//! How a worker is told who it is and what it has to give.

use std::{collections::HashMap, net::SocketAddr};

use mobula_proto::control::v1::{Resources, WorkerKind};

use crate::{listen, machine};

/// Where a controller on this machine listens.
const DEFAULT_CONTROLLER: &str = "127.0.0.1:7265";

/// Flags of every worker; taken in by `#[command(flatten)]`.
#[derive(clap::Args, Clone, Debug, PartialEq)]
pub struct WorkerArgs {
    /// The controller's gRPC address, host:port
    #[arg(long, env = "MOBULA_CONTROLLER", default_value = DEFAULT_CONTROLLER)]
    pub controller: String,
    /// Name of this worker, unique among all; by default the host's name and some random digits
    #[arg(long, env = "MOBULA_WORKER_ID")]
    pub worker_id: Option<String>,
    /// host or host:port by which proxies reach this worker; by default the address that routes to the controller
    #[arg(long, env = "MOBULA_ADVERTISE")]
    pub advertise: Option<String>,
    /// CPU cores to offer; by default those that this process may use
    #[arg(long, env = "MOBULA_CPUS", value_parser = amount)]
    pub cpus: Option<f64>,
    /// GPUs to offer
    #[arg(long, env = "MOBULA_GPUS", value_parser = amount, default_value = "0")]
    pub gpus: f64,
    /// Memory to offer, bytes; by default the limit of the container, or the machine's memory
    #[arg(long, env = "MOBULA_MEMORY_BYTES")]
    pub memory_bytes: Option<u64>,
    /// Memory of its GPUs to offer, bytes
    #[arg(long, env = "MOBULA_VRAM_BYTES", default_value_t = 0)]
    pub vram_bytes: u64,
    /// Kind of its accelerator, such as L4 or H100, for replicas that ask for one (accelerator_type)
    #[arg(long, env = "MOBULA_ACCELERATOR_TYPE")]
    pub accelerator_type: Option<String>,
    /// Another resource to offer, name=amount; may be repeated
    #[arg(long = "resource", env = "MOBULA_RESOURCES", value_delimiter = ',', value_parser = resource)]
    pub resources: Vec<(String, f64)>,
    /// A label to be placed by, key=value; may be repeated
    #[arg(long = "label", env = "MOBULA_LABELS", value_delimiter = ',', value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// The model of configs that name none, such as Ray's samples, as a config would name it: a folder, or fake
    #[arg(long, value_name = "MODEL", env = "MOBULA_DEFAULT_MODEL")]
    pub default_model: Option<String>,
}

/// What a worker says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// Unique among live workers, kept over reconnects.
    pub worker_id: String,
    /// What it can host.
    pub kind: WorkerKind,
    /// host:port of its gRPC service, for proxies.
    pub address: String,
    /// What it has to give.
    pub resources: Resources,
    /// What it can be placed by.
    pub labels: HashMap<String, String>,
    /// Version of the binary.
    pub version: String,
}

impl Default for WorkerArgs {
    fn default() -> Self {
        Self {
            controller: DEFAULT_CONTROLLER.to_owned(),
            worker_id: None,
            advertise: None,
            cpus: None,
            gpus: 0.0,
            memory_bytes: None,
            vram_bytes: 0,
            accelerator_type: None,
            resources: Vec::new(),
            labels: Vec::new(),
            default_model: None,
        }
    }
}

impl WorkerArgs {
    /// The memory it offers, bytes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.memory_bytes.unwrap_or_else(machine::memory_bytes)
    }

    /// Fills in what was not given from the machine. A worker makes it once and keeps it: the default id is random.
    pub fn identity(&self, kind: WorkerKind, bound: SocketAddr) -> Identity {
        Identity {
            worker_id: self.worker_id.clone().unwrap_or_else(random_id),
            kind,
            address: listen::advertise(self.advertise.as_deref(), bound, Some(&self.controller)),
            resources: Resources {
                cpus: self.cpus.unwrap_or_else(machine::cpus),
                gpus: self.gpus,
                memory_bytes: self.memory(),
                custom: self.custom(),
                vram_bytes: self.vram_bytes,
            },
            labels: self.all_labels(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// The machine that a worker runs on: workers with the same one are on the same node.
pub const NODE_LABEL: &str = "mobula.io/node";
/// Ray's label for the kind of accelerator.
const ACCELERATOR_LABEL: &str = "ray.io/accelerator-type";
/// Workers that have an accelerator offer one unit of a resource of this name and the accelerator's; a replica asks for a
/// thousandth of it, as in Ray.
const ACCELERATOR_PREFIX: &str = "accelerator_type:";

impl WorkerArgs {
    fn custom(&self) -> HashMap<String, f64> {
        let accelerator = self
            .accelerator_type
            .as_ref()
            .map(|kind| (format!("{ACCELERATOR_PREFIX}{kind}"), 1.0));
        self.resources.iter().cloned().chain(accelerator).collect()
    }

    /// The given labels, and those that the machine and the other flags say.
    fn all_labels(&self) -> HashMap<String, String> {
        let accelerator = self
            .accelerator_type
            .clone()
            .map(|kind| (ACCELERATOR_LABEL.to_owned(), kind));
        [(NODE_LABEL.to_owned(), machine::host())]
            .into_iter()
            .chain(accelerator)
            .chain(self.labels.iter().cloned())
            .collect()
    }
}

/// Workers on one host are told apart by 32 random bits.
fn random_id() -> String {
    format!("{}-{:08x}", machine::host(), uuid::Uuid::new_v4().as_fields().0)
}

fn amount(text: &str) -> Result<f64, String> {
    let amount: f64 = text.parse().map_err(|_| "must be a number".to_owned())?;
    if amount.is_finite() && amount >= 0.0 {
        Ok(amount)
    } else {
        Err("must not be negative".to_owned())
    }
}

fn resource(text: &str) -> Result<(String, f64), String> {
    let (name, value) = label(text)?;
    Ok((name, amount(&value)?))
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        Some(_) | None => Err("must be name=value".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Args {
        #[command(flatten)]
        worker: WorkerArgs,
    }

    fn parse(args: &[&str]) -> Result<WorkerArgs, clap::Error> {
        Args::try_parse_from([&["worker"], args].concat()).map(|args| args.worker)
    }

    #[test]
    fn what_is_given_is_offered() {
        let args = parse(&[
            "--worker-id",
            "w1",
            "--cpus",
            "1.5",
            "--gpus",
            "0.5",
            "--memory-bytes",
            "1024",
            "--resource",
            "licence=2",
            "--label",
            "zone=a,disk=ssd",
            "--label",
            "tier=",
        ]);
        let identity = args
            .unwrap()
            .identity(WorkerKind::Inference, "10.0.0.1:7200".parse().unwrap());
        assert_eq!(
            (identity.worker_id.as_str(), identity.address.as_str()),
            ("w1", "10.0.0.1:7200")
        );
        assert_eq!(identity.resources.custom["licence"], 2.0);
        assert_eq!(
            (identity.resources.cpus, identity.resources.memory_bytes),
            (1.5, 1024)
        );
        assert_eq!(
            (identity.labels["disk"].as_str(), identity.labels["tier"].as_str()),
            ("ssd", "")
        );
    }

    #[test]
    fn what_is_not_given_comes_from_the_machine_and_ids_differ() {
        let args = parse(&[]).unwrap();
        assert_eq!(args, WorkerArgs::default());
        let make = || args.identity(WorkerKind::Preprocess, "127.0.0.1:7100".parse().unwrap());
        let (first, second) = (make(), make());
        assert!(first.resources.cpus >= 1.0 && first.resources.memory_bytes > 0);
        assert_ne!(first.worker_id, second.worker_id);
    }

    #[test]
    fn amounts_and_labels_that_make_no_sense_are_refused() {
        for args in [
            ["--cpus", "-1"],
            ["--gpus", "NaN"],
            ["--resource", "a"],
            ["--label", "=b"],
        ] {
            let args = [args[0], args[1]];
            assert!(parse(&[&format!("{}={}", args[0], args[1])]).is_err(), "{args:?}");
        }
    }
}
