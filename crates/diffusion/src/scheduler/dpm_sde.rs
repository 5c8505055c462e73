//! DPM-Solver++ as an SDE (K. Crowson's `sample_dpmpp_sde` in k-diffusion): diffusers' `DPMSolverSDEScheduler`, two model calls a
//! step.
//!
//! Its noise is a Brownian path over the noise level, see [`brownian`](super::brownian). diffusers seeds it with `noise_sampler_seed`
//! of the configuration and, without one, at random; here it is then the trajectory's seed, so that a seed fixes the picture. It
//! refuses the prediction type `sample`, as diffusers does.

use super::Prediction;
use super::brownian::{Interval, Room, alike};
use super::euler::{Level, divisor, initial_deviation};
use super::keys::Keys;
use super::ladder::{Ladder, Shape};
use super::levels::{Levels, sigma_to_t};
use super::pairs::{interleave, levels_of_calls};
use super::sampler::{Built, Plan};
use super::solver::{Mix, Solve, Step};
use crate::Error;

/// The keys of this class alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    shape: Shape,
    seed: Option<u64>,
}

impl Settings {
    pub(super) fn read(keys: &mut Keys<'_>) -> Result<Self, Error> {
        Ok(Self {
            shape: Shape::carried(keys)?,
            seed: keys.maybe_whole("noise_sampler_seed")?,
        })
    }
}

/// An exponential-integrator step with noise.
#[derive(Debug, Clone, Copy)]
struct Update {
    latents: f32,
    picture: f32,
    /// Deviation of the noise that is added.
    up: f32,
    /// Root of the distance between the two noise levels, by which the path's increment is divided.
    root: f32,
    /// Where the path is asked.
    from: f64,
    to: f64,
}

impl Update {
    /// From `t` to `to`, which are negative logarithms of noise levels.
    fn new(t: f32, to: f32, interval: &Interval) -> Self {
        let (sigma_from, sigma_to) = (exp(-t), exp(-to));
        let square = sigma_to * sigma_to;
        let up = (square * (sigma_from * sigma_from - square) / (sigma_from * sigma_from)).sqrt();
        let up = if up < sigma_to { up } else { sigma_to };
        let down = (square - up * up).sqrt();
        let ancestral = -log(down);
        Self {
            latents: exp(-ancestral) / sigma_from,
            picture: -(t - ancestral).exp_m1(),
            up,
            root: (sigma_to - sigma_from).abs().sqrt(),
            from: interval.place(sigma_from),
            to: interval.place(sigma_to),
        }
    }
}

/// The correctly rounded logarithm. The path is asked at `exp(log(sigma))`, rounded to a millionth, so a last bit matters: with
/// torch it depends on its vendor's library.
fn log(x: f32) -> f32 {
    f64::from(x).ln() as f32
}

/// The correctly rounded exponential.
fn exp(x: f32) -> f32 {
    f64::from(x).exp() as f32
}

#[derive(Debug)]
enum Phase {
    /// To the middle of the step.
    First(Update),
    /// To the end of the step, from the latents before the first.
    Second(Update),
    /// Euler's step to no noise, by this difference of noise levels.
    Last(f32),
}

#[derive(Debug)]
struct Call {
    level: Level,
    phase: Phase,
}

#[derive(Debug)]
pub(crate) struct Solver {
    prediction: Prediction,
    seed: Option<u64>,
    interval: Interval,
    calls: Vec<Call>,
}

/// Computes the noise levels, the timesteps and all coefficients.
pub(super) fn build(plan: &Plan<'_>, settings: Settings) -> Result<Built, Error> {
    if plan.prediction == Prediction::Sample {
        return Err(plan.incompatible(
            "prediction_type",
            "sample",
            "diffusers has no DPM-Solver SDE step for it",
        ));
    }
    let mut shape = settings.shape;
    if plan.levels == Levels::Karras {
        // diffusers takes the bounds of a carried configuration for its other levels only.
        shape = Shape::default();
    }
    shape.double = true;
    let ladder = Ladder::new(plan, shape);
    let mut levels: Vec<f32> = ladder.sigmas.iter().map(|sigma| *sigma as f32).collect();
    let interval = Interval::new(levels[plan.steps - 1], levels[0]);
    let halves: Vec<f32> = ladder
        .sigmas
        .windows(2)
        .map(|pair| {
            let (from, to) = (-pair[0].ln(), -pair[1].ln());
            sigma_to_t((-(from + (to - from) * 0.5)).exp(), &ladder.logs) as f32
        })
        .collect();
    let steps: Vec<[Call; 2]> = levels
        .windows(2)
        .map(|pair| step(pair[0], pair[1], &interval))
        .collect();
    let last = levels[plan.steps - 1];
    levels.push(0.0);
    let whole: Vec<f32> = ladder.timesteps.iter().map(|t| *t as f32).collect();
    let timesteps = interleave(&whole, &halves);
    let range = plan.range(&timesteps)?;
    let mut all: Vec<Call> = steps.into_iter().flatten().collect();
    all.push(Call {
        level: Level::of(last),
        phase: Phase::Last(-last),
    });
    let sigmas = levels_of_calls(&levels);
    Ok(Built {
        divisors: all.iter().map(|call| divisor(call.level.sigma)).collect(),
        mixes: sigmas[..timesteps.len()]
            .iter()
            .map(|sigma| Mix::on_top(*sigma))
            .collect(),
        initial_deviation: initial_deviation(&sigmas, plan.spacing),
        timesteps,
        sigmas,
        solver: Box::new(Solver {
            prediction: plan.prediction,
            seed: settings.seed,
            interval,
            calls: all.drain(range.clone()).collect(),
        }),
        range,
    })
}

/// The two calls of the step between two noise levels.
fn step(from: f32, to: f32, interval: &Interval) -> [Call; 2] {
    let (t, t_next) = (-log(from), -log(to));
    let middle = t + (t_next - t) * 0.5;
    [
        Call {
            level: Level::of(from),
            phase: Phase::First(Update::new(t, middle, interval)),
        },
        Call {
            level: Level::of(exp(-middle)),
            phase: Phase::Second(Update::new(t, t_next, interval)),
        },
    ]
}

impl Solve for Solver {
    fn slots(&self) -> usize {
        // The latents before a step, the path where the step begins and where the call goes, and room.
        4
    }

    fn is_finite(&self) -> bool {
        self.calls.iter().all(|call| {
            let finite = match call.phase {
                Phase::First(update) | Phase::Second(update) => {
                    (update.latents + update.picture + update.up).is_finite() && update.root > 0.0
                }
                Phase::Last(dt) => dt.is_finite(),
            };
            finite && call.level.sigma > 0.0
        })
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
            options,
            seed,
        } = step;
        let Call { level, phase } = &self.calls[call];
        level.pictures(self.prediction, original, latents, model);
        let [saved, begin, end, room] = slots else { return };
        let update = match phase {
            Phase::Last(dt) => {
                for (x, picture) in latents.iter_mut().zip(&*original) {
                    *x += (*x - picture) / level.sigma * dt;
                }
                return;
            }
            Phase::First(update) => {
                saved.copy_from_slice(latents);
                update
            }
            Phase::Second(update) => {
                latents.copy_from_slice(saved);
                update
            }
        };
        for (x, picture) in latents.iter_mut().zip(&*original) {
            *x = update.latents * *x + update.picture * picture;
        }
        if options.s_noise == 0.0 {
            return;
        }
        let seed = self.seed.unwrap_or(seed);
        let mut generator = alike(random);
        let mut ask = |time: f64, path: &mut [f32]| {
            let room = Room {
                increment: room,
                noise: scratch,
                random: &mut generator,
            };
            self.interval.path(seed, time, path, room);
        };
        // Each step begins where the one before it ended; only the first has to ask for both ends.
        if call == 0 {
            ask(update.from, begin);
        }
        ask(update.to, end);
        for ((x, begin), end) in latents.iter_mut().zip(&*begin).zip(&*end) {
            *x += (end - begin) / update.root * options.s_noise * update.up;
        }
        if matches!(phase, Phase::Second(_)) {
            std::mem::swap(begin, end);
        }
    }
}
