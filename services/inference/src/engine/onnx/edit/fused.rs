//! Puts operators of our own in the place of what ONNX Runtime computes in many small steps: group norms with their activation, and
//! the gates of feed-forward layers ([`super::super::fused`] has the operators, [`super::patterns`] says what is found).
//!
//! What is not recognized stays as it is, and so does every value that others use. Networks in float16, graphs with graphs inside and
//! files that were edited before are left alone.

use std::collections::HashMap;

use super::super::fused::{DOMAIN, VERSION};
use super::graph::{
    ATTRIBUTE_GRAPH, ATTRIBUTE_GRAPHS, GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_NODE, GRAPH_VALUE_INFO, Graph,
    MODEL_OPSET, NODE_ATTRIBUTE, OPSET_DOMAIN, OPSET_VERSION, TENSOR_NAME, VALUE_NAME, text,
};
use super::patterns::{Finder, Found};
use super::wire;
use super::{Refused, with_graph};

/// Returns the model with what was found replaced; `None` when nothing was.
///
/// # Errors
/// [`Refused`] for bytes that are no model.
pub(crate) fn fused(model: &[u8]) -> Result<Option<Vec<u8>>, Refused> {
    let imports =
        |field: &wire::Field<'_>| field.number == MODEL_OPSET && text(field.bytes, OPSET_DOMAIN) == DOMAIN;
    if wire::collect(model)?.iter().any(imports) {
        return Ok(None);
    }
    let mut any = false;
    let mut edited = with_graph(model, |graph| {
        let graph = Graph::read(graph)?;
        let found = find(&graph);
        any = !found.is_empty();
        Ok(if any {
            rewritten(&graph, &found)
        } else {
            Vec::new()
        })
    })?;
    if !any {
        return Ok(None);
    }
    let mut import = Vec::new();
    wire::put_bytes(&mut import, OPSET_DOMAIN, DOMAIN.as_bytes());
    wire::put_number(&mut import, OPSET_VERSION, VERSION);
    wire::put_bytes(&mut edited, MODEL_OPSET, &import);
    Ok(Some(edited))
}

/// What is replaced, by the node in whose place it comes.
fn find(graph: &Graph<'_>) -> HashMap<usize, Found> {
    // Graphs inside may use any value of this one.
    let nested = graph.nodes.iter().any(|node| {
        let attributes = wire::fields(node.bytes).flatten();
        let mut inner = attributes
            .filter(|field| field.number == NODE_ATTRIBUTE)
            .flat_map(|attribute| wire::fields(attribute.bytes).flatten());
        inner.any(|field| matches!(field.number, ATTRIBUTE_GRAPH | ATTRIBUTE_GRAPHS))
    });
    if nested {
        return HashMap::new();
    }
    let finder = Finder::new(graph);
    let all = (0..graph.nodes.len()).filter_map(|index| finder.find(index));
    all.map(|found| (found.place, found)).collect()
}

/// The graph with the new nodes, and without what was needed for the old ones alone.
fn rewritten(graph: &Graph<'_>, found: &HashMap<usize, Found>) -> Vec<u8> {
    let (before, after) = (needed(graph, &HashMap::new()), needed(graph, found));
    let unused = |value: usize| before[value] && !after[value];
    let is_unused = |name: &str| graph.find(name).is_some_and(unused);
    // Old files list their constants among the inputs: such a one would be asked for if it had no value.
    let inputs: HashMap<&str, ()> = graph
        .fields
        .iter()
        .filter(|field| field.number == GRAPH_INPUT)
        .map(|field| (text(field.bytes, VALUE_NAME), ()))
        .collect();
    let (mut out, mut index) = (Vec::new(), 0);
    for field in &graph.fields {
        let kept = match field.number {
            GRAPH_NODE => {
                let node = &graph.nodes[index];
                index += 1;
                if let Some(found) = found.get(&(index - 1)) {
                    wire::put_bytes(&mut out, GRAPH_NODE, &found.node);
                    continue;
                }
                let made = &node.outputs;
                made.is_empty()
                    || !made.iter().any(|value| before[*value])
                    || made.iter().any(|value| after[*value])
            }
            GRAPH_INITIALIZER => {
                let name = text(field.bytes, TENSOR_NAME);
                inputs.contains_key(name) || !is_unused(name)
            }
            GRAPH_VALUE_INFO => !is_unused(text(field.bytes, VALUE_NAME)),
            _ => true,
        };
        if kept {
            out.extend_from_slice(field.raw);
        }
    }
    out
}

/// Which values the outputs are made of.
fn needed(graph: &Graph<'_>, found: &HashMap<usize, Found>) -> Vec<bool> {
    let mut open: Vec<usize> = graph.outputs().collect();
    let mut needed = vec![false; graph.values()];
    while let Some(value) = open.pop() {
        if std::mem::replace(&mut needed[value], true) {
            continue;
        }
        let Some(maker) = graph.maker(value) else { continue };
        let inputs = found
            .get(&maker)
            .map_or(&graph.nodes[maker].inputs, |found| &found.inputs);
        open.extend(inputs.iter().filter(|input| !needed[**input]));
    }
    needed
}

#[cfg(test)]
mod tests;
