//! The last step of a picture: from the VAE decoder's planes to 8-bit RGB, as diffusers' `VaeImageProcessor` does it.
//!
//! It does not resize, encode or colour-manage. NaN becomes 0, so a broken model gives a black picture and not undefined bytes.

use crate::Error;

/// Colour planes of a decoded picture.
const CHANNELS: usize = 3;

/// Converts a decoder output of 3 planes (`[3, height, width]`, f32 in [-1, 1]) to RGB bytes (`[height, width, 3]`).
///
/// Each value is `round((x / 2 + 0.5) clamped to [0, 1], times 255)`, halves to even, in f32 as numpy computes it.
///
/// # Errors
/// [`Error::Length`] when `planes` does not hold `3 * height * width` values.
pub fn to_rgb8(planes: &[f32], height: usize, width: usize) -> Result<Vec<u8>, Error> {
    let pixels = height * width;
    if planes.len() != CHANNELS * pixels {
        return Err(Error::Length {
            what: "decoded image",
            got: planes.len(),
            expected: CHANNELS * pixels,
        });
    }
    let mut bytes = vec![0; CHANNELS * pixels];
    let (red, rest) = planes.split_at(pixels);
    let (green, blue) = rest.split_at(pixels);
    for (pixel, ((&r, &g), &b)) in bytes
        .chunks_exact_mut(CHANNELS)
        .zip(red.iter().zip(green).zip(blue))
    {
        pixel.copy_from_slice(&[to_byte(r), to_byte(g), to_byte(b)]);
    }
    Ok(bytes)
}

/// One value in [-1, 1] to one byte.
pub(crate) fn to_byte(value: f32) -> u8 {
    ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_rounded_half_to_even_and_clamped() {
        // 0.0 is 127.5 before rounding, and 128 is even; (2 * 0.5 / 255 - 1) is 0.5 and goes to 0.
        assert_eq!(
            [-9.0, -1.0, 2.0 * 0.5 / 255.0 - 1.0, 0.0, 1.0, 9.0].map(to_byte),
            [0, 0, 0, 128, 255, 255]
        );
        assert_eq!(to_byte(f32::NAN), 0);
    }

    #[test]
    fn planes_become_interleaved_pixels() {
        let planes = [-1.0, 1.0, 1.0, -1.0, 0.0, 0.0];
        assert_eq!(to_rgb8(&planes, 1, 2).unwrap(), [0, 255, 128, 255, 0, 128]);
        assert!(matches!(
            to_rgb8(&planes, 2, 2),
            Err(Error::Length {
                got: 6,
                expected: 12,
                ..
            })
        ));
    }
}
