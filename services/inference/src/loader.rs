//! Loads models for a worker: reads the folder, makes the engine, warms it up, measures it, starts the loop.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mobula_diffusion::preview::LatentRgb;
use mobula_diffusion::scheduler::Schedule;
use mobula_diffusion::{Config as Scheduler, scheduler};
use mobula_kit::async_trait;
use mobula_kit::worker::{self, Failure, ModelInfo, ReplicaSpec};
use mobula_proto::image::v1 as image;
use mobula_serving::curve::Curve;
use mobula_serving::tick::Policy;
use sha2::{Digest, Sha256};
use tokio::sync::RwLock;

use crate::config::Config;
use crate::engine::fake::{self, Costs, Fake};
use crate::engine::onnx::{Onnx, Runtime, Setup};
use crate::engine::{Engine, Info, Stages, trial};
use crate::error::Error;
use crate::memory::{self, Ledger};
use crate::metrics::Place;
use crate::model::{self, Model, Task};
use crate::ondemand::OnDemand;
use crate::profile;
use crate::replica::{Loaded, Replica};
use crate::runner::{Device, Measured, Options, Runner};
use crate::shared::{Share, Shared};

/// A warm-up at the native size of a large model would take a minute on a CPU; at this size it shows as much.
const MAX_WARM_UP: usize = 256;
/// Time for measuring calls at load, where the manifest has no profile: a start is not to wait long for it.
const PROFILE_TIME: Duration = Duration::from_secs(2);
/// The part of the memory that is left which lanes may take: a quarter, by the size of the weights.
const LANES_PART: u64 = 4;
/// Loads replicas.
#[derive(Debug)]
pub struct Loader(Arc<Stock>);

/// Loads models, for replicas and later on their demand.
#[derive(Debug)]
pub(crate) struct Stock {
    models: Option<PathBuf>,
    /// What a specification without a model means.
    default: Option<String>,
    runtime: Runtime,
    setup: Setup,
    max_rows: usize,
    max_size: u32,
    max_windows: usize,
    cache_bytes: usize,
    /// Replicas of one model with the same options share it: its weights, its loop and its batches.
    loaded: Shared<Loaded>,
    /// Where they run: models of one device take turns, those of different ones do not wait for each other.
    devices: Mutex<HashMap<Option<u32>, Device>>,
    memory: Ledger,
    /// A model whose size is not known is loaded while no other is: what the process grows by meanwhile is charged to it, and
    /// only the work of models that run can be in it.
    measuring: RwLock<()>,
}

/// Options that every engine has.
#[derive(Debug, Clone, Copy)]
struct Common {
    max_rows: usize,
    policy: Policy,
}

impl Common {
    const KNOWN: &str = "max_batch_rows, scheduling";

    /// Takes `max_batch_rows` (a whole number) and `scheduling` (`steps`, or `fifo`: whole requests in batches, the baseline
    /// of comparisons) out of a replica's options.
    fn take(options: &mut HashMap<String, String>, max_rows: usize) -> Result<Self, Error> {
        let wrong = |name: &str, why: String| Error::Option {
            name: name.to_owned(),
            why,
        };
        let max_rows = match options.remove("max_batch_rows") {
            None => max_rows,
            Some(text) => text
                .parse()
                .ok()
                .filter(|rows| *rows > 0)
                .ok_or_else(|| wrong("max_batch_rows", format!("{text:?} is no whole number above 0")))?,
        };
        let policy = match options.remove("scheduling").as_deref() {
            None | Some("steps") => Policy::default(),
            Some("fifo") => Policy::Fifo,
            Some(other) => return Err(wrong("scheduling", format!("{other:?} is none of steps, fifo"))),
        };
        Ok(Self { max_rows, policy })
    }
}

impl Loader {
    /// Makes a loader; nothing is loaded yet, ONNX Runtime neither.
    ///
    /// # Errors
    /// [`Error::Option`] for a provider that there is not.
    pub fn new(config: &Config) -> Result<Self, Error> {
        Ok(Self(Arc::new(Stock {
            models: config.models_dir.clone(),
            default: config.worker.default_model.clone(),
            runtime: config.runtime(),
            setup: config.setup()?,
            max_rows: config.max_batch_rows,
            max_size: config.max_size,
            max_windows: config.max_prompt_windows,
            cache_bytes: config.embedding_cache_bytes,
            loaded: Shared::new(),
            devices: Mutex::default(),
            memory: Ledger::new(config.worker.memory()),
            measuring: RwLock::new(()),
        })))
    }
}

/// What the fake engine's digest is made of.
fn stands_for(folder: &str) -> String {
    match folder {
        "fake" => "mobula fake engine".to_owned(),
        folder => format!("mobula fake engine for {folder}"),
    }
}

impl Stock {
    /// Loads a model with the engine and the options of a replica, or shares one that is loaded.
    pub(crate) async fn load(&self, folder: &str, spec: &ReplicaSpec) -> Result<Share<Loaded>, Error> {
        let folder = worker::model_name(self.default.as_deref(), folder);
        let mut options = spec.options.clone();
        let common = Common::take(&mut options, self.max_rows)?;
        let stages = Stages::of(&spec.stages)?;
        // No config gives the model "fake" another engine; a worker whose default it is has no other.
        let fake = spec.engine == "fake" || folder == "fake";
        if !matches!(spec.engine.as_str(), "" | "onnx" | "fake") {
            return Err(Error::Option {
                name: "engine".into(),
                why: format!("{:?} is none of onnx, fake", spec.engine),
            });
        }
        let (costs, setup) = if fake {
            (Costs::take(&mut options)?, self.setup.clone())
        } else {
            // A model is computed on one device, the first of those that the replica has.
            let setup = Setup::take(&mut options, &self.setup)?;
            let setup = setup.place_on(spec.gpus.first().copied());
            (Costs::default(), setup.with_stages(stages))
        };
        if let Some(name) = options.into_keys().min() {
            let known = if fake { Costs::KNOWN } else { Setup::KNOWN };
            return Err(Error::Option {
                name,
                why: format!("is unknown; known are {}, {known}", Common::KNOWN),
            });
        }
        let place = Place::of(spec);
        if fake {
            let loaded = self.load_fake(folder, common, Fake::new(costs).with(stages), place);
            let key = format!("{} {folder}", spec.replica_id);
            return self.loaded.get(key, Loaded::is_sound, loaded).await;
        }
        let folder = worker::model_folder(self.models.as_deref(), folder).map_err(|why| Error::File {
            path: "model".to_owned(),
            why,
        })?;
        // Files that were replaced since are another model.
        let at = folder.clone();
        let files = blocking(move || model::fingerprint(&at)).await?;
        let key = format!("{} {files} {common:?} {setup:?}", folder.display());
        let loaded = self.load_model(folder, common, setup, place);
        self.loaded.get(key, Loaded::is_sound, loaded).await
    }

    /// The device of this number; none is the CPU.
    fn device(&self, gpu: Option<u32>) -> Device {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        devices.entry(gpu).or_insert_with(Device::new).clone()
    }

    /// The fake engine in the place of this folder's model, which it does not read: only its name tells it from others.
    async fn load_fake(
        &self,
        folder: &str,
        common: Common,
        fake: Fake,
        place: Place,
    ) -> Result<Loaded, Error> {
        let measured = fake.costs().curve(common.max_rows).map(|curve| Measured {
            height: 8,
            width: 8,
            tokens: 77,
            curve,
        });
        let options = Options {
            max_rows: common.max_rows,
            native: 8 * 8,
            cache_bytes: self.cache_bytes,
            latent_rgb: LatentRgb::default(),
            zeros_for_empty: false,
            policy: common.policy,
            // It stands for a device of its own.
            device: Device::new(),
            place,
        };
        let runner = Runner::start(options, move || {
            let engine = Box::new(fake) as Box<dyn Engine>;
            Ok((engine, measured.into_iter().collect()))
        })
        .await?;
        let scheduler = Scheduler::from_json(fake::SCHEDULER)?;
        let info = ModelInfo {
            digest: format!("{:x}", Sha256::digest(stands_for(folder))),
            pipeline_class: "Fake".into(),
            default_width: 64,
            default_height: 64,
            default_steps: 20,
            default_guidance_scale: 7.5,
            default_scheduler: scheduler.name(),
            max_size: self.max_size,
            tasks: [Task::TextToImage, Task::ImageToImage, Task::Inpaint]
                .map(|task| task_of(task).into())
                .to_vec(),
            ..self.info(runner.info(), &scheduler)
        };
        Ok(Loaded::new(runner, scheduler, info, None))
    }

    async fn load_model(
        &self,
        folder: PathBuf,
        common: Common,
        setup: Setup,
        place: Place,
    ) -> Result<Loaded, Error> {
        let model = blocking(move || Model::open(&folder)).await?;
        let computes = setup.computes(&model, self.runtime.threads);
        let known = computes.and_then(|name| model.footprint(&name));
        let mut hold = self.memory.hold(known.unwrap_or(0))?;
        let beside = match known {
            None => (Some(self.measuring.write().await), None),
            Some(_) => (None, Some(self.measuring.read().await)),
        };
        // Lanes that nobody asked for are not to take the room that the model itself needs, or the next one.
        let setup = setup.with_lane_memory(self.memory.left() / LANES_PART);
        let before = memory::resident();
        let (folder, runtime, parts) = (model.folder().to_owned(), self.runtime.clone(), model.clone());
        // Hashing gigabytes and making sessions take as long as each other; they do it at the same time.
        let digest = tokio::task::spawn_blocking(move || model::digest(&folder));
        let (height, width) = model.sample_size;
        let device = self.device(setup.gpu());
        let options = Options {
            max_rows: common.max_rows,
            native: height * width,
            cache_bytes: self.cache_bytes,
            latent_rgb: model.latent_rgb.clone(),
            zeros_for_empty: model.force_zeros_for_empty_prompt,
            policy: common.policy,
            device: device.clone(),
            place,
        };
        let runner = Runner::start(options, move || {
            let mut engine = Onnx::load(&parts, &runtime, &setup).map_err(Error::of_file)?;
            let (width, height) = warm_up_size(&parts, engine.info());
            // In a turn of its own: calls of other models beside it would be slowed, and measured with it.
            let measured = device.join().run(false, || {
                trial(&mut engine, width, height).map_err(Error::of_file)?;
                engine.settle(&parts)?;
                measure(&mut engine, &parts, (width, height), common.max_rows)
            })?;
            Ok((Box::new(engine) as Box<dyn Engine>, measured))
        })
        .await?;
        if known.is_none()
            && let Err(error) = hold.grow(memory::resident().saturating_sub(before))
        {
            let runner = runner.clone();
            blocking(move || {
                runner.stop();
                Ok(())
            })
            .await?;
            return Err(error);
        }
        drop(beside);
        let digest = joined(digest.await)?;
        let (multiple, scale) = (runner.info().multiple as u32, runner.info().scale);
        let native = |side: usize| ((side * scale) as u32).next_multiple_of(multiple);
        let info = ModelInfo {
            digest,
            pipeline_class: model.class.clone(),
            default_width: native(width),
            default_height: native(height),
            default_steps: model.defaults.steps,
            default_guidance_scale: model.defaults.guidance_scale,
            default_scheduler: model.defaults.scheduler.clone(),
            max_size: max_size(self.max_size, native(height.max(width)), multiple),
            tasks: model.tasks.iter().map(|task| task_of(*task).into()).collect(),
            ..self.info(runner.info(), &model.scheduler)
        };
        Ok(Loaded::new(runner, model.scheduler, info, Some(hold)))
    }

    /// What is told of every model alike.
    fn info(&self, info: &Info, scheduler: &Scheduler) -> ModelInfo {
        ModelInfo {
            schedulers: scheduler.choices(),
            sigma_schedules: Schedule::ALL.map(|schedule| schedule.name().to_owned()).to_vec(),
            size_multiple: info.multiple as u32,
            max_steps: scheduler::MAX_STEPS as u32,
            max_clip_skip: info.max_clip_skip() as u32,
            guidance_embedded: info.guidance > 0,
            execution_provider: info.provider.clone(),
            lanes: info.lanes as u32,
            max_prompt_windows: self.max_windows as u32,
            extra_calls: scheduler
                .extra_calls()
                .into_iter()
                .map(|(kind, calls)| (kind.name().to_owned(), calls))
                .collect(),
            ..ModelInfo::default()
        }
    }
}

/// A task in the words of the contract.
fn task_of(task: Task) -> image::Task {
    match task {
        Task::TextToImage => image::Task::TextToImage,
        Task::ImageToImage => image::Task::ImageToImage,
        Task::Inpaint => image::Task::Inpaint,
        Task::Refine => image::Task::Refine,
    }
}

/// What calls take: all that the manifest knows, or for the warm-up's size measured now.
fn measure(
    engine: &mut Onnx,
    model: &Model,
    (width, height): (usize, usize),
    max_rows: usize,
) -> Result<Vec<Measured>, Error> {
    let info = engine.info().clone();
    if !info.stages.denoise {
        return Ok(Vec::new());
    }
    let measured = |[height, width, tokens]: [usize; 3], points: &[(usize, u64)]| {
        let points = points.iter().map(|(rows, micros)| (*rows as u32, *micros));
        let curve = Curve::from_pairs(points).map_err(|error| Error::Model {
            part: "unet",
            why: format!("its profile is no curve: {error}"),
        })?;
        Ok(Measured {
            height,
            width,
            tokens,
            curve,
        })
    };
    let computes = info.computes();
    let known = model.profile.curves(&computes);
    let known: Vec<_> = known
        .map(|(sides, points)| measured(sides, points))
        .collect::<Result<_, Error>>()?;
    if !known.is_empty() {
        return Ok(known);
    }
    let shape = info.latents(width, height);
    let points = profile::measure(engine, shape, info.window, max_rows, PROFILE_TIME)?;
    Ok(vec![measured([shape.height, shape.width, info.window], &points)?])
}

/// Far above its native size a model draws nothing of use, and attention takes memory with the fourth power of the side: so
/// twice the native size is the limit, or 512 pixels for small models, or what the worker says; the native size always goes.
fn max_size(worker: u32, native: u32, multiple: u32) -> u32 {
    let most = worker.min((2 * native).max(512));
    native.max(most / multiple * multiple)
}

/// The native size, or less for a large model: pixels, width and height.
fn warm_up_size(model: &Model, info: &Info) -> (usize, usize) {
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
    joined(tokio::task::spawn_blocking(work).await)
}

/// What came out of a thread that reads files.
fn joined<T>(done: Result<Result<T, Error>, tokio::task::JoinError>) -> Result<T, Error> {
    done.unwrap_or_else(|error| Err(Error::Failed(format!("reading the model panicked: {error}"))))
}

#[async_trait]
impl worker::Loader for Loader {
    type Replica = Replica;

    async fn load(&self, spec: &ReplicaSpec) -> Result<Replica, Failure> {
        let own = self.0.load(&spec.model, spec).await;
        let own = own.map_err(|error| Failure {
            permanent: error.is_permanent(),
            why: error.to_string(),
        })?;
        Ok(Replica::new(own, OnDemand::new(&self.0, spec)))
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
