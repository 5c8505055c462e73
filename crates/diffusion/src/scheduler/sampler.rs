//! The prepared schedule of one (configuration, ask), shared by all trajectories that follow it.

use std::ops::Range;

use super::alphas::Training;
use super::class::Spacing;
use super::levels::Levels;
use super::settings::{ClassSettings, Flow, Settings};
use super::solver::{Mix, Solver};
use super::spacing::Grid;
use super::span::Line;
use super::{Ask, Choice, Config, Kind, Options, Prediction, Span};
use super::{ddim, ddpm, dpm_multistep, edm, euler, euler_ancestral, flow, lcm, pndm, tcd};
use super::{deis, dpm_sde, dpm_singlestep, heun, kdpm2, lms, unipc};
use crate::Error;

/// Largest step count: the training timesteps of every Stable Diffusion model.
pub const MAX_STEPS: usize = 1000;

/// What a scheduler is built from.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) kind: Kind,
    /// The name that errors tell.
    pub(super) name: String,
    /// Steps of the whole schedule.
    pub(super) steps: usize,
    /// Training timesteps.
    pub(super) train: usize,
    pub(super) training: &'a Training,
    pub(super) prediction: Prediction,
    pub(super) spacing: Spacing,
    pub(super) steps_offset: usize,
    /// How noise levels are spread.
    pub(super) levels: Levels,
    pub(super) flow: Flow,
    pub(super) span: Span,
    pub(super) options: Options,
}

impl Plan<'_> {
    /// The refusal of a step count.
    pub(super) fn bad_steps(&self, reason: &'static str) -> Error {
        Error::StepsForKind {
            steps: self.steps,
            kind: self.name.clone(),
            reason,
        }
    }

    /// The refusal of a scheduler for a model.
    pub(super) fn incompatible(&self, key: &'static str, value: &str, reason: &'static str) -> Error {
        Error::Incompatible {
            kind: self.name.clone(),
            key,
            value: value.to_owned(),
            reason,
        }
    }

    /// The grid of timesteps.
    pub(super) fn grid(&self) -> Grid {
        Grid {
            train: self.train,
            steps: self.steps,
            offset: self.steps_offset,
        }
    }

    /// The calls of the whole schedule that the span takes; histories and counters start at the first of them.
    pub(super) fn range(&self, timesteps: &[f32]) -> Result<Range<usize>, Error> {
        self.span.range(Line {
            timesteps,
            train: self.train,
            steps: self.steps,
            order: self.kind.class().order(),
            flow: self.prediction == Prediction::Flow,
        })
    }

    /// The shift of flow matching's levels: the request's where it is dynamic and given, as in diffusers.
    pub(super) fn flow_shift(&self) -> f64 {
        match self.options.mu.filter(|_| self.flow.dynamic) {
            Some(mu) => super::span::decimal(mu).exp(),
            None => self.flow.shift,
        }
    }
}

/// What a scheduler's build gives. Lists are of the whole schedule, one entry for each of its calls; the solver is of the range alone.
#[derive(Debug)]
pub(super) struct Built {
    /// The calls that are gone through.
    pub(super) range: Range<usize>,
    pub(super) timesteps: Vec<f32>,
    /// Noise levels, one more than calls; empty for schedulers that have none.
    pub(super) sigmas: Vec<f32>,
    /// What the model's input is divided by; empty where it is the latents as they are.
    pub(super) divisors: Vec<f32>,
    /// How diffusers' `add_noise` mixes picture and noise.
    pub(super) mixes: Vec<Mix>,
    pub(super) initial_deviation: f32,
    /// Its call 0 is the first of `range`.
    pub(super) solver: Solver,
}

impl Built {
    /// A scheduler without noise levels: input and initial noise are not scaled. `alphas` are the cumulative ones, by timestep.
    pub(super) fn plain(range: Range<usize>, timesteps: Vec<f32>, alphas: &[f32], solver: Solver) -> Self {
        let last = alphas.len() - 1;
        let mix = |t: &f32| Mix::of_alpha(alphas[(*t as usize).min(last)]);
        Self {
            range,
            mixes: timesteps.iter().map(mix).collect(),
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
    choice: Choice,
    kind: Kind,
    prediction: Prediction,
    steps: usize,
    span: Span,
    from_start: bool,
    options: Options,
    ignored: Vec<String>,
    timesteps: Vec<f32>,
    sigmas: Vec<f32>,
    divisors: Vec<f32>,
    mixes: Vec<Mix>,
    initial_deviation: f32,
    solver: Solver,
}

impl Sampler {
    /// Prepares what `ask` chooses, or the model's own scheduler where it chooses none or names it.
    ///
    /// Any other kind gets the model's configuration as diffusers' `Other.from_config(pipe.scheduler.config)` carries it over, but
    /// for how noise levels are spread, which the name decides.
    ///
    /// # Errors
    /// [`Error::Steps`] and [`Error::StepsForKind`] for a step count, [`Error::Field`] for an option or a span out of range,
    /// [`Error::Schedule`] for a schedule the scheduler does not have, [`Error::Incompatible`] where this scheduler cannot serve
    /// the model's prediction type, [`Error::Value`] and [`Error::Unsupported`] for keys that only the asked class has.
    pub fn new(config: &Config, ask: &Ask) -> Result<Self, Error> {
        ask.options.check()?;
        ask.span.check()?;
        let Settings {
            kind,
            training,
            prediction,
            spacing,
            steps_offset,
            levels,
            flow,
            class,
            ignored,
        } = config.read(ask.choice)?;
        let max = training.timesteps.min(MAX_STEPS);
        let steps = ask.steps;
        if !(1..=max).contains(&steps) {
            return Err(Error::Steps { steps, max });
        }
        let choice = Choice {
            kind: Some(kind),
            schedule: ask.choice.schedule.or_else(|| levels.schedule()),
        };
        let plan = Plan {
            kind,
            name: choice.to_string(),
            steps,
            train: training.timesteps,
            training: &training,
            prediction,
            spacing,
            steps_offset,
            levels,
            flow,
            span: ask.span,
            options: ask.options,
        };
        let built = build(&plan, class)?;
        let sampler = Self::cut(built, choice, ask, ignored, &plan);
        if !sampler.is_finite() {
            return Err(
                plan.bad_steps("its coefficients are not finite (diffusers would give a black picture)")
            );
        }
        Ok(sampler)
    }

    /// Takes the span's part of the lists.
    fn cut(built: Built, choice: Choice, ask: &Ask, ignored: Vec<String>, plan: &Plan<'_>) -> Self {
        let Built {
            range,
            timesteps,
            sigmas,
            divisors,
            mixes,
            initial_deviation,
            solver,
        } = built;
        // Latent consistency shortens the list of timesteps itself.
        let shortened =
            plan.kind == Kind::Lcm && matches!(ask.span, Span::Consistency(strength) if strength < 1.0);
        let cut = |list: &[f32], end: usize| list.get(range.start..end).unwrap_or_default().to_vec();
        Self {
            choice,
            kind: plan.kind,
            prediction: plan.prediction,
            steps: plan.steps,
            span: ask.span,
            from_start: range.start == 0 && !shortened,
            options: ask.options,
            ignored,
            timesteps: cut(&timesteps, range.end),
            sigmas: cut(&sigmas, range.end + 1),
            divisors: cut(&divisors, range.end),
            mixes: mixes.get(range).unwrap_or_default().to_vec(),
            initial_deviation,
            solver,
        }
    }

    fn is_finite(&self) -> bool {
        let mixes = self.mixes.iter().flat_map(|mix| [mix.signal, mix.noise]);
        let lists = [&self.timesteps, &self.sigmas, &self.divisors];
        self.initial_deviation.is_finite()
            && self.solver.is_finite()
            && lists
                .into_iter()
                .flatten()
                .copied()
                .chain(mixes)
                .all(f32::is_finite)
    }

    /// The solver that runs.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The scheduler's canonical name, e.g. `dpmpp_2m_karras`.
    #[must_use]
    pub fn name(&self) -> String {
        self.choice.to_string()
    }

    /// What the model's output is taken for.
    #[must_use]
    pub fn prediction(&self) -> Prediction {
        self.prediction
    }

    /// The step count that was asked for, of the whole schedule.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Model calls inside the span: solvers of second order call twice a step.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.timesteps.len()
    }

    /// Model calls that one step takes, but for the first steps of some and the last one of others: 2 for solvers of second
    /// order, else 1.
    #[must_use]
    pub fn calls_per_step(&self) -> usize {
        self.kind.class().order()
    }

    /// The step that a model call is a part of, both counted from 0 inside the span: PNDM's first two calls are one step (or its
    /// first twelve three), solvers of second order have two a step.
    #[must_use]
    pub fn step_of(&self, call: usize) -> usize {
        self.solver.step_of(call)
    }

    /// Steps inside the span. Those of the whole schedule are as many as were asked for.
    #[must_use]
    pub fn span_steps(&self) -> usize {
        // A span has one call at least.
        self.step_of(self.timesteps.len().saturating_sub(1)) + 1
    }

    /// Steps that are done after so many model calls of the span.
    #[must_use]
    pub fn steps_done(&self, calls: usize) -> usize {
        if calls >= self.timesteps.len() {
            self.span_steps()
        } else {
            // All before the one that the next call is a part of.
            self.step_of(calls)
        }
    }

    /// The timestep of each model call of the span.
    #[must_use]
    pub fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    /// Noise levels of the span, the last one included; empty for schedulers that have none (PNDM, DDIM).
    #[must_use]
    pub fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    /// Deviation of the initial noise of the whole schedule (diffusers' `init_noise_sigma`).
    #[must_use]
    pub fn initial_deviation(&self) -> f32 {
        self.initial_deviation
    }

    /// Keys of the model's configuration that mean nothing to this scheduler.
    #[must_use]
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// What part of the schedule it goes through, as it was asked for.
    #[must_use]
    pub fn span(&self) -> Span {
        self.span
    }

    /// Whether the span begins with the first call of the whole schedule.
    #[must_use]
    pub fn is_from_start(&self) -> bool {
        self.from_start
    }

    /// The numbers that its steps take.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// What the latents are divided by before model call `call`, if by anything.
    pub(crate) fn divisor(&self, call: usize) -> Option<f32> {
        self.divisors.get(call).copied()
    }

    /// How picture and noise are mixed to latents that model call `call` can start from (diffusers' `add_noise`); after the last
    /// call it is the picture alone.
    pub(crate) fn mix(&self, call: usize) -> Mix {
        self.mixes.get(call).copied().unwrap_or(Mix::CLEAN)
    }

    pub(crate) fn solver(&self) -> &Solver {
        &self.solver
    }
}

/// Builds the class's schedule.
fn build(plan: &Plan<'_>, class: ClassSettings) -> Result<Built, Error> {
    match class {
        ClassSettings::Ddim(settings) => ddim::build(plan, settings),
        ClassSettings::Pndm(settings) => pndm::build(plan, settings),
        ClassSettings::Euler(settings) => euler::build(plan, settings),
        ClassSettings::Ddpm(settings) => ddpm::build(plan, settings),
        ClassSettings::Lcm(settings) => lcm::build(plan, settings),
        ClassSettings::Tcd(settings) => tcd::build(plan, settings),
        ClassSettings::EdmEuler(settings) => edm::build(plan, settings),
        ClassSettings::FlowEuler(settings) => flow::build(plan, settings),
        ClassSettings::EulerAncestral => euler_ancestral::build(plan),
        ClassSettings::DpmMultistep(settings) => dpm_multistep::build(plan, settings),
        ClassSettings::Lms(settings) => lms::build(plan, settings),
        ClassSettings::Heun(settings) => heun::build(plan, settings),
        ClassSettings::Kdpm2(settings) => kdpm2::build(plan, settings),
        ClassSettings::DpmSinglestep(settings) => dpm_singlestep::build(plan, settings),
        ClassSettings::DpmSde(settings) => dpm_sde::build(plan, settings),
        ClassSettings::Deis(settings) => deis::build(plan, settings),
        ClassSettings::UniPc(settings) => unipc::build(plan, &settings),
    }
}
