//! Vectors of one embedding for one text encoder.
//!
//! Refuses tensors that are no list of vectors, other types than f16, bf16 and f32, and numbers that are not finite.

use half::{bf16, f16};
use safetensors::{Dtype, tensor::TensorView};

/// More vectors than this do not fit between the start and end token of a CLIP window.
const MAX_VECTORS: usize = 75;
/// The widest text encoders in use have 4096 numbers a token (T5-XXL).
const MAX_WIDTH: usize = 8192;

/// Rows of numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Vectors; each takes the place of one token.
    pub rows: usize,
    /// Numbers in a vector: the text encoder's hidden_size.
    pub width: usize,
    /// `rows * width` numbers, row by row.
    pub values: Vec<f32>,
}

impl Matrix {
    /// Reads a tensor `[width]` or `[rows, width]`; the error says what is wrong with it.
    pub(crate) fn read(name: &str, tensor: &TensorView<'_>) -> Result<Self, String> {
        let (rows, width) = match *tensor.shape() {
            [width] => (1, width),
            [rows, width] => (rows, width),
            _ => {
                return Err(format!(
                    "tensor {name:?} has the shape {:?}, not [width] or [vectors, width]",
                    tensor.shape()
                ));
            }
        };
        if rows == 0 || rows > MAX_VECTORS {
            return Err(format!(
                "tensor {name:?} has {rows} vectors, not 1 to {MAX_VECTORS}"
            ));
        }
        if width == 0 || width > MAX_WIDTH {
            return Err(format!(
                "vectors of tensor {name:?} have {width} numbers, not 1 to {MAX_WIDTH}"
            ));
        }
        let values = numbers(tensor.dtype(), tensor.data()).ok_or_else(|| {
            format!(
                "tensor {name:?} is of type {:?}; F32, F16 and BF16 are supported",
                tensor.dtype()
            )
        })?;
        if values.len() != rows * width {
            return Err(format!(
                "tensor {name:?} holds {} numbers, not {rows} times {width}",
                values.len()
            ));
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(format!(
                "number {at} of tensor {name:?} is {}: the training went wrong",
                values[at]
            ));
        }
        Ok(Self { rows, width, values })
    }

    /// One vector.
    #[must_use]
    pub fn row(&self, at: usize) -> Option<&[f32]> {
        self.values.chunks_exact(self.width).nth(at)
    }
}

/// Little-endian bytes as numbers; none for another type.
fn numbers(dtype: Dtype, data: &[u8]) -> Option<Vec<f32>> {
    let pairs = || data.as_chunks::<2>().0.iter();
    if dtype == Dtype::F32 {
        let fours = data.as_chunks::<4>().0.iter();
        Some(fours.map(|bytes| f32::from_le_bytes(*bytes)).collect())
    } else if dtype == Dtype::F16 {
        Some(pairs().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect())
    } else if dtype == Dtype::BF16 {
        Some(
            pairs()
                .map(|bytes| bf16::from_le_bytes(*bytes).to_f32())
                .collect(),
        )
    } else {
        None
    }
}
