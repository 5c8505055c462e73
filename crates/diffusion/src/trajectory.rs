//! One image on its way from noise to latents: what the next model call gets, and what is made of its answer.
//!
//! A trajectory owns everything that changes (latents, history, generator) and never touches another's, so that the batch it is
//! computed in cannot change it. It does not call a model and does not encode or decode. No step allocates.
//!
//! Invariant: after [`Sampler::calls`] accepted outputs the trajectory is done, and its latents depend only on the spec, the
//! sampler and those outputs.

mod guidance;
mod start;

use std::ops::Range;
use std::sync::Arc;

use crate::Error;
use crate::random::{Random, Source};
use crate::scheduler::{Sampler, Step};

pub use guidance::Guidance;
pub use start::{Mask, Posterior, Start};

use start::{Begun, Kept};

/// Most values latents may have: 64 channels of 512 by 512, far above any model served.
const MAX_VALUES: usize = 1 << 24;

/// What a trajectory is made from, beside its sampler.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Channels of the latents.
    pub channels: usize,
    /// Height of the latents (an eighth of the picture's).
    pub height: usize,
    /// Width of the latents (an eighth of the picture's).
    pub width: usize,
    /// Classifier-free guidance.
    pub guidance: Guidance,
    /// Seed of this image's own generator (`torch.Generator(source).manual_seed(seed)`).
    pub seed: u64,
    /// Whose generator it is.
    pub source: Source,
    /// What it starts from.
    pub start: Start,
}

/// One image on its way.
#[derive(Debug)]
pub struct Trajectory {
    sampler: Arc<Sampler>,
    guidance: Guidance,
    /// Calls with two rows.
    guided: Range<usize>,
    seed: u64,
    call: usize,
    latents: Vec<f32>,
    original: Vec<f32>,
    model: Vec<f32>,
    scratch: Vec<f32>,
    slots: Vec<Vec<f32>>,
    random: Random,
    kept: Option<Kept>,
    /// What follows the latents in the model's input.
    extra: Vec<f32>,
}

impl Trajectory {
    /// Draws what the trajectory starts from; all memory it will need is taken here.
    ///
    /// # Errors
    /// [`Error::Field`] naming `size`, `guidance_scale`, `guidance_rescale`, `guidance_interval`, `init_image`, `mask_image`,
    /// `init_latents` or `scaling_factor` when it is out of range or not a number, and `strength` or `denoising_start` when the
    /// sampler begins within the schedule and there is only noise to start from; [`Error::Length`] when a picture, mask or latents
    /// are not of this size.
    pub fn new(spec: Spec, sampler: Arc<Sampler>) -> Result<Self, Error> {
        let Spec {
            channels,
            height,
            width,
            guidance,
            seed,
            source,
            start,
        } = spec;
        let values = channels.checked_mul(height).and_then(|n| n.checked_mul(width));
        let Some(values) = values.filter(|n| (1..=MAX_VALUES).contains(n)) else {
            return Err(Error::Field {
                field: "size",
                value: format!("{channels}x{height}x{width} latents"),
                accepted: "1 to 16777216 values in all",
            });
        };
        guidance.check()?;
        start.check(values, height * width, &sampler)?;
        let mut random = Random::new(source, seed);
        let Begun { latents, kept, extra } = start.begin(values, &sampler, &mut random);
        let slots = vec![vec![0.0; values]; sampler.solver().slots()];
        Ok(Self {
            guided: guidance.calls(sampler.calls()),
            sampler,
            guidance,
            seed,
            call: 0,
            latents,
            original: vec![0.0; values],
            model: vec![0.0; values],
            scratch: vec![0.0; values],
            slots,
            random,
            kept,
            extra,
        })
    }

    /// How it is guided.
    #[must_use]
    pub fn guidance(&self) -> &Guidance {
        &self.guidance
    }

    /// Seed of its generator.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
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

    /// Model calls in all; PNDM has one more than the steps asked for, second-order schedulers have two a step.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.sampler.calls()
    }

    /// Whether all model calls are taken.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.call == self.steps()
    }

    /// Whether the next model call is guided; no call is left when done, so then it is not.
    #[must_use]
    pub fn is_guided(&self) -> bool {
        self.guided.contains(&self.call)
    }

    /// Rows of the next model call: 2 when guided (unconditional first, then conditional, both with the same input), else 1.
    #[must_use]
    pub fn rows(&self) -> usize {
        1 + usize::from(self.is_guided())
    }

    /// Values of the latents, and of one row of the model's output.
    #[must_use]
    pub fn values(&self) -> usize {
        self.latents.len()
    }

    /// Values of one row of the model's input: the latents, and for a model with extra channels the mask and the masked picture.
    #[must_use]
    pub fn input_values(&self) -> usize {
        self.latents.len() + self.extra.len()
    }

    /// Timestep of the next model call; the last call's when done.
    #[must_use]
    pub fn timestep(&self) -> f32 {
        let timesteps = self.sampler.timesteps();
        timesteps[self.call.min(timesteps.len() - 1)]
    }

    /// Writes one row of the next model call's input: the latents, scaled as the scheduler wants them, then (unscaled) the mask
    /// and the masked picture for a model with extra channels.
    ///
    /// # Errors
    /// [`Error::Length`] when `out` is not [`Trajectory::input_values`] long; [`Error::Done`] when no call is left.
    pub fn write_input(&self, out: &mut [f32]) -> Result<(), Error> {
        self.expect_call()?;
        expect_length("model input", out.len(), self.input_values())?;
        let (latents, extra) = out.split_at_mut(self.latents.len());
        latents.copy_from_slice(&self.latents);
        if let Some(divisor) = self.sampler.divisor(self.call) {
            latents.iter_mut().for_each(|x| *x /= divisor);
        }
        extra.copy_from_slice(&self.extra);
        Ok(())
    }

    /// Takes the model's output for the next call: guides it (`uncond + scale * (cond - uncond)`), takes the step, and puts back
    /// what a mask keeps.
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
        expect_length("model output", cond.len(), self.values())?;
        match uncond {
            None => self.model.copy_from_slice(cond),
            Some(uncond) => {
                expect_length("unconditional model output", uncond.len(), self.values())?;
                self.guidance.combine(&mut self.model, uncond, cond);
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
            options: self.sampler.options(),
            seed: self.seed,
        });
        self.call += 1;
        if let Some(kept) = &self.kept {
            let mix = (!self.is_done()).then(|| self.sampler.mix(self.call));
            kept.restore(&mut self.latents, mix);
        }
        Ok(())
    }

    /// The latents, `[channels, height, width]`, in the model's scaled space (the VAE's scaling factor is the caller's).
    #[must_use]
    pub fn latents(&self) -> &[f32] {
        &self.latents
    }

    /// Whether every value of the latents is a number. Once one is not no picture comes of them.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        is_finite(&self.latents)
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
}

fn expect_length(what: &'static str, got: usize, expected: usize) -> Result<(), Error> {
    if got == expected {
        Ok(())
    } else {
        Err(Error::Length { what, got, expected })
    }
}
/// Whether every value is a number: no NaN, no infinity.
#[must_use]
pub fn is_finite(values: &[f32]) -> bool {
    // A block whole, which compilers make many values at a time of; `all` alone would look at them one by one.
    const BLOCK: usize = 1024;
    let sound = |block: &[f32]| block.iter().fold(true, |sound, x| sound & x.is_finite());
    values.chunks(BLOCK).all(sound)
}
