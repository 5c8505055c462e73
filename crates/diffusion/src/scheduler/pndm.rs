//! Pseudo numerical methods (Liu et al. 2022, arXiv 2202.09778): diffusers' `PNDMScheduler`.
//!
//! With `skip_prk_steps` the model is called once more than there are steps (the second timestep twice); without it the first three
//! steps are Runge-Kutta steps of four calls each. It refuses the prediction type `sample`, as diffusers does.

use super::Prediction;
use super::keys::Keys;
use super::sampler::{Built, Plan};
use super::solver::{Mix, Solve, Step};
use crate::Error;

/// Past outputs that the multistep formula uses.
const ORDER: usize = 4;
/// Model calls of a Runge-Kutta step.
const STAGES: usize = 4;
/// Model calls of the Runge-Kutta phase: three steps.
const RUNGE_CALLS: usize = 3 * STAGES;

/// The keys of this class alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    skip_prk_steps: bool,
    set_alpha_to_one: bool,
}

impl Settings {
    pub(super) fn read(keys: &mut Keys<'_>) -> Result<Self, Error> {
        Ok(Self {
            skip_prk_steps: keys.flag("skip_prk_steps", false)?,
            set_alpha_to_one: keys.flag("set_alpha_to_one", false)?,
        })
    }
}

/// What is made of the model's output, and from which latents the step starts.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// The output as it is.
    First,
    /// The mean of the first two outputs, from the latents before the first.
    Second,
    /// Adams-Bashforth over this many outputs.
    Multistep(usize),
    /// One of the four stages of a Runge-Kutta step.
    Runge(usize),
}

/// One model call: formula (9) of the paper between two timesteps.
#[derive(Debug, Clone, Copy)]
struct Call {
    phase: Phase,
    /// At the timestep the model was called with.
    at: Mix,
    /// At the timestep the step starts from.
    from: Mix,
    sample_coeff: f32,
    alpha_rise: f32,
    denominator: f32,
}

#[derive(Debug)]
pub(crate) struct Solver {
    prediction: Prediction,
    runge: bool,
    calls: Vec<Call>,
}

/// Computes the timesteps and all coefficients.
pub(super) fn build(plan: &Plan<'_>, settings: Settings) -> Result<Built, Error> {
    if plan.prediction == Prediction::Sample {
        return Err(plan.incompatible("prediction_type", "sample", "diffusers has no PNDM step for it"));
    }
    if !settings.skip_prk_steps && plan.steps < ORDER {
        return Err(plan.bad_steps("without skip_prk_steps in the model's configuration it needs at least 4"));
    }
    let falling: Vec<i64> = plan
        .grid()
        .falling(plan.spacing, true)
        .into_iter()
        .map(|t| t as i64)
        .collect();
    let timesteps = if settings.skip_prk_steps {
        // The second timestep comes twice; a single one comes once.
        let repeated = falling.get(1).copied();
        falling[..1]
            .iter()
            .copied()
            .chain(repeated)
            .chain(falling[1..].iter().copied())
            .collect()
    } else {
        runge_timesteps(&falling, plan)
    };
    let alphas = plan.training.alphas_cumprod();
    let last = if settings.set_alpha_to_one { 1.0 } else { alphas[0] };
    let ratio = (plan.train / plan.steps) as i64;
    let whole: Vec<f32> = timesteps.iter().map(|t| *t as f32).collect();
    let range = plan.range(&whole)?;
    let calls = timesteps[range.clone()]
        .iter()
        .enumerate()
        .map(|(index, &t)| {
            let stage = Stage {
                index,
                t,
                timesteps: &timesteps,
                ratio,
            };
            let (phase, from, to) = stage.span(settings.skip_prk_steps);
            let alpha_from = alpha_at(&alphas, from)?;
            let alpha_to = if to < 0 { last } else { alpha_at(&alphas, to)? };
            Some(Call {
                phase,
                at: Mix::of_alpha(alpha_at(&alphas, t)?),
                from: Mix::of_alpha(alpha_from),
                sample_coeff: (alpha_to / alpha_from).sqrt(),
                alpha_rise: alpha_to - alpha_from,
                denominator: alpha_from * (1.0 - alpha_to).sqrt()
                    + (alpha_from * (1.0 - alpha_from) * alpha_to).sqrt(),
            })
        })
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| plan.bad_steps("a timestep lies beyond num_train_timesteps"))?;
    let solver = Solver {
        prediction: plan.prediction,
        runge: !settings.skip_prk_steps,
        calls,
    };
    Ok(Built::plain(range, whole, &alphas, Box::new(solver)))
}

fn alpha_at(alphas: &[f32], t: i64) -> Option<f32> {
    usize::try_from(t).ok().and_then(|t| alphas.get(t)).copied()
}

/// Timesteps with the Runge-Kutta phase: each of its steps goes through t, the middle twice, and the end.
fn runge_timesteps(falling: &[i64], plan: &Plan<'_>) -> Vec<i64> {
    let half = (plan.train / plan.steps / 2) as i64;
    // diffusers builds this rising from the last four and reverses it; here it is written falling.
    let mut timesteps = Vec::with_capacity(falling.len() + RUNGE_CALLS - 3);
    for pair in falling[..ORDER].windows(2) {
        timesteps.extend([pair[0], pair[1] + half, pair[1] + half, pair[1]]);
    }
    timesteps.extend(&falling[3..]);
    timesteps
}

/// A model call, counted from the span's first as diffusers counts.
struct Stage<'a> {
    index: usize,
    t: i64,
    /// Those of the whole schedule.
    timesteps: &'a [i64],
    ratio: i64,
}

impl Stage<'_> {
    /// The phase of the call and the timesteps its step goes from and to.
    fn span(self, skip_prk: bool) -> (Phase, i64, i64) {
        let Self {
            index,
            t,
            timesteps,
            ratio,
        } = self;
        match (skip_prk, index) {
            (true, 0) => (Phase::First, t, t - ratio),
            (true, 1) => (Phase::Second, t + ratio, t),
            (true, _) => (Phase::Multistep(index.min(ORDER)), t, t - ratio),
            (false, _) if index < RUNGE_CALLS => {
                let to = if index.is_multiple_of(2) { t - ratio / 2 } else { t };
                // diffusers takes the start of the step from the beginning of the schedule, whatever the span.
                (
                    Phase::Runge(index % STAGES),
                    timesteps[index / STAGES * STAGES],
                    to,
                )
            }
            (false, _) => (Phase::Multistep(ORDER), t, t - ratio),
        }
    }
}

impl Solve for Solver {
    fn slots(&self) -> usize {
        // Past outputs, the latents a step started from, and the sum of a Runge-Kutta step.
        ORDER + 1 + usize::from(self.runge)
    }

    fn is_finite(&self) -> bool {
        self.calls.iter().all(|call| {
            call.at.is_usable(self.prediction)
                && call.from.is_usable(self.prediction)
                && (call.sample_coeff / call.denominator).is_finite()
        })
    }

    fn step_of(&self, call: usize) -> usize {
        match (self.runge, call) {
            // The first two calls are one step.
            (false, _) => call.saturating_sub(1),
            (true, 0..RUNGE_CALLS) => call / STAGES,
            (true, _) => call - (RUNGE_CALLS - RUNGE_CALLS / STAGES),
        }
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
        let call = self.calls[call];
        call.at.pictures(self.prediction, original, latents, model);
        let (past, rest) = slots.split_at_mut(ORDER);
        let Some((saved, sum)) = rest.split_first_mut() else {
            return;
        };
        combine(call.phase, model, latents, past, saved, sum.first_mut());
        if matches!(call.phase, Phase::Second | Phase::Runge(1..)) {
            latents.copy_from_slice(saved);
        }
        for (x, m) in latents.iter_mut().zip(&*model) {
            let epsilon = call.from.epsilon(self.prediction, *x, *m);
            *x = call.sample_coeff * *x - call.alpha_rise * epsilon / call.denominator;
        }
    }
}

/// Turns the model's output into what the step uses, and keeps what later steps need.
fn combine(
    phase: Phase,
    model: &mut [f32],
    latents: &[f32],
    past: &mut [Vec<f32>],
    saved: &mut [f32],
    sum: Option<&mut Vec<f32>>,
) {
    if matches!(phase, Phase::First | Phase::Multistep(_) | Phase::Runge(0)) {
        past.rotate_right(1);
        past[0].copy_from_slice(model);
    }
    if matches!(phase, Phase::First | Phase::Runge(0)) {
        saved.copy_from_slice(latents);
    }
    match phase {
        Phase::First => {}
        Phase::Second => {
            for (m, first) in model.iter_mut().zip(&past[0]) {
                *m = (*m + first) / 2.0;
            }
        }
        Phase::Multistep(2) => {
            for (i, m) in model.iter_mut().enumerate() {
                *m = (3.0 * past[0][i] - past[1][i]) / 2.0;
            }
        }
        Phase::Multistep(3) => {
            for (i, m) in model.iter_mut().enumerate() {
                *m = (23.0 * past[0][i] - 16.0 * past[1][i] + 5.0 * past[2][i]) / 12.0;
            }
        }
        Phase::Multistep(_) => {
            for (i, m) in model.iter_mut().enumerate() {
                let sum = 55.0 * past[0][i] - 59.0 * past[1][i] + 37.0 * past[2][i] - 9.0 * past[3][i];
                *m = (1.0 / 24.0) * sum;
            }
        }
        Phase::Runge(stage) => {
            let Some(sum) = sum else { return };
            runge(stage, model, sum);
        }
    }
}

/// Sums the four stages with weights 1/6, 1/3, 1/3, 1/6; the last stage steps with the sum.
fn runge(stage: usize, model: &mut [f32], sum: &mut [f32]) {
    for (m, sum) in model.iter_mut().zip(sum) {
        match stage {
            0 => *sum = (1.0 / 6.0) * *m,
            3 => *m = *sum + (1.0 / 6.0) * *m,
            _ => *sum += (1.0 / 3.0) * *m,
        }
    }
}
