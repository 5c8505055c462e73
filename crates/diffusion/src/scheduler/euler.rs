//! Euler's method over noise levels (Karras et al. 2022, arXiv 2206.00364, algorithm 2): diffusers' `EulerDiscreteScheduler`.
//!
//! Churn, off unless the request asks for it, first goes back up in noise by fresh noise, drawn only in the steps that do so.

use super::keys::Keys;
use super::ladder::{Ladder, Shape};
use super::sampler::{Built, Plan};
use super::settings::{FinalSigma, read_final_sigma};
use super::solver::{Mix, Solve, Step};
use super::{Options, Prediction};
use crate::Error;
use crate::scheduler::class::Spacing;

/// The keys of this class alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    shape: Shape,
    final_sigma: FinalSigma,
    continuous: bool,
}

impl Settings {
    pub(super) fn read(keys: &mut Keys<'_>) -> Result<Self, Error> {
        let log_linear = keys.choice(
            "interpolation_type",
            false,
            &[("linear", false), ("log_linear", true)],
        )?;
        let continuous = keys.choice(
            "timestep_type",
            false,
            &[("discrete", false), ("continuous", true)],
        )?;
        Ok(Self {
            shape: Shape {
                log_linear,
                ..Shape::carried(keys)?
            },
            final_sigma: read_final_sigma(keys)?,
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
            Prediction::Epsilon | Prediction::Flow => latent - self.sigma * model,
            Prediction::Velocity => model * self.output + latent / self.skip,
            Prediction::Sample => model,
        }
    }

    /// The pictures that a whole model output means.
    pub(super) fn pictures(
        self,
        prediction: Prediction,
        pictures: &mut [f32],
        latents: &[f32],
        model: &[f32],
    ) {
        for ((picture, x), m) in pictures.iter_mut().zip(latents).zip(model) {
            *picture = self.picture(prediction, *x, *m);
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

/// How far a step goes back up in noise first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Churn {
    /// The noise level it steps from.
    pub(super) level: f32,
    /// Weight of the fresh noise; 0 where none is drawn.
    pub(super) noise: f32,
}

impl Churn {
    /// Between `sigma` and the next level, in a schedule of `steps`.
    pub(super) fn new(options: &Options, sigma: f32, steps: usize) -> Self {
        let inside = (options.s_tmin..=options.s_tmax).contains(&sigma);
        let most = std::f64::consts::SQRT_2 - 1.0;
        let gamma = (f64::from(options.s_churn) / steps as f64).min(most) as f32;
        if !inside || gamma <= 0.0 {
            return Self {
                level: sigma,
                noise: 0.0,
            };
        }
        let level = sigma * (gamma + 1.0);
        Self {
            level,
            noise: options.s_noise * (level * level - sigma * sigma).sqrt(),
        }
    }

    /// Adds the noise; draws none without churn.
    pub(super) fn apply(self, latents: &mut [f32], scratch: &mut [f32], draw: impl FnOnce(&mut [f32])) {
        if self.noise > 0.0 {
            draw(scratch);
            for (x, noise) in latents.iter_mut().zip(&*scratch) {
                *x += noise * self.noise;
            }
        }
    }
}

#[derive(Debug)]
struct Call {
    churn: Churn,
    level: Level,
    dt: f32,
}

#[derive(Debug)]
pub(crate) struct Solver {
    prediction: Prediction,
    calls: Vec<Call>,
}

/// Computes the noise levels, the timesteps and all coefficients.
pub(super) fn build(plan: &Plan<'_>, settings: Settings) -> Result<Built, Error> {
    let ladder = Ladder::new(plan, settings.shape);
    let mut sigmas: Vec<f32> = ladder.sigmas.iter().map(|sigma| *sigma as f32).collect();
    sigmas.push(match settings.final_sigma {
        FinalSigma::Zero => 0.0,
        FinalSigma::SigmaMin => ladder.table[0],
    });
    let continuous = settings.continuous && plan.prediction == Prediction::Velocity;
    let timesteps: Vec<f32> = if continuous {
        let t = |sigma: &f32| 0.25 * sigma.ln();
        sigmas[..plan.steps].iter().map(t).collect()
    } else {
        ladder.timesteps.iter().map(|t| *t as f32).collect()
    };
    let range = plan.range(&timesteps)?;
    let call = |i: usize| {
        let churn = Churn::new(&plan.options, sigmas[i], sigmas.len() - 1);
        Call {
            churn,
            level: Level::of(sigmas[i]),
            dt: sigmas[i + 1] - churn.level,
        }
    };
    let calls = range.clone().map(call).collect();
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

impl Solve for Solver {
    fn slots(&self) -> usize {
        0
    }

    fn is_finite(&self) -> bool {
        self.calls
            .iter()
            .all(|call| (call.dt / call.churn.level).is_finite() && call.level.sigma > 0.0)
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
        let Call { churn, level, dt } = &self.calls[call];
        churn.apply(latents, scratch, |noise| random.fill_normal(noise));
        for ((x, m), picture) in latents.iter_mut().zip(&*model).zip(original) {
            *picture = match self.prediction {
                // diffusers takes the noise off at the level the step starts from, but the velocity at the model's own level.
                Prediction::Epsilon => *x - churn.level * *m,
                prediction @ (Prediction::Velocity | Prediction::Sample | Prediction::Flow) => {
                    level.picture(prediction, *x, *m)
                }
            };
            let derivative = (*x - *picture) / churn.level;
            *x += derivative * dt;
        }
    }
}
