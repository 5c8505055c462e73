//! The prepared schedule of one (configuration, scheduler, step count), shared by all trajectories that follow it.

use super::alphas::Training;
use super::config::{ClassSettings, Prediction, Settings, Spacing};
use super::solver::{Solve, Solver};
use super::{Config, Kind, ddim, dpm_multistep, euler, euler_ancestral, pndm};
use crate::Error;

/// Largest step count: the training timesteps of every Stable Diffusion model.
pub const MAX_STEPS: usize = 1000;

/// What a scheduler is built from.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) kind: Kind,
    pub(super) steps: usize,
    pub(super) train: usize,
    pub(super) training: &'a Training,
    pub(super) prediction: Prediction,
    pub(super) spacing: Spacing,
    pub(super) steps_offset: usize,
}

impl Plan<'_> {
    /// The refusal of a step count.
    pub(super) fn bad_steps(&self, reason: &'static str) -> Error {
        Error::StepsForKind {
            steps: self.steps,
            kind: self.kind.to_string(),
            reason,
        }
    }

    /// The refusal of a scheduler for a model.
    pub(super) fn incompatible(&self, key: &'static str, value: &str, reason: &'static str) -> Error {
        Error::Incompatible {
            kind: self.kind.to_string(),
            key,
            value: value.to_owned(),
            reason,
        }
    }
}

/// What a scheduler's build gives.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) timesteps: Vec<f32>,
    pub(super) sigmas: Vec<f32>,
    /// What the model's input is divided by at each call; empty where it is the latents as they are.
    pub(super) divisors: Vec<f32>,
    pub(super) initial_deviation: f32,
    pub(super) solver: Solver,
}

impl Built {
    /// A scheduler without noise levels: input and initial noise are not scaled.
    pub(super) fn plain(timesteps: Vec<f32>, solver: Solver) -> Self {
        Self {
            timesteps,
            sigmas: Vec::new(),
            divisors: Vec::new(),
            initial_deviation: 1.0,
            solver,
        }
    }
}

/// Timesteps, noise levels and coefficients, computed once; put it into an `Arc` and share it.
#[derive(Debug)]
pub struct Sampler {
    kind: Kind,
    prediction: Prediction,
    steps: usize,
    ignored: Vec<String>,
    built: Built,
}

impl Sampler {
    /// Prepares `steps` steps of `kind`, or of the model's own scheduler where `kind` is absent or names it.
    ///
    /// Any other kind gets the model's configuration as diffusers' `Other.from_config(pipe.scheduler.config)` carries it over, but
    /// for `use_karras_sigmas`, which the kind decides.
    ///
    /// # Errors
    /// [`Error::Steps`] and [`Error::StepsForKind`] for a step count, [`Error::Incompatible`] where this scheduler cannot serve
    /// the model's prediction type, [`Error::Value`] and [`Error::Unsupported`] for keys that only the asked class has.
    pub fn new(config: &Config, kind: Option<Kind>, steps: usize) -> Result<Self, Error> {
        let Settings {
            kind,
            training,
            prediction,
            spacing,
            steps_offset,
            class,
            ignored,
        } = config.read(kind)?;
        let max = training.timesteps.min(MAX_STEPS);
        if !(1..=max).contains(&steps) {
            return Err(Error::Steps { steps, max });
        }
        let train = training.timesteps;
        let plan = Plan {
            kind,
            steps,
            train,
            training: &training,
            prediction,
            spacing,
            steps_offset,
        };
        let built = match class {
            ClassSettings::Pndm(settings) => pndm::build(&plan, settings)?,
            ClassSettings::Ddim(settings) => ddim::build(&plan, settings)?,
            ClassSettings::Euler(settings) => euler::build(&plan, settings),
            ClassSettings::EulerAncestral => euler_ancestral::build(&plan)?,
            ClassSettings::DpmMultistep(settings) => dpm_multistep::build(&plan, settings)?,
        };
        let timesteps_finite = built.timesteps.iter().all(|t| t.is_finite());
        if !(timesteps_finite && built.solver.is_finite() && built.initial_deviation.is_finite()) {
            return Err(
                plan.bad_steps("its coefficients are not finite (diffusers would give a black picture)")
            );
        }
        Ok(Self {
            kind,
            prediction,
            steps,
            ignored,
            built,
        })
    }

    /// The scheduler that runs.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What the model's output is taken for.
    #[must_use]
    pub fn prediction(&self) -> Prediction {
        self.prediction
    }

    /// The step count that was asked for.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Model calls that a trajectory takes: PNDM has more than steps.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.built.timesteps.len()
    }

    /// The timestep of each model call.
    #[must_use]
    pub fn timesteps(&self) -> &[f32] {
        &self.built.timesteps
    }

    /// Noise levels, the last one included; empty for schedulers that have none (PNDM, DDIM).
    #[must_use]
    pub fn sigmas(&self) -> &[f32] {
        &self.built.sigmas
    }

    /// Deviation of the initial noise (diffusers' `init_noise_sigma`).
    #[must_use]
    pub fn initial_deviation(&self) -> f32 {
        self.built.initial_deviation
    }

    /// Keys of the model's configuration that mean nothing to this scheduler.
    #[must_use]
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// What the latents are divided by before model call `call`, if by anything.
    pub(crate) fn divisor(&self, call: usize) -> Option<f32> {
        self.built.divisors.get(call).copied()
    }

    pub(crate) fn solver(&self) -> &Solver {
        &self.built.solver
    }
}
