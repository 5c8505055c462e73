//! The graphs that are built in: what an `import_path` stands for, its deployments, and what their code asks for in Ray.
//!
//! Refuses every other path. The samples of Ray, KubeRay, GKE and Data on EKS are graphs here, under the names that their
//! configs use: an ingress that becomes a preprocess deployment, and a pipeline.

use std::time::Duration;

use mobula_serving::{place::Kind, scale};

use crate::{
    Backpressure, Count, Deployment, Health, Placing, Rollout, Stage, placing, reader::Node, scaling, suggest,
};

/// The graph of our own: a prompt becomes a picture in two deployments.
pub(crate) const TEXT_TO_IMAGE: &str = "mobula.image:text_to_image";

/// The same in four deployments, each of which scales alone.
pub(crate) const SPLIT: &str = "mobula.image:split";

/// Requests that may wait for a deployment when nothing is said. Ray's -1 (no bound) lets a queue grow until its head
/// is older than any client's patience.
pub(crate) const MAX_QUEUED_REQUESTS: i32 = 256;

/// Ray's default.
const GRACEFUL_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(20);

/// Ray's default: so many replicas that fail to start, or three for each that is wanted if that is less.
pub(crate) const MAX_CONSTRUCTOR_RETRIES: u32 = 20;

/// Ray's default share of replicas that are replaced at a time.
pub(crate) const ROLLING_UPDATE_PERCENTAGE: f64 = 0.2;

/// Ray's default for models that are loaded on demand.
pub(crate) const MAX_MODELS: u32 = 3;

/// Tokenizing is short; the bound only keeps a flood out of the pool's queue. 100 was Ray's default for years.
const PREPROCESS_ONGOING: u32 = 100;

/// Ray's default of 5 would starve a batching engine: a tick gathers rows of all requests that are there, so more
/// must be there than one batch holds. Two batches of 16 rows without guidance.
const PIPELINE_ONGOING: u32 = 32;

/// The stages beside the UNet are short: as many as its deployment has at two replicas may come at once.
const STAGE_ONGOING: u32 = 64;

/// A graph.
#[derive(Debug)]
pub(crate) struct Graph {
    /// Last part of its module.
    module: &'static str,
    /// Name in the module.
    object: &'static str,
    /// What its module's path must have in it, where two graphs have the same name.
    within: &'static str,
    /// The deployments that run the model, or parts of it, after the one that takes requests.
    parts: &'static [Part],
    /// Replicas of the pipeline as the code has them; more than one means that it scales.
    max_replicas: u32,
    /// Sides of a picture when the request says nothing.
    pub(crate) img_size: Option<u32>,
    /// What its code needs beside a CPU.
    pub(crate) device: Device,
    /// What stands in for what its code does, for samples.
    becomes: &'static str,
}

/// A deployment of a graph.
#[derive(Debug)]
struct Part {
    name: &'static str,
    kind: Kind,
    /// What it does of a picture's way; empty is all that its kind does.
    stages: &'static [Stage],
    max_ongoing_requests: u32,
}

/// The deployment that takes requests.
const fn ingress(name: &'static str) -> Part {
    Part {
        name,
        kind: Kind::Preprocess,
        stages: &[],
        max_ongoing_requests: PREPROCESS_ONGOING,
    }
}

/// One that runs the model, or these stages of it.
const fn runs(name: &'static str, stages: &'static [Stage], max_ongoing_requests: u32) -> Part {
    Part {
        name,
        kind: Kind::Inference,
        stages,
        max_ongoing_requests,
    }
}

static WHOLE: [Part; 2] = [ingress("preprocess"), runs("pipeline", &[], PIPELINE_ONGOING)];

static PARTS: [Part; 4] = [
    ingress("preprocess"),
    runs("text_encoder", &[Stage::EncodeText], STAGE_ONGOING),
    runs("denoiser", &[Stage::Denoise], PIPELINE_ONGOING),
    runs("vae", &[Stage::Decode, Stage::Encode], STAGE_ONGOING),
];

static V2: [Part; 2] = [
    ingress("APIIngress"),
    runs("StableDiffusionV2", &[], PIPELINE_ONGOING),
];

static EKS: [Part; 2] = [
    ingress("APIIngress"),
    runs("stable-diffusion-v2", &[], PIPELINE_ONGOING),
];

static TPU: [Part; 2] = [
    ingress("APIIngress"),
    runs("StableDiffusion", &[], PIPELINE_ONGOING),
];

/// What a sample's code asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    /// Nothing.
    None,
    /// A whole GPU for each replica of the pipeline.
    Gpu,
    /// Four TPU chips.
    Tpu,
}

const SAMPLE: &str = "the sample's graph is built in: its ingress takes requests and tokenizes, its pipeline draws, with the \
                      model folder's own scheduler and steps instead of those in the code";

const TPU_SAMPLE: &str = "the sample's graph is built in and runs on CPUs and GPUs: its code asks for 4 TPU chips, which cannot \
                          be had here. Its batches of 64 are not built: requests join the batch that runs at its next step, so \
                          nothing waits up to 10 s for a full batch and none is filled up with scratch requests, which \
                          max_ongoing_requests below 64 would make of every batch in Ray";

static GRAPHS: [Graph; 7] = [
    Graph {
        module: "image",
        object: "text_to_image",
        within: "mobula.",
        parts: &WHOLE,
        max_replicas: 1,
        img_size: None,
        device: Device::None,
        becomes: "",
    },
    Graph {
        module: "image",
        object: "split",
        within: "mobula.",
        parts: &PARTS,
        max_replicas: 1,
        img_size: None,
        device: Device::None,
        becomes: "",
    },
    // Google's copy has a fixed number of replicas.
    Graph {
        module: "stable_diffusion",
        object: "entrypoint",
        within: "gke-ray.",
        parts: &V2,
        max_replicas: 1,
        img_size: Some(512),
        device: Device::Gpu,
        becomes: SAMPLE,
    },
    Graph {
        module: "stable_diffusion",
        object: "entrypoint",
        within: "",
        parts: &V2,
        max_replicas: 2,
        img_size: Some(512),
        device: Device::Gpu,
        becomes: SAMPLE,
    },
    Graph {
        module: "ray_serve_sd",
        object: "entrypoint",
        within: "",
        parts: &EKS,
        max_replicas: 2,
        img_size: Some(768),
        device: Device::Gpu,
        becomes: SAMPLE,
    },
    // The name that the file got later.
    Graph {
        module: "ray_serve_stablediffusion",
        object: "entrypoint",
        within: "",
        parts: &EKS,
        max_replicas: 2,
        img_size: Some(768),
        device: Device::Gpu,
        becomes: SAMPLE,
    },
    Graph {
        module: "stable_diffusion_tpu",
        object: "deployment",
        within: "",
        parts: &TPU,
        max_replicas: 1,
        img_size: Some(512),
        device: Device::Tpu,
        becomes: TPU_SAMPLE,
    },
];

/// The graph that an import path names.
pub(crate) fn find(path: &str) -> Option<&'static Graph> {
    // Ray takes "module.object" as well as "module:object".
    let (module, object) = path.split_once(':').or_else(|| path.rsplit_once('.'))?;
    let last = module.rsplit('.').next().unwrap_or(module);
    let found = GRAPHS
        .iter()
        .find(|graph| graph.module == last && graph.object == object && module.contains(graph.within));
    found.filter(|graph| graph.device != Device::None || module == "mobula.image")
}

/// Reads an import path.
pub(crate) fn read(node: &Node<'_>) -> Option<&'static Graph> {
    let path = node.text()?;
    let found = find(&path);
    match found {
        Some(graph) if graph.device != Device::None => {
            let size = graph.img_size.map(|side| {
                format!(
                    ". GET /imagine without a size draws {side} x {side} pixels as there, where the model can"
                )
            });
            node.translated(format!("{}{}", graph.becomes, size.unwrap_or_default()));
        }
        Some(_) => {}
        None => {
            let known: Vec<String> = GRAPHS
                .iter()
                .map(|g| format!("{}:{}", g.module, g.object))
                .collect();
            let ours = |name: &str| {
                if name.starts_with("image:") {
                    format!("mobula.{name}")
                } else {
                    name.to_owned()
                }
            };
            let last = path.rsplit_once('.').map_or(path.as_str(), |(_, last)| last);
            let meant = suggest::nearest(last, known.iter().map(String::as_str))
                .map(|name| format!("; did you mean {}?", ours(name)))
                .unwrap_or_default();
            node.refuse(format!(
                "must name a built-in graph ({TEXT_TO_IMAGE}, {SPLIT}, or a Stable Diffusion sample of Ray), not {path:?}: \
                 applications in Python cannot be run here{meant}"
            ));
        }
    }
    found
}

impl Graph {
    /// The place of the deployment that draws: the one that has the UNet.
    pub(crate) fn draws(&self) -> usize {
        let has = |part: &Part| {
            part.kind == Kind::Inference && (part.stages.is_empty() || part.stages.contains(&Stage::Denoise))
        };
        // Every graph has one.
        self.parts.iter().position(has).unwrap_or_default()
    }

    /// The name of the deployment that draws.
    pub(crate) fn pipeline(&self) -> &'static str {
        self.parts[self.draws()].name
    }

    /// The graph's deployments with everything at its default, in the order of a request; the model comes later.
    pub(crate) fn deployments(&self) -> Vec<Deployment> {
        let draws = self.draws();
        let parts = self.parts.iter().enumerate();
        let count = |place: usize| {
            if place == draws && self.max_replicas > 1 {
                Count::Auto(scaling::defaults(self.max_replicas))
            } else {
                Count::Fixed(1)
            }
        };
        parts
            .map(|(place, part)| deployment(part, count(place)))
            .collect()
    }
}

fn deployment(part: &Part, count: Count) -> Deployment {
    let rollout = Rollout {
        percentage: ROLLING_UPDATE_PERCENTAGE,
        max_surge_percent: None,
        max_failures: failures(&count, MAX_CONSTRUCTOR_RETRIES),
    };
    Deployment {
        name: part.name.to_owned(),
        kind: part.kind,
        count,
        max_ongoing_requests: part.max_ongoing_requests,
        max_queued_requests: MAX_QUEUED_REQUESTS,
        max_queued: None,
        need: placing::one_cpu(),
        placing: Placing::default(),
        grace: GRACEFUL_SHUTDOWN_TIMEOUT,
        health: Health::default(),
        user_config: None,
        rollout,
        backpressure: Backpressure::default(),
        model: String::new(),
        models: std::collections::BTreeMap::new(),
        max_models: MAX_MODELS,
        engine: String::new(),
        options: std::collections::BTreeMap::new(),
        stages: part.stages,
    }
}

/// Ray's rule: three for each replica that is wanted at first, and no more than the field says.
pub(crate) fn failures(count: &Count, retries: u32) -> u32 {
    let wanted = match count {
        Count::Fixed(count) => *count,
        Count::Auto(scale::Config { min, initial, .. }) => initial.unwrap_or(*min).max(1),
    };
    wanted.saturating_mul(3).min(retries)
}
