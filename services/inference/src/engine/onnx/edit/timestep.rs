//! Gives a UNet's scalar `timestep` a batch dimension, so that rows at different steps can share a call.
//!
//! In Optimum's exports the rank-0 input goes through one Unsqueeze, perhaps a Cast, and an Expand to the batch. The edit
//! declares the input as `[batch]` and turns that Unsqueeze into an Identity; the Expand then has nothing left to do. The
//! caller checks the edited model against the original by numbers before it is used.
//!
//! It edits nothing else and refuses any graph that does not look like that. Shape hints of inner values are left out of
//! the result, because those after the edit would be wrong; ONNX Runtime infers them again.

use super::graph::{
    DIM_PARAM, GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_NODE, GRAPH_OUTPUT, GRAPH_VALUE_INFO, NODE_DOMAIN,
    NODE_INPUT, NODE_NAME, NODE_OP_TYPE, NODE_OUTPUT, SHAPE_DIM, TENSOR_NAME, TENSOR_TYPE_SHAPE, TYPE_TENSOR,
    VALUE_NAME, VALUE_TYPE, text, texts,
};
use super::wire::{self, Field, Malformed};
use super::{Refused, with_graph};

/// Returns the model with its scalar input `timestep` declared as `[batch]`, the batch being named as `sample`'s first
/// dimension is.
///
/// # Errors
/// [`Refused`] when the graph is not of the form described above.
pub(crate) fn batched(model: &[u8], timestep: &str, sample: &str) -> Result<Vec<u8>, Refused> {
    with_graph(model, |graph| edit_graph(graph, timestep, sample))
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
pub(super) fn shape(value: &[u8]) -> Vec<&[u8]> {
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

#[cfg(test)]
mod tests {
    use super::super::graph::MODEL_GRAPH;
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
