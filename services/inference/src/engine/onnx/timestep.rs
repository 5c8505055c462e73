//! Gives a UNet's scalar `timestep` a batch dimension, so that rows at different steps can share a call.
//!
//! In Optimum's exports the rank-0 input goes through one Unsqueeze, perhaps a Cast, and an Expand to the batch. The edit
//! declares the input as `[batch]` and turns that Unsqueeze into an Identity; the Expand then has nothing left to do. The
//! caller checks the edited model against the original by numbers before it is used.
//!
//! It edits nothing else and refuses any graph that does not look like that. Shape hints of inner values are left out of
//! the result, because those after the edit would be wrong; ONNX Runtime infers them again.

use super::wire::{self, Field, Malformed};

// Field numbers of onnx.proto (onnx/onnx, `onnx/onnx.proto`, stable since IR version 3).
const MODEL_GRAPH: u64 = 7;
pub(super) const GRAPH_NODE: u64 = 1;
const GRAPH_INITIALIZER: u64 = 5;
pub(super) const GRAPH_INPUT: u64 = 11;
const GRAPH_OUTPUT: u64 = 12;
pub(super) const GRAPH_VALUE_INFO: u64 = 13;
pub(super) const NODE_INPUT: u64 = 1;
pub(super) const NODE_OUTPUT: u64 = 2;
const NODE_NAME: u64 = 3;
pub(super) const NODE_OP_TYPE: u64 = 4;
const NODE_DOMAIN: u64 = 7;
const TENSOR_NAME: u64 = 8;
pub(super) const VALUE_NAME: u64 = 1;
const VALUE_TYPE: u64 = 2;
const TYPE_TENSOR: u64 = 1;
const TENSOR_TYPE_SHAPE: u64 = 2;
const SHAPE_DIM: u64 = 1;
const DIM_PARAM: u64 = 2;

/// Why a model was not edited.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the file has no graph")]
    NoGraph,
    #[error("the graph has no input {0}")]
    NoInput(String),
    #[error("input {0} is no scalar")]
    NotScalar(String),
    #[error("input {name} is used by {uses} nodes, expected one Unsqueeze")]
    Uses { name: String, uses: usize },
    #[error("input {name} goes into {op}, expected Unsqueeze")]
    Operator { name: String, op: String },
    #[error("input {name} goes into {op} before it is cast")]
    Computed { name: String, op: String },
}

/// Returns the model with its scalar input `timestep` declared as `[batch]`, the batch being named as `sample`'s first
/// dimension is.
///
/// # Errors
/// [`Refused`] when the graph is not of the form described above.
pub(crate) fn batched(model: &[u8], timestep: &str, sample: &str) -> Result<Vec<u8>, Refused> {
    with_graph(model, |graph| edit_graph(graph, timestep, sample))
}

/// The model with its graph replaced by what `edit` makes of it.
pub(super) fn with_graph(
    model: &[u8],
    edit: impl FnOnce(&[u8]) -> Result<Vec<u8>, Refused>,
) -> Result<Vec<u8>, Refused> {
    let top = wire::collect(model)?;
    let graph = top
        .iter()
        .find(|field| field.number == MODEL_GRAPH)
        .ok_or(Refused::NoGraph)?;
    let edited = edit(graph.bytes)?;
    let mut out = Vec::with_capacity(model.len() + 64);
    for field in &top {
        if field.number == MODEL_GRAPH {
            wire::put_bytes(&mut out, MODEL_GRAPH, &edited);
        } else {
            out.extend_from_slice(field.raw);
        }
    }
    Ok(out)
}

fn edit_graph(graph: &[u8], timestep: &str, sample: &str) -> Result<Vec<u8>, Refused> {
    let all = wire::collect(graph)?;
    let input = |name: &str| {
        all.iter()
            .find(|f| f.number == GRAPH_INPUT && text(f.bytes, VALUE_NAME) == name)
    };
    let scalar = input(timestep).ok_or_else(|| Refused::NoInput(timestep.to_owned()))?;
    if !shape(scalar.bytes).is_empty() {
        return Err(Refused::NotScalar(timestep.to_owned()));
    }
    let batch = input(sample)
        .and_then(|value| shape(value.bytes).into_iter().next())
        .map(|dim| text(dim, DIM_PARAM).to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "batch".to_owned());
    let unsqueeze = only_consumer(&all, timestep)?;
    let axes = texts(unsqueeze.bytes, NODE_INPUT).nth(1).unwrap_or_default();
    // What the axes come from is dropped with the Unsqueeze, unless somebody else needs it: ONNX Runtime warns of leftovers.
    let axes_unused = !axes.is_empty() && uses(&all, axes) == 1;
    let mut out = Vec::with_capacity(graph.len());
    for field in &all {
        let is_axes = match field.number {
            GRAPH_NODE => texts(field.bytes, NODE_OUTPUT).any(|name| name == axes),
            GRAPH_INITIALIZER => text(field.bytes, TENSOR_NAME) == axes,
            _ => false,
        };
        if std::ptr::eq(field.raw, unsqueeze.raw) {
            wire::put_bytes(&mut out, GRAPH_NODE, &identity(field.bytes, timestep));
        } else if std::ptr::eq(field.raw, scalar.raw) {
            wire::put_bytes(&mut out, GRAPH_INPUT, &with_dimension(field.bytes, &batch)?);
        } else if field.number != GRAPH_VALUE_INFO && !(is_axes && axes_unused) {
            out.extend_from_slice(field.raw);
        }
    }
    Ok(out)
}

/// The node that takes `name`, when there is one and it is an Unsqueeze.
fn only_consumer<'a, 'm>(graph: &'a [Field<'m>], name: &str) -> Result<&'a Field<'m>, Refused> {
    let count = uses(graph, name);
    let consumer = graph
        .iter()
        .find(|f| f.number == GRAPH_NODE && texts(f.bytes, NODE_INPUT).any(|input| input == name))
        .filter(|_| count == 1)
        .ok_or_else(|| Refused::Uses {
            name: name.to_owned(),
            uses: count,
        })?;
    match text(consumer.bytes, NODE_OP_TYPE) {
        "Unsqueeze" => Ok(consumer),
        op => Err(Refused::Operator {
            name: name.to_owned(),
            op: op.to_owned(),
        }),
    }
}

/// How often a value is used, by nodes and as an output of the graph.
fn uses(graph: &[Field<'_>], name: &str) -> usize {
    graph
        .iter()
        .map(|field| match field.number {
            GRAPH_NODE => texts(field.bytes, NODE_INPUT)
                .filter(|input| *input == name)
                .count(),
            GRAPH_OUTPUT => usize::from(text(field.bytes, VALUE_NAME) == name),
            _ => 0,
        })
        .sum()
}

/// The same node as an Identity of `input`: name, output and domain stay.
pub(super) fn identity(node: &[u8], input: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(node.len());
    wire::put_bytes(&mut out, NODE_INPUT, input.as_bytes());
    for field in wire::fields(node).flatten() {
        if matches!(field.number, NODE_OUTPUT | NODE_NAME | NODE_DOMAIN) {
            out.extend_from_slice(field.raw);
        }
    }
    wire::put_bytes(&mut out, NODE_OP_TYPE, b"Identity");
    out
}

/// A `ValueInfoProto` of a scalar with one named dimension added.
fn with_dimension(value: &[u8], dimension: &str) -> Result<Vec<u8>, Malformed> {
    let (mut dim, mut shape) = <(Vec<u8>, Vec<u8>)>::default();
    wire::put_bytes(&mut dim, DIM_PARAM, dimension.as_bytes());
    wire::put_bytes(&mut shape, SHAPE_DIM, &dim);
    with_tensor(value, TENSOR_TYPE_SHAPE, |tensor| {
        wire::put_bytes(tensor, TENSOR_TYPE_SHAPE, &shape);
    })
}

/// A `ValueInfoProto` with one field of its tensor type left out and put anew.
pub(super) fn with_tensor(
    value: &[u8],
    field: u64,
    put: impl Fn(&mut Vec<u8>),
) -> Result<Vec<u8>, Malformed> {
    let (mut tensor, mut kind, mut out) = <(Vec<u8>, Vec<u8>, Vec<u8>)>::default();
    for part in wire::collect(value)? {
        if part.number != VALUE_TYPE {
            out.extend_from_slice(part.raw);
            continue;
        }
        for part in wire::collect(part.bytes)? {
            if part.number != TYPE_TENSOR {
                kind.extend_from_slice(part.raw);
                continue;
            }
            for part in wire::collect(part.bytes)?.iter().filter(|f| f.number != field) {
                tensor.extend_from_slice(part.raw);
            }
            put(&mut tensor);
            wire::put_bytes(&mut kind, TYPE_TENSOR, &tensor);
        }
        wire::put_bytes(&mut out, VALUE_TYPE, &kind);
    }
    Ok(out)
}

/// The dimensions of a `ValueInfoProto`, as messages.
fn shape(value: &[u8]) -> Vec<&[u8]> {
    let inner = |message, number| {
        wire::fields(message)
            .flatten()
            .filter(move |f: &Field<'_>| f.number == number)
    };
    inner(value, VALUE_TYPE)
        .flat_map(|kind| inner(kind.bytes, TYPE_TENSOR))
        .flat_map(|tensor| inner(tensor.bytes, TENSOR_TYPE_SHAPE))
        .flat_map(|shape| inner(shape.bytes, SHAPE_DIM))
        .map(|dim| dim.bytes)
        .collect()
}

/// The strings of a repeated field.
pub(super) fn texts(message: &[u8], number: u64) -> impl Iterator<Item = &str> {
    wire::fields(message)
        .flatten()
        .filter(move |field| field.number == number)
        .map(|field| field.text())
}

/// The string of a field; empty when absent.
pub(super) fn text(message: &[u8], number: u64) -> &str {
    texts(message, number).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(dialect: &str) -> Vec<u8> {
        std::fs::read(format!(
            "{}/tests/models/{dialect}/unet/model.onnx",
            env!("CARGO_MANIFEST_DIR")
        ))
        .unwrap()
    }

    #[test]
    fn a_scalar_timestep_gets_the_batch_dimension_and_the_unsqueeze_goes() {
        let edited = batched(&model("sd15"), "timestep", "sample").unwrap();
        let graph = wire::collect(&edited)
            .unwrap()
            .into_iter()
            .find(|f| f.number == MODEL_GRAPH)
            .unwrap();
        let fields = wire::collect(graph.bytes).unwrap();
        let input = fields
            .iter()
            .find(|f| f.number == GRAPH_INPUT && text(f.bytes, VALUE_NAME) == "timestep")
            .unwrap();
        assert_eq!(
            shape(input.bytes)
                .into_iter()
                .map(|dim| text(dim, DIM_PARAM))
                .collect::<Vec<_>>(),
            ["batch_size"]
        );
        assert_eq!(
            only_consumer(&fields, "timestep").unwrap_err(),
            Refused::Operator {
                name: "timestep".into(),
                op: "Identity".into(),
            }
        );
        // A second edit has nothing to do.
        assert_eq!(
            batched(&edited, "timestep", "sample"),
            Err(Refused::NotScalar("timestep".into()))
        );
    }

    #[test]
    fn a_graph_of_another_form_is_refused() {
        let original = model("sd15");
        assert_eq!(
            batched(&original, "time", "sample"),
            Err(Refused::NoInput("time".into()))
        );
        assert_eq!(
            batched(&original, "sample", "sample"),
            Err(Refused::NotScalar("sample".into()))
        );
        assert_eq!(
            batched(&model("sd15-legacy"), "timestep", "sample"),
            Err(Refused::NotScalar("timestep".into()))
        );
        assert_eq!(batched(b"", "timestep", "sample"), Err(Refused::NoGraph));
        assert!(matches!(
            batched(&original[..5000], "timestep", "sample"),
            Err(Refused::Malformed(_))
        ));
    }
}
