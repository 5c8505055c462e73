//! The large float32 constants of a graph, to be kept outside of it.

use std::io::{Read, Seek};

use super::Refused;
use super::external::External;
use super::graph::{FLOAT, GRAPH_INITIALIZER, TENSOR_NAME, TENSOR_RAW, TENSOR_TYPE, dims, number, text};
use super::stream::graph_fields;
use super::wire::{self, Malformed};

/// Bytes below which a constant stays where it is: keeping it apart costs more than it saves.
const SMALLEST: usize = 1 << 10;

/// One constant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Weight {
    pub(crate) name: String,
    pub(crate) dims: Vec<usize>,
    /// As many as the dimensions say.
    pub(crate) values: Vec<f32>,
}

/// What a model has of them.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Weights {
    pub(crate) all: Vec<Weight>,
    /// Whether there are others in files of their own.
    pub(crate) elsewhere: bool,
}

/// The float32 constants of the outermost graph of a model of so many bytes that have a kilobyte or more in the file itself. What is
/// written in another way, or not as its dimensions say, is left out.
///
/// # Errors
/// [`Refused::Malformed`] for bytes that are no model, [`Refused::Unreadable`].
pub(crate) fn weights(model: impl Read + Seek, size: u64) -> Result<Weights, Refused> {
    let mut found = Weights::default();
    graph_fields(model, size, |field, tensor| {
        if field == GRAPH_INITIALIZER {
            found.elsewhere |= External::of(tensor)?.is_some();
            if number(tensor, TENSOR_TYPE) == FLOAT {
                found.all.extend(weight(tensor)?);
            }
        }
        Ok(())
    })?;
    Ok(found)
}

fn weight(tensor: &[u8]) -> Result<Option<Weight>, Malformed> {
    let dims: Option<Vec<usize>> = dims(tensor)?
        .into_iter()
        .map(|dim| usize::try_from(dim).ok())
        .collect();
    let fields = wire::collect(tensor)?;
    let raw = fields.iter().find(|field| field.number == TENSOR_RAW);
    let (Some(dims), Some(raw)) = (dims, raw) else {
        return Ok(None);
    };
    let bytes = dims.iter().try_fold(4_usize, |all, dim| all.checked_mul(*dim));
    if raw.bytes.len() < SMALLEST || bytes != Some(raw.bytes.len()) {
        return Ok(None);
    }
    let (quads, _) = raw.bytes.as_chunks();
    Ok(Some(Weight {
        name: text(tensor, TENSOR_NAME).to_owned(),
        dims,
        values: quads.iter().map(|quad| f32::from_le_bytes(*quad)).collect(),
    }))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::super::graph::{FLOAT16, MODEL_GRAPH, TENSOR_DIMS, TENSOR_EXTERNAL};
    use super::*;

    fn tensor(name: &str, kind: u64, dims: &[u64], raw: &[u8]) -> Vec<u8> {
        let mut tensor = Vec::new();
        for dim in dims {
            wire::put_number(&mut tensor, TENSOR_DIMS, *dim);
        }
        wire::put_number(&mut tensor, TENSOR_TYPE, kind);
        wire::put_bytes(&mut tensor, TENSOR_NAME, name.as_bytes());
        wire::put_bytes(&mut tensor, TENSOR_RAW, raw);
        tensor
    }

    fn model(tensors: &[Vec<u8>]) -> Vec<u8> {
        let (mut graph, mut model) = (Vec::new(), Vec::new());
        for tensor in tensors {
            wire::put_bytes(&mut graph, GRAPH_INITIALIZER, tensor);
        }
        wire::put_bytes(&mut model, MODEL_GRAPH, &graph);
        model
    }

    fn read(model: &[u8]) -> Result<Weights, Refused> {
        weights(Cursor::new(model), model.len() as u64)
    }

    #[test]
    fn large_ones_of_float32_are_found_with_their_values() {
        let values: Vec<f32> = (0..512).map(|i| i as f32 * 0.25).collect();
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let mut all = vec![
            tensor("half", FLOAT16, &[32, 32], &raw),
            tensor("a", FLOAT, &[2, 16, 16], &raw),
            tensor("small", FLOAT, &[2], &raw[..8]),
            tensor("other size", FLOAT, &[2, 16, 17], &raw),
            tensor("absurd", FLOAT, &[u64::MAX, u64::MAX], &raw),
            tensor("nowhere", FLOAT, &[512], &[]),
        ];
        let expected = Weight {
            name: "a".to_owned(),
            dims: vec![2, 16, 16],
            values,
        };
        let found = read(&model(&all)).unwrap();
        assert_eq!((&found.all[..], found.elsewhere), (&[expected][..], false));
        let cut = model(&all);
        assert!(read(&cut[..cut.len() - 1]).is_err());
        assert_eq!(read(&[]).unwrap(), Weights::default());
        let mut entry = Vec::new();
        wire::put_bytes(&mut entry, 1, b"location");
        wire::put_bytes(&mut entry, 2, b"weights.pb");
        let mut elsewhere = tensor("elsewhere", FLOAT, &[512], &[]);
        wire::put_bytes(&mut elsewhere, TENSOR_EXTERNAL, &entry);
        all.push(elsewhere);
        assert!(read(&model(&all)).unwrap().elsewhere);
    }
}
