//! The guidance scale as an input of the model, for latent consistency models (Luo et al. 2023, arXiv 2310.04378).
//!
//! It makes the vector that such a UNet takes beside the timestep (`timestep_cond`), and does not run guidance.

use crate::Error;

/// Largest size of an embedding; models have 256.
const MAX_VALUES: usize = 1 << 16;
/// What diffusers multiplies the scale by before it takes sines.
const GAIN: f32 = 1000.0;
/// Ratio of the largest to the smallest frequency.
const SPREAD: f32 = 10_000.0;

/// Sines, then cosines, of `w` at `dim / 2` frequencies, and a zero at the end where `dim` is odd: diffusers'
/// `LatentConsistencyModelPipeline.get_guidance_scale_embedding`. Its pipelines give the guidance scale minus 1 as `w`, and `dim`
/// is the UNet's `time_cond_proj_dim`.
///
/// # Errors
/// [`Error::Field`] naming `guidance_scale` when `w` is not a number or infinite, and `time_cond_proj_dim` when `dim` is below 4
/// (diffusers divides by zero) or above 65536.
pub fn guidance_scale_embedding(w: f32, dim: usize) -> Result<Vec<f32>, Error> {
    if !w.is_finite() {
        return Err(Error::Field {
            field: "guidance_scale",
            value: w.to_string(),
            accepted: "finite numbers",
        });
    }
    if !(4..=MAX_VALUES).contains(&dim) {
        return Err(Error::Field {
            field: "time_cond_proj_dim",
            value: dim.to_string(),
            accepted: "4 to 65536",
        });
    }
    let half = dim / 2;
    let rate = SPREAD.ln() / (half - 1) as f32;
    let angle = |i: usize| (w * GAIN) * (i as f32 * -rate).exp();
    let mut values: Vec<f32> = (0..half).map(|i| angle(i).sin()).collect();
    values.extend((0..half).map(|i| angle(i).cos()));
    values.resize(dim, 0.0);
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_of_one_gives_zeros_and_ones_and_an_odd_size_ends_with_a_zero() {
        assert_eq!(
            guidance_scale_embedding(0.0, 7).unwrap(),
            [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0]
        );
    }

    #[test]
    fn what_cannot_be_embedded_is_refused_by_field() {
        for (w, dim, field) in [
            (f32::NAN, 256, "guidance_scale"),
            (f32::INFINITY, 256, "guidance_scale"),
            (7.5, 0, "time_cond_proj_dim"),
            (7.5, 3, "time_cond_proj_dim"),
            (7.5, usize::MAX, "time_cond_proj_dim"),
        ] {
            assert_eq!(guidance_scale_embedding(w, dim).unwrap_err().field(), field);
        }
    }
}
