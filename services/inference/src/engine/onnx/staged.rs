//! Conversion of a run's inputs to the types that a model wants, in buffers that are kept from run to run.

use half::f16;
use half::slice::HalfFloatSliceExt as _;
use ort::session::SessionInputValue;
use ort::value::{DynTensor, TensorRef};

use super::dialect::Dtype;
use super::session::{Input, Values};

/// Where an input's values are converted when the model wants another type than the engine has.
#[derive(Default)]
pub(super) struct Staged {
    half: Vec<f16>,
    long: Vec<i64>,
    int: Vec<i32>,
}

impl Staged {
    /// A view of an input's values in the type that its port wants.
    pub(super) fn view<'a>(&'a mut self, input: &Input<'a>) -> ort::Result<View<'a>> {
        let shape = input.shape;
        self.long.clear();
        self.int.clear();
        Ok(match (input.port.dtype, input.values) {
            (Some(Dtype::F16), Values::Real(values)) => {
                self.half.resize(values.len(), f16::ZERO);
                self.half.convert_from_f32_slice(values);
                View::Half(TensorRef::from_array_view((shape, &self.half[..]))?)
            }
            // Cut towards zero, as numpy's astype does it in diffusers' ONNX pipeline.
            (Some(Dtype::I64), Values::Real(values)) => {
                self.long.extend(values.iter().map(|value| *value as i64));
                View::Long(TensorRef::from_array_view((shape, &self.long[..]))?)
            }
            (Some(Dtype::I32), Values::Real(values)) => {
                self.int.extend(values.iter().map(|value| *value as i32));
                View::Int(TensorRef::from_array_view((shape, &self.int[..]))?)
            }
            (Some(Dtype::F32) | None, Values::Real(values)) => {
                View::Real(TensorRef::from_array_view((shape, values))?)
            }
            (Some(Dtype::I32), Values::Ids(values)) => {
                self.int.extend(values.iter().map(|id| *id as i32));
                View::Int(TensorRef::from_array_view((shape, &self.int[..]))?)
            }
            (_, Values::Ids(values)) => {
                self.long.extend(values.iter().map(|id| i64::from(*id)));
                View::Long(TensorRef::from_array_view((shape, &self.long[..]))?)
            }
        })
    }

    /// Writes an input into a tensor of its type and shape that the CPU can reach.
    pub(super) fn write(&mut self, input: &Input<'_>, target: &mut DynTensor) -> ort::Result<()> {
        match self.view(input)? {
            View::Real(view) => target
                .try_extract_tensor_mut()?
                .1
                .copy_from_slice(view.extract_tensor().1),
            View::Half(view) => target
                .try_extract_tensor_mut()?
                .1
                .copy_from_slice(view.extract_tensor().1),
            View::Long(view) => target
                .try_extract_tensor_mut()?
                .1
                .copy_from_slice(view.extract_tensor().1),
            View::Int(view) => target
                .try_extract_tensor_mut()?
                .1
                .copy_from_slice(view.extract_tensor().1),
        }
        Ok(())
    }
}

/// A tensor that borrows its values.
pub(super) enum View<'a> {
    Real(TensorRef<'a, f32>),
    Half(TensorRef<'a, f16>),
    Long(TensorRef<'a, i64>),
    Int(TensorRef<'a, i32>),
}

impl<'a> From<View<'a>> for SessionInputValue<'a> {
    fn from(view: View<'a>) -> Self {
        match view {
            View::Real(view) => view.into(),
            View::Half(view) => view.into(),
            View::Long(view) => view.into(),
            View::Int(view) => view.into(),
        }
    }
}
