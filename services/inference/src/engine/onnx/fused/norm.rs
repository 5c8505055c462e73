//! Group normalization with its scale, its bias and the activation behind it, one group after the other while it is in the cache.
//!
//! Exports write it as eight operators that each walk the whole picture. Invariant: a group's result is made of that group's values
//! alone, in an order that depends on nothing else.

use multiversion::target::target_cfg_f;
use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput, ShapeInferenceContext,
};
use ort::value::TensorElementType;

use super::math::{silu, sum};
use super::{declare, divide, input, wrong};

/// Values of which sums are taken in f32, and then in f64: they stay in the nearest cache.
const BLOCK: usize = 4096;
/// Sums that run side by side: four vectors of eight.
const LANES: usize = 32;

/// How groups are normalized.
#[derive(Debug, Clone, Copy)]
pub(super) struct Norm {
    pub(super) groups: usize,
    pub(super) epsilon: f32,
    /// Whether `x * sigmoid(x)` follows.
    pub(super) silu: bool,
}

impl Norm {
    /// The values of a group, and how many channels are in it, of a tensor of rows, channels, height and width.
    fn group(self, shape: &[i64], scale: &[f32], bias: &[f32]) -> Result<(usize, usize), String> {
        let side = |at: usize| usize::try_from(shape[at]).unwrap_or(0);
        if shape.len() != 4 {
            return Err(format!("input of shape {shape:?}, expected four dimensions"));
        }
        let channels = side(1);
        if self.groups == 0 || !channels.is_multiple_of(self.groups) {
            return Err(format!("{channels} channels in {} groups", self.groups));
        }
        if scale.len() != channels || bias.len() != channels {
            return Err(format!(
                "{channels} channels with {} scales and {} biases",
                scale.len(),
                bias.len()
            ));
        }
        let channels = channels / self.groups;
        // A tensor without values may have sides of any length.
        Ok((channels.saturating_mul(side(2)).saturating_mul(side(3)), channels))
    }

    /// Normalizes one group; `scale` and `bias` have a value for each of its channels.
    fn run(self, values: &[f32], scale: &[f32], bias: &[f32], out: &mut [f32]) {
        let (mean, variance) = moments(values);
        let factor = 1.0 / (variance + f64::from(self.epsilon)).sqrt();
        let near = mean as f32;
        let area = (values.len() / scale.len().max(1)).max(1);
        let channels = values.chunks_exact(area).zip(out.chunks_exact_mut(area));
        for ((values, out), (scale, bias)) in channels.zip(scale.iter().zip(bias)) {
            let line = Line {
                mean: near,
                factor: (f64::from(*scale) * factor) as f32,
                // What the mean lost when it became an f32 is in the offset.
                offset: (f64::from(*bias) + (f64::from(near) - mean) * f64::from(*scale) * factor) as f32,
            };
            if self.silu {
                activated(values, line, out);
            } else {
                plain(values, line, out);
            }
        }
    }
}

/// What a channel's values become: `(x - mean) * factor + offset`.
#[derive(Debug, Clone, Copy)]
struct Line {
    mean: f32,
    factor: f32,
    offset: f32,
}

impl Line {
    #[inline(always)]
    fn at<const FUSED: bool>(self, x: f32) -> f32 {
        sum::<FUSED>(x - self.mean, self.factor, self.offset)
    }

    #[inline(always)]
    fn plain<const FUSED: bool>(self, values: &[f32], out: &mut [f32]) {
        for (out, value) in out.iter_mut().zip(values) {
            *out = self.at::<FUSED>(*value);
        }
    }

    #[inline(always)]
    fn activated<const FUSED: bool>(self, values: &[f32], out: &mut [f32]) {
        for (out, value) in out.iter_mut().zip(values) {
            *out = silu::<FUSED>(self.at::<FUSED>(*value));
        }
    }
}

#[multiversion::multiversion(targets("x86_64+avx2+fma"))]
fn plain(values: &[f32], line: Line, out: &mut [f32]) {
    if target_cfg_f!(target_feature = "fma") {
        line.plain::<true>(values, out);
    } else {
        line.plain::<false>(values, out);
    }
}

#[multiversion::multiversion(targets("x86_64+avx2+fma"))]
fn activated(values: &[f32], line: Line, out: &mut [f32]) {
    if target_cfg_f!(target_feature = "fma") {
        line.activated::<true>(values, out);
    } else {
        line.activated::<false>(values, out);
    }
}

/// Mean and variance. Each block's are taken around its own mean, and are joined in f64 (Chan, Golub and LeVeque, "Updating formulae
/// and a pairwise algorithm for computing sample variances", 1979).
#[multiversion::multiversion(targets("x86_64+avx2"))]
fn moments(values: &[f32]) -> (f64, f64) {
    let (mut count, mut mean, mut squares) = (0.0_f64, 0.0_f64, 0.0_f64);
    for block in values.chunks(BLOCK) {
        let length = block.len() as f64;
        let middle = (total(block) / length) as f32;
        let (difference, around) = around(block, middle);
        let block_mean = f64::from(middle) + difference / length;
        let block_squares = around - difference * difference / length;
        let step = block_mean - mean;
        let all = count + length;
        mean += step * (length / all);
        squares += block_squares + step * step * (count * length / all);
        count = all;
    }
    (mean, (squares / count).max(0.0))
}

#[inline(always)]
fn total(block: &[f32]) -> f64 {
    let mut sums = [0.0_f32; LANES];
    let (whole, rest) = block.as_chunks::<LANES>();
    for values in whole {
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += value;
        }
    }
    for (sum, value) in sums.iter_mut().zip(rest) {
        *sum += value;
    }
    sums.iter().map(|sum| f64::from(*sum)).sum()
}

/// The sums of the differences to a value and of their squares.
#[inline(always)]
fn around(block: &[f32], middle: f32) -> (f64, f64) {
    let (mut sums, mut squares) = ([0.0_f32; LANES], [0.0_f32; LANES]);
    let (whole, rest) = block.as_chunks::<LANES>();
    for values in whole {
        for lane in 0..LANES {
            let difference = values[lane] - middle;
            sums[lane] += difference;
            squares[lane] += difference * difference;
        }
    }
    for (lane, value) in rest.iter().enumerate() {
        let difference = value - middle;
        sums[lane] += difference;
        squares[lane] += difference * difference;
    }
    let all = |lanes: &[f32; LANES]| lanes.iter().map(|sum| f64::from(*sum)).sum();
    (all(&sums), all(&squares))
}

/// `GroupNorm(X, scale, bias)` with the attributes `groups`, `epsilon` and `silu`.
pub(super) struct GroupNorm;

impl Operator for GroupNorm {
    type Kernel<'attr> = Norm;

    fn name(&self) -> &str {
        "GroupNorm"
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [0; 3].map(|_| OperatorInput::required(TensorElementType::Float32))
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Norm> {
        let number = |name: &str| context.get::<i64>(name).and_then(|n| usize::try_from(n).ok());
        match (number("groups"), context.get::<f32>("epsilon"), number("silu")) {
            (Some(groups), Some(epsilon), Some(silu)) => Ok(Norm {
                groups,
                epsilon,
                silu: silu != 0,
            }),
            _ => Err(wrong("GroupNorm needs groups, epsilon and silu".to_owned())),
        }
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        declare(context, |sides| sides == 4, 1)
    }
}

impl Kernel for Norm {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let (values, scale, bias) = (input(context, 0)?, input(context, 1)?, input(context, 2)?);
        let (shape, values) = values.try_extract_tensor::<f32>()?;
        let scale = scale.try_extract_tensor::<f32>()?.1;
        let bias = bias.try_extract_tensor::<f32>()?.1;
        let (size, channels) = self.group(shape, scale, bias).map_err(wrong)?;
        let Some(mut out) = context.output(0, shape.to_vec())? else {
            return Ok(());
        };
        let out = out.try_extract_tensor_mut::<f32>()?.1;
        let norm = *self;
        divide(context, out, size, |index, out| {
            let first = index % norm.groups * channels;
            let own = first..first + channels;
            let values = &values[index * size..][..size];
            norm.run(values, &scale[own.clone()], &bias[own], out);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::math::tests::exact_silu;
    use super::*;
    use proptest::prelude::*;

    /// The plain definition in f64.
    fn exact(norm: Norm, values: &[f32], scale: &[f32], bias: &[f32]) -> Vec<f64> {
        let wide: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
        let count = wide.len() as f64;
        let mean = wide.iter().sum::<f64>() / count;
        let variance = wide.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
        let area = values.len() / scale.len();
        let normed = wide.iter().enumerate().map(|(at, x)| {
            let (scale, bias) = (f64::from(scale[at / area]), f64::from(bias[at / area]));
            let y = (x - mean) / (variance + f64::from(norm.epsilon)).sqrt() * scale + bias;
            if norm.silu { exact_silu(y) } else { y }
        });
        normed.collect()
    }

    fn run(norm: Norm, values: &[f32], scale: &[f32], bias: &[f32]) -> Vec<f32> {
        let mut out = vec![7.0; values.len()];
        norm.run(values, scale, bias, &mut out);
        out
    }

    fn wave(count: usize, step: f32) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * step).sin()).collect()
    }

    /// The largest error relative to the largest true value.
    fn error(got: &[f32], truth: &[f64]) -> f64 {
        let size = truth.iter().fold(1.0_f64, |size, truth| size.max(truth.abs()));
        let errors = got
            .iter()
            .zip(truth)
            .map(|(got, truth)| (f64::from(*got) - truth).abs());
        errors.fold(0.0, |most, error| {
            if error.is_nan() {
                f64::INFINITY
            } else {
                error.max(most)
            }
        }) / size
    }

    const NORM: Norm = Norm {
        groups: 1,
        epsilon: 1e-5,
        silu: false,
    };

    #[test]
    fn a_group_of_many_blocks_far_from_zero_is_normalized_as_in_f64() {
        // 3 channels of 50 x 61: neither lanes nor blocks divide it. The mean is a thousand deviations away from zero.
        for (away, most) in [(0.0, 1e-6), (3.0, 2e-6), (1000.0, 2e-6)] {
            let values: Vec<f32> = wave(9150, 0.37).iter().map(|x| x + away).collect();
            let (scale, bias) = (wave(3, 1.1), wave(3, 2.3));
            for silu in [false, true] {
                let norm = Norm { silu, ..NORM };
                let got = error(
                    &run(norm, &values, &scale, &bias),
                    &exact(norm, &values, &scale, &bias),
                );
                assert!(got < most, "{away} {silu}: {got}");
            }
        }
    }

    #[test]
    fn one_value_without_a_number_is_in_its_group_alone() {
        let mut values = wave(64, 0.7);
        values[5] = f32::NAN;
        assert!(run(NORM, &values, &[1.0], &[0.0]).iter().all(|x| x.is_nan()));
        values[5] = f32::INFINITY;
        assert!(run(NORM, &values, &[1.0], &[0.0]).iter().all(|x| x.is_nan()));
        // A constant picture has no variance.
        assert_eq!(run(NORM, &[3.0; 40], &[2.0], &[0.5]), [0.5; 40]);
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let norm = Norm { groups: 2, ..NORM };
        let check = |shape: &[i64], scales, biases| norm.group(shape, &vec![0.0; scales], &vec![0.0; biases]);
        assert_eq!(check(&[3, 6, 4, 5], 6, 6).unwrap(), (60, 3));
        assert_eq!(check(&[0, 6, 0, 5], 6, 6).unwrap(), (0, 3));
        assert!(check(&[0, 6, i64::MAX, i64::MAX], 6, 6).is_ok());
        for (shape, scales, biases) in [
            (&[3, 5, 4, 5][..], 5, 5),
            (&[3, 6, 4], 6, 6),
            (&[3, 6, 4, 5], 5, 6),
            (&[3, 6, 4, 5], 6, 1),
        ] {
            assert!(check(shape, scales, biases).is_err(), "{shape:?}");
        }
        let none = Norm { groups: 0, ..NORM };
        assert!(none.group(&[1, 1, 1, 1], &[0.0], &[0.0]).is_err());
    }

    proptest! {
        #[test]
        fn any_group_is_normalized_as_in_f64(
            channels in 1..5_usize,
            area in 1..300_usize,
            away in -50.0..50.0_f32,
            size in 0.01..100.0_f32,
            seed in 0.1..3.0_f32,
            silu in any::<bool>(),
        ) {
            let values: Vec<f32> = wave(channels * area, seed).iter().map(|x| x * size + away).collect();
            let (scale, bias) = (wave(channels, seed + 1.0), wave(channels, seed + 2.0));
            let norm = Norm { silu, ..NORM };
            // What rounding the inputs to f32 leaves of a small deviation far from zero is not the norm's.
            let got = error(&run(norm, &values, &scale, &bias), &exact(norm, &values, &scale, &bias));
            prop_assert!(got < 2e-6, "{got}");
        }
    }
}
