//! Lets a UNet whose `timestep` is a whole number take a real one, because Karras and Euler steps stand between whole ones.
//!
//! Exports of diffusers' old conversion script declare it int64 and cast it to float before they compute with it. The edit
//! declares the input as float; what moves the value does not care, and the cast has nothing left to do. A cast to another
//! whole number is taken out. The caller checks the edited model against the original by numbers before it is used.
//!
//! It refuses a graph that computes with the whole number before it is cast.

use std::collections::HashSet;

use super::graph::{
    ATTRIBUTE_NUMBER, FLOAT, GRAPH_INPUT, GRAPH_NODE, GRAPH_VALUE_INFO, NODE_ATTRIBUTE, NODE_INPUT,
    NODE_OP_TYPE, NODE_OUTPUT, TENSOR_TYPE_ELEMENT, VALUE_NAME, text, texts,
};
use super::timestep::{identity, with_tensor};
use super::wire::{self, Field};
use super::{Refused, with_graph};

/// Operators that hand their first input on as it is, whatever its type.
const MOVERS: [&str; 5] = ["Unsqueeze", "Squeeze", "Expand", "Reshape", "Identity"];
/// `TensorProto.DataType.INT32` and `INT64`.
const WHOLE: [u64; 2] = [6, 7];

/// Returns the model with its input `timestep` declared as float.
///
/// # Errors
/// [`Refused`] when the graph is not of the form described above.
pub(crate) fn real(model: &[u8], timestep: &str) -> Result<Vec<u8>, Refused> {
    with_graph(model, |graph| edit(graph, timestep))
}

fn edit(graph: &[u8], timestep: &str) -> Result<Vec<u8>, Refused> {
    let all = wire::collect(graph)?;
    let mut carried = HashSet::from([timestep]);
    let (mut out, mut found) = (Vec::with_capacity(graph.len()), false);
    for field in &all {
        match field.number {
            // Nodes stand in the order in which they run.
            GRAPH_NODE => match role(field, &carried) {
                Role::Other => out.extend_from_slice(field.raw),
                Role::Moves => {
                    carried.extend(texts(field.bytes, NODE_OUTPUT));
                    out.extend_from_slice(field.raw);
                }
                Role::Cuts(input) => {
                    carried.extend(texts(field.bytes, NODE_OUTPUT));
                    wire::put_bytes(&mut out, GRAPH_NODE, &identity(field.bytes, input));
                }
                Role::Computes(op) => {
                    return Err(Refused::Computed {
                        name: timestep.to_owned(),
                        op: op.to_owned(),
                    });
                }
            },
            GRAPH_INPUT if text(field.bytes, VALUE_NAME) == timestep => {
                found = true;
                let declared = with_tensor(field.bytes, TENSOR_TYPE_ELEMENT, |tensor| {
                    wire::put_number(tensor, TENSOR_TYPE_ELEMENT, FLOAT);
                })?;
                wire::put_bytes(&mut out, GRAPH_INPUT, &declared);
            }
            // Types of inner values would be wrong now; ONNX Runtime infers them again.
            GRAPH_VALUE_INFO => {}
            _ => out.extend_from_slice(field.raw),
        }
    }
    if found {
        Ok(out)
    } else {
        Err(Refused::NoInput(timestep.to_owned()))
    }
}

/// What a node does with the values that carry the timestep.
enum Role<'a> {
    /// Nothing, or the value behind it is real in any case.
    Other,
    /// Hands it on as it is.
    Moves,
    /// Casts it to a whole number, as tracing of a device transfer leaves it.
    Cuts(&'a str),
    /// Something for which a whole number may be another thing than a real one.
    Computes(&'a str),
}

fn role<'a>(node: &Field<'a>, carried: &HashSet<&str>) -> Role<'a> {
    let op = text(node.bytes, NODE_OP_TYPE);
    let mut inputs = texts(node.bytes, NODE_INPUT);
    let first = inputs.next().unwrap_or_default();
    let (takes, others) = (carried.contains(first), inputs.any(|name| carried.contains(name)));
    match op {
        _ if !takes && !others => Role::Other,
        "Shape" => Role::Other,
        "Cast" if casts_to_whole(node) => Role::Cuts(first),
        "Cast" => Role::Other,
        op if takes && !others && MOVERS.contains(&op) => Role::Moves,
        op => Role::Computes(op),
    }
}

/// Whether a Cast's attribute `to`, its only number, is an integer type.
fn casts_to_whole(node: &Field<'_>) -> bool {
    let numbers = |message| {
        wire::fields(message)
            .flatten()
            .filter(|field: &Field<'_>| field.number == ATTRIBUTE_NUMBER)
    };
    wire::fields(node.bytes)
        .flatten()
        .filter(|field| field.number == NODE_ATTRIBUTE)
        .flat_map(|attribute| numbers(attribute.bytes))
        .any(|number| WHOLE.contains(&number.value))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A graph of (operator, inputs, output) with the input `t`.
    fn model(nodes: &[(&str, &[&str], &str)]) -> Vec<u8> {
        let (mut graph, mut out) = (Vec::new(), Vec::new());
        for (op, inputs, output) in nodes {
            let mut node = Vec::new();
            for input in *inputs {
                wire::put_bytes(&mut node, NODE_INPUT, input.as_bytes());
            }
            wire::put_bytes(&mut node, NODE_OUTPUT, output.as_bytes());
            wire::put_bytes(&mut node, NODE_OP_TYPE, op.as_bytes());
            wire::put_bytes(&mut graph, GRAPH_NODE, &node);
        }
        let mut input = Vec::new();
        wire::put_bytes(&mut input, VALUE_NAME, b"t");
        wire::put_bytes(&mut graph, GRAPH_INPUT, &input);
        wire::put_bytes(&mut out, 7, &graph);
        out
    }

    #[test]
    fn a_number_that_is_cast_before_it_is_used_may_be_real() {
        let cast = model(&[
            ("Shape", &["t"], "s"),
            ("Unsqueeze", &["t", "axes"], "u"),
            ("Expand", &["u", "s"], "e"),
            ("Cast", &["e"], "f"),
            ("Mul", &["f", "f"], "m"),
        ]);
        assert!(real(&cast, "t").is_ok());
        assert_eq!(real(&cast, "x"), Err(Refused::NoInput("x".into())));
    }

    #[test]
    fn a_cast_to_a_whole_number_goes() {
        let (mut to, mut cast, mut graph, mut whole) = <(Vec<u8>, Vec<u8>, Vec<u8>, Vec<u8>)>::default();
        wire::put_bytes(&mut to, 1, b"to");
        wire::put_number(&mut to, ATTRIBUTE_NUMBER, 7);
        wire::put_bytes(&mut cast, NODE_INPUT, b"t");
        wire::put_bytes(&mut cast, NODE_OUTPUT, b"c");
        wire::put_bytes(&mut cast, NODE_OP_TYPE, b"Cast");
        wire::put_bytes(&mut cast, NODE_ATTRIBUTE, &to);
        wire::put_bytes(&mut graph, GRAPH_NODE, &cast);
        let mut input = Vec::new();
        wire::put_bytes(&mut input, VALUE_NAME, b"t");
        wire::put_bytes(&mut graph, GRAPH_INPUT, &input);
        wire::put_bytes(&mut whole, 7, &graph);
        let edited = real(&whole, "t").unwrap();
        let edited = wire::collect(wire::collect(&edited).unwrap()[0].bytes).unwrap();
        assert_eq!(text(edited[0].bytes, NODE_OP_TYPE), "Identity");
        assert_eq!(text(edited[0].bytes, NODE_OUTPUT), "c");
    }

    #[test]
    fn a_number_that_is_computed_with_stays_whole() {
        for node in [
            ("Div", &["u", "n"]),
            ("Mul", &["n", "u"]),
            ("Gather", &["table", "u"]),
            ("Reshape", &["x", "u"]),
        ] {
            let (op, inputs) = node;
            let computed = model(&[("Unsqueeze", &["t", "axes"], "u"), (op, inputs, "o")]);
            let refused = Err(Refused::Computed {
                name: "t".into(),
                op: op.into(),
            });
            assert_eq!(real(&computed, "t"), refused);
        }
    }
}
