//! DPM-Solver and DPM-Solver++ multistep (Lu et al. 2022, arXiv 2206.00927 and 2211.01095), with their SDE forms: diffusers'
//! `DPMSolverMultistepScheduler`.
//!
//! Models that also predict a variance are refused by name.

use super::alphas;
use super::keys::Keys;
use super::levels::{Bounds, Levels, flow, interpolate, sigma_to_t, spread};
use super::sampler::{Built, Plan};
use super::settings::{FinalSigma, read_final_sigma};
use super::solver::{Mix, Solve, Step};
use super::threshold::Threshold;
use super::{Kind, Prediction};
use crate::Error;

mod update;

use update::{Order, Update};

/// Below this many timesteps `lower_order_final` lowers the order of the last two steps (diffusers).
const FEW_STEPS: usize = 15;

/// Which integral is solved, and whether noise is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Algorithm {
    /// Over the predicted picture (DPM-Solver++) and not over the predicted noise.
    plus: bool,
    sde: bool,
}

/// The keys of this class alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    algorithm: Algorithm,
    order: usize,
    /// Heun's second-order correction in place of the midpoint's.
    heun: bool,
    lower_order_final: bool,
    euler_at_final: bool,
    final_sigma: FinalSigma,
    squared_cosine: bool,
    lambda_min_clipped: f64,
    threshold: Threshold,
}

impl Settings {
    /// The name of this algorithm and order.
    pub(super) fn kind(&self) -> Kind {
        match (self.algorithm.plus, self.algorithm.sde, self.order) {
            (true, false, 3) => Kind::DpmppThreeM,
            (true, false, _) => Kind::DpmppTwoM,
            (true, true, 3) => Kind::DpmppThreeMSde,
            (true, true, _) => Kind::DpmppTwoMSde,
            (false, false, 3) => Kind::DpmThreeM,
            (false, false, _) => Kind::DpmTwoM,
            (false, true, _) => Kind::DpmTwoMSde,
        }
    }

    pub(super) fn read(keys: &mut Keys<'_>) -> Result<Self, Error> {
        let variance = keys.choice_or_null("variance_type", &["learned", "learned_range"])?;
        if let Some(value) = variance {
            return Err(Error::Unsupported {
                key: "variance_type",
                value: format!("\"{value}\""),
                reason: "models that also predict a variance are not served",
            });
        }
        let plus_plus = Algorithm {
            plus: true,
            sde: false,
        };
        let algorithm = keys.choice(
            "algorithm_type",
            plus_plus,
            &[
                ("dpmsolver++", plus_plus),
                (
                    "sde-dpmsolver++",
                    Algorithm {
                        plus: true,
                        sde: true,
                    },
                ),
                (
                    "dpmsolver",
                    Algorithm {
                        plus: false,
                        sde: false,
                    },
                ),
                (
                    "sde-dpmsolver",
                    Algorithm {
                        plus: false,
                        sde: true,
                    },
                ),
                // diffusers takes the name of another class's algorithm for its own default.
                ("deis", plus_plus),
            ],
        )?;
        let heun = keys.choice(
            "solver_type",
            false,
            &[
                ("midpoint", false),
                ("heun", true),
                ("logrho", false),
                ("bh1", false),
                ("bh2", false),
            ],
        )?;
        let order = keys.whole("solver_order", 2, (1, 3))?;
        if order == 3 && !algorithm.plus && algorithm.sde {
            return Err(Error::Unsupported {
                key: "solver_order",
                value: "3".into(),
                reason: "diffusers has no third-order step for sde-dpmsolver",
            });
        }
        let final_sigma = read_final_sigma(keys)?;
        let zero_works = algorithm.plus && !keys.is_word("algorithm_type", "deis");
        if !zero_works && final_sigma == FinalSigma::Zero {
            return Err(Error::Unsupported {
                key: "final_sigmas_type",
                value: "\"zero\"".into(),
                reason: "with dpmsolver, sde-dpmsolver and deis it must be sigma_min",
            });
        }
        Ok(Self {
            algorithm,
            order,
            heun,
            lower_order_final: keys.flag("lower_order_final", true)?,
            euler_at_final: keys.flag("euler_at_final", false)?,
            final_sigma,
            squared_cosine: keys.is_word("beta_schedule", "squaredcos_cap_v2"),
            lambda_min_clipped: keys.number(
                "lambda_min_clipped",
                f64::NEG_INFINITY,
                (f64::NEG_INFINITY, f64::MAX),
            )?,
            threshold: Threshold::read(keys)?,
        })
    }
}

#[derive(Debug)]
struct Call {
    at: Mix,
    update: Update,
}

#[derive(Debug)]
pub(crate) struct Solver {
    prediction: Prediction,
    algorithm: Algorithm,
    threshold: Threshold,
    order: usize,
    calls: Vec<Call>,
}

/// Computes the noise levels, the timesteps and all coefficients.
pub(super) fn build(plan: &Plan<'_>, settings: Settings) -> Result<Built, Error> {
    if plan.prediction == Prediction::Flow && !settings.algorithm.plus {
        return Err(plan.incompatible(
            "prediction_type",
            "flow_prediction",
            "diffusers has only DPM-Solver++ steps for it",
        ));
    }
    let (cumprod, table) = alphas::noise_levels(plan.training);
    let (timesteps, levels) = levels(plan, &settings, &cumprod, &table)?;
    let timesteps: Vec<f32> = timesteps.into_iter().map(|t| t.trunc() as f32).collect();
    let range = plan.range(&timesteps)?;
    let mut sigmas: Vec<f32> = levels.into_iter().map(|sigma| sigma as f32).collect();
    sigmas.push(match settings.final_sigma {
        FinalSigma::Zero => 0.0,
        FinalSigma::SigmaMin => table[0],
    });
    let flow = plan.flow.on;
    let mix = |sigma: f32| {
        if flow {
            Mix::of_flow(sigma)
        } else {
            Mix::of_sigma(sigma)
        }
    };
    let n = timesteps.len();
    let call = |i: usize| {
        let order = order(&settings, i - range.start, i, n);
        // The history goes back to the span's first call only.
        let oldest = range.start.max(i.saturating_sub(2));
        let points: Vec<Mix> = sigmas[oldest..i + 2].iter().map(|sigma| mix(*sigma)).collect();
        Call {
            // A flow is taken off at the level itself, however the levels are spread.
            at: match plan.prediction {
                Prediction::Flow => Mix::of_flow(sigmas[i]),
                Prediction::Epsilon | Prediction::Velocity | Prediction::Sample => mix(sigmas[i]),
            },
            update: Update::new(&settings, order, &points),
        }
    };
    let calls = range.clone().map(call).collect();
    let solver = Solver {
        prediction: plan.prediction,
        algorithm: settings.algorithm,
        threshold: settings.threshold,
        order: settings.order,
        calls,
    };
    Ok(Built {
        range,
        mixes: sigmas[..n].iter().map(|sigma| mix(*sigma)).collect(),
        timesteps,
        divisors: Vec::new(),
        initial_deviation: 1.0,
        sigmas,
        solver: Box::new(solver),
    })
}

/// Timesteps and noise levels, without the last level.
fn levels(
    plan: &Plan<'_>,
    settings: &Settings,
    cumprod: &[f32],
    table: &[f32],
) -> Result<(Vec<f64>, Vec<f64>), Error> {
    if plan.levels == Levels::Timesteps {
        let last = last_timestep(settings.lambda_min_clipped, cumprod);
        if last == 0 {
            return Err(plan.bad_steps("lambda_min_clipped leaves no timestep"));
        }
        let timesteps = plan.grid().falling_above_lowest(plan.spacing, last);
        let levels = timesteps.iter().map(|t| interpolate(table, *t)).collect();
        return Ok((timesteps, levels));
    }
    if plan.levels == Levels::Flow {
        let levels = flow(plan.train, plan.flow_shift(), plan.steps);
        let timesteps = levels.iter().map(|sigma| sigma * plan.train as f64).collect();
        return Ok((timesteps, levels));
    }
    let logs: Vec<f32> = table.iter().map(|sigma| sigma.ln()).collect();
    let mut bounds = Bounds::whole(table);
    if plan.levels == Levels::Lu {
        // diffusers goes through the f32 logarithms of the table here.
        bounds.max = f64::from(logs[logs.len() - 1]).exp();
        bounds.min = f64::from(logs[0]).exp();
    }
    let levels = spread(plan.levels, bounds, plan.steps);
    let exact = matches!(plan.levels, Levels::Exponential | Levels::Beta) || settings.squared_cosine;
    let timestep = |sigma: &f64| {
        let t = sigma_to_t(*sigma, &logs);
        if exact { t } else { t.round_ties_even() }
    };
    Ok((levels.iter().map(timestep).collect(), levels))
}

/// One past the largest training timestep whose half log-SNR is not below the clipping threshold.
pub(super) fn last_timestep(lambda_min: f64, cumprod: &[f32]) -> usize {
    let below = |alpha: &&f32| f64::from(alpha.sqrt().ln() - (1.0 - **alpha).sqrt().ln()) < lambda_min;
    cumprod.len() - cumprod.iter().rev().take_while(below).count()
}

/// The order of step `i` of `n` with `past` steps before it in the span: as much history as there is, less at the end.
fn order(settings: &Settings, past: usize, i: usize, n: usize) -> Order {
    let lowers = settings.lower_order_final && n < FEW_STEPS;
    let first_at_end =
        i + 1 == n && (settings.euler_at_final || lowers || settings.final_sigma == FinalSigma::Zero);
    if settings.order == 1 || past == 0 || first_at_end {
        Order::First
    } else if settings.order == 2 || past == 1 || (i + 2 == n && lowers) {
        Order::Second
    } else {
        Order::Third
    }
}

impl Solve for Solver {
    fn slots(&self) -> usize {
        self.order
    }

    fn is_finite(&self) -> bool {
        self.calls
            .iter()
            .all(|call| call.at.is_usable(self.prediction) && call.update.is_finite())
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
        let Call { at, update } = &self.calls[call];
        at.pictures(self.prediction, original, latents, model);
        self.threshold.apply(original, scratch);
        slots.rotate_right(1);
        if self.algorithm.plus {
            slots[0].copy_from_slice(original);
        } else if self.threshold == Threshold::None {
            for ((epsilon, x), m) in slots[0].iter_mut().zip(&*latents).zip(&*model) {
                *epsilon = at.epsilon(self.prediction, *x, *m);
            }
        } else {
            for ((epsilon, x), picture) in slots[0].iter_mut().zip(&*latents).zip(&*original) {
                *epsilon = (*x - at.signal * *picture) / at.noise;
            }
        }
        if self.algorithm.sde {
            random.fill_normal(scratch);
            update.apply(latents, slots, Some(scratch));
        } else {
            update.apply(latents, slots, None);
        }
    }
}
