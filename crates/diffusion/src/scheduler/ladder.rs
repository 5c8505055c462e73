//! Timesteps and noise levels as the classes made after k-diffusion lay them: LMS, Euler, Euler ancestral, Heun, KDPM2, DPM++ SDE.

use super::alphas::{self, noise_levels};
use super::keys::Keys;
use super::levels::{Bounds, Levels, interpolate, sigma_to_t, spread};
use super::sampler::Plan;
use crate::Error;

/// One timestep and one noise level for each step, before they are rounded to f32 and the last level is appended.
#[derive(Debug)]
pub(super) struct Ladder {
    pub(super) timesteps: Vec<f64>,
    pub(super) sigmas: Vec<f64>,
    /// The noise level of each training timestep.
    pub(super) table: Vec<f32>,
    /// Logarithms of `table`, for [`sigma_to_t`].
    pub(super) logs: Vec<f32>,
}

/// What only some of the classes can change.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shape {
    /// Timesteps are not rounded to f32 before their noise levels are looked up (DPM-Solver SDE).
    pub(super) double: bool,
    /// Levels between training timesteps lie evenly in the logarithm and not by timestep.
    pub(super) log_linear: bool,
    pub(super) min: Option<f64>,
    pub(super) max: Option<f64>,
}

impl Shape {
    /// The bounds of noise levels in a configuration of Euler or UniPC. The other classes have no such keys, but diffusers takes
    /// them, where a configuration carries them along, for Karras, exponential and beta levels.
    pub(super) fn carried(keys: &mut Keys<'_>) -> Result<Self, Error> {
        Ok(Self {
            min: keys.maybe_number("sigma_min")?,
            max: keys.maybe_number("sigma_max")?,
            ..Self::default()
        })
    }
}

impl Ladder {
    /// Lays the steps of `plan`.
    pub(super) fn new(plan: &Plan<'_>, shape: Shape) -> Self {
        let (_, table) = noise_levels(plan.training);
        let logs: Vec<f32> = table.iter().map(|sigma| sigma.ln()).collect();
        let mut timesteps: Vec<f64> = plan
            .grid()
            .falling(plan.spacing, false)
            .into_iter()
            .map(|t| if shape.double { t } else { f64::from(t as f32) })
            .collect();
        let mut sigmas: Vec<f64> = if shape.log_linear {
            // One level more than steps: diffusers' last step ends on the smallest level, not on zero.
            let (max, min) = (logs[logs.len() - 1], logs[0]);
            alphas::linspace(max, min, plan.steps + 1)
                .into_iter()
                .map(|log| f64::from(log.exp()))
                .collect()
        } else {
            timesteps.iter().map(|t| interpolate(&table, *t)).collect()
        };
        if plan.levels != Levels::Timesteps {
            let bounds = Bounds {
                table: &table,
                max: shape.max.unwrap_or(sigmas[0]),
                min: shape.min.unwrap_or(sigmas[sigmas.len() - 1]),
            };
            sigmas = spread(plan.levels, bounds, plan.steps);
            timesteps = sigmas.iter().map(|sigma| sigma_to_t(*sigma, &logs)).collect();
        }
        Self {
            timesteps,
            sigmas,
            table,
            logs,
        }
    }
}
