//! Heun's method over noise levels (Karras et al. 2022, arXiv 2206.00364, algorithm 2 without churn): diffusers'
//! `HeunDiscreteScheduler`, two model calls a step.
//!
//! diffusers' class has no churn (its gamma is 0), so the numbers of churn are no concern of it and no noise is drawn.

use super::Prediction;
use super::euler::{Level, divisor, initial_deviation};
use super::keys::Keys;
use super::ladder::{Ladder, Shape};
use super::pairs::{interleave, levels_of_calls, place};
use super::sampler::{Built, Plan};
use super::solver::{Mix, Solve, Step};
use super::threshold::Threshold;
use crate::Error;

/// The keys of this class alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    shape: Shape,
    threshold: Threshold,
}

impl Settings {
    pub(super) fn read(keys: &mut Keys<'_>) -> Result<Self, Error> {
        let clip = keys.flag("clip_sample", false)?;
        let range = keys.number("clip_sample_range", 1.0, (0.0, 1e6))?;
        Ok(Self {
            shape: Shape::carried(keys)?,
            threshold: if clip {
                Threshold::Clip(range as f32)
            } else {
                Threshold::None
            },
        })
    }
}

#[derive(Debug)]
struct Call {
    /// The first of its step, whose derivative the second is averaged with.
    first: bool,
    level: Level,
    dt: f32,
}

#[derive(Debug)]
pub(crate) struct Solver {
    prediction: Prediction,
    threshold: Threshold,
    calls: Vec<Call>,
}

/// Computes the noise levels, the timesteps and all coefficients.
pub(super) fn build(plan: &Plan<'_>, settings: Settings) -> Result<Built, Error> {
    let ladder = Ladder::new(plan, settings.shape);
    let mut steps: Vec<f32> = ladder.sigmas.iter().map(|sigma| *sigma as f32).collect();
    steps.push(0.0);
    let whole: Vec<f32> = ladder.timesteps.iter().map(|t| *t as f32).collect();
    // The second call is made where the step ends.
    let timesteps = interleave(&whole, whole.get(1..).unwrap_or_default());
    let range = plan.range(&timesteps)?;
    let sigmas = levels_of_calls(&steps);
    let calls = range
        .clone()
        .map(|i| {
            let (first, k) = place(i);
            Call {
                first,
                level: Level::of(sigmas[i]),
                dt: steps[k + 1] - steps[k],
            }
        })
        .collect();
    Ok(Built {
        range,
        divisors: sigmas[..timesteps.len()]
            .iter()
            .map(|sigma| divisor(*sigma))
            .collect(),
        mixes: sigmas[..timesteps.len()]
            .iter()
            .map(|sigma| Mix::on_top(*sigma))
            .collect(),
        timesteps,
        initial_deviation: initial_deviation(&sigmas, plan.spacing),
        sigmas,
        solver: Box::new(Solver {
            prediction: plan.prediction,
            threshold: settings.threshold,
            calls,
        }),
    })
}

impl Solve for Solver {
    fn slots(&self) -> usize {
        // The derivative of the first call, and the latents it was taken at.
        2
    }

    fn is_finite(&self) -> bool {
        self.calls
            .iter()
            .all(|call| call.level.sigma > 0.0 && call.dt.is_finite())
    }

    fn step_of(&self, call: usize) -> usize {
        call / 2
    }

    fn step(&self, step: Step<'_>) {
        let Step {
            call,
            model,
            latents,
            original,
            slots,
            scratch,
            ..
        } = step;
        let Call { first, level, dt } = &self.calls[call];
        level.pictures(self.prediction, original, latents, model);
        self.threshold.apply(original, scratch);
        let [derivatives, saved] = slots else { return };
        if *first {
            saved.copy_from_slice(latents);
        }
        for (((x, picture), kept), saved) in latents.iter_mut().zip(&*original).zip(derivatives).zip(&*saved)
        {
            let mut derivative = (*x - picture) / level.sigma;
            if *first {
                *kept = derivative;
            } else {
                derivative = (*kept + derivative) / 2.0;
            }
            *x = saved + derivative * dt;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Random, Source};
    use crate::scheduler::alphas::{Betas, Training};
    use crate::scheduler::class::Spacing;
    use crate::scheduler::levels::Levels;
    use crate::scheduler::settings::Flow;
    use crate::scheduler::{Kind, Options, Span};

    /// diffusers' pipelines switch `clip_sample` off, so no golden trajectory has it; these values are those of the bare
    /// HeunDiscreteScheduler 0.39.0 with `clip_sample_range` 0.7 and the outputs below.
    #[test]
    fn the_picture_is_clipped_as_in_diffusers() {
        let training = Training {
            timesteps: 1000,
            betas: Betas::ScaledLinear {
                start: 0.00085,
                end: 0.012,
            },
            trained: None,
            zero_snr: false,
        };
        let plan = Plan {
            kind: Kind::Heun,
            name: "heun".into(),
            steps: 3,
            train: 1000,
            training: &training,
            prediction: Prediction::Epsilon,
            spacing: Spacing::Linspace,
            steps_offset: 0,
            levels: Levels::Timesteps,
            flow: Flow {
                on: false,
                shift: 1.0,
                dynamic: false,
            },
            span: Span::Whole,
            options: Options::default(),
        };
        let settings = Settings {
            shape: Shape::default(),
            threshold: Threshold::Clip(0.7),
        };
        let built = build(&plan, settings).unwrap();
        let mut latents = [10.0, -3.0, 0.5, 1.0];
        let (mut original, mut scratch) = ([0.0; 4], [0.0; 4]);
        let mut slots = vec![vec![0.0; 4]; built.solver.slots()];
        for (call, known) in [
            [1.728_072, -0.954_255, -0.312_441, 0.733_164],
            [1.728_077, -0.352_244, -0.718_662, 0.733_164],
            [0.538_265, 0.242_662, -0.700_337, 0.700_599],
            [0.339_963, 0.341_813, -0.700_336, 0.700_599],
            [0.303_504, 0.360_042, -0.7, 0.7],
        ]
        .into_iter()
        .enumerate()
        {
            let scale = (call + 1) as f32 / 2.0;
            built.solver.step(Step {
                call,
                model: &mut [0.5, -0.25, 0.125, -1.0].map(|m| m * scale),
                latents: &mut latents,
                original: &mut original,
                slots: &mut slots,
                scratch: &mut scratch,
                random: &mut Random::new(Source::Cpu, 0),
                options: &Options::default(),
                seed: 0,
            });
            for (x, known) in latents.into_iter().zip(known) {
                assert!((x - known).abs() < 2e-5_f32, "call {call}: {latents:?}");
            }
        }
    }
}
