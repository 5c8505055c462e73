//! What a request asks of a scheduler, beside the model's configuration.

use super::{Choice, Span};
use crate::Error;

/// Numbers that some schedulers take with each step; the others take no notice, as in diffusers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// DDIM: weight of the noise that is added. TCD: its gamma. Absent: the class's own default, 0 for DDIM and 0.3 for TCD.
    pub eta: Option<f32>,
    /// Euler, EDM: how far a step first goes back up in noise (Karras et al. 2022, arXiv 2206.00364, algorithm 2).
    pub s_churn: f32,
    /// Churn only at noise levels from here on.
    pub s_tmin: f32,
    /// Churn only at noise levels up to here.
    pub s_tmax: f32,
    /// Deviation of the noise that churn or the DPM++ SDE step adds.
    pub s_noise: f32,
    /// Flow matching with `use_dynamic_shifting`: the exponent that diffusers' pipelines compute from the picture's size.
    pub mu: Option<f32>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            eta: None,
            s_churn: 0.0,
            s_tmin: 0.0,
            s_tmax: f32::INFINITY,
            s_noise: 1.0,
            mu: None,
        }
    }
}

impl Options {
    /// Refuses values out of range.
    pub(super) fn check(&self) -> Result<(), Error> {
        // Far above any use; beyond them latents could overflow.
        const MAX_CHURN: f32 = 1e4;
        const MAX_NOISE: f32 = 100.0;
        const MAX_MU: f32 = 20.0;
        let refuse = |field, value: f32, accepted| {
            Err(Error::Field {
                field,
                value: value.to_string(),
                accepted,
            })
        };
        if let Some(eta) = self.eta.filter(|eta| !(0.0..=1.0).contains(eta)) {
            return refuse("eta", eta, "0 to 1");
        }
        if !(0.0..=MAX_CHURN).contains(&self.s_churn) {
            return refuse("s_churn", self.s_churn, "0 to 10000");
        }
        if !(0.0..=f32::INFINITY).contains(&self.s_tmin) {
            return refuse("s_tmin", self.s_tmin, "0 and above");
        }
        if !(0.0..=f32::INFINITY).contains(&self.s_tmax) {
            return refuse("s_tmax", self.s_tmax, "0 and above");
        }
        if !(0.0..=MAX_NOISE).contains(&self.s_noise) {
            return refuse("s_noise", self.s_noise, "0 to 100");
        }
        if let Some(mu) = self.mu.filter(|mu| !(-MAX_MU..=MAX_MU).contains(mu)) {
            return refuse("mu", mu, "-20 to 20");
        }
        Ok(())
    }
}

/// All that a [`Sampler`](super::Sampler) is made from, beside the model's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Ask {
    /// Which scheduler; the model's own by default.
    pub choice: Choice,
    /// Steps of the whole schedule, of which the span is a part.
    pub steps: usize,
    /// What part of the schedule is gone through.
    pub span: Span,
    /// Numbers of some schedulers.
    pub options: Options,
}

impl Ask {
    /// The whole schedule in this many steps, all else by default.
    #[must_use]
    pub fn steps(steps: usize) -> Self {
        Self {
            steps,
            ..Self::default()
        }
    }
}
