//! DPM-Solver-2 over noise levels (Karras et al. 2022, arXiv 2206.00364, algorithm 2, with the midpoint of DPM-Solver), plain and
//! ancestral: diffusers' `KDPM2DiscreteScheduler` and `KDPM2AncestralDiscreteScheduler`, two model calls a step.
//!
//! Both refuse the prediction type `sample`, as diffusers does. The ancestral form draws noise in the second call of each step, so
//! none in the last step, which has one call.

use super::Prediction;
use super::euler::{Level, divisor, initial_deviation};
use super::keys::Keys;
use super::ladder::{Ladder, Shape};
use super::levels::{Levels, sigma_to_t};
use super::pairs::{interleave, levels_of_calls, place};
use super::sampler::{Built, Plan};
use super::solver::{Mix, Solve, Step};
use crate::Error;

/// The keys of both classes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    shape: Shape,
    ancestral: bool,
}

impl Settings {
    pub(super) fn read(keys: &mut Keys<'_>, ancestral: bool) -> Result<Self, Error> {
        Ok(Self {
            shape: Shape::carried(keys)?,
            ancestral,
        })
    }
}

/// The noise levels of one step.
#[derive(Debug, Clone, Copy)]
struct Ends {
    from: f32,
    /// Where the second call is made; 0 in the last step, which has none.
    middle: f32,
    /// Where the step ends, before noise is added.
    down: f32,
    /// Deviation of the noise that is added.
    up: f32,
}

impl Ends {
    fn new(from: f32, to: f32, ancestral: bool) -> Self {
        let (down, up) = if ancestral {
            let up = (to * to * (from * from - to * to) / (from * from)).sqrt();
            ((to * to - up * up).sqrt(), up)
        } else {
            (to, 0.0)
        };
        // Half way in the logarithm, by torch's lerp, which goes back from its end: the plain form's end is `from`.
        let (start, end) = if ancestral {
            (from.ln(), down.ln())
        } else {
            (down.ln(), from.ln())
        };
        let middle = if to > 0.0 {
            (end - (end - start) * 0.5).exp()
        } else {
            0.0
        };
        Self {
            from,
            middle,
            down,
            up,
        }
    }
}

#[derive(Debug)]
struct Call {
    /// The first of its step; the second starts from the latents before it.
    first: bool,
    level: Level,
    dt: f32,
    up: f32,
}

#[derive(Debug)]
pub(crate) struct Solver {
    prediction: Prediction,
    ancestral: bool,
    calls: Vec<Call>,
}

/// Computes the noise levels, the timesteps and all coefficients.
pub(super) fn build(plan: &Plan<'_>, settings: Settings) -> Result<Built, Error> {
    if plan.prediction == Prediction::Sample {
        return Err(plan.incompatible("prediction_type", "sample", "diffusers has no KDPM2 step for it"));
    }
    let ladder = Ladder::new(plan, settings.shape);
    let mut levels: Vec<f32> = ladder.sigmas.iter().map(|sigma| *sigma as f32).collect();
    levels.push(0.0);
    let steps: Vec<Ends> = levels
        .windows(2)
        .map(|pair| Ends::new(pair[0], pair[1], settings.ancestral))
        .collect();
    let whole: Vec<f32> = ladder
        .timesteps
        .iter()
        .map(|t| if plan.levels == Levels::Karras { t.round_ties_even() } else { *t } as f32)
        .collect();
    let middles: Vec<f32> = steps
        .iter()
        .map(|step| sigma_to_t(f64::from(step.middle), &ladder.logs) as f32)
        .collect();
    let timesteps = interleave(&whole, &middles);
    let range = plan.range(&timesteps)?;
    let call = |i: usize| {
        let (first, k) = place(i);
        let Ends {
            from,
            middle,
            down,
            up,
        } = steps[k];
        Call {
            first,
            level: Level::of(if first { from } else { middle }),
            dt: if first { middle - from } else { down - from },
            up,
        }
    };
    let sigmas = levels_of_calls(&levels);
    let froms: Vec<f32> = steps.iter().map(|step| divisor(step.from)).collect();
    let halves: Vec<f32> = steps.iter().map(|step| divisor(step.middle)).collect();
    Ok(Built {
        divisors: interleave(&froms, &halves),
        mixes: sigmas[..timesteps.len()]
            .iter()
            .map(|sigma| Mix::on_top(*sigma))
            .collect(),
        timesteps,
        initial_deviation: initial_deviation(&sigmas, plan.spacing),
        sigmas,
        solver: Box::new(Solver {
            prediction: plan.prediction,
            ancestral: settings.ancestral,
            calls: range.clone().map(call).collect(),
        }),
        range,
    })
}

impl Solve for Solver {
    fn slots(&self) -> usize {
        1
    }

    fn is_finite(&self) -> bool {
        self.calls
            .iter()
            .all(|call| call.level.sigma > 0.0 && (call.dt + call.up).is_finite())
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
            random,
            ..
        } = step;
        let Call { first, level, dt, up } = &self.calls[call];
        let saved = &mut slots[0];
        if *first {
            saved.copy_from_slice(latents);
        }
        level.pictures(self.prediction, original, latents, model);
        for ((x, picture), saved) in latents.iter_mut().zip(&*original).zip(&*saved) {
            *x = saved + (*x - *picture) / level.sigma * dt;
        }
        if self.ancestral && !first {
            random.fill_normal(scratch);
            for (x, noise) in latents.iter_mut().zip(&*scratch) {
                *x += noise * up;
            }
        }
    }
}
