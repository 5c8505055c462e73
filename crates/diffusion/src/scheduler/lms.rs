//! Linear multistep over noise levels (K. Crowson's `sample_lms` in k-diffusion): diffusers' `LMSDiscreteScheduler` with its four
//! derivatives.
//!
//! A step integrates the polynomial through the last derivatives. diffusers integrates numerically to 1e-4; here the integral is
//! exact, by Gauss' rule of two points, which polynomials of the third degree leave no error.

use super::Prediction;
use super::euler::{Level, divisor, initial_deviation};
use super::keys::Keys;
use super::ladder::{Ladder, Shape};
use super::levels::Levels;
use super::sampler::{Built, Plan};
use super::solver::{Mix, Solve, Step};
use crate::Error;

/// Derivatives that a step uses (`order` of diffusers' step, which no pipeline changes).
const ORDER: usize = 4;

/// The keys of this class alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    shape: Shape,
}

impl Settings {
    pub(super) fn read(keys: &mut Keys<'_>) -> Result<Self, Error> {
        Ok(Self {
            shape: Shape::carried(keys)?,
        })
    }
}

#[derive(Debug)]
struct Call {
    level: Level,
    /// Weights of the derivatives, newest first; those of derivatives from before the first call are 0.
    weights: [f32; ORDER],
}

#[derive(Debug)]
pub(crate) struct Solver {
    prediction: Prediction,
    calls: Vec<Call>,
}

/// Computes the noise levels, the timesteps and all coefficients.
pub(super) fn build(plan: &Plan<'_>, settings: Settings) -> Result<Built, Error> {
    let mut shape = settings.shape;
    if plan.levels == Levels::Karras {
        // diffusers' LMS takes the bounds of a carried configuration for its other levels only.
        shape = Shape::default();
    }
    let ladder = Ladder::new(plan, shape);
    let mut sigmas: Vec<f32> = ladder.sigmas.iter().map(|sigma| *sigma as f32).collect();
    sigmas.push(0.0);
    let timesteps: Vec<f32> = ladder.timesteps.iter().map(|t| *t as f32).collect();
    let range = plan.range(&timesteps)?;
    let calls = range
        .clone()
        .map(|i| Call {
            level: Level::of(sigmas[i]),
            weights: weights(&sigmas[..i + 2], i - range.start + 1),
        })
        .collect();
    Ok(Built {
        range,
        timesteps,
        divisors: sigmas[..plan.steps].iter().map(|sigma| divisor(*sigma)).collect(),
        mixes: sigmas[..plan.steps]
            .iter()
            .map(|sigma| Mix::on_top(*sigma))
            .collect(),
        initial_deviation: initial_deviation(&sigmas, plan.spacing),
        sigmas,
        solver: Box::new(Solver {
            prediction: plan.prediction,
            calls,
        }),
    })
}

/// Weights of the step to the last of `sigmas` from the one before; of the derivatives, the newest `known` exist.
///
/// diffusers takes the order from the place in the whole schedule, also where a trajectory begins in its middle and lacks the
/// older derivatives; these are then left out of the sum, and the others keep their weights.
fn weights(sigmas: &[f32], known: usize) -> [f32; ORDER] {
    let back = |n: usize| f64::from(sigmas[sigmas.len() - 2 - n]);
    let order = ORDER.min(sigmas.len() - 1);
    let (from, to) = (back(0), f64::from(sigmas[sigmas.len() - 1]));
    let (middle, half) = (f64::midpoint(from, to), (to - from) / 2.0);
    let offset = half / 3.0_f64.sqrt();
    std::array::from_fn(|current| {
        if current >= order.min(known) {
            return 0.0;
        }
        let polynomial = |at: f64| -> f64 {
            let others = (0..order).filter(|other| *other != current);
            others
                .map(|other| (at - back(other)) / (back(current) - back(other)))
                .product()
        };
        (half * (polynomial(middle - offset) + polynomial(middle + offset))) as f32
    })
}

impl Solve for Solver {
    fn slots(&self) -> usize {
        ORDER
    }

    fn is_finite(&self) -> bool {
        self.calls
            .iter()
            .all(|call| call.level.sigma > 0.0 && call.weights.iter().all(|weight| weight.is_finite()))
    }

    fn step(&self, step: Step<'_>) {
        let Step {
            call,
            model,
            latents,
            original,
            slots,
            ..
        } = step;
        let Call { level, weights } = &self.calls[call];
        slots.rotate_right(1);
        level.pictures(self.prediction, original, latents, model);
        for ((derivative, picture), x) in slots[0].iter_mut().zip(&*original).zip(&*latents) {
            *derivative = (*x - *picture) / level.sigma;
        }
        let known = ORDER.min(call + 1);
        for (i, x) in latents.iter_mut().enumerate() {
            let sum: f32 = weights[..known]
                .iter()
                .zip(&*slots)
                .map(|(weight, slot)| weight * slot[i])
                .sum();
            *x += sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_steps_have_the_weights_of_adams_and_bashforth() {
        let weights = weights(&[5.0, 4.0, 3.0, 2.0, 1.0], 4);
        let known = [55.0, -59.0, 37.0, -9.0].map(|weight: f32| -weight / 24.0);
        for (weight, known) in weights.into_iter().zip(known) {
            assert!((weight - known).abs() < 1e-6, "{weights:?}");
        }
    }
}
