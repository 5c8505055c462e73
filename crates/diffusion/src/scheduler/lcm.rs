//! Latent consistency models (Luo et al. 2023, arXiv 2310.04378): diffusers' `LCMScheduler`.
//!
//! Each step predicts the picture and noises it again for the next; the last does not. Image to image shortens the list of known
//! timesteps before steps are taken from it, as LatentConsistencyModelImg2ImgPipeline does ([`Span::Consistency`]); diffusers' other
//! pipelines cut the steps as with any scheduler.

use super::distilled::{read_original_steps, timesteps};
use super::keys::Keys;
use super::sampler::{Built, Plan};
use super::solver::{Mix, Solve, Step};
use super::threshold::Threshold;
use super::{Prediction, Span};
use crate::Error;

/// The keys of this class alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    original_steps: usize,
    timestep_scaling: f64,
    threshold: Threshold,
}

impl Settings {
    pub(super) fn read(keys: &mut Keys<'_>) -> Result<Self, Error> {
        // It says what comes after the last timestep, where this class never goes: diffusers reads it and makes no use of it.
        keys.flag("set_alpha_to_one", true)?;
        Ok(Self {
            original_steps: read_original_steps(keys)?,
            timestep_scaling: keys.number("timestep_scaling", 10.0, (0.0, 1e6))?,
            threshold: Threshold::read_or_clip(keys, false)?,
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct Call {
    at: Mix,
    /// Weight of the latents in the boundary condition.
    skip: f32,
    /// Weight of the predicted picture in it.
    out: f32,
    /// How the result is noised for the next call; the last is not.
    next: Option<Mix>,
}

#[derive(Debug)]
pub(crate) struct Solver {
    prediction: Prediction,
    threshold: Threshold,
    calls: Vec<Call>,
}

/// Computes the timesteps and all coefficients.
pub(super) fn build(plan: &Plan<'_>, settings: Settings) -> Result<Built, Error> {
    let strength = match plan.span {
        Span::Consistency(strength) => strength,
        Span::Whole | Span::Strength(_) | Span::Part { .. } => 1.0,
    };
    let known = timesteps(plan, settings.original_steps, strength)?;
    let timesteps: Vec<f32> = known.iter().map(|t| *t as f32).collect();
    let range = match plan.span {
        Span::Consistency(_) => 0..known.len(),
        Span::Whole | Span::Strength(_) | Span::Part { .. } => plan.range(&timesteps)?,
    };
    let alphas = plan.training.alphas_cumprod();
    let call = |i: usize| {
        let (skip, out) = boundary(known[i], settings.timestep_scaling);
        Call {
            at: Mix::of_alpha(alphas[known[i]]),
            skip,
            out,
            next: known.get(i + 1).map(|t| Mix::of_alpha(alphas[*t])),
        }
    };
    let solver = Solver {
        prediction: plan.prediction,
        threshold: settings.threshold,
        calls: range.clone().map(call).collect(),
    };
    Ok(Built::plain(range, timesteps, &alphas, Box::new(solver)))
}

/// Weights of latents and picture that make timestep 0 its own prediction (Song et al. 2023, arXiv 2303.01469, section 3).
fn boundary(t: usize, scaling: f64) -> (f32, f32) {
    const DATA_DEVIATION: f32 = 0.5;
    let scaled = t as f32 * scaling as f32;
    let data = DATA_DEVIATION * DATA_DEVIATION;
    let sum = scaled * scaled + data;
    (data / sum, scaled / sum.sqrt())
}

impl Solve for Solver {
    fn slots(&self) -> usize {
        0
    }

    fn is_finite(&self) -> bool {
        self.calls
            .iter()
            .all(|call| call.at.is_usable(self.prediction) && (call.skip + call.out).is_finite())
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
        let Call { at, skip, out, next } = self.calls[call];
        at.pictures(self.prediction, original, latents, model);
        self.threshold.apply(original, scratch);
        for (picture, x) in original.iter_mut().zip(&mut *latents) {
            *picture = out * *picture + skip * *x;
            *x = *picture;
        }
        if let Some(next) = next {
            random.fill_normal(scratch);
            for (x, noise) in latents.iter_mut().zip(&*scratch) {
                *x = next.signal * *x + next.noise * noise;
            }
        }
    }
}
