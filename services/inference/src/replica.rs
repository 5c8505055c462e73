//! A replica: a model, its engine and the loop around them, as the worker kit and the gRPC door see it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use mobula_diffusion::scheduler::Ask;
use mobula_diffusion::{Config as Scheduler, Sampler};
use mobula_kit::worker::{self, Load, ModelInfo};
use mobula_proto::inference::v1::GenerateRequest;
use tokio::time::Instant;

use crate::error::Error;
use crate::memory::Hold;
use crate::request;
use crate::runner::{Inbox, Runner, Work};
use crate::shared::Share;

/// Samplers that are kept; a request's step count and scheduler choose one.
const MAX_SAMPLERS: usize = 256;

/// A loaded model with its loop, or a share in one.
#[derive(Debug)]
pub struct Replica(Share<Loaded>);

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
        self.0.runner.load()
    }

    fn model(&self) -> Option<ModelInfo> {
        Some(self.0.info.clone())
    }

    fn health(&self) -> Result<(), String> {
        self.0.runner.health().map_err(|error| error.to_string())
    }

    fn retire(&self) {
        self.0.give_up(Loaded::retire);
    }
}

impl Replica {
    pub(crate) fn new(loaded: Share<Loaded>) -> Self {
        Self(loaded)
    }

    /// How busy it is.
    pub(crate) fn load(&self) -> Load {
        self.0.runner.load()
    }

    /// Checks a request and gives it to the loop.
    pub(crate) fn generate(
        &self,
        request: GenerateRequest,
        deadline: Option<Instant>,
    ) -> Result<Inbox, Error> {
        self.0.generate(request, deadline)
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

    /// Ends the loop and gives the memory back.
    fn retire(&self) {
        self.runner.stop();
        drop(self.memory.lock().unwrap_or_else(PoisonError::into_inner).take());
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
            preview_interval,
            ..
        } = request;
        let request_id = request.request_id.clone();
        let info = self.runner.info();
        let model = request::Model {
            info,
            max_size: self.info.max_size,
            is_xl: info.pooled > 0,
            max_windows: self.info.max_prompt_windows as usize,
        };
        let checked = request::check(request, &model).map_err(Error::Request)?;
        self.runner.submit(Work {
            request_id,
            prompt: checked.prompt,
            negative: checked.negative,
            clip_skip: checked.clip_skip,
            time_ids: checked.time_ids,
            shape: info.latents(width as usize, height as usize),
            sampler: self.sampler(&checked.ask)?,
            guidance: checked.guidance,
            source: checked.source,
            class: checked.class,
            fast: checked.fast,
            pictures: checked.pictures,
            origin: checked.origin,
            latents: checked.latents,
            preview_interval,
            text: checked.text,
            deadline,
            arrived,
            span: tracing::Span::current(),
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
