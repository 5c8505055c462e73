//! DPM-Solver and DPM-Solver++ singlestep (Lu et al. 2022, arXiv 2206.00927 and 2211.01095), with the SDE form of the second:
//! diffusers' `DPMSolverSinglestepScheduler`.
//!
//! A step of order two or three spans as many calls: the call of order 1 goes from its latents one level on, and the later ones start
//! again from these latents. A trajectory that begins within such a group begins with order 1. Models that also predict a variance,
//! and thresholding with `dpmsolver`, on which diffusers fails, are refused by name.

use super::Prediction;
use super::dpm_multistep;
use super::keys::Keys;
use super::levels::{Levels, flow};
use super::sampler::{Built, Plan};
use super::settings::{FinalSigma, read_final_sigma};
use super::solver::{Mix, Solve, Step};
use super::stairs::{self, Last, Lists, Stairs};
use super::threshold::Threshold;
use crate::Error;

mod update;

use update::{Algorithm, Form, Update};

/// The keys of this class alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    shape: stairs::Shape,
    form: Form,
    order: usize,
    lower_order_final: bool,
    final_sigma: FinalSigma,
    lambda_min_clipped: f64,
    threshold: Threshold,
}

impl Settings {
    pub(super) fn read(keys: &mut Keys<'_>) -> Result<Self, Error> {
        keys.refuse_value(
            "variance_type",
            "models that also predict a variance are not served",
        )?;
        let algorithm = keys.choice(
            "algorithm_type",
            Algorithm::Plus,
            &[
                ("dpmsolver++", Algorithm::Plus),
                ("sde-dpmsolver++", Algorithm::PlusSde),
                ("dpmsolver", Algorithm::Noise),
                // diffusers takes the name of another class's algorithm for its own default.
                ("deis", Algorithm::Plus),
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
        let final_sigma = read_final_sigma(keys)?;
        let zero_works = algorithm != Algorithm::Noise && !keys.is_word("algorithm_type", "deis");
        if !zero_works && final_sigma == FinalSigma::Zero {
            return Err(Error::Unsupported {
                key: "final_sigmas_type",
                value: "\"zero\"".into(),
                reason: "with dpmsolver and deis it must be sigma_min",
            });
        }
        let threshold = Threshold::read(keys)?;
        if algorithm == Algorithm::Noise && threshold != Threshold::None {
            return Err(Error::Unsupported {
                key: "thresholding",
                value: "true".into(),
                reason: "diffusers has no thresholding with the algorithm dpmsolver in this class",
            });
        }
        Ok(Self {
            shape: stairs::Shape::read(keys)?,
            form: Form { algorithm, heun },
            order: keys.whole("solver_order", 2, (1, 3))?,
            lower_order_final: keys.flag("lower_order_final", false)?,
            final_sigma,
            lambda_min_clipped: keys.number(
                "lambda_min_clipped",
                f64::NEG_INFINITY,
                (f64::NEG_INFINITY, f64::MAX),
            )?,
            threshold,
        })
    }

    /// The order of each of `n` calls (diffusers' `get_order_list`): groups of 1, 2, .. order, less at the end.
    fn orders(&self, n: usize) -> Vec<usize> {
        // What diffusers corrects in the configuration when it sets the timesteps.
        let lowers =
            self.lower_order_final || !n.is_multiple_of(self.order) || self.final_sigma == FinalSigma::Zero;
        let mut orders: Vec<usize> = (0..n).map(|i| i % self.order + 1).collect();
        if lowers && self.order > 1 && n.is_multiple_of(self.order) {
            // A whole last group would end with its highest order; it is two lower ones.
            let tail: &[usize] = if self.order == 3 { &[1, 2, 1] } else { &[1, 1] };
            orders[n - self.order..].copy_from_slice(tail);
        }
        if let (FinalSigma::Zero, Some(last)) = (self.final_sigma, orders.last_mut()) {
            *last = 1;
        }
        orders
    }
}

#[derive(Debug)]
struct Call {
    at: Mix,
    /// The later calls of the group start from this call's latents.
    first: bool,
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
    stairs::check(plan, false)?;
    let algorithm = settings.form.algorithm;
    if plan.prediction == Prediction::Flow && algorithm == Algorithm::Noise {
        return Err(plan.incompatible(
            "prediction_type",
            "flow_prediction",
            "diffusers has no step of the algorithm dpmsolver for it",
        ));
    }
    let cumprod = plan.training.alphas_cumprod();
    let last = dpm_multistep::last_timestep(settings.lambda_min_clipped, &cumprod);
    if last == 0 && plan.levels == Levels::Timesteps {
        return Err(plan.bad_steps("lambda_min_clipped leaves no timestep"));
    }
    let levels = || flow(plan.train, plan.flow_shift(), plan.steps);
    let end = match settings.final_sigma {
        FinalSigma::Zero => Last::Zero,
        FinalSigma::SigmaMin => Last::Smallest,
    };
    let Lists {
        timesteps,
        sigmas,
        points,
    } = Stairs::new(plan, settings.shape, last, levels).lists(plan, end);
    let range = plan.range(&timesteps)?;
    let orders = settings.orders(timesteps.len());
    let call = |i: usize| {
        // What was not called before the span began cannot be used.
        let order = orders[i].min(i - range.start + 1);
        Call {
            at: points[i],
            first: order == 1,
            update: Update::new(settings.form, order, &points[..i + 2]),
        }
    };
    let solver = Solver {
        prediction: plan.prediction,
        algorithm,
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

impl Solve for Solver {
    fn slots(&self) -> usize {
        // Converted outputs, newest first, and the latents that the group started from.
        self.order + 1
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
        let Call { at, first, update } = &self.calls[call];
        let (outputs, start) = slots.split_at_mut(self.order);
        let start = &mut start[0];
        at.pictures(self.prediction, original, latents, model);
        self.threshold.apply(original, scratch);
        outputs.rotate_right(1);
        if self.algorithm == Algorithm::Noise {
            for ((epsilon, x), m) in outputs[0].iter_mut().zip(&*latents).zip(&*model) {
                *epsilon = at.epsilon(self.prediction, *x, *m);
            }
        } else {
            outputs[0].copy_from_slice(original);
        }
        if *first {
            start.copy_from_slice(latents);
        } else {
            latents.copy_from_slice(start);
        }
        if self.algorithm == Algorithm::PlusSde {
            random.fill_normal(scratch);
            update.apply(latents, outputs, Some(scratch));
        } else {
            update.apply(latents, outputs, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders(order: usize, lower_order_final: bool, final_sigma: FinalSigma, n: usize) -> Vec<usize> {
        let settings = Settings {
            shape: stairs::Shape::default(),
            form: Form {
                algorithm: Algorithm::Plus,
                heun: false,
            },
            order,
            lower_order_final,
            final_sigma,
            lambda_min_clipped: f64::NEG_INFINITY,
            threshold: Threshold::None,
        };
        settings.orders(n)
    }

    #[test]
    fn orders_go_up_in_groups_and_are_low_at_the_end() {
        use FinalSigma::{SigmaMin, Zero};
        assert_eq!(orders(3, false, SigmaMin, 6), [1, 2, 3, 1, 2, 3]);
        assert_eq!(orders(3, true, SigmaMin, 6), [1, 2, 3, 1, 2, 1]);
        assert_eq!(orders(3, false, SigmaMin, 7), [1, 2, 3, 1, 2, 3, 1]);
        assert_eq!(orders(3, false, SigmaMin, 5), [1, 2, 3, 1, 2]);
        assert_eq!(orders(3, false, Zero, 5), [1, 2, 3, 1, 1]);
        assert_eq!(orders(2, false, SigmaMin, 4), [1, 2, 1, 2]);
        assert_eq!(orders(2, false, Zero, 4), [1, 2, 1, 1]);
        assert_eq!(orders(2, true, SigmaMin, 5), [1, 2, 1, 2, 1]);
        assert_eq!(orders(1, false, Zero, 3), [1, 1, 1]);
        assert_eq!(orders(3, false, Zero, 1), [1]);
    }
}
