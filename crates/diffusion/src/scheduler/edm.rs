//! Euler's method of Karras et al. 2022 (arXiv 2206.00364, algorithm 2) with that paper's own preconditioning: diffusers'
//! `EDMEulerScheduler`.
//!
//! Only for models that were trained with this preconditioning; [`Config`](super::Config) refuses it to others.

use super::Prediction;
use super::alphas::linspace;
use super::euler::Churn;
use super::keys::Keys;
use super::levels::{Levels, RHO, karras};
use super::sampler::{Built, Plan};
use super::settings::{FinalSigma, read_final_sigma};
use super::solver::{Mix, Solve, Step};
use crate::Error;

/// The keys of this class alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    sigma_min: f64,
    sigma_max: f64,
    sigma_data: f64,
    rho: f64,
    pub(super) levels: Levels,
    final_sigma: FinalSigma,
}

impl Settings {
    pub(super) fn read(keys: &mut Keys<'_>) -> Result<Self, Error> {
        const LEVEL: (f64, f64) = (1e-6, 1e6);
        Ok(Self {
            sigma_min: keys.number("sigma_min", 0.002, LEVEL)?,
            sigma_max: keys.number("sigma_max", 80.0, LEVEL)?,
            sigma_data: keys.number("sigma_data", 0.5, LEVEL)?,
            rho: keys.number("rho", RHO, (0.1, 100.0))?,
            levels: keys.choice(
                "sigma_schedule",
                Levels::Karras,
                &[("karras", Levels::Karras), ("exponential", Levels::Exponential)],
            )?,
            final_sigma: read_final_sigma(keys)?,
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct Call {
    churn: Churn,
    /// Weight of the latents in the picture.
    skip: f32,
    /// Weight of the model's output in it.
    out: f32,
    dt: f32,
}

#[derive(Debug)]
pub(crate) struct Solver {
    calls: Vec<Call>,
}

/// Computes the noise levels, the timesteps and all coefficients.
pub(super) fn build(plan: &Plan<'_>, settings: Settings) -> Result<Built, Error> {
    let mut sigmas = settings.levels(plan.steps);
    sigmas.push(match settings.final_sigma {
        FinalSigma::Zero => 0.0,
        FinalSigma::SigmaMin => sigmas[plan.steps - 1],
    });
    let timesteps: Vec<f32> = sigmas[..plan.steps]
        .iter()
        .map(|sigma| 0.25 * sigma.ln())
        .collect();
    let range = plan.range(&timesteps)?;
    let data = settings.sigma_data as f32;
    let spread = |sigma: f32| (sigma * sigma + data * data).sqrt();
    let call = |i: usize| {
        let churn = Churn::new(&plan.options, sigmas[i], plan.steps);
        let level = churn.level;
        let out = level * data / spread(level);
        Call {
            churn,
            skip: data * data / (level * level + data * data),
            out: if plan.prediction == Prediction::Velocity {
                -out
            } else {
                out
            },
            dt: sigmas[i + 1] - level,
        }
    };
    let calls = range.clone().map(call).collect();
    Ok(Built {
        range,
        timesteps,
        divisors: sigmas[..plan.steps].iter().map(|sigma| spread(*sigma)).collect(),
        mixes: sigmas[..plan.steps]
            .iter()
            .map(|sigma| Mix::on_top(*sigma))
            .collect(),
        initial_deviation: (settings.sigma_max * settings.sigma_max + 1.0).sqrt() as f32,
        sigmas,
        solver: Box::new(Solver { calls }),
    })
}

impl Settings {
    /// The noise levels of `n` steps.
    fn levels(&self, n: usize) -> Vec<f32> {
        if self.levels == Levels::Exponential {
            // In f32 and from the smallest, as torch does here.
            let (min, max) = (self.sigma_min.ln() as f32, self.sigma_max.ln() as f32);
            let mut levels: Vec<f32> = linspace(min, max, n).into_iter().map(f32::exp).collect();
            levels.reverse();
            return levels;
        }
        karras(self.sigma_max, self.sigma_min, self.rho, n)
            .into_iter()
            .map(|sigma| sigma as f32)
            .collect()
    }
}

impl Solve for Solver {
    fn slots(&self) -> usize {
        0
    }

    fn is_finite(&self) -> bool {
        self.calls
            .iter()
            .all(|call| (call.skip + call.out + call.dt / call.churn.level).is_finite())
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
        let Call { churn, skip, out, dt } = self.calls[call];
        churn.apply(latents, scratch, |noise| random.fill_normal(noise));
        for ((x, m), picture) in latents.iter_mut().zip(&*model).zip(original) {
            *picture = skip * *x + out * m;
            let derivative = (*x - *picture) / churn.level;
            *x += derivative * dt;
        }
    }
}
