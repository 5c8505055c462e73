//! Pillow's `resize(size, LANCZOS)` of 8-bit pixels, bit by bit.
//!
//! Two passes, each with 22-bit fixed-point weights and rounded to 8 bits (Pillow, src/libImaging/Resample.c:
//! `precompute_coeffs`, `normalize_coeffs_8bpc`, `ImagingResampleHorizontal_8bpc`). Rows come first, but columns do where
//! the height shrinks by more than twice what the width does (Pillow 13; in 12 rows always were first, which differs by
//! rounding). A pass that changes no size is left out. Refuses nothing: sizes are checked before.

use std::f64::consts::PI;

use super::Raster;

/// The window of Lanczos3.
const SUPPORT: f64 = 3.0;
/// Bits behind the point: 32, less 8 for the pixel and 2 for sums beyond it.
const PRECISION: u32 = 32 - 8 - 2;

/// The weights of one output pixel.
struct Kernel {
    /// First input pixel.
    first: usize,
    weights: Vec<i32>,
}

/// Brings pixels to a size.
#[must_use]
pub fn resize(picture: Raster, width: u32, height: u32) -> Raster {
    if are_columns_first((picture.width, picture.height), (width, height)) {
        rows(columns(picture, height), width)
    } else {
        columns(rows(picture, width), height)
    }
}

/// Which pass is first.
pub(super) fn are_columns_first(from: (u32, u32), to: (u32, u32)) -> bool {
    let shrinks = |from: u32, to: u32| i64::from(from) - i64::from(to);
    let (width, height) = (shrinks(from.0, to.0), shrinks(from.1, to.1));
    height > 0 && height > 2 * width
}

fn rows(picture: Raster, width: u32) -> Raster {
    if picture.width == width {
        return picture;
    }
    let kernels = kernels(picture.width as usize, width as usize);
    let channels = picture.channels;
    let mut data = Vec::with_capacity(width as usize * picture.height as usize * channels);
    for row in picture.data.chunks_exact(picture.width as usize * channels) {
        for kernel in &kernels {
            for channel in 0..channels {
                let pixels = row[kernel.first * channels + channel..].iter().step_by(channels);
                data.push(sum(kernel.weights.iter().zip(pixels)));
            }
        }
    }
    Raster {
        width,
        data,
        ..picture
    }
}

fn columns(picture: Raster, height: u32) -> Raster {
    if picture.height == height {
        return picture;
    }
    let kernels = kernels(picture.height as usize, height as usize);
    let stride = picture.width as usize * picture.channels;
    let mut data = Vec::with_capacity(stride * height as usize);
    // Row by row, so that memory is read in order.
    let mut sums = vec![0_i32; stride];
    for kernel in &kernels {
        sums.fill(HALF);
        for (weight, row) in kernel
            .weights
            .iter()
            .zip(picture.data[kernel.first * stride..].chunks_exact(stride))
        {
            for (sum, pixel) in sums.iter_mut().zip(row) {
                *sum = sum.wrapping_add(i32::from(*pixel).wrapping_mul(*weight));
            }
        }
        data.extend(sums.iter().map(|sum| clip(*sum)));
    }
    Raster {
        height,
        data,
        ..picture
    }
}

const HALF: i32 = 1 << (PRECISION - 1);

fn sum<'a>(terms: impl Iterator<Item = (&'a i32, &'a u8)>) -> u8 {
    clip(terms.fold(HALF, |sum, (weight, pixel)| {
        sum.wrapping_add(i32::from(*pixel).wrapping_mul(*weight))
    }))
}

fn clip(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// Which input pixels make which output pixel.
fn kernels(from: usize, to: usize) -> Vec<Kernel> {
    let scale = from as f64 / to as f64;
    let filter = scale.max(1.0);
    let support = SUPPORT * filter;
    (0..to)
        .map(|at| {
            let center = (at as f64 + 0.5) * scale;
            // Below 0 becomes 0 in this conversion.
            let first = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            let weights: Vec<f64> = (first..end)
                .map(|pixel| lanczos((pixel as f64 - center + 0.5) * (1.0 / filter)))
                .collect();
            let total: f64 = weights.iter().sum();
            let fixed = |weight: f64| {
                let normal = if total == 0.0 { weight } else { weight / total };
                // Half away from zero.
                (normal * f64::from(1 << PRECISION)).round() as i32
            };
            Kernel {
                first,
                weights: weights.into_iter().map(fixed).collect(),
            }
        })
        .collect()
}

/// sinc(x) sinc(x / 3) within the window.
fn lanczos(x: f64) -> f64 {
    let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) };
    if (-SUPPORT..SUPPORT).contains(&x) {
        sinc(x) * sinc(x / SUPPORT)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_colour_stays_it_in_every_size() {
        let picture = |width: u32, height: u32| Raster {
            width,
            height,
            channels: 3,
            data: [7, 130, 255].repeat((width * height) as usize),
        };
        for (from, to) in [
            ((5, 3), (17, 40)),
            ((40, 31), (3, 2)),
            ((1, 1), (9, 9)),
            ((9, 1), (1, 1)),
        ] {
            assert_eq!(resize(picture(from.0, from.1), to.0, to.1), picture(to.0, to.1));
        }
    }
}
