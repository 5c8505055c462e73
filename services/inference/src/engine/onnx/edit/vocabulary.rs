//! Adds rows to a text encoder's token embedding: the vectors of textual inversion, under ids after the vocabulary.
//!
//! The table is the constant that a Gather reads with the token ids. The edit puts a Concat of the table and the new rows before
//! that Gather; ONNX Runtime folds it into one constant when it loads, wherever the table's bytes are.
//!
//! It refuses a graph in which the ids do not select rows of one table of real numbers.

use super::float::tensor;
use super::graph::{
    FLOAT, FLOAT16, GRAPH_INITIALIZER, GRAPH_NODE, GRAPH_VALUE_INFO, Graph, NODE_INPUT, Node, TENSOR_TYPE,
    dims, node, number, put_number,
};
use super::wire;
use super::{Refused, with_graph};

/// Operators that hand the ids on as they are.
const MOVERS: [&str; 5] = ["Cast", "Reshape", "Identity", "Unsqueeze", "Squeeze"];
/// Such operators between the ids and the table at most.
const MAX_MOVES: usize = 8;

/// Returns the model with rows added to the table that `ids` selects from. `rows` is `[n, width]`; the table must have `before` rows.
///
/// # Errors
/// [`Refused`] when the graph is not of the form described above or the table's size is another.
pub(crate) fn extended(
    model: &[u8],
    ids: &str,
    before: usize,
    width: usize,
    rows: &[f32],
) -> Result<Vec<u8>, Refused> {
    const NEW: &str = "mobula_embeddings";
    const ALL: &str = "mobula_vocabulary";
    with_graph(model, |bytes| {
        let graph = Graph::read(bytes)?;
        let gather = gather(&graph, ids)?;
        let table = graph.name(gather.inputs[0]);
        let kind = check(&graph, table, before, width)?;
        if width == 0 || !rows.len().is_multiple_of(width) {
            return Err(refuse(format!(
                "{} values are no whole rows of {width}",
                rows.len()
            )));
        }
        let mut out = Vec::with_capacity(bytes.len() + 4 * rows.len() + 256);
        for field in &graph.fields {
            if std::ptr::eq(field.raw, gather.raw) {
                wire::put_bytes(&mut out, GRAPH_NODE, &concat(table, NEW, ALL));
                wire::put_bytes(&mut out, GRAPH_NODE, &with_first_input(field.bytes, ALL));
            } else if field.number != GRAPH_VALUE_INFO {
                out.extend_from_slice(field.raw);
            }
        }
        let new = tensor(NEW, kind, &[rows.len() / width, width], rows);
        wire::put_bytes(&mut out, GRAPH_INITIALIZER, &new);
        Ok(out)
    })
}

/// The Gather that selects rows of a constant by the ids.
fn gather<'g, 'a>(graph: &'g Graph<'a>, ids: &str) -> Result<&'g Node<'a>, Refused> {
    let input = graph.find(ids).ok_or_else(|| Refused::NoInput(ids.to_owned()))?;
    let comes_from_ids = |mut value: usize| {
        for _ in 0..MAX_MOVES {
            match graph.producer(value) {
                _ if value == input => return true,
                Some(node) if MOVERS.contains(&node.op) && !node.inputs.is_empty() => value = node.inputs[0],
                _ => return false,
            }
        }
        false
    };
    let mut found = graph.nodes.iter().filter(|node| {
        node.op == "Gather"
            && matches!(node.inputs[..], [table, ids] if !graph.is_alive(table) && comes_from_ids(ids))
    });
    match (found.next(), found.next()) {
        (Some(gather), None) => Ok(gather),
        (None, _) => Err(refuse(format!("{ids} selects no rows of a table"))),
        (Some(_), Some(_)) => Err(refuse(format!("{ids} selects rows of several tables"))),
    }
}

/// Checks the table's size; returns its element type.
fn check(graph: &Graph<'_>, table: &str, before: usize, width: usize) -> Result<u64, Refused> {
    let tensor = graph
        .constant(table)
        .ok_or_else(|| refuse(format!("the token embedding {table} is computed, not stored")))?;
    let sides = dims(tensor)?;
    if sides != [before as u64, width as u64] {
        return Err(refuse(format!(
            "the token embedding has the shape {sides:?}, expected {before} by {width}"
        )));
    }
    match number(tensor, TENSOR_TYPE) {
        kind @ (FLOAT | FLOAT16) => Ok(kind),
        other => Err(refuse(format!(
            "the token embedding is of type {other}, expected float or float16"
        ))),
    }
}

fn concat(a: &str, b: &str, output: &str) -> Vec<u8> {
    let mut node = node("Concat", &[a, b], output);
    put_number(&mut node, "axis", 0);
    node
}

/// A node with another first input.
fn with_first_input(node: &[u8], input: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(node.len() + input.len());
    let mut first = true;
    for field in wire::fields(node).flatten() {
        if field.number == NODE_INPUT && std::mem::take(&mut first) {
            wire::put_bytes(&mut out, NODE_INPUT, input.as_bytes());
        } else {
            out.extend_from_slice(field.raw);
        }
    }
    out
}

fn refuse(why: String) -> Refused {
    Refused::Vocabulary(why)
}
