//! Euler's method with ancestral sampling (k-diffusion's `sample_euler_ancestral`): diffusers' `EulerAncestralDiscreteScheduler`.
//!
//! Each step goes below the next noise level and adds fresh noise up to it; noise is drawn in every step, the last included.
//! It refuses the prediction type `sample`, as diffusers does.

use super::Prediction;
use super::euler::{Level, divisor, initial_deviation};
use super::ladder::{Ladder, Shape};
use super::sampler::{Built, Plan};
use super::solver::{Mix, Solve, Step};
use crate::Error;

#[derive(Debug)]
struct Call {
    level: Level,
    dt: f32,
    /// Deviation of the noise that is added.
    up: f32,
}

#[derive(Debug)]
pub(crate) struct Solver {
    prediction: Prediction,
    calls: Vec<Call>,
}

/// Computes the noise levels, the timesteps and all coefficients.
pub(super) fn build(plan: &Plan<'_>) -> Result<Built, Error> {
    if plan.prediction == Prediction::Sample {
        return Err(plan.incompatible(
            "prediction_type",
            "sample",
            "diffusers has no Euler ancestral step for it",
        ));
    }
    let ladder = Ladder::new(plan, Shape::default());
    let timesteps: Vec<f32> = ladder.timesteps.iter().map(|t| *t as f32).collect();
    let range = plan.range(&timesteps)?;
    let sigmas: Vec<f32> = ladder
        .sigmas
        .iter()
        .map(|sigma| *sigma as f32)
        .chain([0.0])
        .collect();
    let calls = sigmas[range.start..=range.end]
        .windows(2)
        .map(|pair| call(pair[0], pair[1]))
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

fn call(from: f32, to: f32) -> Call {
    let up = (to * to * (from * from - to * to) / (from * from)).sqrt();
    let down = (to * to - up * up).sqrt();
    Call {
        level: Level::of(from),
        dt: down - from,
        up,
    }
}

impl Solve for Solver {
    fn slots(&self) -> usize {
        0
    }

    fn is_finite(&self) -> bool {
        self.calls
            .iter()
            .all(|call| (call.dt / call.level.sigma + call.up).is_finite())
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
        let Call { level, dt, up } = &self.calls[call];
        random.fill_normal(scratch);
        level.pictures(self.prediction, original, latents, model);
        for ((x, picture), noise) in latents.iter_mut().zip(&*original).zip(&*scratch) {
            let derivative = (*x - *picture) / level.sigma;
            *x = *x + derivative * dt + noise * up;
        }
    }
}
