//! Denoising diffusion probabilistic models (Ho et al. 2020, arXiv 2006.11239): diffusers' `DDPMScheduler`.
//!
//! Each step draws from the posterior between its timestep and the next. It refuses variances that the model predicts, and
//! "fixed_large_log", of which diffusers takes a root that is not a number.

use super::Prediction;
use super::keys::Keys;
use super::sampler::{Built, Plan};
use super::solver::{Mix, Solve, Step};
use super::threshold::Threshold;
use crate::Error;

/// Which deviation the noise of a step has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variance {
    /// That of the posterior.
    Small,
    /// That of the forward step.
    Large,
}

/// The keys of this class alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    variance: Variance,
    threshold: Threshold,
}

impl Settings {
    pub(super) fn read(keys: &mut Keys<'_>) -> Result<Self, Error> {
        const KEY: &str = "variance_type";
        const KNOWN: [&str; 6] = [
            "fixed_small",
            "fixed_small_log",
            "fixed_large",
            "fixed_large_log",
            "learned",
            "learned_range",
        ];
        let refuse = |word: &str, reason| {
            Err(Error::Unsupported {
                key: KEY,
                value: format!("\"{word}\""),
                reason,
            })
        };
        // Null is what DPM-Solver's configurations carry; diffusers then takes the posterior's as it is.
        let variance = match keys.choice_or_null(KEY, &KNOWN)? {
            Some("fixed_large") => Variance::Large,
            Some(word @ "fixed_large_log") => {
                return refuse(word, "diffusers takes the root of a negative number for it");
            }
            Some(word @ ("learned" | "learned_range")) => {
                return refuse(word, "models that also predict a variance are not served");
            }
            // The logarithm and back: the same number.
            Some(_) | None => Variance::Small,
        };
        Ok(Self {
            variance,
            threshold: Threshold::read_or_clip(keys, true)?,
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct Call {
    at: Mix,
    /// Weight of the predicted picture.
    picture: f32,
    /// Weight of the latents.
    latents: f32,
    /// Deviation of the noise; timestep 0 draws none.
    noise: Option<f32>,
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
    let alpha_at = |i: usize| timesteps.get(i).map(|t| alphas.get(*t as usize).copied());
    let calls = range
        .clone()
        .map(|i| {
            let alpha = alpha_at(i)??;
            // After the last timestep there is only the picture.
            let alpha_to = alpha_at(i + 1).unwrap_or(Some(1.0))?;
            Some(Call::new(settings.variance, timesteps[i] > 0.0, alpha, alpha_to))
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

impl Call {
    /// The posterior between two cumulative alphas, formulas (6) and (7) of the paper.
    fn new(variance: Variance, noisy: bool, alpha: f32, alpha_to: f32) -> Self {
        /// diffusers keeps the variance above 0 by this much.
        const LEAST: f32 = 1e-20;
        let (beta, beta_to) = (1.0 - alpha, 1.0 - alpha_to);
        let step_alpha = alpha / alpha_to;
        let step_beta = 1.0 - step_alpha;
        let small = (beta_to / beta * step_beta).max(LEAST);
        let variance = match variance {
            Variance::Small => small,
            Variance::Large => step_beta,
        };
        Self {
            at: Mix::of_alpha(alpha),
            picture: alpha_to.sqrt() * step_beta / beta,
            latents: step_alpha.sqrt() * beta_to / beta,
            noise: noisy.then(|| variance.sqrt()),
        }
    }
}

impl Solve for Solver {
    fn slots(&self) -> usize {
        0
    }

    fn is_finite(&self) -> bool {
        self.calls.iter().all(|call| {
            let sum = call.picture + call.latents + call.noise.unwrap_or(0.0);
            call.at.is_usable(self.prediction) && sum.is_finite()
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
        let call = self.calls[call];
        call.at.pictures(self.prediction, original, latents, model);
        self.threshold.apply(original, scratch);
        for (x, picture) in latents.iter_mut().zip(&*original) {
            *x = call.picture * picture + call.latents * *x;
        }
        if let Some(deviation) = call.noise {
            random.fill_normal(scratch);
            for (x, noise) in latents.iter_mut().zip(&*scratch) {
                *x += deviation * noise;
            }
        }
    }
}
