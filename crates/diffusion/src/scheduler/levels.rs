//! Noise levels spread by a formula instead of by timesteps, and the ways between noise levels and timesteps.
//!
//! All in f64 over f32 tables, as numpy computes it in diffusers. One place for every class that has noise levels. Invariant:
//! [`spread`] gives as many levels as steps, falling, the last of them above 0.

use super::beta::quantile;
use super::schedule::Schedule;
use super::spacing::linspace;

/// How noise levels are spread between the largest and the smallest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Levels {
    /// As the timesteps lie.
    Timesteps,
    Karras,
    Exponential,
    Beta,
    /// Uniform in log-SNR (Lu et al. 2022, arXiv 2206.00927).
    Lu,
    /// Evenly between 1 and 0, shifted: flow matching. Its levels are those of [`flow`].
    Flow,
    Simple,
    Ays,
    AysXl,
    KlOptimal,
}

impl Levels {
    /// The schedule that a request names for it.
    pub(super) fn schedule(self) -> Option<Schedule> {
        match self {
            Self::Timesteps | Self::Flow => None,
            Self::Karras => Some(Schedule::Karras),
            Self::Exponential => Some(Schedule::Exponential),
            Self::Beta => Some(Schedule::Beta),
            Self::Lu => Some(Schedule::Lu),
            Self::Simple => Some(Schedule::Simple),
            Self::Ays => Some(Schedule::Ays),
            Self::AysXl => Some(Schedule::AysXl),
            Self::KlOptimal => Some(Schedule::KlOptimal),
        }
    }

    /// The spreading of a schedule that no class has as a key of its configuration.
    pub(super) fn of_request(schedule: Schedule) -> Option<Self> {
        match schedule {
            Schedule::Simple => Some(Self::Simple),
            Schedule::Ays => Some(Self::Ays),
            Schedule::AysXl => Some(Self::AysXl),
            Schedule::KlOptimal => Some(Self::KlOptimal),
            Schedule::Karras
            | Schedule::Exponential
            | Schedule::Beta
            | Schedule::Lu
            | Schedule::SgmUniform
            | Schedule::Normal
            | Schedule::DdimUniform => None,
        }
    }
}

/// Exponent of Karras et al. 2022, equation 5; the value of the paper.
pub(super) const RHO: f64 = 7.0;

/// Align Your Steps (Sabour et al. 2024): ten steps of Stable Diffusion 1.5, with the level after the last that interpolation needs.
const AYS: [f64; 11] = [
    14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029,
];
/// The same of Stable Diffusion XL.
const AYS_XL: [f64; 11] = [
    14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029,
];

/// What noise levels are spread over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds<'a> {
    /// The noise level of each training timestep, rising.
    pub(super) table: &'a [f32],
    /// Largest level of Karras, exponential, beta and Lu.
    pub(super) max: f64,
    /// Smallest level of these.
    pub(super) min: f64,
}

impl<'a> Bounds<'a> {
    /// Over the whole table.
    pub(super) fn whole(table: &'a [f32]) -> Self {
        Self {
            table,
            max: f64::from(table[table.len() - 1]),
            min: f64::from(table[0]),
        }
    }
}

/// Spreads `n` noise levels, the largest first.
pub(super) fn spread(levels: Levels, bounds: Bounds<'_>, n: usize) -> Vec<f64> {
    let Bounds { table, max, min } = bounds;
    match levels {
        Levels::Karras => karras(max, min, RHO, n),
        Levels::Exponential => linspace(max.ln(), min.ln(), n)
            .into_iter()
            .map(f64::exp)
            .collect(),
        Levels::Beta => linspace(0.0, 1.0, n)
            .into_iter()
            .map(|ramp| min + quantile(1.0 - ramp) * (max - min))
            .collect(),
        // The same line in log-SNR as the exponential one; diffusers writes it as Karras' formula with rho = 1. The other two are
        // never spread.
        Levels::Lu | Levels::Timesteps | Levels::Flow => {
            let (max, min) = (max.ln(), min.ln());
            linspace(0.0, 1.0, n)
                .into_iter()
                .map(|ramp| (max + ramp * (min - max)).exp())
                .collect()
        }
        Levels::Simple => (0..n)
            .map(|i| f64::from(table[table.len() - 1 - i * table.len() / n]))
            .collect(),
        Levels::Ays => log_linear(&AYS, n),
        Levels::AysXl => log_linear(&AYS_XL, n),
        Levels::KlOptimal => {
            let (max, min) = (
                f64::from(table[table.len() - 1]).atan(),
                f64::from(table[0]).atan(),
            );
            linspace(0.0, 1.0, n)
                .into_iter()
                .map(|ramp| (ramp * min + (1.0 - ramp) * max).tan())
                .collect()
        }
    }
}

/// Karras et al. 2022, equation 5.
pub(super) fn karras(max: f64, min: f64, rho: f64, n: usize) -> Vec<f64> {
    let (max, min) = (max.powf(1.0 / rho), min.powf(1.0 / rho));
    linspace(0.0, 1.0, n)
        .into_iter()
        .map(|ramp| (max + ramp * (min - max)).powf(rho))
        .collect()
}

/// A table of levels at another number of steps: straight lines in the logarithm, the last point being the end of the last step.
fn log_linear(table: &[f64], n: usize) -> Vec<f64> {
    let last = table.len() - 1;
    (0..n)
        .map(|i| {
            let (index, rest) = (i * last / n, i * last % n);
            let (from, to) = (table[index].ln(), table[(index + 1).min(last)].ln());
            (from + (to - from) * rest as f64 / n as f64).exp()
        })
        .collect()
}

/// The noise levels of flow matching in DPM-Solver and its relatives: `n` from the largest down, shifted (Esser et al. 2024, arXiv
/// 2403.03206, equation 23). Times `train` they are the timesteps.
pub(super) fn flow(train: usize, shift: f64, n: usize) -> Vec<f64> {
    let mut levels: Vec<f64> = linspace(1.0, 1.0 / train as f64, n + 1)
        .into_iter()
        .map(|alpha| 1.0 - alpha)
        .map(|sigma| shift * sigma / (1.0 + (shift - 1.0) * sigma))
        .collect();
    levels.reverse();
    levels.truncate(n);
    levels
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_steps_of_align_your_steps_are_its_table() {
        for (levels, table) in [(Levels::Ays, AYS), (Levels::AysXl, AYS_XL)] {
            let spread = spread(levels, Bounds::whole(&[0.03, 14.6]), 10);
            for (got, expected) in spread.iter().zip(table) {
                assert!((got - expected).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn levels_fall_and_stay_above_zero() {
        let table: Vec<f32> = (0..1000).map(|i| 0.03 * 1.0062_f32.powi(i)).collect();
        for levels in [
            Levels::Karras,
            Levels::Exponential,
            Levels::Beta,
            Levels::Lu,
            Levels::Simple,
            Levels::Ays,
            Levels::AysXl,
            Levels::KlOptimal,
        ] {
            for n in [1, 2, 3, 10, 11, 37, 999, 1000] {
                let levels = spread(levels, Bounds::whole(&table), n);
                assert_eq!(levels.len(), n);
                assert!(levels.windows(2).all(|pair| pair[0] > pair[1]), "{levels:?}");
                assert!(levels.iter().all(|level| *level > 0.0), "{levels:?}");
            }
        }
        let flow = flow(1000, 3.0, 20);
        assert!(flow.len() == 20 && flow.windows(2).all(|pair| pair[0] > pair[1]));
    }
}
