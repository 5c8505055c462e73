//! Previews without a decoder: a linear map from latent channels to colours, one pixel per latent position.
//!
//! It says roughly where which colour will be; it does not enlarge or encode, and is never used for a final picture.

use crate::Error;
use crate::image::to_byte;

/// A linear map from latents (in the model's scaled space) to RGB in [-1, 1].
#[derive(Debug, Clone, PartialEq)]
pub struct LatentRgb {
    weights: Vec<[f32; 3]>,
    bias: [f32; 3],
}

impl Default for LatentRgb {
    /// The factors for Stable Diffusion 1.x latents that Kevin Turner (keturn) fitted on v1.4 and published in "Decoding latents to
    /// RGB without upscaling" (discuss.huggingface.co, topic 23204); they serve every model with that VAE, 2.x included.
    fn default() -> Self {
        Self {
            weights: vec![
                [0.298, 0.207, 0.208],
                [0.187, 0.286, 0.173],
                [-0.158, 0.189, 0.264],
                [-0.184, -0.271, -0.473],
            ],
            bias: [0.0; 3],
        }
    }
}

impl LatentRgb {
    /// Makes a map of one `[r, g, b]` row per latent channel, and what is added to each colour.
    ///
    /// # Errors
    /// [`Error::Field`] when there is no row or a number is not finite.
    pub fn new(weights: Vec<[f32; 3]>, bias: [f32; 3]) -> Result<Self, Error> {
        if weights.is_empty() || !weights.iter().flatten().chain(&bias).all(|v| v.is_finite()) {
            return Err(Error::Field {
                field: "latent_rgb",
                value: format!("{weights:?} + {bias:?}"),
                accepted: "one row of three finite numbers per latent channel",
            });
        }
        Ok(Self { weights, bias })
    }

    /// Latent channels this map is for.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.weights.len()
    }

    /// Turns latents (`[channels, height, width]`) into RGB bytes (`[height, width, 3]`) of the latents' height and width.
    ///
    /// # Errors
    /// [`Error::Length`] when `latents` does not hold `channels * height * width` values.
    pub fn to_rgb8(&self, latents: &[f32], height: usize, width: usize) -> Result<Vec<u8>, Error> {
        let pixels = height * width;
        let expected = self.channels() * pixels;
        if latents.len() != expected {
            return Err(Error::Length {
                what: "latents",
                got: latents.len(),
                expected,
            });
        }
        let mut bytes = vec![0; 3 * pixels];
        for (i, pixel) in bytes.chunks_exact_mut(3).enumerate() {
            let mut colour = self.bias;
            for (channel, row) in self.weights.iter().enumerate() {
                let value = latents[channel * pixels + i];
                for (sum, weight) in colour.iter_mut().zip(row) {
                    *sum += value * weight;
                }
            }
            pixel.copy_from_slice(&colour.map(to_byte));
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grey_latents_give_grey_and_the_bias_moves_it() {
        let latents = [0.0; 4 * 6];
        assert_eq!(LatentRgb::default().to_rgb8(&latents, 2, 3).unwrap(), [128; 18]);
        let lifted = LatentRgb::new(vec![[0.0; 3]; 4], [1.0, -1.0, 0.0]).unwrap();
        assert_eq!(
            lifted.to_rgb8(&latents, 2, 3).unwrap()[..6],
            [255, 0, 128, 255, 0, 128]
        );
    }

    #[test]
    fn each_channel_moves_the_colours_by_its_row() {
        let map = LatentRgb::new(vec![[1.0, 0.0, 0.0], [0.0, 0.0, -1.0]], [0.0; 3]).unwrap();
        assert_eq!(
            map.to_rgb8(&[1.0, -1.0, 1.0, 0.0], 1, 2).unwrap(),
            [255, 128, 0, 0, 128, 128]
        );
    }

    #[test]
    fn a_wrong_length_or_a_bad_number_is_refused() {
        assert!(matches!(
            LatentRgb::default().to_rgb8(&[0.0; 5], 1, 1),
            Err(Error::Length { expected: 4, .. })
        ));
        assert!(LatentRgb::new(vec![], [0.0; 3]).is_err());
        assert!(LatentRgb::new(vec![[f32::NAN, 0.0, 0.0]], [0.0; 3]).is_err());
    }
}
