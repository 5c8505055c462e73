//! What shall run, checked.
//!
//! Invariant: names, routes and worker groups are unique, every number is in range, and no two fields contradict each other.

use std::{collections::BTreeMap, time::Duration};

use mobula_serving::{
    place::{Amounts, Kind, Selector, Strategy},
    scale,
};
use serde_json::Value;

/// Everything that shall run (Ray: `ServeDeploySchema`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// What concerns more than one application.
    pub options: Options,
    /// Workers that a provider may start.
    pub worker_groups: Vec<WorkerGroup>,
    /// In the order of the document.
    pub applications: Vec<Application>,
}

/// What concerns more than one application.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// Percent of all replicas that run; none means 100.
    pub target_capacity: Option<f64>,
    /// Where proxies shall be, as it was read.
    pub proxy_location: ProxyLocation,
    /// The HTTP door, as it was read.
    pub http: Http,
    /// The gRPC door, as it was read.
    pub grpc: Grpc,
    /// Logging of the services, as it was read.
    pub logging: Option<Value>,
}

/// Where proxies shall be (Ray: `ProxyLocation`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyLocation {
    /// On every node that has a replica.
    #[default]
    EveryNode,
    /// On the head alone.
    HeadOnly,
    /// Nowhere.
    Disabled,
}

impl ProxyLocation {
    /// Its name in Ray.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::EveryNode => "EveryNode",
            Self::HeadOnly => "HeadOnly",
            Self::Disabled => "Disabled",
        }
    }
}

/// The HTTP door, as it was read (Ray: `HTTPOptionsSchema`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Prefix that something before the door has taken off.
    pub root_path: String,
    /// How long a request may take.
    pub request_timeout: Option<Duration>,
    /// How long a connection may be idle.
    pub keep_alive: Duration,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            host: "0.0.0.0".into(),
            port: 8000,
            root_path: String::new(),
            request_timeout: None,
            keep_alive: Duration::from_secs(90),
        }
    }
}

/// The gRPC door, as it was read (Ray: `gRPCOptionsSchema`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grpc {
    /// Port.
    pub port: u16,
    /// Python functions that add services.
    pub servicer_functions: Vec<String>,
    /// How long a request may take.
    pub request_timeout: Option<Duration>,
    /// Whether the door tells what it serves.
    pub reflection: bool,
}

impl Default for Grpc {
    fn default() -> Self {
        Self {
            port: 9000,
            servicer_functions: Vec::new(),
            request_timeout: None,
            reflection: true,
        }
    }
}

/// Workers of one shape that a provider can start and stop (KubeRay: a worker group).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerGroup {
    /// Unique.
    pub name: String,
    /// What replicas they hold.
    pub kind: Kind,
    /// At least so many are there.
    pub min: u32,
    /// At most so many are there.
    pub max: u32,
    /// How long a worker without replicas stays.
    pub idle_timeout: Duration,
    /// What each is taken to have before it has said so itself; nothing at all means that it is not known.
    pub resources: Amounts,
    /// Labels that each has.
    pub labels: BTreeMap<String, String>,
    /// Each holds at most so many replicas; none means that only resources count.
    pub replicas_per_worker: Option<u32>,
}

/// What is deployed, updated and deleted as a unit (Ray: `ServeApplicationSchema`).
#[derive(Clone, Debug, PartialEq)]
pub struct Application {
    /// Unique.
    pub name: String,
    /// Unique; none means not reachable over HTTP.
    pub route_prefix: Option<String>,
    /// The graph, as it was given.
    pub import_path: String,
    /// Sides of a picture when `GET /imagine` names none, where the graph's code has a size of its own; none means the
    /// model's.
    pub img_size: Option<u32>,
    /// Somebody else counts its replicas.
    pub external_scaler: bool,
    /// The graph's deployments, in the order of a request.
    pub deployments: Vec<Deployment>,
    /// As it was written, with the current names.
    pub document: Value,
}

/// One part of an application (Ray: `DeploymentSchema`).
#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    /// Unique in its application.
    pub name: String,
    /// What workers its replicas take.
    pub kind: Kind,
    /// How many replicas.
    pub count: Count,
    /// Requests that a replica takes at a time.
    pub max_ongoing_requests: u32,
    /// Requests that may wait; -1 is unlimited.
    pub max_queued_requests: i32,
    /// How long a request may wait for a replica to be free; none means as long as the proxy allows.
    pub max_queued: Option<Duration>,
    /// What a replica needs.
    pub need: Amounts,
    /// Which workers a replica may have, and where it stands beside the others.
    pub placing: Placing,
    /// What a draining replica has to finish.
    pub grace: Duration,
    /// How a replica's health is checked.
    pub health: Health,
    /// What its replicas are reconfigured with.
    pub user_config: Option<Value>,
    /// How a change reaches its replicas.
    pub rollout: Rollout,
    /// What callers are told when the queue is full.
    pub backpressure: Backpressure,
    /// The model folder, as the worker names it; empty means the worker's own.
    pub model: String,
    /// Models that are loaded on demand: folders by model id.
    pub models: BTreeMap<String, String>,
    /// A replica holds at most so many of them at a time.
    pub max_models: u32,
    /// `onnx` or `fake`; empty for deployments without an engine.
    pub engine: String,
    /// The engine's options.
    pub options: BTreeMap<String, String>,
    /// What its replicas do of a picture's way; empty is all of it, as far as its kind goes.
    pub stages: &'static [Stage],
}

/// One stage of a picture's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Tokens to text states.
    EncodeText,
    /// Noise or latents to latents.
    Denoise,
    /// Latents to pictures.
    Decode,
    /// Pictures to latents.
    Encode,
}

impl Stage {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::EncodeText => "encode_text",
            Self::Denoise => "denoise",
            Self::Decode => "decode",
            Self::Encode => "encode",
        }
    }
}

/// How many replicas a deployment has.
#[derive(Clone, Debug, PartialEq)]
pub enum Count {
    /// Always so many.
    Fixed(u32),
    /// As many as its load needs.
    Auto(scale::Config),
}

impl Count {
    /// How many there are at first.
    #[must_use]
    pub fn initial(&self) -> u32 {
        match self {
            Self::Fixed(count) => *count,
            Self::Auto(config) => config.initial.unwrap_or(config.min),
        }
    }
}

/// Which workers a replica may have, and where it stands beside the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placing {
    /// How the replicas stand among the machines.
    pub strategy: Strategy,
    /// Replicas that are placed together or not at all; 1 is each alone.
    pub gang: usize,
    /// A replica that fails takes its gang with it.
    pub gang_restart: bool,
    /// At most so many on one machine.
    pub per_node: Option<usize>,
    /// Labels that a worker must have.
    pub selector: Selector,
    /// Labels that a worker should have, best first.
    pub prefer: Vec<Selector>,
}

impl Default for Placing {
    fn default() -> Self {
        Self {
            strategy: Strategy::Default,
            gang: 1,
            gang_restart: true,
            per_node: None,
            selector: Selector::default(),
            prefer: Vec::new(),
        }
    }
}

/// How a replica's health is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// How often.
    pub period: Duration,
    /// How long a check may take.
    pub timeout: Duration,
    /// So many failures in a row make it unhealthy.
    pub threshold: u32,
}

impl Default for Health {
    /// Ray's numbers.
    fn default() -> Self {
        Self {
            period: Duration::from_secs(10),
            timeout: Duration::from_secs(30),
            threshold: 3,
        }
    }
}

/// How a change reaches the replicas.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollout {
    /// The share of replicas that is replaced at a time.
    pub percentage: f64,
    /// Percent of the replicas that may run beside the old ones meanwhile; none means as many as are replaced at a time.
    pub max_surge_percent: Option<u32>,
    /// So many replicas that fail to start end it.
    pub max_failures: u32,
}

/// What callers are told when the queue is full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backpressure {
    /// HTTP status, 503 or 429.
    pub status: u16,
    /// After which time they may come again; none means as predicted.
    pub retry_after: Option<Duration>,
}

impl Default for Backpressure {
    fn default() -> Self {
        Self {
            status: 503,
            retry_after: None,
        }
    }
}

impl Config {
    /// One application named `default` at `/` that draws with this model; what `--model` stands for.
    #[must_use]
    pub fn of_model(model: &str) -> Self {
        let mut application = serde_json::json!({ "import_path": crate::graph::TEXT_TO_IMAGE });
        if !model.is_empty() {
            application["args"] = serde_json::json!({ "model": model });
        }
        let (application, _) =
            crate::application(&application).expect("one application with nothing but a model is valid");
        Self {
            applications: vec![application],
            ..Self::default()
        }
    }
}
