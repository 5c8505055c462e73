//! Unified predictor-corrector, multistep (Zhao et al. 2023, arXiv 2302.04867): diffusers' `UniPCMultistepScheduler`.
//!
//! Each call first corrects the latents with the output it just got, then predicts the next ones from the corrected; both are one
//! [`Update`]. Another solver as predictor (`solver_p`) is refused by name.

use super::Prediction;
use super::keys::Keys;
use super::levels::Levels;
use super::sampler::{Built, Plan};
use super::settings::{FinalSigma, read_final_sigma};
use super::solver::{Mix, Solve, Step};
use super::spacing::linspace;
use super::stairs::{self, Last, Lists, Stairs};
use super::threshold::Threshold;
use crate::Error;

mod update;

use update::{Form, Update};

/// The keys of this class alone.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    shape: stairs::Shape,
    order: usize,
    form: Form,
    lower_order_final: bool,
    /// Steps after which the corrector is left out.
    disable_corrector: Vec<usize>,
    final_sigma: FinalSigma,
    shift_terminal: Option<f64>,
    threshold: Threshold,
}

impl Settings {
    pub(super) fn read(keys: &mut Keys<'_>) -> Result<Self, Error> {
        keys.refuse_value("solver_p", "another scheduler as predictor is not served")?;
        let shape = stairs::Shape::read(keys)?;
        let flow = keys.flag("use_flow_sigmas", false)?;
        let shift_terminal = keys.maybe_number("shift_terminal")?;
        if let Some(shift) = shift_terminal.filter(|shift| !flow || *shift >= 1.0) {
            return Err(Error::Value {
                key: "shift_terminal",
                value: shift.to_string(),
                expected: "a number below 1 with use_flow_sigmas, or null".into(),
            });
        }
        Ok(Self {
            shape,
            order: keys.whole("solver_order", 2, (1, 3))?,
            form: Form {
                picture: keys.flag("predict_x0", true)?,
                exponential: keys.choice(
                    "solver_type",
                    true,
                    &[
                        ("bh2", true),
                        ("bh1", false),
                        ("midpoint", true),
                        ("heun", true),
                        ("logrho", true),
                    ],
                )?,
            },
            lower_order_final: keys.flag("lower_order_final", true)?,
            disable_corrector: keys.wholes("disable_corrector")?,
            final_sigma: read_final_sigma(keys)?,
            shift_terminal,
            threshold: Threshold::read(keys)?,
        })
    }
}

#[derive(Debug)]
struct Call {
    at: Mix,
    /// Corrects the latents this call was made with.
    corrector: Option<Update>,
    predictor: Update,
}

#[derive(Debug)]
pub(crate) struct Solver {
    prediction: Prediction,
    /// Steps are taken over the picture, and not over the noise.
    picture: bool,
    threshold: Threshold,
    order: usize,
    calls: Vec<Call>,
}

/// Computes the noise levels, the timesteps and all coefficients.
pub(super) fn build(plan: &Plan<'_>, settings: &Settings) -> Result<Built, Error> {
    stairs::check(plan, true)?;
    if plan.flow.dynamic && plan.options.mu.is_none() {
        return Err(plan.incompatible(
            "use_dynamic_shifting",
            "true",
            "the request must say mu, by which the levels are shifted",
        ));
    }
    if plan.prediction == Prediction::Flow && !settings.form.picture {
        return Err(plan.incompatible(
            "prediction_type",
            "flow_prediction",
            "diffusers steps with it over the picture only (predict_x0)",
        ));
    }
    let levels = || flow(plan.train, plan.flow_shift(), plan.steps, settings.shift_terminal);
    let mut stairs = Stairs::new(plan, settings.shape, plan.train, levels);
    if plan.flow.on && plan.levels == Levels::Karras {
        stairs.squeeze(plan.train);
    }
    let last = match settings.final_sigma {
        FinalSigma::Zero => Last::Zero,
        FinalSigma::SigmaMin => Last::Repeat,
    };
    let Lists {
        timesteps,
        sigmas,
        points,
    } = stairs.lists(plan, last);
    let range = plan.range(&timesteps)?;
    let n = timesteps.len();
    let order = |i: usize| {
        let left = if settings.lower_order_final {
            n - i
        } else {
            usize::MAX
        };
        settings.order.min(left).min(i - range.start + 1)
    };
    let call = |i: usize| {
        let corrects = i > range.start && !settings.disable_corrector.contains(&(i - 1));
        Call {
            at: points[i],
            corrector: corrects
                .then(|| Update::corrector(settings.form, &points[range.start..=i], order(i - 1))),
            predictor: Update::predictor(settings.form, &points[range.start..i + 2], order(i)),
        }
    };
    let solver = Solver {
        prediction: plan.prediction,
        picture: settings.form.picture,
        threshold: settings.threshold,
        order: settings.order,
        calls: range.clone().map(call).collect(),
    };
    Ok(Built {
        mixes: points[..n].to_vec(),
        timesteps,
        sigmas,
        divisors: Vec::new(),
        initial_deviation: 1.0,
        solver: Box::new(solver),
        range,
    })
}

/// This class's levels of flow matching, from 1 down: shifted, and stretched so that the last is `terminal`.
fn flow(train: usize, shift: f64, n: usize, terminal: Option<f64>) -> Vec<f64> {
    /// The largest level keeps this distance from 1, where the log-SNR is infinite (diffusers).
    const DISTANCE: f64 = 1e-6;
    let mut levels = linspace(1.0, 1.0 / train as f64, n + 1);
    levels.truncate(n);
    for sigma in &mut levels {
        *sigma = shift * *sigma / (1.0 + (shift - 1.0) * *sigma);
    }
    if let Some(terminal) = terminal {
        let scale = (1.0 - levels[n - 1]) / (1.0 - terminal);
        levels
            .iter_mut()
            .for_each(|sigma| *sigma = 1.0 - (1.0 - *sigma) / scale);
    }
    if (levels[0] - 1.0).abs() < DISTANCE {
        levels[0] -= DISTANCE;
    }
    levels
}

impl Solve for Solver {
    fn slots(&self) -> usize {
        // Converted outputs, newest first, and the latents of the last prediction.
        self.order + 1
    }

    fn is_finite(&self) -> bool {
        self.calls.iter().all(|call| {
            call.at.is_usable(self.prediction)
                && call.predictor.is_finite()
                && call.corrector.as_ref().is_none_or(Update::is_finite)
        })
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
        let Call {
            at,
            corrector,
            predictor,
        } = &self.calls[call];
        at.pictures(self.prediction, original, latents, model);
        if self.picture {
            self.threshold.apply(original, scratch);
            model.copy_from_slice(original);
        } else {
            for (m, x) in model.iter_mut().zip(&*latents) {
                *m = at.epsilon(self.prediction, *x, *m);
            }
        }
        let (outputs, last) = slots.split_at_mut(self.order);
        let last = &mut last[0];
        if let Some(corrector) = corrector {
            latents.copy_from_slice(last);
            corrector.apply(latents, outputs, Some(model));
        }
        last.copy_from_slice(latents);
        outputs.rotate_right(1);
        outputs[0].copy_from_slice(model);
        predictor.apply(latents, outputs, None);
    }
}

#[cfg(test)]
mod tests {
    use crate::{Ask, Config, Sampler};

    /// What is said of a configuration with these keys, when it is read or when a schedule of it is made.
    fn refusal(class: &str, keys: &str) -> String {
        let text = format!(r#"{{"_class_name": "{class}"{keys}}}"#);
        let sampler = Config::from_json(&text).and_then(|config| Sampler::new(&config, &Ask::steps(8)));
        sampler.unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_served_is_refused_by_key() {
        const UNIPC: &str = "UniPCMultistepScheduler";
        const SINGLE: &str = "DPMSolverSinglestepScheduler";
        const DEIS: &str = "DEISMultistepScheduler";
        for (class, keys, expected) in [
            (
                UNIPC,
                r#", "solver_p": {"_class_name": "DDIMScheduler"}"#,
                "solver_p",
            ),
            (UNIPC, r#", "shift_terminal": 0.1"#, "use_flow_sigmas"),
            (
                UNIPC,
                r#", "shift_terminal": 1.5, "use_flow_sigmas": true"#,
                "shift_terminal",
            ),
            (UNIPC, r#", "disable_corrector": [0, -1]"#, "disable_corrector"),
            (UNIPC, r#", "disable_corrector": null"#, "disable_corrector"),
            (UNIPC, r#", "solver_order": 4"#, "solver_order"),
            (UNIPC, r#", "solver_type": "bh3""#, "bh2"),
            (
                UNIPC,
                r#", "prediction_type": "flow_prediction""#,
                "use_flow_sigmas",
            ),
            (
                UNIPC,
                r#", "prediction_type": "flow_prediction", "use_flow_sigmas": true, "predict_x0": false"#,
                "predict_x0",
            ),
            (
                UNIPC,
                r#", "use_flow_sigmas": true, "use_beta_sigmas": true"#,
                "use_flow_sigmas",
            ),
            (
                UNIPC,
                r#", "use_flow_sigmas": true, "use_dynamic_shifting": true"#,
                "mu",
            ),
            (UNIPC, r#", "solver_type": "bh1""#, "not finite"),
            (DEIS, r#", "algorithm_type": "sde-dpmsolver++""#, "algorithm_type"),
            (DEIS, r#", "solver_type": "rk""#, "logrho"),
            (
                DEIS,
                r#", "use_flow_sigmas": true, "use_karras_sigmas": true"#,
                "use_flow_sigmas",
            ),
            (SINGLE, r#", "algorithm_type": "dpmsolver""#, "final_sigmas_type"),
            (
                SINGLE,
                r#", "algorithm_type": "sde-dpmsolver""#,
                "sde-dpmsolver++",
            ),
            (SINGLE, r#", "variance_type": "learned""#, "variance"),
            (
                SINGLE,
                r#", "algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min", "thresholding": true"#,
                "thresholding",
            ),
            (
                "DPMSolverSDEScheduler",
                r#", "noise_sampler_seed": -1"#,
                "noise_sampler_seed",
            ),
            (
                "DPMSolverSDEScheduler",
                r#", "prediction_type": "sample""#,
                "sample",
            ),
            (
                "KDPM2DiscreteScheduler",
                r#", "prediction_type": "sample""#,
                "sample",
            ),
            (
                "KDPM2AncestralDiscreteScheduler",
                r#", "prediction_type": "sample""#,
                "sample",
            ),
            (
                "HeunDiscreteScheduler",
                r#", "clip_sample_range": -1"#,
                "clip_sample_range",
            ),
            (
                "LMSDiscreteScheduler",
                r#", "beta_schedule": "exp""#,
                "beta_schedule",
            ),
            ("LMSDiscreteScheduler", r#", "sigma_min": -1"#, "sigma_min"),
        ] {
            let text = refusal(class, keys);
            assert!(text.contains(expected), "{class}{keys}: {text}");
        }
    }
}
