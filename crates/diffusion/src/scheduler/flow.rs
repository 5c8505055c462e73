//! Euler's method over flow matching (Esser et al. 2024, arXiv 2403.03206): diffusers' `FlowMatchEulerDiscreteScheduler`.
//!
//! Noise levels run from 1 to 0 and are shifted towards the noise, by a fixed shift or by one that grows with the picture. Only for
//! models that predict a flow; [`Config`](super::Config) refuses it to others.

use super::keys::Keys;
use super::levels::{Bounds, Levels, spread};
use super::sampler::{Built, Plan};
use super::solver::{Mix, Solve, Step};
use super::spacing::linspace;
use super::span::decimal;
use crate::Error;

/// How the shift grows with the picture: a line through two points (tokens of the picture, exponent).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Growth {
    pub(super) base_shift: f64,
    pub(super) max_shift: f64,
    pub(super) base_tokens: usize,
    pub(super) max_tokens: usize,
}

impl Growth {
    /// The exponent for a picture of this many tokens (`calculate_shift` of diffusers' pipelines).
    pub(super) fn mu(self, tokens: usize) -> f64 {
        let slope = (self.max_shift - self.base_shift) / (self.max_tokens as f64 - self.base_tokens as f64);
        slope * tokens as f64 + self.base_shift - slope * self.base_tokens as f64
    }
}

/// The keys of this class alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    shift: f64,
    dynamic: bool,
    growth: Growth,
    exponential: bool,
    invert: bool,
    terminal: f64,
    stochastic: bool,
}

impl Settings {
    pub(super) fn read(keys: &mut Keys<'_>) -> Result<Self, Error> {
        const TOKENS: (usize, usize) = (1, 1 << 24);
        const SHIFT: (f64, f64) = (-20.0, 20.0);
        let growth = Growth {
            base_shift: keys.number("base_shift", 0.5, SHIFT)?,
            max_shift: keys.number("max_shift", 1.15, SHIFT)?,
            base_tokens: keys.whole("base_image_seq_len", 256, TOKENS)?,
            max_tokens: keys.whole("max_image_seq_len", 4096, TOKENS)?,
        };
        Ok(Self {
            shift: keys.number("shift", 1.0, (1e-3, 1e3))?,
            dynamic: keys.flag("use_dynamic_shifting", false)?,
            growth,
            exponential: keys.choice(
                "time_shift_type",
                true,
                &[("exponential", true), ("linear", false)],
            )?,
            invert: keys.flag("invert_sigmas", false)?,
            terminal: keys.maybe_number("shift_terminal")?.unwrap_or(0.0),
            stochastic: keys.flag("stochastic_sampling", false)?,
        })
    }

    /// How the shift grows with the picture, where it does.
    pub(super) fn growth(&self) -> Option<Growth> {
        self.dynamic.then_some(self.growth)
    }

    /// One level, shifted.
    fn shifted(&self, sigma: f64) -> f64 {
        self.shift * sigma / (1.0 + (self.shift - 1.0) * sigma)
    }

    /// The noise levels of the steps, before the last one is appended and they may be inverted.
    fn levels(&self, plan: &Plan<'_>) -> Result<Vec<f32>, Error> {
        let train = plan.train as f64;
        // diffusers shifts the levels of training in f32 first, and the levels between them once more.
        let end = |t: f32| {
            let sigma = t / plan.train as f32;
            let shift = self.shift as f32;
            f64::from(if self.dynamic {
                sigma
            } else {
                shift * sigma / (1.0 + (shift - 1.0) * sigma)
            })
        };
        let (max, min) = (end(plan.train as f32) * train, end(1.0) * train);
        let mut levels: Vec<f64> = linspace(max, min, plan.steps)
            .into_iter()
            .map(|t| t / train)
            .collect();
        if self.dynamic {
            let mu = plan.options.mu.ok_or_else(|| Error::Field {
                field: "mu",
                value: "nothing".to_owned(),
                accepted: "a number, because this model has use_dynamic_shifting",
            })?;
            let mu = decimal(mu);
            let weight = if self.exponential { mu.exp() } else { mu };
            for level in &mut levels {
                *level = weight / (weight + (1.0 / *level - 1.0));
            }
        } else {
            for level in &mut levels {
                *level = self.shifted(*level);
            }
        }
        if self.terminal > 0.0 {
            let scale = (1.0 - levels[levels.len() - 1]) / (1.0 - self.terminal);
            for level in &mut levels {
                *level = 1.0 - (1.0 - *level) / scale;
            }
        }
        if plan.levels != Levels::Timesteps {
            let bounds = Bounds {
                table: &[],
                max: levels[0],
                min: levels[levels.len() - 1],
            };
            levels = spread(plan.levels, bounds, plan.steps);
        }
        Ok(levels.into_iter().map(|level| level as f32).collect())
    }
}

#[derive(Debug, Clone, Copy)]
struct Call {
    from: f32,
    to: f32,
}

#[derive(Debug)]
pub(crate) struct Solver {
    stochastic: bool,
    calls: Vec<Call>,
}

/// Computes the noise levels, the timesteps and all coefficients.
pub(super) fn build(plan: &Plan<'_>, settings: Settings) -> Result<Built, Error> {
    let mut sigmas = settings.levels(plan)?;
    if settings.invert {
        sigmas.iter_mut().for_each(|sigma| *sigma = 1.0 - *sigma);
    }
    let timesteps: Vec<f32> = sigmas.iter().map(|sigma| sigma * plan.train as f32).collect();
    let range = plan.range(&timesteps)?;
    sigmas.push(if settings.invert { 1.0 } else { 0.0 });
    let calls = range
        .clone()
        .map(|i| Call {
            from: sigmas[i],
            to: sigmas[i + 1],
        })
        .collect();
    Ok(Built {
        range,
        mixes: sigmas[..plan.steps]
            .iter()
            .map(|sigma| Mix::of_flow(*sigma))
            .collect(),
        timesteps,
        divisors: Vec::new(),
        initial_deviation: 1.0,
        sigmas,
        solver: Box::new(Solver {
            stochastic: settings.stochastic,
            calls,
        }),
    })
}

impl Solve for Solver {
    fn slots(&self) -> usize {
        0
    }

    fn is_finite(&self) -> bool {
        self.calls.iter().all(|call| (call.from + call.to).is_finite())
    }

    fn step(&self, step: Step<'_>) {
        let Step {
            call,
            model,
            latents,
            original,
            scratch,
            random,
            ..
        } = step;
        let Call { from, to } = self.calls[call];
        for ((picture, x), m) in original.iter_mut().zip(&*latents).zip(&*model) {
            *picture = x - from * m;
        }
        if self.stochastic {
            random.fill_normal(scratch);
            for ((x, picture), noise) in latents.iter_mut().zip(&*original).zip(&*scratch) {
                *x = (1.0 - to) * picture + to * noise;
            }
        } else {
            let dt = to - from;
            for (x, m) in latents.iter_mut().zip(&*model) {
                *x += dt * m;
            }
        }
    }
}
