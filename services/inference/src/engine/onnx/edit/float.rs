//! Turns a float16 network into the same network in float32: constants, casts, inputs and outputs.
//!
//! Some VAE decoders overflow in float16 (Stable Diffusion XL's first one does: black pictures). Their weights fit in float16,
//! only what is computed with them does not; so the same weights in float32 give the picture.
//!
//! It changes types and nothing else, in nested graphs too. Weights in other files are read and put into the result.
//!
//! Here too: the values of tensors of real numbers, read and written.

use std::path::Path;

use half::f16;
use half::slice::HalfFloatSliceExt as _;

use super::external::{External, MAX_DEPTH, too_deep};
use super::graph::{
    ATTRIBUTE_GRAPH, ATTRIBUTE_GRAPHS, ATTRIBUTE_NAME, ATTRIBUTE_NUMBER, ATTRIBUTE_TENSOR, ATTRIBUTE_TENSORS,
    FLOAT, FLOAT16, GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_NODE, GRAPH_OUTPUT, GRAPH_VALUE_INFO,
    NODE_ATTRIBUTE, TENSOR_DIMS, TENSOR_EXTERNAL, TENSOR_LOCATION, TENSOR_NAME, TENSOR_RAW, TENSOR_REAL,
    TENSOR_TYPE, TENSOR_TYPE_ELEMENT, TENSOR_WHOLE, TYPE_TENSOR, VALUE_TYPE, dims, number, text,
};
use super::timestep::with_tensor;
use super::wire::{self, Field, Malformed};
use super::{Refused, with_graph};

/// Returns the model in float32; `folder` is where weights in other files are.
///
/// # Errors
/// [`Refused`] for bytes that are no model, and for weights that are missing or cut.
pub(crate) fn float32(model: &[u8], folder: &Path) -> Result<Vec<u8>, Refused> {
    with_graph(model, |bytes| graph(bytes, folder, 0))
}

fn graph(bytes: &[u8], folder: &Path, depth: usize) -> Result<Vec<u8>, Refused> {
    if depth > MAX_DEPTH {
        return Err(too_deep());
    }
    let mut out = Vec::with_capacity(bytes.len());
    for field in wire::collect(bytes)? {
        match field.number {
            GRAPH_NODE => wire::put_bytes(&mut out, GRAPH_NODE, &node(field.bytes, folder, depth)?),
            GRAPH_INITIALIZER => put_tensor(&mut out, &field, folder)?,
            GRAPH_INPUT | GRAPH_OUTPUT if element(field.bytes) == FLOAT16 => {
                let declared = with_tensor(field.bytes, TENSOR_TYPE_ELEMENT, |tensor| {
                    wire::put_number(tensor, TENSOR_TYPE_ELEMENT, FLOAT);
                })?;
                wire::put_bytes(&mut out, field.number, &declared);
            }
            GRAPH_VALUE_INFO => {}
            _ => out.extend_from_slice(field.raw),
        }
    }
    Ok(out)
}

fn node(bytes: &[u8], folder: &Path, depth: usize) -> Result<Vec<u8>, Refused> {
    let mut out = Vec::with_capacity(bytes.len());
    for field in wire::collect(bytes)? {
        if field.number == NODE_ATTRIBUTE {
            wire::put_bytes(&mut out, NODE_ATTRIBUTE, &attribute(field.bytes, folder, depth)?);
        } else {
            out.extend_from_slice(field.raw);
        }
    }
    Ok(out)
}

fn attribute(bytes: &[u8], folder: &Path, depth: usize) -> Result<Vec<u8>, Refused> {
    // `to` of Cast, `dtype` of operators that make tensors.
    let names_type = matches!(text(bytes, ATTRIBUTE_NAME), "to" | "dtype");
    let mut out = Vec::with_capacity(bytes.len());
    for field in wire::collect(bytes)? {
        match field.number {
            ATTRIBUTE_NUMBER if names_type && field.value == FLOAT16 => {
                wire::put_number(&mut out, ATTRIBUTE_NUMBER, FLOAT);
            }
            ATTRIBUTE_TENSOR | ATTRIBUTE_TENSORS => put_tensor(&mut out, &field, folder)?,
            ATTRIBUTE_GRAPH | ATTRIBUTE_GRAPHS => {
                wire::put_bytes(&mut out, field.number, &graph(field.bytes, folder, depth + 1)?);
            }
            _ => out.extend_from_slice(field.raw),
        }
    }
    Ok(out)
}

/// Appends a tensor's field, in float32 when it was float16.
fn put_tensor(out: &mut Vec<u8>, field: &Field<'_>, folder: &Path) -> Result<(), Refused> {
    let tensor = field.bytes;
    if number(tensor, TENSOR_TYPE) != FLOAT16 {
        out.extend_from_slice(field.raw);
        return Ok(());
    }
    let values = values(tensor, folder)?;
    let mut wide = Vec::with_capacity(4 * values.len() + 64);
    for part in wire::collect(tensor)? {
        match part.number {
            TENSOR_TYPE | TENSOR_WHOLE | TENSOR_RAW | TENSOR_EXTERNAL | TENSOR_LOCATION => {}
            _ => wide.extend_from_slice(part.raw),
        }
    }
    let mut raw = Vec::with_capacity(4 * values.len());
    let mut block = [0.0_f32; 1024];
    for half in values.chunks(block.len()) {
        let real = &mut block[..half.len()];
        half.convert_to_f32_slice(real);
        raw.extend(real.iter().flat_map(|value| value.to_le_bytes()));
    }
    wire::put_number(&mut wide, TENSOR_TYPE, FLOAT);
    wire::put_bytes(&mut wide, TENSOR_RAW, &raw);
    wire::put_bytes(out, field.number, &wide);
    Ok(())
}

/// The values of a float16 tensor, wherever they are.
fn values(tensor: &[u8], folder: &Path) -> Result<Vec<f16>, Refused> {
    let wrong = |why: &str| Refused::Tensor {
        name: text(tensor, TENSOR_NAME).to_owned(),
        why: why.to_owned(),
    };
    let count = dims(tensor)?
        .into_iter()
        .try_fold(1_u64, u64::checked_mul)
        .and_then(|count| count.checked_mul(2).map(|_| count))
        .ok_or_else(|| wrong("its dimensions are absurd"))?;
    let pairs = |bytes: &[u8]| {
        bytes
            .chunks_exact(2)
            .map(|pair| f16::from_le_bytes([pair[0], pair[1]]))
            .collect()
    };
    let values: Vec<f16> = if let Some(external) = External::of(tensor)? {
        pairs(&external.read(folder, 2 * count)?)
    } else if let Some(raw) = only(tensor, TENSOR_RAW)? {
        pairs(raw.bytes)
    } else {
        let mut values = Vec::new();
        for field in wire::collect(tensor)?
            .iter()
            .filter(|field| field.number == TENSOR_WHOLE)
        {
            // Each number holds the bits of one value.
            let bits = |number: u64| f16::from_bits(number as u16);
            if field.bytes.is_empty() {
                values.push(bits(field.value));
            } else {
                values.extend(wire::packed(field.bytes)?.into_iter().map(bits));
            }
        }
        values
    };
    if values.len() as u64 == count {
        Ok(values)
    } else {
        Err(wrong(&format!(
            "it has {} values, its dimensions say {count}",
            values.len()
        )))
    }
}

/// The values of a float32 or float16 tensor that are in the file itself; none of another tensor.
pub(super) fn reals(tensor: &[u8]) -> Result<Option<Vec<f32>>, Refused> {
    if External::of(tensor)?.is_some() || number(tensor, TENSOR_LOCATION) != 0 {
        return Ok(None);
    }
    match number(tensor, TENSOR_TYPE) {
        FLOAT16 => {
            let halves = values(tensor, Path::new(""))?;
            let mut values = vec![0.0; halves.len()];
            halves.convert_to_f32_slice(&mut values);
            Ok(Some(values))
        }
        FLOAT => {
            let count = dims(tensor)?.into_iter().try_fold(1_u64, u64::checked_mul);
            let values = match only(tensor, TENSOR_RAW)? {
                Some(raw) => quads(raw.bytes),
                None => wire::collect(tensor)?
                    .iter()
                    .filter(|field| field.number == TENSOR_REAL)
                    // Packed, or one number behind its tag.
                    .flat_map(|field| {
                        quads(if field.bytes.is_empty() {
                            &field.raw[1..]
                        } else {
                            field.bytes
                        })
                    })
                    .collect(),
            };
            Ok((count == Some(values.len() as u64)).then_some(values))
        }
        _ => Ok(None),
    }
}

fn quads(bytes: &[u8]) -> Vec<f32> {
    let (quads, _) = bytes.as_chunks();
    quads.iter().map(|quad| f32::from_le_bytes(*quad)).collect()
}

/// A tensor of those values; of float16 when `kind` says so.
pub(super) fn tensor(name: &str, kind: u64, dims: &[usize], values: &[f32]) -> Vec<u8> {
    let bytes: Vec<u8> = if kind == FLOAT16 {
        values
            .iter()
            .flat_map(|value| f16::from_f32(*value).to_le_bytes())
            .collect()
    } else {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    };
    let mut tensor = Vec::with_capacity(bytes.len() + 64);
    for dim in dims {
        wire::put_number(&mut tensor, TENSOR_DIMS, *dim as u64);
    }
    wire::put_number(&mut tensor, TENSOR_TYPE, kind);
    wire::put_bytes(&mut tensor, TENSOR_NAME, name.as_bytes());
    wire::put_bytes(&mut tensor, TENSOR_RAW, &bytes);
    tensor
}

/// The first field of that number.
pub(super) fn only(message: &[u8], number: u64) -> Result<Option<Field<'_>>, Malformed> {
    let found = wire::collect(message)?
        .into_iter()
        .find(|field| field.number == number);
    Ok(found)
}

/// The element type of a `ValueInfoProto`.
fn element(value: &[u8]) -> u64 {
    let inner = |message, number| {
        wire::fields(message)
            .flatten()
            .filter(move |field: &Field<'_>| field.number == number)
    };
    inner(value, VALUE_TYPE)
        .flat_map(|kind| inner(kind.bytes, TYPE_TENSOR))
        .map(|tensor| number(tensor.bytes, TENSOR_TYPE_ELEMENT))
        .next()
        .unwrap_or(0)
}
