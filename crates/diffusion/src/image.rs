//! Between 8-bit pictures and a VAE: the decoder's planes to RGB, RGB and masks to what the encoder takes, as diffusers'
//! `VaeImageProcessor` and `StableDiffusionInpaintPipeline` do it.
//!
//! It does not resize, encode or colour-manage. NaN becomes 0, so a broken model gives a black picture and not undefined bytes.

use crate::Error;

/// Colour planes of a decoded picture.
const CHANNELS: usize = 3;
/// Values of a plane that are turned into bytes at a time: they stay in registers and the nearest cache.
const BLOCK: usize = 64;

/// Converts a decoder output of 3 planes (`[3, height, width]`, f32 in [-1, 1]) to RGB bytes (`[height, width, 3]`).
///
/// Each value is `round((x / 2 + 0.5) clamped to [0, 1], times 255)`, halves to even, in f32 as numpy computes it.
///
/// # Errors
/// [`Error::Length`] when `planes` does not hold `3 * height * width` values.
pub fn to_rgb8(planes: &[f32], height: usize, width: usize) -> Result<Vec<u8>, Error> {
    let pixels = height.saturating_mul(width);
    expect("decoded image", planes.len(), pixels.saturating_mul(CHANNELS))?;
    let mut bytes = vec![0; CHANNELS * pixels];
    weave(planes, &mut bytes);
    Ok(bytes)
}

/// Three planes to the bytes of their pixels.
#[multiversion::multiversion(targets("x86_64+avx2"))]
fn weave(planes: &[f32], bytes: &mut [u8]) {
    let pixels = planes.len() / CHANNELS;
    let (red, rest) = planes.split_at(pixels);
    let (green, blue) = rest.split_at(pixels);
    // A plane at a time, so that the values become bytes many at once; then the bytes are woven.
    let planes = red.chunks(BLOCK).zip(green.chunks(BLOCK)).zip(blue.chunks(BLOCK));
    for (pixels, ((red, green), blue)) in bytes.chunks_mut(CHANNELS * BLOCK).zip(planes) {
        let (red, green, blue) = (to_bytes(red), to_bytes(green), to_bytes(blue));
        let values = red.iter().zip(&green).zip(&blue);
        for (pixel, ((&red, &green), &blue)) in pixels.chunks_exact_mut(CHANNELS).zip(values) {
            pixel.copy_from_slice(&[red, green, blue]);
        }
    }
}

/// At most [`BLOCK`] values to bytes.
#[inline(always)]
fn to_bytes(values: &[f32]) -> [u8; BLOCK] {
    let mut bytes = [0; BLOCK];
    for (byte, value) in bytes.iter_mut().zip(values) {
        *byte = to_byte(*value);
    }
    bytes
}

/// Converts RGB bytes (`[height, width, 3]`) to a VAE encoder's input of 3 planes (`[3, height, width]`, f32 in [-1, 1]).
///
/// # Errors
/// [`Error::Length`] when `rgb` does not hold `3 * height * width` bytes.
pub fn to_planes(rgb: &[u8], height: usize, width: usize) -> Result<Vec<f32>, Error> {
    let pixels = height.saturating_mul(width);
    expect("picture", rgb.len(), pixels.saturating_mul(CHANNELS))?;
    let mut planes = vec![0.0; CHANNELS * pixels];
    for (channel, plane) in planes.chunks_exact_mut(pixels.max(1)).enumerate() {
        for (value, pixel) in plane.iter_mut().zip(rgb.chunks_exact(CHANNELS)) {
            *value = 2.0 * (f32::from(pixel[channel]) / 255.0) - 1.0;
        }
    }
    Ok(planes)
}

/// A mask at latent size, for a VAE that makes one position of `factor` by `factor` pixels: 1 is drawn anew, 0 is kept.
///
/// `mask` has one byte a pixel (`[height, width]`), of which 128 and above are drawn anew; a position takes its first pixel, as
/// torch's nearest interpolation does.
///
/// # Errors
/// [`Error::Length`] when `mask` does not hold `height * width` bytes; [`Error::Field`] naming `size` when `factor` is 0 or does
/// not divide both.
pub fn mask_weights(mask: &[u8], height: usize, width: usize, factor: usize) -> Result<Vec<f32>, Error> {
    expect("mask", mask.len(), height.saturating_mul(width))?;
    if factor == 0 || !height.is_multiple_of(factor) || !width.is_multiple_of(factor) {
        return Err(Error::Field {
            field: "size",
            value: format!("{height}x{width} in positions of {factor}"),
            accepted: "multiples of a latent position's pixels",
        });
    }
    let rows = mask.chunks_exact(width.max(1)).step_by(factor);
    let firsts = rows.flat_map(|row| row.iter().step_by(factor));
    Ok(firsts.map(|byte| f32::from(is_drawn(*byte))).collect())
}

/// Blanks what a mask draws anew in a VAE encoder's input, to 0, which is grey: the masked picture of inpainting models.
///
/// # Errors
/// [`Error::Length`] when `planes` does not hold 3 values for each byte of `mask`.
pub fn blank(planes: &mut [f32], mask: &[u8]) -> Result<(), Error> {
    expect("picture", planes.len(), mask.len().saturating_mul(CHANNELS))?;
    for plane in planes.chunks_exact_mut(mask.len().max(1)) {
        for (value, _) in plane.iter_mut().zip(mask).filter(|(_, byte)| is_drawn(**byte)) {
            *value = 0.0;
        }
    }
    Ok(())
}

/// Whether a mask's byte is half white or more.
fn is_drawn(byte: u8) -> bool {
    byte >= 128
}

fn expect(what: &'static str, got: usize, expected: usize) -> Result<(), Error> {
    if got == expected {
        Ok(())
    } else {
        Err(Error::Length { what, got, expected })
    }
}

/// One value in [-1, 1] to one byte.
#[allow(clippy::manual_clamp, reason = "clamp leaves a NaN a NaN")]
#[inline(always)]
pub(crate) fn to_byte(value: f32) -> u8 {
    // Not `round_ties_even`, which is a call for each value where the target has no instruction for it.
    const WHOLE: f32 = 12_582_912.0;
    let scaled = (value / 2.0 + 0.5).max(0.0).min(1.0) * 255.0;
    // From 1.5 * 2^23 on, f32 has whole numbers only: adding it rounds, halves to even, into the low bits.
    (scaled + WHOLE).to_bits() as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    #[test]
    fn what_does_not_fit_together_is_refused() {
        assert!(to_planes(&[0; 11], 2, 2).is_err());
        assert!(to_planes(&[0; 3], usize::MAX, 2).is_err());
        assert!(mask_weights(&[0; 6], 2, 2, 1).is_err());
        assert!(mask_weights(&[0; 4], 2, 2, 0).is_err());
        assert!(mask_weights(&[0; 6], 2, 3, 2).is_err());
        assert!(blank(&mut [0.0; 5], &[255; 2]).is_err());
        assert!(to_planes(&[], 0, 2).unwrap().is_empty());
        assert!(mask_weights(&[], 0, 0, 8).unwrap().is_empty());
        assert!(blank(&mut [], &[]).is_ok());
    }

    proptest! {
        #[test]
        fn any_value_is_rounded_as_numpy_rounds_it(bits in any::<u32>(), near in -1.2_f32..1.2) {
            for value in [f32::from_bits(bits), near] {
                let expected = ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
                prop_assert_eq!(to_byte(value), expected, "{}", value);
            }
        }

        #[test]
        fn a_picture_survives_the_way_to_planes_and_back((width, rgb) in (1_usize..9).prop_flat_map(|width| {
            (Just(width), proptest::collection::vec(any::<u8>(), 3 * 4 * width))
        })) {
            let planes = to_planes(&rgb, 4, width).unwrap();
            prop_assert_eq!(to_rgb8(&planes, 4, width).unwrap(), rgb);
        }
    }
}
