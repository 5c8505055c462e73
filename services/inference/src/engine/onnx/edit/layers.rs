//! Gives a text encoder outputs for what stands after its earlier layers, which `clip_skip` asks for and most exports lack.
//!
//! The residual stream is found by structure: from the output backwards, the last addition whose one operand is made from the
//! other, then from that operand on in the same way. Two such additions make a layer (attention, feed-forward), and the stream
//! ends at the embeddings, where neither operand is made from the other. What stands between the stream's end and the output is
//! the final layer norm, however an exporter wrote it; its nodes are copied for each earlier layer, because diffusers applies
//! `final_layer_norm` to the layer that it skipped to (`StableDiffusionPipeline.encode_prompt`). Stable Diffusion XL takes the
//! stream as it is.
//!
//! It refuses a graph whose additions do not pair, or whose layers are not as many as the configuration says.

use std::collections::HashMap;

use super::graph::{
    GRAPH_NODE, GRAPH_OUTPUT, GRAPH_VALUE_INFO, Graph, NODE_INPUT, NODE_NAME, NODE_OUTPUT, Node, VALUE_NAME,
};
use super::wire;
use super::{Refused, with_graph};

/// What is made an output for each layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tap {
    /// The stream with the final layer norm applied to it.
    Normed,
    /// The stream itself.
    Raw,
}

/// Layers of an encoder at most; CLIP's largest has 32.
const MAX_LAYERS: usize = 256;
/// Additions near the output that are looked at before the stream is given up.
const MAX_TRIES: usize = 64;
/// Nodes of a layer norm, written out with casts, at most; 9 in exports for opset 14.
const MAX_NORM: usize = 32;

/// A model with an output for each earlier layer.
#[derive(Debug)]
pub(crate) struct Tapped {
    pub(crate) model: Vec<u8>,
    /// Names of the new outputs: the first leaves out one layer, the last leaves out all.
    pub(crate) names: Vec<String>,
}

/// Returns the model with outputs for the stream after each layer before the last. `output` names the last layer's normed states;
/// `layers` is what the configuration says.
///
/// # Errors
/// [`Refused`] when the graph is not of the form described above.
pub(crate) fn tapped(model: &[u8], output: &str, tap: Tap, layers: Option<usize>) -> Result<Tapped, Refused> {
    let mut names = Vec::new();
    let model = with_graph(model, |graph| {
        let graph = Graph::read(graph)?;
        let points = stream(&graph, output)?;
        let found = (points.len() - 1) / 2;
        if points.len() % 2 == 0 || found == 0 || layers.is_some_and(|layers| layers != found) {
            return Err(Refused::Layers(format!(
                "{} additions to the residual stream, expected two for each of {} layers",
                points.len() - 1,
                layers.map_or_else(|| "the".to_owned(), |layers| layers.to_string()),
            )));
        }
        let earlier: Vec<usize> = points.iter().copied().step_by(2).skip(1).collect();
        edit(&graph, output, points[0], &earlier, tap, &mut names)
    })?;
    Ok(Tapped { model, names })
}

/// The residual stream from its end to the embeddings: the values after each addition.
fn stream(graph: &Graph<'_>, output: &str) -> Result<Vec<usize>, Refused> {
    let end = graph
        .output(output)
        .and_then(|_| graph.find(output))
        .ok_or_else(|| Refused::NoOutput(output.to_owned()))?;
    let inside = graph.cone(end);
    let last = graph
        .nodes
        .iter()
        .rev()
        .filter(|node| node.outputs.iter().any(|value| inside[*value]) && operands(graph, node).is_some())
        .take(MAX_TRIES)
        .find(|node| earlier(graph, node).is_some())
        .ok_or_else(|| Refused::Layers("no residual stream was found before the output".to_owned()))?;
    let mut points = vec![last.outputs[0]];
    let mut node = last;
    while let Some(value) = earlier(graph, node) {
        let value = uncast(graph, value);
        points.push(value);
        if points.len() > 2 * MAX_LAYERS + 1 {
            return Err(Refused::Layers(format!("it has more than {MAX_LAYERS} layers")));
        }
        match graph.producer(value) {
            Some(before) => node = before,
            None => break,
        }
    }
    Ok(points)
}

/// The operands of an addition of two values that both depend on the input.
fn operands(graph: &Graph<'_>, node: &Node<'_>) -> Option<(usize, usize)> {
    match (node.op, &node.inputs[..], &node.outputs[..]) {
        ("Add", [a, b], [_]) if graph.is_alive(*a) && graph.is_alive(*b) => Some((*a, *b)),
        _ => None,
    }
}

/// The operand of an addition from which the other one is made.
fn earlier(graph: &Graph<'_>, node: &Node<'_>) -> Option<usize> {
    let (a, b) = operands(graph, node)?;
    let made_from = |whole: usize, part: usize| whole != part && graph.cone(whole)[uncast(graph, part)];
    if made_from(b, a) {
        Some(a)
    } else if made_from(a, b) {
        Some(b)
    } else {
        None
    }
}

/// The value before casts, of which mixed precision puts some into the stream.
fn uncast(graph: &Graph<'_>, mut value: usize) -> usize {
    // Nodes stand in order, so a producer is always earlier; the bound is against files that break this.
    for _ in 0..4 {
        match graph.producer(value) {
            Some(node) if matches!(node.op, "Cast" | "Identity") && node.inputs.len() == 1 => {
                value = node.inputs[0];
            }
            _ => break,
        }
    }
    value
}

fn edit(
    graph: &Graph<'_>,
    output: &str,
    end: usize,
    earlier: &[usize],
    tap: Tap,
    names: &mut Vec<String>,
) -> Result<Vec<u8>, Refused> {
    let norm = match tap {
        Tap::Normed => norm(graph, output, end)?,
        Tap::Raw => Vec::new(),
    };
    let declared = graph
        .output(output)
        .ok_or_else(|| Refused::NoOutput(output.to_owned()))?;
    let (mut nodes, mut outputs) = (Vec::new(), Vec::new());
    for (index, point) in earlier.iter().enumerate() {
        let name = format!("mobula_skip_{}", index + 1);
        if tap == Tap::Normed {
            copy(graph, &norm, end, *point, output, &name, &mut nodes);
        } else {
            let node = super::graph::node("Identity", &[graph.name(*point)], &name);
            wire::put_bytes(&mut nodes, GRAPH_NODE, &node);
        }
        let mut value = Vec::new();
        wire::put_bytes(&mut value, VALUE_NAME, name.as_bytes());
        for field in wire::collect(declared)?
            .iter()
            .filter(|field| field.number != VALUE_NAME)
        {
            value.extend_from_slice(field.raw);
        }
        wire::put_bytes(&mut outputs, GRAPH_OUTPUT, &value);
        names.push(name);
    }
    let mut out = Vec::new();
    for field in graph
        .fields
        .iter()
        .filter(|field| field.number != GRAPH_VALUE_INFO)
    {
        out.extend_from_slice(field.raw);
    }
    out.extend(nodes);
    out.extend(outputs);
    Ok(out)
}

/// The nodes between the stream's end and the output, in their order.
fn norm<'g, 'a>(graph: &'g Graph<'a>, output: &str, end: usize) -> Result<Vec<&'g Node<'a>>, Refused> {
    let last = graph
        .find(output)
        .ok_or_else(|| Refused::NoOutput(output.to_owned()))?;
    let inside = graph.cone(last);
    let mut after = HashMap::from([(end, ())]);
    let mut nodes = Vec::new();
    for node in &graph.nodes {
        let needed = node.outputs.iter().any(|value| inside[*value]);
        if needed && node.inputs.iter().any(|value| after.contains_key(value)) {
            after.extend(node.outputs.iter().map(|value| (*value, ())));
            nodes.push(node);
        }
    }
    if nodes.is_empty() || nodes.len() > MAX_NORM {
        return Err(Refused::Layers(format!(
            "{} nodes stand between the last layer and the output, expected a layer norm",
            nodes.len()
        )));
    }
    Ok(nodes)
}

/// Appends the norm's nodes once more, of `point` in place of `end`, with `name` as their result.
fn copy(
    graph: &Graph<'_>,
    norm: &[&Node<'_>],
    end: usize,
    point: usize,
    output: &str,
    name: &str,
    out: &mut Vec<u8>,
) {
    let made: Vec<usize> = norm
        .iter()
        .flat_map(|node| node.outputs.iter().copied())
        .collect();
    let renamed = |value: usize| match graph.name(value) {
        _ if value == end => graph.name(point).to_owned(),
        own if own == output => name.to_owned(),
        own if made.contains(&value) => format!("{name}/{own}"),
        own => own.to_owned(),
    };
    for node in norm {
        let (mut inputs, mut outputs) = (node.inputs.iter(), node.outputs.iter());
        let mut copy = Vec::with_capacity(node.bytes.len() + 64);
        for field in wire::fields(node.bytes).flatten() {
            let value = match field.number {
                NODE_INPUT => inputs.next(),
                NODE_OUTPUT => outputs.next(),
                // Names of nodes must not come twice; none is needed.
                NODE_NAME => continue,
                _ => None,
            };
            match value {
                Some(value) => wire::put_bytes(&mut copy, field.number, renamed(*value).as_bytes()),
                None => copy.extend_from_slice(field.raw),
            }
        }
        wire::put_bytes(out, GRAPH_NODE, &copy);
    }
}
