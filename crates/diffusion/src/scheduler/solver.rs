//! The one shape all schedulers have: a table of coefficients, and a step over plain slices.
//!
//! A solver holds nothing of a trajectory; what it must remember between steps lies in slots that the trajectory owns. So one
//! solver serves any number of trajectories at once, and interleaving them cannot change a value.

use super::config::Prediction;
use super::{ddim, dpm_multistep, euler, euler_ancestral, pndm};
use crate::random::Generator;

/// What a step works on. All slices have the latents' length.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    /// Number of this model call, from 0.
    pub(crate) call: usize,
    /// The model's output after guidance; may be overwritten.
    pub(crate) model: &'a mut [f32],
    /// The latents before the step, and after it.
    pub(crate) latents: &'a mut [f32],
    /// Gets the picture this step predicts.
    pub(crate) original: &'a mut [f32],
    /// The history, [`Solve::slots`] buffers; content and order are the solver's.
    pub(crate) slots: &'a mut [Vec<f32>],
    /// Room for noise or sorting.
    pub(crate) scratch: &'a mut [f32],
    /// The trajectory's own noise.
    pub(crate) random: &'a mut Generator,
    /// Weight of the noise that DDIM adds; 0 is none.
    pub(crate) eta: f32,
}

/// A scheduler's arithmetic.
pub(crate) trait Solve {
    /// Number of buffers of the latents' size it needs between steps.
    fn slots(&self) -> usize;

    /// Whether no coefficient is infinite or not a number.
    fn is_finite(&self) -> bool;

    /// Takes one step.
    fn step(&self, step: Step<'_>);
}

/// The solvers there are.
#[derive(Debug)]
pub(crate) enum Solver {
    Pndm(pndm::Solver),
    Ddim(ddim::Solver),
    Euler(euler::Solver),
    EulerAncestral(euler_ancestral::Solver),
    DpmMultistep(dpm_multistep::Solver),
}

impl Solver {
    fn get(&self) -> &dyn Solve {
        match self {
            Self::Pndm(solver) => solver,
            Self::Ddim(solver) => solver,
            Self::Euler(solver) => solver,
            Self::EulerAncestral(solver) => solver,
            Self::DpmMultistep(solver) => solver,
        }
    }
}

impl Solve for Solver {
    fn slots(&self) -> usize {
        self.get().slots()
    }

    fn is_finite(&self) -> bool {
        self.get().is_finite()
    }

    fn step(&self, step: Step<'_>) {
        self.get().step(step);
    }
}

/// Signal and noise weights of one timestep: `latents = signal * picture + noise * epsilon`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mix {
    pub(super) signal: f32,
    pub(super) noise: f32,
}

impl Mix {
    /// From a cumulative alpha.
    pub(super) fn of_alpha(alpha: f32) -> Self {
        Self {
            signal: alpha.sqrt(),
            noise: (1.0 - alpha).sqrt(),
        }
    }

    /// From a noise level, for latents that keep their variance (diffusers' `_sigma_to_alpha_sigma_t`).
    pub(super) fn of_sigma(sigma: f32) -> Self {
        let signal = 1.0 / (sigma * sigma + 1.0).sqrt();
        Self {
            signal,
            noise: sigma * signal,
        }
    }

    /// The picture that a model output means.
    pub(super) fn picture(self, prediction: Prediction, latent: f32, model: f32) -> f32 {
        match prediction {
            Prediction::Epsilon => (latent - self.noise * model) / self.signal,
            Prediction::Velocity => self.signal * latent - self.noise * model,
            Prediction::Sample => model,
        }
    }

    /// The noise that a model output means.
    pub(super) fn epsilon(self, prediction: Prediction, latent: f32, model: f32) -> f32 {
        match prediction {
            Prediction::Epsilon => model,
            Prediction::Velocity => self.signal * model + self.noise * latent,
            Prediction::Sample => (latent - self.signal * model) / self.noise,
        }
    }

    /// Whether the conversions of this prediction type divide by something.
    pub(super) fn is_usable(self, prediction: Prediction) -> bool {
        let finite = self.signal.is_finite() && self.noise.is_finite();
        finite
            && match prediction {
                Prediction::Epsilon => self.signal > 0.0,
                Prediction::Velocity => true,
                Prediction::Sample => self.noise > 0.0,
            }
    }
}
