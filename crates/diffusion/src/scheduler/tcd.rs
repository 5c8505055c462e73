//! Trajectory consistency distillation (Zheng et al. 2024, arXiv 2402.19159): diffusers' `TCDScheduler`.
//!
//! Each step goes below the next timestep by the share eta (the paper's gamma, 0.3 unless asked for) and adds noise up to it; with
//! eta 0 nothing is drawn. Thresholding and clipping are keys that diffusers has here and makes no use of; they stay ignored.

use super::Prediction;
use super::distilled::{read_original_steps, timesteps};
use super::keys::Keys;
use super::sampler::{Built, Plan};
use super::solver::{Mix, Solve, Step};
use super::span::decimal;
use crate::Error;

/// diffusers' default of the step's eta.
const ETA: f32 = 0.3;

/// The keys of this class alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    original_steps: usize,
}

impl Settings {
    pub(super) fn read(keys: &mut Keys<'_>) -> Result<Self, Error> {
        // It says what comes after the last timestep, where this class never goes: diffusers reads it and makes no use of it.
        keys.flag("set_alpha_to_one", true)?;
        Ok(Self {
            original_steps: read_original_steps(keys)?,
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct Call {
    at: Mix,
    /// Where the step goes to before noise is added.
    below: Mix,
    /// Weights of those latents and of the noise; nothing is added in the last step and without eta.
    up: Option<Mix>,
}

#[derive(Debug)]
pub(crate) struct Solver {
    prediction: Prediction,
    calls: Vec<Call>,
}

/// Computes the timesteps and all coefficients.
pub(super) fn build(plan: &Plan<'_>, settings: Settings) -> Result<Built, Error> {
    let known = timesteps(plan, settings.original_steps, 1.0)?;
    let timesteps: Vec<f32> = known.iter().map(|t| *t as f32).collect();
    let range = plan.range(&timesteps)?;
    let alphas = plan.training.alphas_cumprod();
    let eta = plan.options.eta.unwrap_or(ETA);
    let rest = (1.0 - decimal(eta)) as f32;
    let call = |i: usize| {
        let next = known.get(i + 1).copied();
        let to = next.unwrap_or(0);
        let below = (rest * to as f32).floor() as usize;
        let rise = alphas[to] / alphas[below];
        Call {
            at: Mix::of_alpha(alphas[known[i]]),
            below: Mix::of_alpha(alphas[below]),
            up: next.filter(|_| eta > 0.0).map(|_| Mix::of_alpha(rise)),
        }
    };
    let solver = Solver {
        prediction: plan.prediction,
        calls: range.clone().map(call).collect(),
    };
    Ok(Built::plain(range, timesteps, &alphas, Box::new(solver)))
}

impl Solve for Solver {
    fn slots(&self) -> usize {
        0
    }

    fn is_finite(&self) -> bool {
        self.calls.iter().all(|call| {
            let up = call.up.unwrap_or(Mix::CLEAN);
            call.at.is_usable(self.prediction) && (up.signal + up.noise).is_finite()
        })
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
        let Call { at, below, up } = self.calls[call];
        for ((picture, x), m) in original.iter_mut().zip(&mut *latents).zip(&*model) {
            *picture = at.picture(self.prediction, *x, *m);
            *x = below.signal * *picture + below.noise * at.epsilon(self.prediction, *x, *m);
        }
        if let Some(up) = up {
            random.fill_normal(scratch);
            for (x, noise) in latents.iter_mut().zip(&*scratch) {
                *x = up.signal * *x + up.noise * noise;
            }
        }
    }
}
