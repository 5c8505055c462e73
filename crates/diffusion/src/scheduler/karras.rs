//! Noise levels spread by a formula instead of by timesteps, and the way back from a noise level to a timestep.
//!
//! All in f64 over f32 tables, as numpy computes it in diffusers.

use super::config::Levels;
use super::spacing::linspace;

/// Exponent of Karras et al. 2022, equation 5; the value of the paper.
const RHO: f64 = 7.0;

/// Spreads `n` noise levels from `max` down to `min`.
pub(super) fn spread(levels: Levels, max: f64, min: f64, n: usize) -> Vec<f64> {
    match levels {
        Levels::Karras => {
            let (max, min) = (max.powf(1.0 / RHO), min.powf(1.0 / RHO));
            linspace(0.0, 1.0, n)
                .into_iter()
                .map(|ramp| (max + ramp * (min - max)).powf(RHO))
                .collect()
        }
        Levels::Exponential => linspace(max.ln(), min.ln(), n)
            .into_iter()
            .map(f64::exp)
            .collect(),
        // The same line in log-SNR; diffusers writes it as Karras' formula with rho = 1.
        Levels::Lu | Levels::Timesteps => {
            let (max, min) = (max.ln(), min.ln());
            linspace(0.0, 1.0, n)
                .into_iter()
                .map(|ramp| (max + ramp * (min - max)).exp())
                .collect()
        }
    }
}

/// diffusers' `_sigma_to_t`: the timestep, between two training timesteps, whose noise level is `sigma`.
pub(super) fn sigma_to_t(sigma: f64, log_sigmas: &[f32]) -> f64 {
    // One timestep of training: there is nothing to interpolate.
    let Some(last_pair) = log_sigmas.len().checked_sub(2) else {
        return 0.0;
    };
    let log_sigma = sigma.max(1e-10).ln();
    let low_index = log_sigmas
        .iter()
        .rposition(|level| log_sigma - f64::from(*level) >= 0.0)
        .unwrap_or(0)
        .min(last_pair);
    let (low, high) = (log_sigmas[low_index], log_sigmas[low_index + 1]);
    let weight = ((f64::from(low) - log_sigma) / f64::from(low - high)).clamp(0.0, 1.0);
    (1.0 - weight) * low_index as f64 + weight * (low_index + 1) as f64
}

/// `np.interp` of a table by index, held at both ends.
pub(super) fn interpolate(table: &[f32], at: f64) -> f64 {
    let last = table.len() - 1;
    let at = at.clamp(0.0, last as f64);
    let index = (at as usize).min(last);
    let low = f64::from(table[index]);
    match table.get(index + 1) {
        Some(high) => (f64::from(*high) - low) * (at - index as f64) + low,
        None => low,
    }
}
