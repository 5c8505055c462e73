//! Diffusion exponential integrator, multistep in log-rho (Zhang and Chen 2022, arXiv 2204.13902): diffusers'
//! `DEISMultistepScheduler`.
//!
//! A step integrates the polynomial in log-rho through the last noises; rho is noise over signal. diffusers has no other form, and
//! takes the names of other classes' algorithms for this one.

use super::Prediction;
use super::keys::Keys;
use super::levels::flow;
use super::sampler::{Built, Plan};
use super::solver::{Mix, Solve, Step};
use super::stairs::{self, Last, Lists, Stairs, lambda};
use super::threshold::Threshold;
use crate::Error;

/// Below this many timesteps `lower_order_final` lowers the order of the last two steps (diffusers).
const FEW_STEPS: usize = 15;

/// The keys of this class alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    shape: stairs::Shape,
    order: usize,
    lower_order_final: bool,
    threshold: Threshold,
}

impl Settings {
    pub(super) fn read(keys: &mut Keys<'_>) -> Result<Self, Error> {
        let deis = [("deis", ()), ("dpmsolver", ()), ("dpmsolver++", ())];
        keys.choice("algorithm_type", (), &deis)?;
        let solvers = ["logrho", "midpoint", "heun", "bh1", "bh2"].map(|word| (word, ()));
        keys.choice("solver_type", (), &solvers)?;
        Ok(Self {
            shape: stairs::Shape::read(keys)?,
            order: keys.whole("solver_order", 2, (1, 3))?,
            lower_order_final: keys.flag("lower_order_final", true)?,
            threshold: Threshold::read(keys)?,
        })
    }
}

/// One step's coefficients.
#[derive(Debug, Clone, Copy)]
enum Update {
    /// `latents * x + noise * m0`
    First { latents: f32, noise: f32 },
    /// `to * (x / from + sum of weights * m)`
    Multi { to: f32, from: f32, weights: [f32; 3] },
}

impl Update {
    /// To the last of `points` from the one before, with `order` noises.
    fn new(points: &[Mix], order: usize) -> Self {
        let back = |n: usize| points[points.len() - 1 - n];
        let (to, from) = (back(0), back(1));
        if order == 1 {
            let h = lambda(to) - lambda(from);
            return Self::First {
                latents: to.signal / from.signal,
                noise: -(to.noise * (h.exp() - 1.0)),
            };
        }
        let rho = |n: usize| back(n).noise / back(n).signal;
        let weights = if order == 2 {
            let weight = |b: f32, c: f32| integral(rho(0), b, c) - integral(rho(1), b, c);
            [weight(rho(1), rho(2)), weight(rho(2), rho(1)), 0.0]
        } else {
            let weight = |b: f32, c: f32, d: f32| integral3(rho(0), b, c, d) - integral3(rho(1), b, c, d);
            [
                weight(rho(1), rho(2), rho(3)),
                weight(rho(2), rho(3), rho(1)),
                weight(rho(3), rho(1), rho(2)),
            ]
        };
        Self::Multi {
            to: to.signal,
            from: from.signal,
            weights,
        }
    }

    fn is_finite(&self) -> bool {
        match self {
            Self::First { latents, noise } => (latents + noise).is_finite(),
            Self::Multi { to, from, weights } => (to / from + weights.iter().sum::<f32>()).is_finite(),
        }
    }
}

/// The integral of `(ln t - ln c) / (ln b - ln c)` over t.
fn integral(t: f32, b: f32, c: f32) -> f32 {
    t * (-c.ln() + t.ln() - 1.0) / (b.ln() - c.ln())
}

/// The integral of `(ln t - ln c) (ln t - ln d) / ((ln b - ln c) (ln b - ln d))` over t.
fn integral3(t: f32, b: f32, c: f32, d: f32) -> f32 {
    let (log_t, log_b, log_c, log_d) = (t.ln(), b.ln(), c.ln(), d.ln());
    let numerator =
        t * (log_c * (log_d - log_t + 1.0) - log_d * log_t + log_d + log_t * log_t - 2.0 * log_t + 2.0);
    numerator / ((log_b - log_c) * (log_b - log_d))
}

#[derive(Debug)]
struct Call {
    at: Mix,
    update: Update,
}

#[derive(Debug)]
pub(crate) struct Solver {
    prediction: Prediction,
    threshold: Threshold,
    order: usize,
    calls: Vec<Call>,
}

/// Computes the noise levels, the timesteps and all coefficients.
pub(super) fn build(plan: &Plan<'_>, settings: Settings) -> Result<Built, Error> {
    stairs::check(plan, false)?;
    let levels = || flow(plan.train, plan.flow_shift(), plan.steps);
    let Lists {
        timesteps,
        sigmas,
        points,
    } = Stairs::new(plan, settings.shape, plan.train, levels).lists(plan, Last::Repeat);
    let range = plan.range(&timesteps)?;
    let call = |i: usize| Call {
        at: points[i],
        update: Update::new(
            &points[..i + 2],
            order(settings, i - range.start, i, timesteps.len()),
        ),
    };
    let solver = Solver {
        prediction: plan.prediction,
        threshold: settings.threshold,
        order: settings.order,
        calls: range.clone().map(call).collect(),
    };
    Ok(Built {
        range,
        mixes: points[..timesteps.len()].to_vec(),
        timesteps,
        sigmas,
        divisors: Vec::new(),
        initial_deviation: 1.0,
        solver: Box::new(solver),
    })
}

/// The order of step `i` of `n` with `past` steps before it in the span.
fn order(settings: Settings, past: usize, i: usize, n: usize) -> usize {
    let lowers = settings.lower_order_final && n < FEW_STEPS;
    let most = match n - i {
        1 if lowers => 1,
        2 if lowers => 2,
        _ => 3,
    };
    settings.order.min(past + 1).min(most)
}

impl Solve for Solver {
    fn slots(&self) -> usize {
        self.order
    }

    fn is_finite(&self) -> bool {
        let usable = |call: &Call| call.at.is_usable(self.prediction) && call.at.noise > 0.0;
        self.calls
            .iter()
            .all(|call| usable(call) && call.update.is_finite())
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
        let Call { at, update } = &self.calls[call];
        at.pictures(self.prediction, original, latents, model);
        self.threshold.apply(original, scratch);
        slots.rotate_right(1);
        // The noise always goes through the picture, as in diffusers.
        for ((noise, x), picture) in slots[0].iter_mut().zip(&*latents).zip(&*original) {
            *noise = (*x - at.signal * picture) / at.noise;
        }
        match update {
            Update::First { latents: kept, noise } => {
                for (x, m) in latents.iter_mut().zip(&slots[0]) {
                    *x = kept * *x + noise * m;
                }
            }
            Update::Multi { to, from, weights } => {
                for (i, x) in latents.iter_mut().enumerate() {
                    let noises = slots.iter().zip(weights);
                    *x = to * noises.fold(*x / from, |sum, (slot, weight)| sum + weight * slot[i]);
                }
            }
        }
    }
}
