//! The one shape all schedulers have: a table of coefficients, and a step over plain slices.
//!
//! A solver holds nothing of a trajectory; what it must remember between steps lies in slots that the trajectory owns. So one
//! solver serves any number of trajectories at once, and interleaving them cannot change a value.

use std::fmt::Debug;

use super::{Options, Prediction};
use crate::random::Random;

/// What a step works on. All slices have the latents' length.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    /// Number of this model call inside the span, from 0.
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
    pub(crate) random: &'a mut Random,
    /// The numbers that the request gave.
    pub(crate) options: &'a Options,
    /// The trajectory's seed, for noise that is a function of the noise level (DPM++ SDE).
    pub(crate) seed: u64,
}

/// A scheduler's arithmetic.
pub(crate) trait Solve: Debug + Send + Sync {
    /// Number of buffers of the latents' size it needs between steps.
    fn slots(&self) -> usize;

    /// Whether no coefficient is infinite or not a number.
    fn is_finite(&self) -> bool;

    /// The step that a model call is a part of, both counted from 0 inside the span.
    fn step_of(&self, call: usize) -> usize {
        call
    }

    /// Takes one step.
    fn step(&self, step: Step<'_>);
}

/// Any scheduler's arithmetic.
pub(crate) type Solver = Box<dyn Solve>;

/// Signal and noise weights of one timestep: `latents = signal * picture + noise * epsilon`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Mix {
    pub(crate) signal: f32,
    pub(crate) noise: f32,
}

impl Mix {
    /// The picture alone.
    pub(crate) const CLEAN: Self = Self {
        signal: 1.0,
        noise: 0.0,
    };

    /// From a noise level of latents whose variance grows with the noise: the picture as it is, and noise on top.
    pub(super) fn on_top(sigma: f32) -> Self {
        Self {
            signal: 1.0,
            noise: sigma,
        }
    }

    /// From a noise level of flow matching: straight lines between picture and noise.
    pub(super) fn of_flow(sigma: f32) -> Self {
        Self {
            signal: 1.0 - sigma,
            noise: sigma,
        }
    }

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
            Prediction::Flow => latent - self.noise * model,
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

    /// The noise that a model output means.
    pub(super) fn epsilon(self, prediction: Prediction, latent: f32, model: f32) -> f32 {
        match prediction {
            Prediction::Epsilon => model,
            Prediction::Velocity => self.signal * model + self.noise * latent,
            Prediction::Sample => (latent - self.signal * model) / self.noise,
            Prediction::Flow => latent + self.signal * model,
        }
    }

    /// Whether the conversions of this prediction type divide by something.
    pub(super) fn is_usable(self, prediction: Prediction) -> bool {
        let finite = self.signal.is_finite() && self.noise.is_finite();
        finite
            && match prediction {
                Prediction::Epsilon => self.signal > 0.0,
                Prediction::Velocity | Prediction::Flow => true,
                Prediction::Sample => self.noise > 0.0,
            }
    }
}
