//! The gate of a feed-forward layer, `first * gelu(second)` of the halves of each line, with the bias before it.
//!
//! Exports write it as an addition, two slices and six operators on halves.

use multiversion::target::target_cfg_f;
use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput, ShapeInferenceContext,
};
use ort::value::TensorElementType;

use super::math::gelu;
use super::{declare, divide, input, wrong};

/// Values of a task: enough for it to be worth a thread's while.
const TASK: usize = 16 << 10;

/// The width of half a line.
fn half(shape: &[i64], bias: Option<usize>) -> Result<usize, String> {
    let width = shape
        .last()
        .and_then(|width| usize::try_from(*width).ok())
        .unwrap_or(0);
    if width == 0 || !width.is_multiple_of(2) {
        return Err(format!("lines of {width} values have no halves"));
    }
    if bias.is_some_and(|bias| bias != width) {
        return Err(format!("lines of {width} values with {bias:?} biases"));
    }
    Ok(width / 2)
}

/// All lines of `values`, each twice as long as one of `out`.
fn lines(values: &[f32], bias: Option<&[f32]>, half: usize, out: &mut [f32]) {
    let halves = bias.map(|bias| bias.split_at(half));
    for (line, out) in values.chunks_exact(2 * half).zip(out.chunks_exact_mut(half)) {
        let (first, second) = line.split_at(half);
        match halves {
            Some((before, after)) => biased(first, second, before, after, out),
            None => plain(first, second, out),
        }
    }
}

#[multiversion::multiversion(targets("x86_64+avx2+fma"))]
fn biased(first: &[f32], second: &[f32], before: &[f32], after: &[f32], out: &mut [f32]) {
    let biases = before.iter().zip(after);
    let values = first.iter().zip(second).zip(biases);
    for (out, ((first, second), (before, after))) in out.iter_mut().zip(values) {
        let gate = if target_cfg_f!(target_feature = "fma") {
            gelu::<true>(second + after)
        } else {
            gelu::<false>(second + after)
        };
        *out = (first + before) * gate;
    }
}

#[multiversion::multiversion(targets("x86_64+avx2+fma"))]
fn plain(first: &[f32], second: &[f32], out: &mut [f32]) {
    for (out, (first, second)) in out.iter_mut().zip(first.iter().zip(second)) {
        let gate = if target_cfg_f!(target_feature = "fma") {
            gelu::<true>(*second)
        } else {
            gelu::<false>(*second)
        };
        *out = first * gate;
    }
}

/// `GegluBias(X, bias)`, the bias may be left out.
pub(super) struct GegluBias;

/// Its kernel, which keeps nothing.
pub(super) struct Gate;

impl Operator for GegluBias {
    type Kernel<'attr> = Gate;

    fn name(&self) -> &str {
        "GegluBias"
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [
            OperatorInput::required(TensorElementType::Float32),
            OperatorInput::optional(TensorElementType::Float32),
        ]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, _: &KernelContext<'attr>) -> ort::Result<Gate> {
        Ok(Gate)
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        declare(context, |sides| sides > 0, 2)
    }
}

impl Kernel for Gate {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let values = input(context, 0)?;
        let (shape, values) = values.try_extract_tensor::<f32>()?;
        let bias = match context.num_inputs()? {
            0 | 1 => None,
            _ => context.input(1)?,
        };
        let bias = match &bias {
            Some(bias) => Some(bias.try_extract_tensor::<f32>()?.1),
            None => None,
        };
        let half = half(shape, bias.map(<[f32]>::len)).map_err(wrong)?;
        let mut shape = shape.to_vec();
        if let Some(width) = shape.last_mut() {
            *width /= 2;
        }
        let Some(mut out) = context.output(0, shape)? else {
            return Ok(());
        };
        let out = out.try_extract_tensor_mut::<f32>()?.1;
        let size = half * (TASK / half).max(1);
        divide(context, out, size, |index, out| {
            lines(&values[2 * index * size..][..2 * out.len()], bias, half, out);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::math::tests::exact_gelu;
    use super::*;
    use proptest::prelude::*;

    fn wave(count: usize, step: f32) -> Vec<f32> {
        (0..count).map(|i| 4.0 * (i as f32 * step).sin()).collect()
    }

    #[test]
    fn widths_without_halves_and_biases_of_another_width_are_refused() {
        assert_eq!(half(&[2, 3, 10], Some(10)).unwrap(), 5);
        assert_eq!(half(&[0, 10], None).unwrap(), 5);
        for (shape, bias) in [
            (&[2, 5][..], None),
            (&[2, 0], None),
            (&[], None),
            (&[2, 6], Some(3)),
        ] {
            assert!(half(shape, bias).is_err(), "{shape:?}");
        }
    }

    proptest! {
        #[test]
        fn any_lines_are_gated_as_in_f64(
            rows in 0..5_usize,
            half in 1..70_usize,
            seed in 0.1..3.0_f32,
            with_bias in any::<bool>(),
        ) {
            let (values, bias) = (wave(rows * 2 * half, seed), wave(2 * half, seed + 1.0));
            let bias = with_bias.then_some(&bias[..]);
            let mut out = vec![7.0; rows * half];
            lines(&values, bias, half, &mut out);
            for (at, got) in out.iter().enumerate() {
                let (row, column) = (at / half, at % half);
                let sum = |column: usize| {
                    let bias = bias.map_or(0.0, |bias| bias[column]);
                    f64::from(values[row * 2 * half + column] + bias)
                };
                let (first, second) = (sum(column), sum(half + column));
                let truth = first * exact_gelu(second);
                let error = (f64::from(*got) - truth).abs();
                prop_assert!(error <= 5e-7 * (first * second).abs() + 1e-12, "{got} {truth}");
            }
        }
    }
}
