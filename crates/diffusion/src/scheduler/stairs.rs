//! Timesteps and noise levels as DPM-Solver singlestep, DEIS and UniPC lay them: like those of DPM-Solver multistep, each with its
//! own rule for what follows the last level.

use super::Prediction;
use super::alphas::noise_levels;
use super::keys::Keys;
use super::levels::{Bounds, Levels, interpolate, sigma_to_t, spread};
use super::sampler::Plan;
use super::solver::Mix;
use crate::Error;

/// Bounds of the levels that are spread by a formula, where a configuration has them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shape {
    min: Option<f64>,
    max: Option<f64>,
}

impl Shape {
    /// Reads them. Only UniPC has keys for the bounds, but diffusers takes them for all three where a configuration carries them.
    pub(super) fn read(keys: &mut Keys<'_>) -> Result<Self, Error> {
        Ok(Self {
            min: keys.maybe_number("sigma_min")?,
            max: keys.maybe_number("sigma_max")?,
        })
    }
}

/// One timestep and one noise level for each step, before they are rounded to f32 and the last level is appended.
#[derive(Debug)]
pub(super) struct Stairs {
    timesteps: Vec<f64>,
    sigmas: Vec<f64>,
    /// The smallest noise level of training.
    smallest: f32,
}

/// What follows the last level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    Zero,
    /// The smallest noise level of training.
    Smallest,
    /// The smallest of training after levels that lie by timestep; else the last level once more.
    Repeat,
}

/// The lists that [`Built`](super::sampler::Built) wants.
#[derive(Debug)]
pub(super) struct Lists {
    pub(super) timesteps: Vec<f32>,
    pub(super) sigmas: Vec<f32>,
    /// Weights of picture and noise at each level, the last included.
    pub(super) points: Vec<Mix>,
}

impl Stairs {
    /// Lays the steps of `plan`; `last` training timesteps are used, and `flow` are the levels where they are those of flow matching.
    pub(super) fn new(plan: &Plan<'_>, shape: Shape, last: usize, flow: impl FnOnce() -> Vec<f64>) -> Self {
        let (_, table) = noise_levels(plan.training);
        let (timesteps, sigmas) = match plan.levels {
            Levels::Timesteps => {
                let timesteps = plan.grid().falling_above_lowest(plan.spacing, last);
                let sigmas = timesteps.iter().map(|t| interpolate(&table, *t)).collect();
                (timesteps, sigmas)
            }
            Levels::Flow => {
                let sigmas = flow();
                let timesteps = sigmas.iter().map(|sigma| sigma * plan.train as f64).collect();
                (timesteps, sigmas)
            }
            Levels::Karras
            | Levels::Exponential
            | Levels::Beta
            | Levels::Lu
            | Levels::Simple
            | Levels::Ays
            | Levels::AysXl
            | Levels::KlOptimal => {
                let whole = Bounds::whole(&table);
                let bounds = Bounds {
                    max: shape.max.unwrap_or(whole.max),
                    min: shape.min.unwrap_or(whole.min),
                    ..whole
                };
                let logs: Vec<f32> = table.iter().map(|sigma| sigma.ln()).collect();
                let sigmas = spread(plan.levels, bounds, plan.steps);
                let exact = matches!(plan.levels, Levels::Exponential | Levels::Beta);
                let timestep = |sigma: &f64| {
                    let t = sigma_to_t(*sigma, &logs);
                    if exact { t } else { t.round_ties_even() }
                };
                (sigmas.iter().map(timestep).collect(), sigmas)
            }
        };
        Self {
            timesteps,
            sigmas,
            smallest: table[0],
        }
    }

    /// Puts Karras levels on flow matching's scale, from 0 to 1 (UniPC).
    pub(super) fn squeeze(&mut self, train: usize) {
        for (sigma, t) in self.sigmas.iter_mut().zip(&mut self.timesteps) {
            *sigma /= *sigma + 1.0;
            *t = *sigma * train as f64;
        }
    }

    /// Rounds as diffusers does, and appends the last level.
    pub(super) fn lists(self, plan: &Plan<'_>, last: Last) -> Lists {
        let mut sigmas: Vec<f32> = self.sigmas.iter().map(|sigma| *sigma as f32).collect();
        let by_formula = matches!(
            plan.levels,
            Levels::Karras | Levels::Exponential | Levels::Beta | Levels::Flow
        );
        sigmas.push(match (last, sigmas.last()) {
            (Last::Zero, _) => 0.0,
            (Last::Repeat, Some(sigma)) if by_formula => *sigma,
            (Last::Repeat | Last::Smallest, _) => self.smallest,
        });
        let point = |sigma: &f32| {
            if plan.flow.on {
                Mix::of_flow(*sigma)
            } else {
                Mix::of_sigma(*sigma)
            }
        };
        Lists {
            timesteps: self.timesteps.iter().map(|t| t.trunc() as f32).collect(),
            points: sigmas.iter().map(point).collect(),
            sigmas,
        }
    }
}

/// Refuses what diffusers computes for these classes without meaning.
pub(super) fn check(plan: &Plan<'_>, karras_works: bool) -> Result<(), Error> {
    if plan.prediction == Prediction::Flow && !plan.flow.on {
        return Err(plan.incompatible(
            "prediction_type",
            "flow_prediction",
            "it needs use_flow_sigmas in the model's configuration",
        ));
    }
    let works = plan.levels == Levels::Flow || (karras_works && plan.levels == Levels::Karras);
    if plan.flow.on && !works {
        return Err(plan.incompatible(
            "use_flow_sigmas",
            "true",
            "this spreading of noise levels is not on flow matching's scale from 0 to 1",
        ));
    }
    Ok(())
}

/// Half the log-SNR, in f32 as torch computes it.
pub(super) fn lambda(point: Mix) -> f32 {
    point.signal.ln() - point.noise.ln()
}
