//! The graphs that are built in: what an `import_path` stands for, its arguments, its deployments and their defaults.

use std::{collections::BTreeMap, time::Duration};

use mobula_serving::place::{Amounts, Kind, UNIT};

use super::{Deployment, reader::Node};

/// The one graph of this version: a prompt becomes a picture in two deployments.
pub(super) const TEXT_TO_IMAGE: &str = "mobula.image:text_to_image";

/// The deployments of [`TEXT_TO_IMAGE`], in the order of a request.
const PARTS: [Part; 2] = [
    // Tokenizing is short; the bound only keeps a flood out of the pool's queue. 100 was Ray's default for years.
    Part {
        name: "preprocess",
        kind: Kind::Preprocess,
        max_ongoing_requests: 100,
    },
    // Ray's default of 5 would starve a batching engine: a tick gathers rows of all requests that are there, so more
    // must be there than one batch holds. Two batches of 16 rows without guidance.
    Part {
        name: "pipeline",
        kind: Kind::Inference,
        max_ongoing_requests: 32,
    },
];

/// Requests that may wait for a deployment when nothing is said. Ray's -1 (no bound) lets a queue grow until its head
/// is older than any client's patience.
const MAX_QUEUED_REQUESTS: i32 = 256;

/// Ray's default.
const GRACEFUL_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(20);

struct Part {
    name: &'static str,
    kind: Kind,
    max_ongoing_requests: u32,
}

/// What the graph is built with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Args {
    pub(super) model: String,
    pub(super) engine: String,
    pub(super) options: BTreeMap<String, String>,
}

impl Args {
    /// A model with the engine that fits it: the model called `fake` has no files and needs the fake engine.
    pub(super) fn of(model: &str) -> Self {
        let engine = if model == "fake" { "fake" } else { "onnx" };
        Self {
            model: model.to_owned(),
            engine: engine.to_owned(),
            options: BTreeMap::new(),
        }
    }

    pub(super) fn read(node: &Node<'_>) -> Option<Self> {
        let mut fields = node.fields()?;
        let model = fields
            .need("model", "a model folder, or \"fake\"")
            .and_then(|n| n.text());
        let engine = fields.get("engine").and_then(|n| {
            let engine = n.text()?;
            let known = matches!(engine.as_str(), "onnx" | "fake");
            if !known {
                n.refuse(format!("must be onnx or fake, not {engine:?}"));
            } else if engine == "onnx" && model.as_deref() == Some("fake") {
                n.refuse("must be fake for the model \"fake\", which has no files");
            }
            known.then_some(engine)
        });
        let mut options = BTreeMap::new();
        for (name, value) in fields
            .get("options")
            .and_then(|n| n.entries())
            .unwrap_or_default()
        {
            if let Some(value) = value.scalar() {
                options.insert(name, value);
            }
        }
        fields.finish(&[]);
        let defaults = Self::of(&model?);
        Some(Self {
            engine: engine.unwrap_or(defaults.engine),
            options,
            model: defaults.model,
        })
    }
}

/// The graph's deployments with everything at its default.
pub(super) fn deployments(args: &Args) -> Vec<Deployment> {
    PARTS
        .iter()
        .map(|part| {
            let runs = part.kind == Kind::Inference;
            Deployment {
                name: part.name.to_owned(),
                kind: part.kind,
                replicas: 1,
                max_ongoing_requests: part.max_ongoing_requests,
                max_queued_requests: MAX_QUEUED_REQUESTS,
                need: Amounts {
                    cpus: UNIT,
                    ..Amounts::default()
                },
                grace: GRACEFUL_SHUTDOWN_TIMEOUT,
                model: args.model.clone(),
                engine: if runs { args.engine.clone() } else { String::new() },
                options: if runs {
                    args.options.clone()
                } else {
                    BTreeMap::new()
                },
            }
        })
        .collect()
}
