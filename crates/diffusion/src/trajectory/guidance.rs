//! Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598): which calls have two rows, and how two outputs become one.
//!
//! It knows scales, the rescaling of Lin et al. and the interval of Kynkäänniemi et al., no other kind of guidance.

use std::ops::Range;

use crate::Error;
use crate::scheduler::decimal;

/// Largest guidance scale; above it the picture is noise in every model, and finite latents could overflow.
const MAX_SCALE: f32 = 1000.0;

/// How strongly the prompt pulls, and in which calls.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guidance {
    /// Above 1 each guided call has an unconditional row too (diffusers' `guidance_scale`).
    pub scale: f32,
    /// How much of the guided output gets the conditional output's deviation back, 0 (none) to 1: diffusers' `guidance_rescale`
    /// (Lin et al. 2023, arXiv 2305.08891, section 3.4).
    pub rescale: f32,
    /// The part of the calls that is guided, `[start, end)` with 0 <= start < end <= 1; the others have the conditional row alone
    /// (Kynkäänniemi et al. 2024, arXiv 2404.07724). Counted as `ClassifierFreeGuidance(start, stop)` of diffusers counts.
    pub interval: Option<(f32, f32)>,
    /// The model takes the scale as an input (latent consistency models): never two rows.
    pub embedded: bool,
}

impl Guidance {
    /// Guidance by a scale in every call, without rescaling.
    #[must_use]
    pub fn new(scale: f32) -> Self {
        Self {
            scale,
            rescale: 0.0,
            interval: None,
            embedded: false,
        }
    }

    /// Refuses numbers out of range, by field.
    pub(super) fn check(&self) -> Result<(), Error> {
        let refuse = |field, value, accepted| {
            Err(Error::Field {
                field,
                value,
                accepted,
            })
        };
        if !(0.0..=MAX_SCALE).contains(&self.scale) {
            return refuse("guidance_scale", self.scale.to_string(), "0 to 1000");
        }
        if !(0.0..=1.0).contains(&self.rescale) {
            return refuse("guidance_rescale", self.rescale.to_string(), "0 to 1");
        }
        match self.interval {
            Some((start, end)) if !(0.0 <= start && start < end && end <= 1.0) => refuse(
                "guidance_interval",
                format!("{start} to {end}"),
                "parts with 0 <= start < end <= 1",
            ),
            Some(_) | None => Ok(()),
        }
    }

    /// The calls that are guided.
    pub(super) fn calls(&self, calls: usize) -> Range<usize> {
        if self.embedded || self.scale <= 1.0 {
            return 0..0;
        }
        let (start, end) = self.interval.unwrap_or((0.0, 1.0));
        let at = |part: f32| (decimal(part) * calls as f64) as usize;
        at(start)..at(end)
    }

    /// `uncond + scale * (cond - uncond)` into `out`, rescaled if asked for (diffusers' `rescale_noise_cfg`).
    ///
    /// Where an output has no deviation (all values equal) diffusers divides by zero; here it is then not rescaled.
    pub(super) fn combine(&self, out: &mut [f32], uncond: &[f32], cond: &[f32]) {
        for ((m, u), c) in out.iter_mut().zip(uncond).zip(cond) {
            *m = u + self.scale * (c - u);
        }
        if self.rescale > 0.0 {
            let ratio = (deviation(cond) / deviation(out)) as f32;
            if ratio.is_finite() {
                for m in out {
                    *m = self.rescale * (*m * ratio) + (1.0 - self.rescale) * *m;
                }
            }
        }
    }
}

/// The sample deviation (divided by n - 1), as `torch.std` computes it by default.
fn deviation(values: &[f32]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
    let squares: f64 = values.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum();
    (squares / (n - 1.0)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_counts_calls_from_its_start_to_before_its_end() {
        let guided = |start, end, calls| {
            let guidance = Guidance {
                interval: Some((start, end)),
                ..Guidance::new(7.5)
            };
            guidance.check().unwrap();
            guidance.calls(calls)
        };
        assert_eq!(guided(0.0, 1.0, 20), 0..20);
        assert_eq!(guided(0.3, 0.7, 10), 3..7);
        assert_eq!(guided(0.25, 0.8, 10), 2..8);
        assert!(guided(0.0, 0.05, 10).is_empty());
        assert_eq!(Guidance::new(1.01).calls(7), 0..7);
        assert!(Guidance::new(1.0).calls(7).is_empty());
        let embedded = Guidance {
            embedded: true,
            ..Guidance::new(7.5)
        };
        assert!(embedded.calls(7).is_empty());
    }

    #[test]
    fn outputs_without_deviation_are_not_rescaled() {
        let guidance = Guidance {
            rescale: 0.7,
            ..Guidance::new(3.0)
        };
        let mut out = [0.0; 4];
        guidance.combine(&mut out, &[1.0; 4], &[2.0; 4]);
        assert_eq!(out, [4.0; 4]);
        guidance.combine(&mut out[..1], &[1.0], &[2.0]);
        assert_eq!(out[0], 4.0);
    }
}
