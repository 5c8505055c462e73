//! Euler's method over noise levels (Karras et al. 2022, arXiv 2206.00364, algorithm 2 without churn): diffusers'
//! `EulerDiscreteScheduler`.
//!
//! diffusers' pipelines never churn, so no noise is drawn after the first. Shares its noise levels with Euler ancestral.

use super::alphas;
use super::config::{FinalSigma, Levels, Prediction, Spacing, read_final_sigma, read_levels};
use super::karras::{interpolate, sigma_to_t, spread};
use super::keys::Keys;
use super::sampler::{Built, Plan};
use super::solver::{Solve, Step};
use super::spacing::Grid;
use crate::Error;

/// How noise levels between training timesteps are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interpolation {
    Linear,
    LogLinear,
}

/// The keys of this class alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) levels: Levels,
    interpolation: Interpolation,
    final_sigma: FinalSigma,
    sigma_min: Option<f64>,
    sigma_max: Option<f64>,
    continuous: bool,
}

impl Settings {
    pub(super) fn read(keys: &mut Keys<'_>) -> Result<Self, Error> {
        let levels = read_levels(keys)?;
        let interpolation = keys.choice(
            "interpolation_type",
            Interpolation::Linear,
            &[
                ("linear", Interpolation::Linear),
                ("log_linear", Interpolation::LogLinear),
            ],
        )?;
        let continuous = keys.choice(
            "timestep_type",
            false,
            &[("discrete", false), ("continuous", true)],
        )?;
        Ok(Self {
            levels,
            interpolation,
            final_sigma: read_final_sigma(keys)?,
            sigma_min: keys.maybe_number("sigma_min")?,
            sigma_max: keys.maybe_number("sigma_max")?,
            continuous,
        })
    }
}

/// A prediction type over noise levels: how a model output and latents give the picture.
#[derive(Debug, Clone, Copy)]
pub(super) struct Level {
    pub(super) sigma: f32,
    /// Weight of the output for velocities.
    output: f32,
    /// Divisor of the latents for velocities.
    skip: f32,
}

impl Level {
    pub(super) fn of(sigma: f32) -> Self {
        let skip = sigma * sigma + 1.0;
        Self {
            sigma,
            output: -sigma / skip.sqrt(),
            skip,
        }
    }

    pub(super) fn picture(self, prediction: Prediction, latent: f32, model: f32) -> f32 {
        match prediction {
            Prediction::Epsilon => latent - self.sigma * model,
            Prediction::Velocity => model * self.output + latent / self.skip,
            Prediction::Sample => model,
        }
    }
}

/// The divisor of the model's input at a noise level.
pub(super) fn divisor(sigma: f32) -> f32 {
    (sigma * sigma + 1.0).sqrt()
}

/// Deviation of the initial noise: the largest noise level, or with "leading", which does not start at it, a little more.
pub(super) fn initial_deviation(sigmas: &[f32], spacing: Spacing) -> f32 {
    let max = sigmas.iter().copied().fold(0.0, f32::max);
    match spacing {
        Spacing::Linspace | Spacing::Trailing => max,
        Spacing::Leading => (max * max + 1.0).sqrt(),
    }
}

#[derive(Debug)]
struct Call {
    level: Level,
    dt: f32,
}

#[derive(Debug)]
pub(crate) struct Solver {
    prediction: Prediction,
    calls: Vec<Call>,
}

/// Computes the noise levels, the timesteps and all coefficients.
pub(super) fn build(plan: &Plan<'_>, settings: Settings) -> Built {
    let (_, table) = alphas::noise_levels(plan.training);
    let grid = Grid {
        train: plan.train,
        steps: plan.steps,
        offset: plan.steps_offset,
    };
    let mut timesteps: Vec<f64> = grid
        .falling(plan.spacing, false)
        .into_iter()
        .map(|t| f64::from(t as f32))
        .collect();
    let mut levels: Vec<f64> = match settings.interpolation {
        Interpolation::Linear => timesteps.iter().map(|t| interpolate(&table, *t)).collect(),
        Interpolation::LogLinear => {
            // One level more than steps: diffusers' last step ends on the smallest level, not on zero.
            let (max, min) = (table[table.len() - 1].ln(), table[0].ln());
            alphas::linspace(max, min, plan.steps + 1)
                .into_iter()
                .map(|log| f64::from(log.exp()))
                .collect()
        }
    };
    if settings.levels != Levels::Timesteps {
        let logs: Vec<f32> = table.iter().map(|sigma| sigma.ln()).collect();
        let max = settings.sigma_max.unwrap_or(levels[0]);
        let min = settings.sigma_min.unwrap_or(levels[levels.len() - 1]);
        levels = spread(settings.levels, max, min, plan.steps);
        timesteps = levels.iter().map(|sigma| sigma_to_t(*sigma, &logs)).collect();
    }
    let mut sigmas: Vec<f32> = levels.iter().map(|sigma| *sigma as f32).collect();
    sigmas.push(match settings.final_sigma {
        FinalSigma::Zero => 0.0,
        FinalSigma::SigmaMin => table[0],
    });
    if settings.continuous && plan.prediction == Prediction::Velocity {
        timesteps = sigmas[..plan.steps]
            .iter()
            .map(|sigma| f64::from(0.25 * sigma.ln()))
            .collect();
    }
    let call = |pair: &[f32]| Call {
        level: Level::of(pair[0]),
        dt: pair[1] - pair[0],
    };
    let calls = sigmas.windows(2).take(plan.steps).map(call).collect();
    Built {
        timesteps: timesteps.into_iter().map(|t| t as f32).collect(),
        divisors: sigmas[..plan.steps].iter().map(|sigma| divisor(*sigma)).collect(),
        initial_deviation: initial_deviation(&sigmas, plan.spacing),
        sigmas,
        solver: super::Solver::Euler(Solver {
            prediction: plan.prediction,
            calls,
        }),
    }
}

impl Solve for Solver {
    fn slots(&self) -> usize {
        0
    }

    fn is_finite(&self) -> bool {
        self.calls
            .iter()
            .all(|call| (call.dt / call.level.sigma).is_finite())
    }

    fn step(&self, step: Step<'_>) {
        let Step {
            call,
            model,
            latents,
            original,
            ..
        } = step;
        let Call { level, dt } = &self.calls[call];
        for ((x, m), picture) in latents.iter_mut().zip(&*model).zip(original) {
            *picture = level.picture(self.prediction, *x, *m);
            let derivative = (*x - *picture) / level.sigma;
            *x += derivative * dt;
        }
    }
}
