//! A replica: a model, its engine and the loop around them, as the worker kit and the gRPC door see it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use mobula_diffusion::scheduler::Ask;
use mobula_diffusion::{Config as Scheduler, Sampler};
use mobula_kit::worker::{self, HeldModel, Load, ModelInfo};
use mobula_proto::inference::v1::{
    DecodeRequest, DenoiseRequest, EncodeRequest, EncodeTextRequest, GenerateRequest,
};
use mobula_serving::tick::Class;
use tokio::time::Instant;

use crate::encode::Format;
use crate::engine::{Shape, Stages};
use crate::error::Error;
use crate::memory::Hold;
use crate::ondemand::{Held, OnDemand};
use crate::request::{self, Checked};
use crate::runner::{Draw, Inbox, Runner, Task, Work};
use crate::shared::Share;

/// Samplers that are kept; a request's step count and scheduler choose one.
const MAX_SAMPLERS: usize = 256;

/// A loaded model with its loop, or a share in one; and those that it serves on demand.
#[derive(Debug)]
pub struct Replica {
    own: Share<Loaded>,
    on_demand: Option<Arc<OnDemand>>,
}

/// A loaded model with its loop.
#[derive(Debug)]
pub(crate) struct Loaded {
    runner: Runner,
    scheduler: Scheduler,
    info: ModelInfo,
    samplers: Mutex<Samplers>,
    /// What it holds of the worker's memory, until it is retired.
    memory: Mutex<Option<Hold>>,
}

/// Samplers by what was asked for.
type Samplers = HashMap<String, Arc<Sampler>>;

impl worker::Replica for Replica {
    fn load(&self) -> Load {
        Replica::load(self)
    }

    fn models(&self) -> Vec<HeldModel> {
        self.on_demand
            .as_ref()
            .map(|all| all.models())
            .unwrap_or_default()
    }

    fn model(&self) -> Option<ModelInfo> {
        Some(self.own.info.clone())
    }

    fn health(&self) -> Result<(), String> {
        self.own.runner.health().map_err(|error| error.to_string())
    }

    fn check(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { self.own.runner.answers().await.map_err(|error| error.to_string()) })
    }

    fn retire(&self) {
        if let Some(all) = &self.on_demand {
            all.retire();
        }
        self.own.give_up(Loaded::retire);
    }
}

impl Replica {
    pub(crate) fn new(own: Share<Loaded>, on_demand: Option<Arc<OnDemand>>) -> Self {
        Self { own, on_demand }
    }

    /// How busy it is: all its models share the device.
    pub(crate) fn load(&self) -> Load {
        let own = self.own.load();
        let beside = self.on_demand.as_ref().map(|all| all.loads());
        let together = together(std::iter::once(own).chain(beside.into_iter().flatten()));
        Load {
            ongoing_requests: own.ongoing_requests,
            ..together
        }
    }

    /// One of its models by id, loaded if need be, and whether it was loaded for this; none for its own.
    ///
    /// # Errors
    /// Those of [`OnDemand::take`].
    pub(crate) async fn take(
        &self,
        id: &str,
        deadline: Option<Instant>,
    ) -> Result<Option<(Held, bool)>, Error> {
        match &self.on_demand {
            _ if id.is_empty() => Ok(None),
            Some(all) => Ok(Some(all.take(id, deadline).await?)),
            None => {
                let why = format!("is {id:?}, and this replica has one model only; leave it out");
                Err(Error::Request(vec![("model_id".to_owned(), why)]))
            }
        }
    }

    /// Its own model.
    pub(crate) fn own(&self) -> &Loaded {
        &self.own
    }
}

/// Loads of models on one device as one: rows add up, and a row takes what it takes on average over those that wait, so that
/// the predicted wait is the sum of theirs. Where none waits, all models count alike. What was not measured says nothing.
fn together(loads: impl Iterator<Item = Load>) -> Load {
    let (mut queued_rows, mut of_rows, mut of_models) = (0, (0, 0), (0, 0));
    for load in loads {
        let rows = u128::from(load.queued_rows);
        queued_rows += load.queued_rows;
        if load.row_ns > 0 {
            of_rows = (of_rows.0 + rows, of_rows.1 + rows * u128::from(load.row_ns));
            of_models = (of_models.0 + 1, of_models.1 + u128::from(load.row_ns));
        }
    }
    let (count, sum): (u128, u128) = if of_rows.0 > 0 { of_rows } else { of_models };
    Load {
        queued_rows,
        // An average is no more than the largest, which is one of these.
        row_ns: u64::try_from(sum / count.max(1)).unwrap_or(u64::MAX),
        ..Load::default()
    }
}

impl Loaded {
    pub(crate) fn new(runner: Runner, scheduler: Scheduler, info: ModelInfo, memory: Option<Hold>) -> Self {
        Self {
            memory: Mutex::new(memory),
            runner,
            scheduler,
            info,
            samplers: Mutex::new(HashMap::new()),
        }
    }

    /// Whether its engine works, so that another replica may share it.
    pub(crate) fn is_sound(&self) -> bool {
        self.runner.health().is_ok()
    }

    /// What the proxies must know of it.
    pub(crate) fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// How busy it is.
    pub(crate) fn load(&self) -> Load {
        self.runner.load()
    }

    /// Ends the loop and gives the memory back.
    pub(crate) fn retire(&self) {
        self.runner.stop();
        drop(self.memory.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Checks a request and gives it to the loop.
    pub(crate) fn generate(
        &self,
        request: GenerateRequest,
        deadline: Option<Instant>,
    ) -> Result<Inbox, Error> {
        let about = About::of(&request, deadline);
        self.needs(Stages {
            // Latents that go out need no decoder, and noise needs no encoder.
            decode: request.denoising_end.is_none(),
            encode: request.init_image.is_some(),
            ..Stages::ALL
        })?;
        let checked = request::check(request, &self.model()).map_err(Error::Request)?;
        self.draw(about, checked)
    }

    /// Checks what is to be drawn of encoded texts, and gives it to the loop.
    pub(crate) fn denoise(&self, request: DenoiseRequest, deadline: Option<Instant>) -> Result<Inbox, Error> {
        self.needs(Stages::DENOISE)?;
        let none = GenerateRequest::default();
        let about = About::of(request.request.as_ref().unwrap_or(&none), deadline);
        let checked = request::denoise(request, &self.model()).map_err(Error::Request)?;
        self.draw(about, checked)
    }

    /// Checks latents, and has the loop decode them.
    pub(crate) fn decode(&self, request: DecodeRequest, deadline: Option<Instant>) -> Result<Inbox, Error> {
        self.needs(Stages::DECODE)?;
        let request_id = request.request_id.clone();
        let checked = request::decode(request, &self.model()).map_err(Error::Request)?;
        self.runner.submit(Work {
            shape: checked.shape,
            fast: checked.fast,
            pictures: checked.pictures,
            format: checked.format,
            text: checked.text,
            ..work(request_id, Task::Decode(checked.latents), deadline)
        })
    }

    /// Checks windows of text, and has the loop encode them.
    pub(crate) fn encode_text(
        &self,
        request: &EncodeTextRequest,
        deadline: Option<Instant>,
    ) -> Result<Inbox, Error> {
        self.needs(Stages::ENCODE_TEXT)?;
        let texts = request::encode_text(request, &self.model()).map_err(Error::Request)?;
        let task = Task::Texts(texts);
        self.runner
            .submit(work(request.request_id.clone(), task, deadline))
    }

    /// Checks a picture, and has the loop encode it; also gives the shape of its latents.
    pub(crate) fn encode(
        &self,
        request: &EncodeRequest,
        deadline: Option<Instant>,
    ) -> Result<(Inbox, Shape), Error> {
        self.needs(Stages::ENCODE)?;
        let request::Picture { shape, rgb, mask } =
            request::encode(request, &self.model()).map_err(Error::Request)?;
        let work = Work {
            shape,
            ..work(request.request_id.clone(), Task::Picture { rgb, mask }, deadline)
        };
        Ok((self.runner.submit(work)?, shape))
    }

    /// Tokens of a window and width of their states; width of a pooled text, 0 where there is none.
    pub(crate) fn widths(&self) -> ([usize; 2], usize) {
        let info = self.runner.info();
        ([info.window, info.width], info.pooled)
    }

    /// What requests are checked against.
    fn model(&self) -> request::Model<'_> {
        let info = self.runner.info();
        request::Model {
            info,
            max_size: self.info.max_size,
            is_xl: info.pooled > 0,
            max_windows: self.info.max_prompt_windows as usize,
        }
    }

    /// Refuses what this part of the model does not do.
    fn needs(&self, asked: Stages) -> Result<(), Error> {
        let has = self.runner.info().stages;
        if has.have(asked) {
            return Ok(());
        }
        Err(Error::NoStage { asked, has })
    }

    /// Gives pictures to the loop that are to be drawn.
    fn draw(&self, about: About, checked: Checked) -> Result<Inbox, Error> {
        let shape = self
            .runner
            .info()
            .latents(about.width as usize, about.height as usize);
        let draw = Draw {
            sampler: self.sampler(&checked.ask)?,
            prompt: checked.prompt,
            negative: checked.negative,
            clip_skip: checked.clip_skip,
            time_ids: checked.time_ids,
            guidance: checked.guidance,
            source: checked.source,
            origin: checked.origin,
            latents: checked.latents,
            preview_interval: about.preview_interval,
            texts: checked.texts,
        };
        self.runner.submit(Work {
            shape,
            class: checked.class,
            fast: checked.fast,
            pictures: checked.pictures,
            format: checked.format,
            text: checked.text,
            arrived: about.arrived,
            ..work(about.request_id, Task::Draw(Arc::new(draw)), about.deadline)
        })
    }

    /// The schedule of a scheduler, a step count and the like, made once.
    fn sampler(&self, ask: &Ask) -> Result<Arc<Sampler>, Error> {
        // Only whole entries are put in, so a poisoned lock is as good as any.
        let lock = || self.samplers.lock().unwrap_or_else(PoisonError::into_inner);
        // Numbers as they are written are as good a key as any, and short.
        let key = format!("{ask:?}");
        if let Some(sampler) = lock().get(&key) {
            return Ok(Arc::clone(sampler));
        }
        let sampler = Arc::new(Sampler::new(&self.scheduler, ask)?);
        let mut samplers = lock();
        if samplers.len() >= MAX_SAMPLERS {
            samplers.clear();
        }
        samplers.insert(key, Arc::clone(&sampler));
        Ok(sampler)
    }
}

/// What is known of a request to draw before it is checked.
struct About {
    request_id: String,
    width: u32,
    height: u32,
    preview_interval: u32,
    deadline: Option<Instant>,
    arrived: Instant,
}

impl About {
    fn of(request: &GenerateRequest, deadline: Option<Instant>) -> Self {
        Self {
            request_id: request.request_id.clone(),
            width: request.width,
            height: request.height,
            preview_interval: request.preview_interval,
            deadline,
            arrived: Instant::now(),
        }
    }
}

/// Work that comes now, of no picture and no size.
fn work(request_id: String, task: Task, deadline: Option<Instant>) -> Work {
    Work {
        request_id,
        task,
        shape: Shape {
            channels: 0,
            height: 0,
            width: 0,
        },
        class: Class::Normal,
        fast: false,
        pictures: Vec::new(),
        format: Format::Png,
        text: Vec::new(),
        deadline,
        arrived: Instant::now(),
        span: tracing::Span::current(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load((queued_rows, row_ns): (u64, u64)) -> Load {
        Load {
            queued_rows,
            row_ns,
            ..Load::default()
        }
    }

    #[test]
    fn models_on_one_device_wait_for_each_other() {
        for (loads, expected) in [
            // Its own model never drew: what the others need is told all the same.
            (&[(0, 0), (30, 2_000)][..], (30, 2_000)),
            (&[(10, 1_000), (30, 5_000)], (40, 4_000)),
            (&[(0, 1_000), (30, 5_000)], (30, 5_000)),
            (&[(10, 0), (30, 5_000)], (40, 5_000)),
            (&[(0, 1_000), (0, 3_000), (0, 0)], (0, 2_000)),
            (&[(5, 0)], (5, 0)),
        ] {
            let all = together(loads.iter().copied().map(load));
            assert_eq!((all.queued_rows, all.row_ns), expected, "{loads:?}");
        }
    }
}
