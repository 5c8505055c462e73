//! Has a UNet compute once what the rows of one picture have in common.
//!
//! Guidance draws a picture with two rows: the same sample and timestep, two prompts. Up to the first cross-attention nothing depends
//! on the prompt, so both rows come to the same numbers. The edit gives the network another input, the picture of each row, and
//! takes `sample` and `timestep` by picture; where a value that is made of those alone meets one that the prompt is in, a `Gather`
//! hands each row its picture's. Sizes are not handed on, but computed again from what was: their number of rows is another.
//!
//! It refuses a network without such a part. The caller checks the edited network by numbers before it is used. In float32 it gives
//! the original's bytes; in float16, which the CPU computes in float32, a value that is handed on is rounded once more.

use super::graph::{
    DIM_PARAM, GRAPH_INPUT, GRAPH_NODE, GRAPH_VALUE_INFO, Graph, NODE_INPUT, NODE_NAME, NODE_OUTPUT, Node,
    SHAPE_DIM, TENSOR_TYPE_ELEMENT, TENSOR_TYPE_SHAPE, TYPE_TENSOR, VALUE_NAME, VALUE_TYPE, node, text,
};
use super::timestep::{shape, with_tensor};
use super::wire::{self, Malformed};
use super::{Refused, with_graph};

/// The input that says which picture each row is of: `[rows]`, int64, numbers of places in `sample` and `timestep`.
pub(crate) const PICTURE: &str = "mobula_picture";
/// Put before the names of what is handed on by row.
const BY_ROW: &str = "mobula_rows/";
/// What `sample`'s and `timestep`'s first dimension is called.
const PICTURES: &str = "mobula_pictures";
/// `TensorProto.DataType.INT64`.
const INT64: u64 = 7;
/// Operators that are work; a part without any is not worth an edit.
const WORK: [&str; 3] = ["Conv", "MatMul", "Gemm"];

/// Returns the model with `sample` and `timestep` by picture. Both must be batches.
///
/// # Errors
/// [`Refused`] when the graph is not of the form described above.
pub(crate) fn once_a_picture(model: &[u8], sample: &str, timestep: &str) -> Result<Vec<u8>, Refused> {
    with_graph(model, |graph| edit(&Graph::read(graph)?, &[sample, timestep]))
}

/// What a value is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    /// Constants.
    Constant,
    /// The picture's inputs.
    Picture,
    /// Others too.
    Row,
}

/// What becomes of a value that is made of the picture's inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Only others of its kind need it.
    Stays,
    /// Rows need it, and are handed it.
    Handed,
    /// Rows need it, and it is a size: it is computed once more.
    Again,
}

/// What is known of all values, by their numbers.
struct Parts {
    made: Vec<Made>,
    fate: Vec<Fate>,
}

impl Parts {
    fn of(graph: &Graph<'_>, shared: &[&str]) -> Result<Self, Refused> {
        let mut made = vec![Made::Constant; graph.values()];
        for value in graph.inputs() {
            let is_shared = shared.contains(&graph.name(*value));
            made[*value] = if is_shared { Made::Picture } else { Made::Row };
        }
        let is_input = |name: &&&str| graph.inputs().iter().any(|value| graph.name(*value) == **name);
        if let Some(missing) = shared.iter().find(|name| !is_input(name)) {
            return Err(Refused::NoInput((*missing).to_owned()));
        }
        // Nodes stand in the order in which they run.
        let mut size = vec![false; graph.values()];
        let mut works = false;
        for node in &graph.nodes {
            let alive = || node.inputs.iter().filter(|value| made[**value] != Made::Constant);
            let of = if alive().any(|value| made[*value] == Made::Row) {
                Made::Row
            } else if alive().next().is_some() {
                Made::Picture
            } else {
                Made::Constant
            };
            let is_size = matches!(node.op, "Shape" | "Size") || alive().all(|value| size[*value]);
            works |= of == Made::Picture && WORK.contains(&node.op);
            for value in &node.outputs {
                made[*value] = of;
                size[*value] = is_size && of != Made::Constant;
            }
        }
        if !works {
            return Err(Refused::Pictures(
                "nothing is computed before the prompt comes in",
            ));
        }
        if graph.outputs().any(|value| made[value] != Made::Row) {
            return Err(Refused::Pictures("an output does not depend on the prompt"));
        }
        let mut fate = vec![Fate::Stays; graph.values()];
        for node in graph.nodes.iter().rev() {
            let again = |value: &usize| made[*value] == Made::Row || fate[*value] == Fate::Again;
            if node.outputs.iter().any(again) {
                for value in node.inputs.iter().filter(|value| made[**value] == Made::Picture) {
                    fate[*value] = if size[*value] { Fate::Again } else { Fate::Handed };
                }
            }
        }
        Ok(Self { made, fate })
    }

    /// What rows have in place of a value.
    fn by_row(&self, graph: &Graph<'_>, value: usize) -> String {
        let name = graph.name(value);
        match self.made[value] {
            Made::Picture => format!("{BY_ROW}{name}"),
            Made::Constant | Made::Row => name.to_owned(),
        }
    }

    /// The node that hands a value on, if it is.
    fn handed(&self, graph: &Graph<'_>, value: usize) -> Option<Vec<u8>> {
        let gather = || {
            node(
                "Gather",
                &[graph.name(value), PICTURE],
                &self.by_row(graph, value),
            )
        };
        (self.fate[value] == Fate::Handed).then(gather)
    }

    /// A node for rows: its inputs by row and, when it is there once more, its outputs.
    fn for_rows(&self, graph: &Graph<'_>, node: &Node<'_>, again: bool) -> Vec<u8> {
        let (mut inputs, mut outputs) = (node.inputs.iter(), node.outputs.iter());
        let mut out = Vec::with_capacity(node.bytes.len() + 64);
        for field in wire::fields(node.bytes).flatten() {
            let value = match field.number {
                NODE_INPUT => inputs.next(),
                NODE_OUTPUT if again => outputs.next(),
                // Names of nodes must not come twice; none is needed.
                NODE_NAME if again => continue,
                _ => None,
            };
            match value {
                Some(value) => {
                    let name = self.by_row(graph, *value);
                    wire::put_bytes(&mut out, field.number, name.as_bytes());
                }
                None => out.extend_from_slice(field.raw),
            }
        }
        out
    }
}

fn edit(graph: &Graph<'_>, shared: &[&str]) -> Result<Vec<u8>, Refused> {
    // What is inside them takes values that no input of theirs names.
    if let Some(node) = graph
        .nodes
        .iter()
        .find(|node| matches!(node.op, "If" | "Loop" | "Scan"))
    {
        return Err(Refused::Operator {
            name: "of the graph".to_owned(),
            op: node.op.to_owned(),
        });
    }
    let parts = Parts::of(graph, shared)?;
    let mut out = Vec::new();
    // Gathers of inputs stand before all nodes, others after what makes their value.
    for value in graph.inputs() {
        if let Some(gather) = parts.handed(graph, *value) {
            wire::put_bytes(&mut out, GRAPH_NODE, &gather);
        }
    }
    let mut nodes = graph.nodes.iter();
    let mut rows = None;
    for field in &graph.fields {
        match field.number {
            GRAPH_NODE => {
                let Some(node) = nodes.next() else { continue };
                put(graph, &parts, node, &mut out);
            }
            GRAPH_INPUT if shared.contains(&text(field.bytes, VALUE_NAME)) => {
                let dims = shape(field.bytes);
                let first = dims
                    .first()
                    .copied()
                    .ok_or(Refused::Pictures("an input is no batch"))?;
                if text(first, DIM_PARAM).is_empty() && !first.is_empty() {
                    return Err(Refused::Pictures("the batch is fixed"));
                }
                rows.get_or_insert_with(|| text(first, DIM_PARAM).to_owned());
                wire::put_bytes(&mut out, GRAPH_INPUT, &by_picture(field.bytes, &dims[1..])?);
            }
            // Sizes of inner values are others now; ONNX Runtime infers them again.
            GRAPH_VALUE_INFO => {}
            _ => out.extend_from_slice(field.raw),
        }
    }
    let rows = rows
        .filter(|rows| !rows.is_empty())
        .unwrap_or_else(|| "batch".to_owned());
    wire::put_bytes(&mut out, GRAPH_INPUT, &input(PICTURE, &rows));
    Ok(out)
}

/// Appends what becomes of a node.
fn put(graph: &Graph<'_>, parts: &Parts, node: &Node<'_>, out: &mut Vec<u8>) {
    if node.outputs.iter().any(|value| parts.made[*value] == Made::Row) {
        wire::put_bytes(out, GRAPH_NODE, &parts.for_rows(graph, node, false));
        return;
    }
    out.extend_from_slice(node.raw);
    if node.outputs.iter().any(|value| parts.fate[*value] == Fate::Again) {
        wire::put_bytes(out, GRAPH_NODE, &parts.for_rows(graph, node, true));
    }
    for value in &node.outputs {
        if let Some(gather) = parts.handed(graph, *value) {
            wire::put_bytes(out, GRAPH_NODE, &gather);
        }
    }
}

/// A `ValueInfoProto` whose first dimension counts pictures.
fn by_picture(value: &[u8], others: &[&[u8]]) -> Result<Vec<u8>, Malformed> {
    let mut shape = Vec::new();
    wire::put_bytes(&mut shape, SHAPE_DIM, &named(PICTURES));
    for dim in others {
        wire::put_bytes(&mut shape, SHAPE_DIM, dim);
    }
    with_tensor(value, TENSOR_TYPE_SHAPE, |tensor| {
        wire::put_bytes(tensor, TENSOR_TYPE_SHAPE, &shape);
    })
}

/// The declaration of an input of whole numbers, one for each of `rows`.
fn input(name: &str, rows: &str) -> Vec<u8> {
    let (mut shape, mut tensor, mut kind, mut value) = <(Vec<u8>, Vec<u8>, Vec<u8>, Vec<u8>)>::default();
    wire::put_bytes(&mut shape, SHAPE_DIM, &named(rows));
    wire::put_number(&mut tensor, TENSOR_TYPE_ELEMENT, INT64);
    wire::put_bytes(&mut tensor, TENSOR_TYPE_SHAPE, &shape);
    wire::put_bytes(&mut kind, TYPE_TENSOR, &tensor);
    wire::put_bytes(&mut value, VALUE_NAME, name.as_bytes());
    wire::put_bytes(&mut value, VALUE_TYPE, &kind);
    value
}

fn named(dimension: &str) -> Vec<u8> {
    let mut dim = Vec::new();
    wire::put_bytes(&mut dim, DIM_PARAM, dimension.as_bytes());
    dim
}

#[cfg(test)]
mod tests {
    use super::super::graph::{GRAPH_OUTPUT, MODEL_GRAPH, NODE_OP_TYPE, texts};
    use super::*;

    /// A graph of (operator, inputs, output) with batches `sample` and `timestep`, `states`, and the output `out`.
    fn model(nodes: &[(&str, &[&str], &str)]) -> Vec<u8> {
        let (mut graph, mut model, mut out) = <(Vec<u8>, Vec<u8>, Vec<u8>)>::default();
        for (op, inputs, output) in nodes {
            wire::put_bytes(&mut graph, GRAPH_NODE, &node(op, inputs, output));
        }
        for name in ["sample", "timestep", "states"] {
            wire::put_bytes(&mut graph, GRAPH_INPUT, &input(name, "batch"));
        }
        wire::put_bytes(&mut out, VALUE_NAME, b"out");
        wire::put_bytes(&mut graph, GRAPH_OUTPUT, &out);
        wire::put_bytes(&mut model, MODEL_GRAPH, &graph);
        model
    }

    /// The nodes of what was made of a model, as it was given.
    fn edited(nodes: &[(&str, &[&str], &str)]) -> Result<Vec<String>, Refused> {
        let edited = once_a_picture(&model(nodes), "sample", "timestep")?;
        let graph = wire::collect(&edited).unwrap()[0].bytes;
        let nodes = wire::collect(graph).unwrap();
        let nodes = nodes.iter().filter(|field| field.number == GRAPH_NODE);
        let told = nodes.map(|node| {
            let inputs: Vec<&str> = texts(node.bytes, NODE_INPUT).collect();
            let output = text(node.bytes, NODE_OUTPUT);
            format!("{} {} {output}", text(node.bytes, NODE_OP_TYPE), inputs.join(","))
        });
        Ok(told.collect())
    }

    #[test]
    fn rows_are_handed_what_their_picture_has() {
        let nodes = edited(&[
            ("Conv", &["sample", "w"], "a"),
            ("Sin", &["timestep"], "t"),
            ("Add", &["a", "t"], "b"),
            ("MatMul", &["b", "states"], "c"),
            ("Add", &["c", "a"], "out"),
        ]);
        let expected = [
            "Conv sample,w a",
            "Gather a,mobula_picture mobula_rows/a",
            "Sin timestep t",
            "Add a,t b",
            "Gather b,mobula_picture mobula_rows/b",
            "MatMul mobula_rows/b,states c",
            "Add c,mobula_rows/a out",
        ];
        assert_eq!(nodes.unwrap(), expected);
    }

    #[test]
    fn sizes_are_computed_again_of_what_was_handed_and_stay_where_pictures_need_them() {
        let nodes = edited(&[
            ("Conv", &["sample", "w"], "a"),
            ("Shape", &["a"], "s"),
            ("Gather", &["s", "zero"], "n"),
            ("Reshape", &["a", "n"], "b"),
            ("Concat", &["n", "minus"], "m"),
            ("MatMul", &["b", "states"], "c"),
            ("Reshape", &["c", "m"], "out"),
        ]);
        let expected = [
            "Conv sample,w a",
            "Gather a,mobula_picture mobula_rows/a",
            "Shape a s",
            "Shape mobula_rows/a mobula_rows/s",
            "Gather s,zero n",
            "Gather mobula_rows/s,zero mobula_rows/n",
            "Reshape a,n b",
            "Gather b,mobula_picture mobula_rows/b",
            "Concat n,minus m",
            "Concat mobula_rows/n,minus mobula_rows/m",
            "MatMul mobula_rows/b,states c",
            "Reshape c,mobula_rows/m out",
        ];
        assert_eq!(nodes.unwrap(), expected);
    }

    #[test]
    fn an_input_that_rows_take_is_handed_before_all_nodes() {
        let nodes = edited(&[
            ("Conv", &["sample", "w"], "a"),
            ("MatMul", &["a", "states"], "b"),
            ("Add", &["b", "sample"], "out"),
        ]);
        assert_eq!(
            nodes.unwrap()[0],
            "Gather sample,mobula_picture mobula_rows/sample"
        );
    }

    #[test]
    fn what_has_no_such_part_is_refused() {
        let refused = |nodes: &[(&str, &[&str], &str)]| edited(nodes).unwrap_err();
        let early = refused(&[("Conv", &["sample", "states"], "out")]);
        assert_eq!(
            early,
            Refused::Pictures("nothing is computed before the prompt comes in")
        );
        let never = refused(&[("Conv", &["sample", "w"], "out")]);
        assert_eq!(
            never,
            Refused::Pictures("an output does not depend on the prompt")
        );
        let inner = refused(&[("Conv", &["sample", "w"], "a"), ("If", &["states"], "out")]);
        assert!(matches!(inner, Refused::Operator { op, .. } if op == "If"));
        let twice = once_a_picture(
            &model(&[("Conv", &["sample", "w"], "a"), ("Add", &["a", "states"], "out")]),
            "sample",
            "t",
        );
        assert_eq!(twice, Err(Refused::NoInput("t".to_owned())));
    }
}
