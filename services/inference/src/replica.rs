//! What a worker of this service can load: a replica is a model, its engine, and the loop around them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use mobula_diffusion::preview::LatentRgb;
use mobula_diffusion::{Config as Scheduler, Kind, Sampler, scheduler};
use mobula_kit::async_trait;
use mobula_kit::worker::{self, Load, ModelInfo, ReplicaSpec};
use mobula_proto::inference::v1::GenerateRequest;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::config::Config;
use crate::engine::Engine;
use crate::engine::fake::{Costs, Fake};
use crate::engine::onnx::{Onnx, Runtime};
use crate::error::Error;
use crate::model::{self, Model};
use crate::request;
use crate::runner::{Inbox, Options, Runner, Work, warm_up};

/// Samplers that are kept; a request's step count and scheduler choose one.
const MAX_SAMPLERS: usize = 256;
/// A warm-up at the native size of a large model would take a minute on a CPU; at this size it shows as much.
const MAX_WARM_UP: usize = 256;
/// What the fake engine's scheduler is made from: Stable Diffusion 1's noise schedule, for any number of steps.
const FAKE_SCHEDULER: &str = r#"{"_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "clip_sample": false, "timestep_spacing": "trailing"}"#;

/// Loads replicas.
#[derive(Debug)]
pub struct Loader {
    models: Option<PathBuf>,
    runtime: Runtime,
    max_rows: usize,
    max_size: u32,
    cache_bytes: usize,
}

/// A loaded model with its loop.
#[derive(Debug)]
pub struct Replica {
    runner: Runner,
    scheduler: Scheduler,
    info: ModelInfo,
    samplers: Mutex<Samplers>,
}

/// Samplers by scheduler (none is the model's own) and steps.
type Samplers = HashMap<(Option<Kind>, u32), Arc<Sampler>>;

impl Loader {
    /// Makes a loader; nothing is loaded yet, ONNX Runtime neither.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            models: config.models_dir.clone(),
            runtime: config.runtime(),
            max_rows: config.max_batch_rows,
            max_size: config.max_size,
            cache_bytes: config.embedding_cache_bytes,
        }
    }

    async fn load_replica(&self, spec: &ReplicaSpec) -> Result<Replica, Error> {
        let mut options = spec.options.clone();
        let max_rows = match options.remove("max_batch_rows") {
            None => self.max_rows,
            Some(text) => text
                .parse()
                .ok()
                .filter(|rows| *rows > 0)
                .ok_or_else(|| Error::Option {
                    name: "max_batch_rows".into(),
                    why: format!("{text:?} is no whole number above 0"),
                })?,
        };
        let fake = spec.engine == "fake" || (spec.engine.is_empty() && spec.model == "fake");
        if !fake && !matches!(spec.engine.as_str(), "" | "onnx") {
            return Err(Error::Option {
                name: "engine".into(),
                why: format!("{:?} is none of onnx, fake", spec.engine),
            });
        }
        let costs = if fake {
            Costs::take(&mut options)?
        } else {
            Costs::default()
        };
        if let Some(name) = options.into_keys().min() {
            let known = if fake {
                "max_batch_rows, base_us, row_us, decode_us"
            } else {
                "max_batch_rows"
            };
            return Err(Error::Option {
                name,
                why: format!("is unknown; known are {known}"),
            });
        }
        if fake {
            self.load_fake(max_rows, costs).await
        } else {
            self.load_model(&spec.model, max_rows).await
        }
    }

    async fn load_fake(&self, max_rows: usize, costs: Costs) -> Result<Replica, Error> {
        // No memory is at stake, so every size is as good as the native one.
        let options = self.options(max_rows, usize::MAX, LatentRgb::default());
        let runner = Runner::start(options, move || Ok(Box::new(Fake::new(costs)))).await?;
        let scheduler = Scheduler::from_json(FAKE_SCHEDULER)?;
        let schedulers = Kind::ALL.map(|kind| kind.name().to_owned()).to_vec();
        let info = ModelInfo {
            digest: format!("{:x}", Sha256::digest("mobula fake engine")),
            pipeline_class: "Fake".into(),
            default_width: 64,
            default_height: 64,
            default_steps: 20,
            default_guidance_scale: 7.5,
            default_scheduler: scheduler.kind().name().to_owned(),
            schedulers,
            size_multiple: runner.info().multiple as u32,
            max_size: self.max_size,
            max_steps: scheduler::MAX_STEPS as u32,
        };
        Ok(Replica::new(runner, scheduler, info))
    }

    async fn load_model(&self, name: &str, max_rows: usize) -> Result<Replica, Error> {
        let folder = self
            .models
            .as_deref()
            .map_or_else(|| PathBuf::from(name), |models| models.join(name));
        let model = blocking(move || Model::open(&folder)).await?;
        let (folder, runtime, parts) = (model.folder().to_owned(), self.runtime.clone(), model.clone());
        let digest = blocking(move || model::digest(&folder));
        let (height, width) = model.sample_size;
        let options = self.options(max_rows, height * width, model.latent_rgb.clone());
        let runner = Runner::start(options, move || {
            let mut engine = Onnx::load(&parts, &runtime)?;
            let (width, height) = warm_up_size(&parts, engine.info());
            warm_up(&mut engine, width, height)?;
            Ok(Box::new(engine))
        });
        // Hashing gigabytes and making sessions take as long as each other; they do it at the same time.
        let (digest, runner) = tokio::join!(digest, runner);
        let (runner, digest) = (runner?, digest?);
        let (multiple, scale) = (runner.info().multiple as u32, runner.info().scale);
        let native = |side: usize| ((side * scale) as u32).next_multiple_of(multiple);
        let info = ModelInfo {
            digest,
            pipeline_class: model.class.clone(),
            default_width: native(width),
            default_height: native(height),
            default_steps: model.defaults.steps,
            default_guidance_scale: model.defaults.guidance_scale,
            default_scheduler: model.defaults.scheduler.name().to_owned(),
            schedulers: model
                .schedulers()
                .into_iter()
                .map(|kind| kind.name().to_owned())
                .collect(),
            size_multiple: multiple,
            max_size: max_size(self.max_size, native(height.max(width)), multiple),
            max_steps: scheduler::MAX_STEPS as u32,
        };
        Ok(Replica::new(runner, model.scheduler, info))
    }

    fn options(&self, max_rows: usize, native: usize, latent_rgb: LatentRgb) -> Options {
        Options {
            max_rows,
            native,
            cache_bytes: self.cache_bytes,
            latent_rgb,
        }
    }
}

/// Far above its native size a model draws nothing of use, and attention takes memory with the fourth power of the side: so
/// twice the native size is the limit, or 512 pixels for small models, or what the worker says; the native size always goes.
fn max_size(worker: u32, native: u32, multiple: u32) -> u32 {
    let most = worker.min((2 * native).max(512));
    native.max(most / multiple * multiple)
}

/// The native size, or less for a large model: pixels, width and height.
fn warm_up_size(model: &Model, info: &crate::engine::Info) -> (usize, usize) {
    let side = |side: usize| {
        (side * info.scale)
            .min(MAX_WARM_UP)
            .next_multiple_of(info.multiple)
    };
    (side(model.sample_size.1), side(model.sample_size.0))
}

/// Runs what reads files off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::Failed(format!("reading the model panicked: {error}"))))
}

#[async_trait]
impl worker::Loader for Loader {
    type Replica = Replica;

    async fn load(&self, spec: &ReplicaSpec) -> Result<Replica, String> {
        self.load_replica(spec).await.map_err(|error| error.to_string())
    }
}

impl worker::Replica for Replica {
    fn load(&self) -> Load {
        self.runner.load()
    }

    fn model(&self) -> Option<ModelInfo> {
        Some(self.info.clone())
    }

    fn health(&self) -> Result<(), String> {
        self.runner.health().map_err(|error| error.to_string())
    }

    fn retire(&self) {
        self.runner.stop();
    }
}

impl Replica {
    fn new(runner: Runner, scheduler: Scheduler, info: ModelInfo) -> Self {
        Self {
            runner,
            scheduler,
            info,
            samplers: Mutex::new(HashMap::new()),
        }
    }

    /// How busy it is.
    pub(crate) fn load(&self) -> Load {
        self.runner.load()
    }

    /// Checks a request and gives it to the loop.
    pub(crate) fn generate(
        &self,
        request: GenerateRequest,
        deadline: Option<Instant>,
    ) -> Result<Inbox, Error> {
        let arrived = Instant::now();
        let GenerateRequest {
            width,
            height,
            steps,
            guidance_scale,
            preview_interval,
            ..
        } = request;
        let request_id = request.request_id.clone();
        let checked =
            request::check(request, self.runner.info(), self.info.max_size).map_err(Error::Request)?;
        self.runner.submit(Work {
            request_id,
            prompt: checked.prompt,
            negative: checked.negative,
            shape: self.runner.info().latents(width as usize, height as usize),
            sampler: self.sampler(checked.scheduler, steps)?,
            guidance_scale,
            pictures: checked.pictures,
            preview_interval,
            text: checked.text,
            deadline,
            arrived,
            span: tracing::Span::current(),
        })
    }

    /// The schedule of a scheduler and a step count, made once.
    fn sampler(&self, kind: Option<Kind>, steps: u32) -> Result<Arc<Sampler>, Error> {
        // Only whole entries are put in, so a poisoned lock is as good as any.
        let lock = || self.samplers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sampler) = lock().get(&(kind, steps)) {
            return Ok(Arc::clone(sampler));
        }
        let sampler = Arc::new(Sampler::new(&self.scheduler, kind, steps as usize)?);
        let mut samplers = lock();
        if samplers.len() >= MAX_SAMPLERS {
            samplers.clear();
        }
        samplers.insert((kind, steps), Arc::clone(&sampler));
        Ok(sampler)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_size_follows_the_model_and_the_worker() {
        assert_eq!(max_size(1024, 128, 16), 512);
        assert_eq!(max_size(1024, 512, 64), 1024);
        assert_eq!(max_size(1024, 768, 64), 1024);
        assert_eq!(max_size(300, 128, 64), 256);
        assert_eq!(max_size(256, 512, 64), 512);
    }
}
