//! What a trajectory starts from: noise, a picture, a picture with a mask, or another model's latents.
//!
//! The order of draws is that of diffusers' pipelines with one generator per picture: a sample of the picture's posterior, the
//! noise, a sample of the masked picture's posterior (`StableDiffusionImg2ImgPipeline`, `StableDiffusionInpaintPipeline` and their
//! SDXL siblings draw alike). It encodes no picture and resizes no mask.

use std::sync::Arc;

use super::expect_length;
use crate::Error;
use crate::random::Random;
use crate::scheduler::{Mix, Sampler, Span};

/// What a trajectory starts from.
#[derive(Debug, Clone, PartialEq)]
pub enum Start {
    /// Noise alone (text to image).
    Noise,
    /// A picture (image to image), or a picture and a mask (inpainting).
    Image {
        /// The picture, encoded.
        image: Posterior,
        /// Where it is drawn anew; everywhere without one.
        mask: Option<Mask>,
    },
    /// Latents as they are, `[channels, height, width]` in the model's scaled space: no noise is drawn or added. They come from a
    /// model that did the first part of the schedule (`denoising_start`).
    Latents(Arc<[f32]>),
}

/// What a VAE's encoder says of a picture, in its own scale: a normal distribution, as `[channels, height, width]`.
///
/// A trajectory samples it with its own generator (`mean + deviation * randn`), then scales: `(sample - shift) * scaling`.
#[derive(Debug, Clone, PartialEq)]
pub struct Posterior {
    /// Mean of each value.
    pub mean: Arc<[f32]>,
    /// Deviation of each value; absent where the mean is a sample already, and nothing is drawn.
    pub deviation: Option<Arc<[f32]>>,
    /// The VAE's `scaling_factor`.
    pub scaling: f32,
    /// The VAE's `shift_factor`; 0 for those that have none.
    pub shift: f32,
}

/// Where a picture is drawn anew.
#[derive(Debug, Clone, PartialEq)]
pub struct Mask {
    /// One weight per latent position, `[height, width]`: 1 is drawn anew, 0 is kept.
    pub weights: Arc<[f32]>,
    /// The picture with the masked part blanked, encoded. Models without extra channels do not see it, but diffusers samples it
    /// for them too, which moves their generator on.
    pub masked: Posterior,
    /// The model takes the mask and the masked picture as extra input channels (9 in all); a model that does not gets the kept
    /// part put back after each call.
    pub concatenated: bool,
}

/// The kept part of a picture, put back after each call.
#[derive(Debug)]
pub(super) struct Kept {
    image: Vec<f32>,
    noise: Vec<f32>,
    weights: Arc<[f32]>,
}

/// A start, drawn.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) latents: Vec<f32>,
    pub(super) kept: Option<Kept>,
    /// What follows the latents in the model's input: the mask and the masked picture, or nothing.
    pub(super) extra: Vec<f32>,
}

impl Start {
    /// Refuses what does not fit latents of `values` values with `pixels` positions, or the sampler's span.
    pub(super) fn check(&self, values: usize, pixels: usize, sampler: &Sampler) -> Result<(), Error> {
        match self {
            Self::Noise => match (sampler.span(), sampler.is_from_start()) {
                (_, true) => Ok(()),
                (Span::Part { start, .. }, false) => Err(needs_more("denoising_start", start.unwrap_or(0.0))),
                (Span::Strength(strength) | Span::Consistency(strength), false) => {
                    Err(needs_more("strength", strength))
                }
                (Span::Whole, false) => Err(needs_more("strength", 1.0)),
            },
            Self::Latents(latents) => {
                expect_length("latents to go on from", latents.len(), values)?;
                finite("init_latents", latents)
            }
            Self::Image { image, mask } => {
                image.check("init_image", values)?;
                let Some(mask) = mask else { return Ok(()) };
                mask.masked.check("mask_image", values)?;
                expect_length("mask", mask.weights.len(), pixels)?;
                if mask.weights.iter().all(|weight| (0.0..=1.0).contains(weight)) {
                    Ok(())
                } else {
                    Err(Error::Field {
                        field: "mask_image",
                        value: "a weight out of range".to_owned(),
                        accepted: "weights of 0 to 1",
                    })
                }
            }
        }
    }

    /// Draws what is to be drawn and makes the first latents; [`Start::check`] must have passed.
    pub(super) fn begin(&self, values: usize, sampler: &Sampler, random: &mut Random) -> Begun {
        match self {
            Self::Noise => Begun::plain(scaled_noise(values, sampler, random)),
            Self::Latents(latents) => Begun::plain(latents.to_vec()),
            Self::Image { image, mask: None } => {
                let image = image.sample(random);
                if adds_no_noise(sampler) {
                    return Begun::plain(image);
                }
                let noise = random.randn(values);
                Begun::plain(mixed(sampler.mix(0), &image, &noise))
            }
            Self::Image {
                image,
                mask: Some(mask),
            } => mask.begin(image, sampler, random),
        }
    }
}

impl Mask {
    fn begin(&self, image: &Posterior, sampler: &Sampler, random: &mut Random) -> Begun {
        // From the schedule's start the picture counts for nothing (`is_strength_max`), and a model with extra channels needs no
        // sample of it.
        let pure = sampler.is_from_start() && !adds_no_noise(sampler);
        let image = (!pure || !self.concatenated).then(|| image.sample(random));
        let noise = random.randn(self.masked.mean.len());
        let latents = match &image {
            Some(image) if adds_no_noise(sampler) => image.clone(),
            Some(image) if !pure => mixed(sampler.mix(0), image, &noise),
            Some(_) | None => {
                let deviation = sampler.initial_deviation();
                noise.iter().map(|n| n * deviation).collect()
            }
        };
        let masked = self.masked.sample(random);
        if self.concatenated {
            let extra = [&self.weights[..], &masked].concat();
            return Begun {
                latents,
                kept: None,
                extra,
            };
        }
        let kept = image.map(|image| Kept {
            image,
            noise,
            weights: Arc::clone(&self.weights),
        });
        Begun {
            latents,
            kept,
            extra: Vec::new(),
        }
    }
}

impl Begun {
    fn plain(latents: Vec<f32>) -> Self {
        Self {
            latents,
            kept: None,
            extra: Vec::new(),
        }
    }
}

impl Kept {
    /// Puts the kept part back, with the noise of the next call (`mix`), or clean after the last.
    pub(super) fn restore(&self, latents: &mut [f32], mix: Option<Mix>) {
        let pixels = self.weights.len();
        for ((latents, image), noise) in latents
            .chunks_exact_mut(pixels)
            .zip(self.image.chunks_exact(pixels))
            .zip(self.noise.chunks_exact(pixels))
        {
            for (((x, image), noise), weight) in latents.iter_mut().zip(image).zip(noise).zip(&*self.weights)
            {
                let kept = match mix {
                    None => *image,
                    Some(Mix { signal, noise: level }) => signal * image + level * noise,
                };
                *x = (1.0 - weight) * kept + weight * *x;
            }
        }
    }
}

impl Posterior {
    /// A posterior that is sampled and scaled already.
    #[must_use]
    pub fn sampled(latents: Arc<[f32]>) -> Self {
        Self {
            mean: latents,
            deviation: None,
            scaling: 1.0,
            shift: 0.0,
        }
    }

    fn check(&self, field: &'static str, values: usize) -> Result<(), Error> {
        expect_length("mean of an encoded picture", self.mean.len(), values)?;
        finite(field, &self.mean)?;
        if let Some(deviation) = &self.deviation {
            expect_length("deviation of an encoded picture", deviation.len(), values)?;
            finite(field, deviation)?;
        }
        if self.scaling.is_finite() && self.shift.is_finite() && self.scaling != 0.0 {
            Ok(())
        } else {
            Err(Error::Field {
                field: "scaling_factor",
                value: format!("{} with shift_factor {}", self.scaling, self.shift),
                accepted: "finite numbers, scaling_factor not 0",
            })
        }
    }

    /// diffusers' `DiagonalGaussianDistribution.sample`, scaled.
    fn sample(&self, random: &mut Random) -> Vec<f32> {
        let mut values = match &self.deviation {
            None => self.mean.to_vec(),
            Some(deviation) => {
                let mut values = random.randn(self.mean.len());
                for ((x, mean), deviation) in values.iter_mut().zip(&*self.mean).zip(&**deviation) {
                    *x = mean + deviation * *x;
                }
                values
            }
        };
        values
            .iter_mut()
            .for_each(|x| *x = (*x - self.shift) * self.scaling);
        values
    }
}

/// Whether what the trajectory starts from has its noise already (`add_noise` of the SDXL pipelines).
fn adds_no_noise(sampler: &Sampler) -> bool {
    matches!(sampler.span(), Span::Part { start: Some(_), .. })
}

fn scaled_noise(values: usize, sampler: &Sampler, random: &mut Random) -> Vec<f32> {
    let mut latents = random.randn(values);
    let deviation = sampler.initial_deviation();
    latents.iter_mut().for_each(|x| *x *= deviation);
    latents
}

/// A scheduler's `add_noise`.
fn mixed(mix: Mix, image: &[f32], noise: &[f32]) -> Vec<f32> {
    let pairs = image.iter().zip(noise);
    pairs
        .map(|(image, noise)| mix.signal * image + mix.noise * noise)
        .collect()
}

fn finite(field: &'static str, values: &[f32]) -> Result<(), Error> {
    if values.iter().all(|x| x.is_finite()) {
        Ok(())
    } else {
        Err(Error::Field {
            field,
            value: "latents with a value that is not finite".to_owned(),
            accepted: "finite values",
        })
    }
}

fn needs_more(field: &'static str, value: f32) -> Error {
    Error::Field {
        field,
        value: value.to_string(),
        accepted: "1 (strength) or none (denoising_start) without a picture or latents to start from",
    }
}
