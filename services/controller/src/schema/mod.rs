//! What shall run: applications in the shape of Ray Serve's `ServeDeploySchema`, checked.
//!
//! Refuses every field and value that is not honoured, with its path, the reason and what is accepted, all at once.
//! Invariant: a [`Schema`] has unique names and prefixes, and every number in it is in range.
//!
//! Where Ray's field is optional, null means not given, except that `route_prefix: null` means no route.

mod graph;
mod parse;
mod reader;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use mobula_serving::place::{Amounts, Kind};
use sha2::{Digest, Sha256};

pub use self::reader::Problem;

/// Everything that shall run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    /// In the order of the document.
    pub applications: Vec<Application>,
}

/// What is deployed, updated and deleted as a unit (Ray: `ServeApplicationSchema`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// Unique.
    pub name: String,
    /// Unique; none means not reachable over HTTP.
    pub route_prefix: Option<String>,
    /// The built-in graph.
    pub import_path: String,
    /// The graph's deployments, in the order of a request.
    pub deployments: Vec<Deployment>,
}

/// One part of an application (Ray: `DeploymentSchema`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// Unique in its application.
    pub name: String,
    /// What workers its replicas take.
    pub kind: Kind,
    /// How many replicas (`num_replicas`).
    pub replicas: usize,
    /// Requests that a replica takes at a time.
    pub max_ongoing_requests: u32,
    /// Requests that may wait; -1 is unlimited.
    pub max_queued_requests: i32,
    /// What a replica needs (`ray_actor_options`).
    pub need: Amounts,
    /// What a draining replica has to finish (`graceful_shutdown_timeout_s`).
    pub grace: Duration,
    /// The model folder, as the worker names it.
    pub model: String,
    /// `onnx` or `fake`; empty for deployments without an engine.
    pub engine: String,
    /// The engine's options.
    pub options: BTreeMap<String, String>,
}

impl Schema {
    /// Reads a YAML or JSON document.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let document: serde_json::Value = serde_saphyr::from_str(text).map_err(|error| {
            vec![Problem {
                path: "(document)".into(),
                why: format!("is no YAML mapping: {error}"),
            }]
        })?;
        parse::schema(&document)
    }

    /// One application named `default` at `/` that draws with this model; what `--model` stands for.
    #[must_use]
    pub fn of_model(model: &str) -> Self {
        let application = Application {
            name: "default".into(),
            route_prefix: Some("/".into()),
            import_path: graph::TEXT_TO_IMAGE.into(),
            deployments: graph::deployments(&graph::Args::of(model)),
        };
        Self {
            applications: vec![application],
        }
    }
}

impl Deployment {
    /// A digest of everything that a running replica cannot change about itself, 16 hexadecimal digits.
    ///
    /// `max_ongoing_requests` is part of it: a worker learns the limit of a replica only when it starts it.
    #[must_use]
    pub fn version(&self) -> String {
        let mut hash = Sha256::new();
        let mut field = |text: &str| {
            // Lengths keep ("ab", "c") and ("a", "bc") apart.
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        };
        field(&self.kind.to_string());
        field(&self.model);
        field(&self.engine);
        field(&self.max_ongoing_requests.to_string());
        for amount in [self.need.cpus, self.need.gpus, self.need.memory] {
            field(&amount.to_string());
        }
        field(&self.need.custom.len().to_string());
        for (name, amount) in &self.need.custom {
            field(name);
            field(&amount.to_string());
        }
        for (name, value) in &self.options {
            field(name);
            field(value);
        }
        hash.finalize()
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}
