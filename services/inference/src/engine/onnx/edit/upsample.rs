//! Doubles pixels behind a convolution instead of before it: the same function in 4/9 of the multiplications.
//!
//! Decoders and UNets repeat each pixel twice in both directions and convolve what comes out with kernels of 3 by 3. Of the nine
//! pixels under such a kernel at most four differ, and which ones are the same depends on whether the row and the column are even
//! or odd. So each of these four phases is a convolution of the small picture with kernels of 2 by 2, whose weights are sums of the
//! old ones; the phases then are put between each other (`DepthToSpace`). Sums are made in float64 and rounded once.
//!
//! It folds a `Resize` or `Upsample` that is proved to do that and nothing else, into a `Conv` that is its only user and whose
//! weights are float32 constants in the file, or float16 ones that are cast to float32. It leaves every other one alone, networks
//! that compute in float16 and weights in other files among them.
//!
//! Invariant: a constant's sums are stored once, however many convolutions share it, so that what is made stays in proportion.

mod form;

use std::collections::{HashMap, HashSet};

use super::external::{MAX_DEPTH, too_deep};
use super::float::{only, reals, tensor};
use super::graph::{
    ATTRIBUTE_GRAPH, ATTRIBUTE_GRAPHS, ATTRIBUTE_TENSOR, FLOAT, FLOAT16, GRAPH_INITIALIZER, GRAPH_INPUT,
    GRAPH_NODE, GRAPH_OUTPUT, GRAPH_VALUE_INFO, Graph, NODE_INPUT, Node, TENSOR_NAME, TENSOR_TYPE,
    VALUE_NAME, attribute, attributes, dims, node, number, put_number, put_numbers, text, texts,
};
use super::wire::{self, Field, Malformed};
use super::{Refused, only_graph, replaced};
use form::{casts_to_float, is_plain, is_standard, repeats};

/// How the names of new values and constants begin.
const PREFIX: &str = "mobula_upsample_";
/// Casts between a constant and a convolution at most; converters to float16 leave one.
const MAX_CASTS: usize = 4;
/// What a doubling multiplies the four dimensions by.
const SCALES: [f32; 4] = [1.0, 1.0, 2.0, 2.0];
/// The phases, as (row, column): 0 for even ones, 1 for odd ones. The order is that of `DepthToSpace`.
const PHASES: [(usize, usize); 4] = [(0, 0), (0, 1), (1, 0), (1, 1)];
/// Which of a kernel's three rows, or columns, lie on the first and on the second pixel that a phase sees.
const LIE: [[&[usize]; 2]; 2] = [[&[0], &[1, 2]], [&[0, 1], &[2]]];

/// Returns the model with doublings of pixels folded into the convolutions behind them; none when there is nothing to fold.
///
/// # Errors
/// [`Refused`] for bytes that are no model, and for weights that are not as many as their dimensions say.
pub(crate) fn folded(model: &[u8]) -> Result<Option<Vec<u8>>, Refused> {
    let top = wire::collect(model)?;
    let graph = Graph::read(only_graph(&top)?)?;
    // New names must be new.
    if graph.has_prefix(PREFIX) {
        return Ok(None);
    }
    let mut folding = Folding::of(&graph)?;
    for index in 0..graph.nodes.len() {
        if let Some(pair) = folding.pair(index)? {
            folding.fold(index, &pair);
        }
    }
    Ok(folding.edited().map(|edited| replaced(&top, &edited)))
}

/// A doubling and the convolution behind it.
struct Pair {
    doubling: usize,
    pixels: usize,
    weights: usize,
    bias: Option<usize>,
    output: usize,
    /// Number of the new kernels.
    kernels: usize,
}

struct Folding<'g, 'a> {
    graph: &'g Graph<'a>,
    /// What callers of the network may give; constants among them may be others at run time.
    given: HashSet<&'a str>,
    /// How often a value is used: by nodes, those of nested graphs included, and as an output.
    uses: HashMap<&'a str, usize>,
    /// Nodes that go.
    removed: Vec<bool>,
    /// Values and constants that go.
    gone: HashSet<&'a str>,
    /// What stands in place of convolutions, by their places.
    phases: HashMap<usize, Vec<u8>>,
    /// Numbers of the new kernels by what they were made of; none where they cannot be made.
    kernels: HashMap<&'a str, Option<usize>>,
    /// The new kernels, as fields of the graph.
    constants: Vec<u8>,
}

impl<'g, 'a> Folding<'g, 'a> {
    fn of(graph: &'g Graph<'a>) -> Result<Self, Refused> {
        let mut uses = HashMap::new();
        count(&graph.fields, 0, &mut uses)?;
        let inputs = graph.fields.iter().filter(|field| field.number == GRAPH_INPUT);
        Ok(Self {
            graph,
            given: inputs.map(|field| text(field.bytes, VALUE_NAME)).collect(),
            uses,
            removed: vec![false; graph.nodes.len()],
            gone: HashSet::new(),
            phases: HashMap::new(),
            kernels: HashMap::new(),
            constants: Vec::new(),
        })
    }

    /// The pair whose convolution is the node at that place, when there is one.
    fn pair(&mut self, index: usize) -> Result<Option<Pair>, Refused> {
        let conv = &self.graph.nodes[index];
        let (&[doubled, weights, ref bias @ ..], &[output]) = (&conv.inputs[..], &conv.outputs[..]) else {
            return Ok(None);
        };
        let Some(doubling) = self.graph.maker(doubled) else {
            return Ok(None);
        };
        let alone = self.uses.get(self.graph.name(doubled)) == Some(&1);
        if self.removed[index] || !alone || bias.len() > 1 || !is_plain(conv)? {
            return Ok(None);
        }
        let Some(pixels) = self.doubled(&self.graph.nodes[doubling])? else {
            return Ok(None);
        };
        let kernels = self.kernels(weights)?;
        Ok(kernels.map(|kernels| Pair {
            doubling,
            pixels,
            weights,
            bias: bias
                .first()
                .copied()
                .filter(|bias| !self.graph.name(*bias).is_empty()),
            output,
            kernels,
        }))
    }

    /// The value whose pixels a node repeats twice in both directions; none when it does another thing.
    fn doubled(&self, node: &Node<'_>) -> Result<Option<usize>, Refused> {
        let (old, pixels, scales) = match (node.op, &node.inputs[..]) {
            // `Resize` as it was in opset 10.
            ("Upsample" | "Resize", &[pixels, scales]) => (true, pixels, scales),
            ("Resize", &[pixels, _, scales]) => (false, pixels, scales),
            ("Resize", &[pixels, _, scales, sizes]) if self.graph.name(sizes).is_empty() => {
                (false, pixels, scales)
            }
            _ => return Ok(None),
        };
        let by = match self.constant(scales)? {
            Some(tensor) if number(tensor, TENSOR_TYPE) == FLOAT && dims(tensor)? == [4] => reals(tensor)?,
            _ => None,
        };
        let named = !self.graph.name(pixels).is_empty() && node.outputs.len() == 1;
        let repeats = named && by.is_some_and(|by| by == SCALES) && repeats(node, old);
        Ok(repeats.then_some(pixels))
    }

    /// The tensor behind a value that is the same in every run.
    fn constant(&self, value: usize) -> Result<Option<&'a [u8]>, Malformed> {
        let name = self.graph.name(value);
        match self.graph.producer(value) {
            None if !self.given.contains(name) => Ok(self.graph.constant(name)),
            Some(node) if node.op == "Constant" && is_standard(node) => {
                match attribute(node.bytes, "value") {
                    Some(value) => Ok(only(value, ATTRIBUTE_TENSOR)?.map(|tensor| tensor.bytes)),
                    None => Ok(None),
                }
            }
            _ => Ok(None),
        }
    }

    /// The number of the kernels that are made of a convolution's weights.
    fn kernels(&mut self, weights: usize) -> Result<Option<usize>, Refused> {
        let (mut root, mut casts) = (weights, 0);
        let tensor = loop {
            if let Some(tensor) = self.constant(root)? {
                break tensor;
            }
            match self.graph.producer(root) {
                Some(node) if casts < MAX_CASTS && casts_to_float(node) => root = node.inputs[0],
                _ => return Ok(None),
            }
            casts += 1;
        };
        // Weights of float16 without a cast: the network computes in float16, in which sums are less exact.
        let kind = number(tensor, TENSOR_TYPE);
        if kind != FLOAT && (kind != FLOAT16 || casts == 0) {
            return Ok(None);
        }
        // Whatever the casts, the values are those of the constant.
        let name = self.graph.name(root);
        if let Some(known) = self.kernels.get(name) {
            return Ok(*known);
        }
        let next = self.kernels.len();
        let made = self.make(tensor, next)?.then_some(next);
        self.kernels.insert(name, made);
        Ok(made)
    }

    /// Makes the kernels of the four phases of a tensor; says whether they could be made.
    fn make(&mut self, of: &[u8], next: usize) -> Result<bool, Refused> {
        let sides = dims(of)?;
        let (&[outputs, inputs, 3, 3], Some(values)) = (&sides[..], reals(of)?) else {
            return Ok(false);
        };
        let (Ok(outputs), Ok(inputs)) = (usize::try_from(outputs), usize::try_from(inputs)) else {
            return Ok(false);
        };
        let sums = PHASES.map(|phase| phase_kernels(&values, phase));
        // Sums of large weights may be too large.
        if values.is_empty() || !sums.iter().flatten().all(|sum| sum.is_finite()) {
            return Ok(false);
        }
        for (phase, sums) in PHASES.into_iter().zip(&sums) {
            let tensor = tensor(&kernels_name(next, phase), FLOAT, &[outputs, inputs, 2, 2], sums);
            wire::put_bytes(&mut self.constants, GRAPH_INITIALIZER, &tensor);
        }
        Ok(true)
    }

    /// Puts the four phases in place of a convolution.
    fn fold(&mut self, conv: usize, pair: &Pair) {
        let graph = self.graph;
        let together = format!("{PREFIX}{}", self.phases.len());
        let parts = PHASES.map(|(down, right)| format!("{together}_{down}{right}"));
        let mut nodes = Vec::new();
        for ((down, right), part) in PHASES.into_iter().zip(&parts) {
            let kernels = kernels_name(pair.kernels, (down, right));
            let mut inputs = vec![graph.name(pair.pixels), &kernels];
            inputs.extend(pair.bias.map(|bias| graph.name(bias)));
            let mut phase = node("Conv", &inputs, part);
            put_numbers(&mut phase, "kernel_shape", &[2, 2]);
            let (down, right) = (down as u64, right as u64);
            put_numbers(&mut phase, "pads", &[1 - down, 1 - right, down, right]);
            wire::put_bytes(&mut nodes, GRAPH_NODE, &phase);
        }
        let mut concat = node("Concat", &parts.each_ref().map(String::as_str), &together);
        put_number(&mut concat, "axis", 1);
        wire::put_bytes(&mut nodes, GRAPH_NODE, &concat);
        // Its mode is DCR, the default; the attribute came with opset 11.
        let mut between = node("DepthToSpace", &[&together], graph.name(pair.output));
        put_number(&mut between, "blocksize", 2);
        wire::put_bytes(&mut nodes, GRAPH_NODE, &between);
        self.phases.insert(conv, nodes);
        self.removed[conv] = true;
        self.removed[pair.doubling] = true;
        self.gone.extend(
            graph.nodes[pair.doubling]
                .outputs
                .iter()
                .map(|value| graph.name(*value)),
        );
        self.release(pair.weights);
        // The pixels, which come first, are still used.
        for value in &graph.nodes[pair.doubling].inputs[1..] {
            self.release(*value);
        }
    }

    /// Takes one use from a value; what nobody uses any more goes, and so on backwards.
    fn release(&mut self, value: usize) {
        let mut open = vec![value];
        while let Some(value) = open.pop() {
            let name = self.graph.name(value);
            let Some(uses) = self.uses.get_mut(name).filter(|_| !name.is_empty()) else {
                continue;
            };
            *uses = uses.saturating_sub(1);
            if *uses > 0 || self.given.contains(name) {
                continue;
            }
            let Some(maker) = self.graph.maker(value) else {
                self.gone.insert(name);
                continue;
            };
            let node = &self.graph.nodes[maker];
            let names = || node.outputs.iter().map(|value| self.graph.name(*value));
            let unused =
                names().all(|name| name.is_empty() || self.uses.get(name).is_none_or(|uses| *uses == 0));
            if unused && !self.removed[maker] {
                self.removed[maker] = true;
                self.gone.extend(names().filter(|name| !name.is_empty()));
                open.extend(&node.inputs);
            }
        }
    }

    /// The graph after all; none when nothing was folded.
    fn edited(&self) -> Option<Vec<u8>> {
        if self.phases.is_empty() {
            return None;
        }
        let mut out = Vec::new();
        // Nodes are numbered in the order of their fields.
        let mut nodes = 0;
        for field in &self.graph.fields {
            let stays = match field.number {
                GRAPH_NODE => {
                    let index = nodes;
                    nodes += 1;
                    if let Some(phases) = self.phases.get(&index) {
                        out.extend_from_slice(phases);
                    }
                    !self.removed[index]
                }
                GRAPH_INITIALIZER => !self.gone.contains(text(field.bytes, TENSOR_NAME)),
                GRAPH_VALUE_INFO => !self.gone.contains(text(field.bytes, VALUE_NAME)),
                _ => true,
            };
            if stays {
                out.extend_from_slice(field.raw);
            }
        }
        out.extend_from_slice(&self.constants);
        Some(out)
    }
}

fn kernels_name(kernels: usize, (down, right): (usize, usize)) -> String {
    format!("{PREFIX}w{kernels}_{down}{right}")
}

/// The kernels of 2 by 2 of a phase, of kernels of 3 by 3.
fn phase_kernels(kernels: &[f32], (down, right): (usize, usize)) -> Vec<f32> {
    let (kernels, _) = kernels.as_chunks::<9>();
    let mut sums = Vec::with_capacity(4 * kernels.len());
    for kernel in kernels {
        for rows in LIE[down] {
            for columns in LIE[right] {
                let row =
                    |row: &usize| -> f64 { columns.iter().map(|at| f64::from(kernel[3 * row + at])).sum() };
                sums.push(rows.iter().map(row).sum::<f64>() as f32);
            }
        }
    }
    sums
}

/// Counts how often values are used in a graph that is so deep.
fn count<'a>(fields: &[Field<'a>], depth: usize, uses: &mut HashMap<&'a str, usize>) -> Result<(), Refused> {
    if depth > MAX_DEPTH {
        return Err(too_deep());
    }
    for field in fields {
        if field.number == GRAPH_OUTPUT {
            *uses.entry(text(field.bytes, VALUE_NAME)).or_default() += 1;
        }
        if field.number != GRAPH_NODE {
            continue;
        }
        for name in texts(field.bytes, NODE_INPUT) {
            *uses.entry(name).or_default() += 1;
        }
        for nested in attributes(field.bytes).flat_map(|attribute| wire::fields(attribute).flatten()) {
            if matches!(nested.number, ATTRIBUTE_GRAPH | ATTRIBUTE_GRAPHS) {
                count(&wire::collect(nested.bytes)?, depth + 1, uses)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
