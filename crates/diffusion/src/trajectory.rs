//! One image on its way from noise to latents: what the next model call gets, and what is made of its answer.
//!
//! A trajectory owns everything that changes (latents, history, generator) and never touches another's, so that the batch it is
//! computed in cannot change it. It does not call a model and does not decode. No step allocates.
//!
//! Invariant: after [`Sampler::calls`] accepted outputs the trajectory is done, and its latents depend only on the spec, the
//! sampler and those outputs.

use std::sync::Arc;

use crate::Error;
use crate::random::Generator;
use crate::scheduler::{Sampler, Solve, Step};

/// Most values latents may have: 64 channels of 512 by 512, far above any model served.
const MAX_VALUES: usize = 1 << 24;
/// Largest guidance scale; above it the picture is noise in every model, and finite latents could overflow.
const MAX_GUIDANCE: f32 = 1000.0;

/// What a trajectory is made from, beside its sampler.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spec {
    /// Channels of the latents.
    pub channels: usize,
    /// Height of the latents (an eighth of the picture's).
    pub height: usize,
    /// Width of the latents (an eighth of the picture's).
    pub width: usize,
    /// Classifier-free guidance; above 1 each call has an unconditional row too (diffusers' `guidance_scale`).
    pub guidance_scale: f32,
    /// Seed of this image's own generator (`torch.Generator("cpu").manual_seed(seed)`).
    pub seed: u64,
    /// Weight of the noise that DDIM adds at each step, 0 to 1; other schedulers take no notice, as in diffusers.
    pub eta: f32,
}

/// One image on its way.
#[derive(Debug)]
pub struct Trajectory {
    sampler: Arc<Sampler>,
    spec: Spec,
    call: usize,
    latents: Vec<f32>,
    original: Vec<f32>,
    model: Vec<f32>,
    scratch: Vec<f32>,
    slots: Vec<Vec<f32>>,
    random: Generator,
}

impl Trajectory {
    /// Draws the initial noise and scales it; all memory the trajectory will need is taken here.
    ///
    /// # Errors
    /// [`Error::Field`] naming `size`, `guidance_scale` or `eta` when it is out of range or not a number.
    pub fn new(spec: Spec, sampler: Arc<Sampler>) -> Result<Self, Error> {
        let Spec {
            channels,
            height,
            width,
            guidance_scale,
            seed,
            eta,
        } = spec;
        let values = channels.checked_mul(height).and_then(|n| n.checked_mul(width));
        let Some(values) = values.filter(|n| (1..=MAX_VALUES).contains(n)) else {
            return Err(Error::Field {
                field: "size",
                value: format!("{channels}x{height}x{width} latents"),
                accepted: "1 to 16777216 values in all",
            });
        };
        if !(0.0..=MAX_GUIDANCE).contains(&guidance_scale) {
            return Err(Error::Field {
                field: "guidance_scale",
                value: guidance_scale.to_string(),
                accepted: "0 to 1000",
            });
        }
        if !(0.0..=1.0).contains(&eta) {
            return Err(Error::Field {
                field: "eta",
                value: eta.to_string(),
                accepted: "0 to 1",
            });
        }
        let mut random = Generator::new(seed);
        let mut latents = random.randn(values);
        let deviation = sampler.initial_deviation();
        latents.iter_mut().for_each(|x| *x *= deviation);
        let slots = vec![vec![0.0; values]; sampler.solver().slots()];
        Ok(Self {
            sampler,
            spec,
            call: 0,
            latents,
            original: vec![0.0; values],
            model: vec![0.0; values],
            scratch: vec![0.0; values],
            slots,
            random,
        })
    }

    /// What it was made from.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The schedule it follows.
    #[must_use]
    pub fn sampler(&self) -> &Arc<Sampler> {
        &self.sampler
    }

    /// Model calls taken so far.
    #[must_use]
    pub fn step(&self) -> usize {
        self.call
    }

    /// Model calls in all; PNDM has one more than the steps asked for.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.sampler.calls()
    }

    /// Whether all model calls are taken.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.call == self.steps()
    }

    /// Rows of each model call: 2 with guidance (unconditional first, then conditional, both with the same input), else 1.
    #[must_use]
    pub fn rows(&self) -> usize {
        if self.spec.guidance_scale > 1.0 { 2 } else { 1 }
    }

    /// Values of one row.
    #[must_use]
    pub fn values(&self) -> usize {
        self.latents.len()
    }

    /// Timestep of the next model call; the last call's when done.
    #[must_use]
    pub fn timestep(&self) -> f32 {
        let timesteps = self.sampler.timesteps();
        timesteps[self.call.min(timesteps.len() - 1)]
    }

    /// Writes one row of the next model call's input: the latents, scaled as the scheduler wants them.
    ///
    /// # Errors
    /// [`Error::Length`] when `out` is not as long as the latents; [`Error::Done`] when no call is left.
    pub fn write_input(&self, out: &mut [f32]) -> Result<(), Error> {
        self.expect_call()?;
        self.expect_length("model input", out.len())?;
        out.copy_from_slice(&self.latents);
        if let Some(divisor) = self.sampler.divisor(self.call) {
            out.iter_mut().for_each(|x| *x /= divisor);
        }
        Ok(())
    }

    /// Takes the model's output for the next call: guides it (`uncond + scale * (cond - uncond)`) and takes the step.
    ///
    /// # Errors
    /// [`Error::Done`] when no call is left, [`Error::Rows`] when `uncond` is present without guidance or absent with it, and
    /// [`Error::Length`] for an output of another length. The trajectory is then unchanged.
    pub fn accept(&mut self, uncond: Option<&[f32]>, cond: &[f32]) -> Result<(), Error> {
        self.expect_call()?;
        let got = 1 + usize::from(uncond.is_some());
        if got != self.rows() {
            return Err(Error::Rows {
                what: "model output",
                got,
                expected: self.rows(),
            });
        }
        self.expect_length("model output", cond.len())?;
        match uncond {
            None => self.model.copy_from_slice(cond),
            Some(uncond) => {
                self.expect_length("unconditional model output", uncond.len())?;
                let scale = self.spec.guidance_scale;
                for ((m, u), c) in self.model.iter_mut().zip(uncond).zip(cond) {
                    *m = u + scale * (c - u);
                }
            }
        }
        self.sampler.solver().step(Step {
            call: self.call,
            model: &mut self.model,
            latents: &mut self.latents,
            original: &mut self.original,
            slots: &mut self.slots,
            scratch: &mut self.scratch,
            random: &mut self.random,
            eta: self.spec.eta,
        });
        self.call += 1;
        Ok(())
    }

    /// The latents, `[channels, height, width]`, in the model's scaled space (the VAE's scaling factor is the caller's).
    #[must_use]
    pub fn latents(&self) -> &[f32] {
        &self.latents
    }

    /// The finished latents that the last model output predicted, for previews; zeros before the first output.
    #[must_use]
    pub fn predicted_original(&self) -> &[f32] {
        &self.original
    }

    fn expect_call(&self) -> Result<(), Error> {
        if self.is_done() {
            Err(Error::Done { calls: self.call })
        } else {
            Ok(())
        }
    }

    fn expect_length(&self, what: &'static str, got: usize) -> Result<(), Error> {
        let expected = self.values();
        if got == expected {
            Ok(())
        } else {
            Err(Error::Length { what, got, expected })
        }
    }
}
