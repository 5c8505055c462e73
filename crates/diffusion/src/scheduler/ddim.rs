//! Denoising diffusion implicit models (Song et al. 2020, arXiv 2010.02502): diffusers' `DDIMScheduler`.
//!
//! With eta above 0 each step adds noise, drawn after the step's own arithmetic, as in diffusers.

use super::Prediction;
use super::keys::Keys;
use super::sampler::{Built, Plan};
use super::solver::{Mix, Solve, Step};
use super::threshold::Threshold;
use crate::Error;

/// The keys of this class alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    set_alpha_to_one: bool,
    threshold: Threshold,
}

impl Settings {
    pub(super) fn read(keys: &mut Keys<'_>) -> Result<Self, Error> {
        let set_alpha_to_one = keys.flag("set_alpha_to_one", true)?;
        let threshold = Threshold::read_or_clip(keys, true)?;
        Ok(Self {
            set_alpha_to_one,
            threshold,
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct Call {
    at: Mix,
    alpha_to: f32,
    variance: f32,
}

#[derive(Debug)]
pub(crate) struct Solver {
    prediction: Prediction,
    threshold: Threshold,
    calls: Vec<Call>,
}

/// Computes the timesteps and all coefficients.
pub(super) fn build(plan: &Plan<'_>, settings: Settings) -> Result<Built, Error> {
    let timesteps: Vec<f32> = plan
        .grid()
        .falling(plan.spacing, true)
        .into_iter()
        .map(|t| t as f32)
        .collect();
    let range = plan.range(&timesteps)?;
    let alphas = plan.training.alphas_cumprod();
    let last = if settings.set_alpha_to_one { 1.0 } else { alphas[0] };
    let ratio = plan.train / plan.steps;
    let calls = timesteps[range.clone()]
        .iter()
        .map(|t| {
            let t = *t as usize;
            let alpha = *alphas.get(t)?;
            let alpha_to = t.checked_sub(ratio).map_or(last, |to| alphas[to]);
            let variance = (1.0 - alpha_to) / (1.0 - alpha) * (1.0 - alpha / alpha_to);
            Some(Call {
                at: Mix::of_alpha(alpha),
                alpha_to,
                variance,
            })
        })
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| plan.bad_steps("a timestep lies beyond num_train_timesteps"))?;
    let solver = Solver {
        prediction: plan.prediction,
        threshold: settings.threshold,
        calls,
    };
    Ok(Built::plain(range, timesteps, &alphas, Box::new(solver)))
}

impl Solve for Solver {
    fn slots(&self) -> usize {
        0
    }

    fn is_finite(&self) -> bool {
        self.calls
            .iter()
            .all(|call| call.at.is_usable(self.prediction) && call.variance.is_finite())
    }

    fn step(&self, step: Step<'_>) {
        let Step {
            call,
            model,
            latents,
            original,
            scratch,
            random,
            options,
            ..
        } = step;
        let eta = options.eta.unwrap_or(0.0);
        let Call {
            at,
            alpha_to,
            variance,
        } = self.calls[call];
        for ((picture, x), m) in original.iter_mut().zip(&*latents).zip(&mut *model) {
            *picture = at.picture(self.prediction, *x, *m);
            *m = at.epsilon(self.prediction, *x, *m);
        }
        self.threshold.apply(original, scratch);
        let deviation = if eta > 0.0 { eta * variance.sqrt() } else { 0.0 };
        let direction = (1.0 - alpha_to - deviation * deviation).sqrt();
        let signal = alpha_to.sqrt();
        for ((x, picture), epsilon) in latents.iter_mut().zip(&*original).zip(&*model) {
            *x = signal * picture + direction * epsilon;
        }
        if eta > 0.0 {
            random.fill_normal(scratch);
            for (x, noise) in latents.iter_mut().zip(&*scratch) {
                *x += deviation * noise;
            }
        }
    }
}
