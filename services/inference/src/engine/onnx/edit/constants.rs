//! The constants of a graph that an edit has to know the values of: small tensors, wherever an exporter put them.
//!
//! It reads what stands in the file itself, through casts and identities. Anything else is no constant.

use super::float::reals;
use super::graph::{
    ATTRIBUTE_NUMBER, ATTRIBUTE_TENSOR, FLOAT, Graph, TENSOR_LOCATION, TENSOR_RAW, TENSOR_TYPE, attribute,
    dims, number,
};
use super::wire;

/// Casts and identities between a constant and its use at most.
const MAX_STEPS: usize = 8;
/// Values of a constant that are read at most; those of a norm are one for each group.
const MAX_VALUES: u64 = 1 << 10;
/// `TensorProto.DataType.INT64`.
const INT64: u64 = 7;
/// `TensorProto.int64_data`.
const TENSOR_LONGS: u64 = 7;

/// Which values of a graph are constants.
pub(super) struct Constants<'g, 'a> {
    graph: &'g Graph<'a>,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Constant<'a> {
    tensor: &'a [u8],
    /// Its type where it is used.
    kind: u64,
}

impl<'g, 'a> Constants<'g, 'a> {
    pub(super) fn of(graph: &'g Graph<'a>) -> Self {
        Self { graph }
    }

    /// The constant that a value is.
    pub(super) fn get(&self, mut value: usize) -> Option<Constant<'a>> {
        let mut cast = None;
        let constant = |tensor, cast: Option<u64>| Constant {
            tensor,
            kind: cast.unwrap_or_else(|| number(tensor, TENSOR_TYPE)),
        };
        for _ in 0..MAX_STEPS {
            if let Some(tensor) = self.graph.constant(self.graph.name(value)) {
                return Some(constant(tensor, cast));
            }
            let node = self.graph.producer(value)?;
            match node.op {
                "Constant" => {
                    let held = attribute(node.bytes, "value")?;
                    let mut tensors = wire::fields(held).flatten();
                    let tensor = tensors.find(|field| field.number == ATTRIBUTE_TENSOR)?;
                    return Some(constant(tensor.bytes, cast));
                }
                "Cast" => {
                    let to = number(attribute(node.bytes, "to")?, ATTRIBUTE_NUMBER);
                    cast = cast.or(Some(to));
                }
                "Identity" => {}
                _ => return None,
            }
            value = *node.inputs.first()?;
        }
        None
    }

    /// A single float.
    pub(super) fn scalar(&self, value: usize) -> Option<f32> {
        match self.get(value)?.floats()?[..] {
            [only] => Some(only),
            _ => None,
        }
    }
}

impl<'a> Constant<'a> {
    /// Whether it is float32 where it is used.
    pub(super) fn is_float(self) -> bool {
        self.kind == FLOAT
    }

    pub(super) fn dims(self) -> Option<Vec<u64>> {
        dims(self.tensor).ok()
    }

    /// The values of a small constant of float32, or of float16 that is cast to it.
    pub(super) fn floats(self) -> Option<Vec<f32>> {
        let count = self.count()?;
        if !self.is_float() {
            return None;
        }
        let values = reals(self.tensor).ok()??;
        (values.len() == count).then_some(values)
    }

    /// The values of a small constant of int64.
    pub(super) fn wholes(self) -> Option<Vec<i64>> {
        let count = self.count()?;
        if self.kind != INT64 || number(self.tensor, TENSOR_TYPE) != INT64 {
            return None;
        }
        let values: Vec<i64> = match self.bytes(TENSOR_RAW) {
            Some(raw) => raw.as_chunks().0.iter().map(|x| i64::from_le_bytes(*x)).collect(),
            None => {
                let all = wire::packed(self.bytes(TENSOR_LONGS)?).ok()?;
                all.iter().map(|value| *value as i64).collect()
            }
        };
        (values.len() == count).then_some(values)
    }

    /// How many values it has, when they are few and in the file itself.
    fn count(self) -> Option<usize> {
        let count = self
            .dims()?
            .iter()
            .try_fold(1_u64, |all, dim| all.checked_mul(*dim))?;
        let here = number(self.tensor, TENSOR_LOCATION) == 0;
        (here && count <= MAX_VALUES).then_some(count as usize)
    }

    fn bytes(self, number: u64) -> Option<&'a [u8]> {
        // The last one counts, as for every field that is not repeated.
        let fields = wire::fields(self.tensor).flatten();
        fields
            .filter(|field| field.number == number)
            .map(|field| field.bytes)
            .last()
    }
}
