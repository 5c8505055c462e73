//! What exporters make of a group norm and of a gated feed-forward layer, found in a graph by what feeds what.
//!
//! A pattern is found whole or not at all, in float32 alone; values inside of it may be used elsewhere only where that costs nothing.
//! Each look takes a bounded number of steps, whatever the graph is.

use super::constants::Constants;
use super::graph::{
    ATTRIBUTE_NAME, ATTRIBUTE_NUMBER, ATTRIBUTE_TEXT, ATTRIBUTE_TYPE, Graph, NODE_ATTRIBUTE, NODE_DOMAIN,
    Node, attribute, node, number, put_number, text,
};
use super::wire;

/// Operators between a shape and an end of a slice at most; exporters write four.
const MAX_ARITHMETIC: usize = 24;
/// `AttributeProto.f`, and `AttributeProto.AttributeType.FLOAT`.
const ATTRIBUTE_FLOAT: u64 = 2;
const TYPE_FLOAT: u64 = 1;

/// A node that takes the place of others.
pub(super) struct Found {
    /// The node whose output it gives.
    pub(super) place: usize,
    pub(super) inputs: Vec<usize>,
    /// The new `NodeProto`.
    pub(super) node: Vec<u8>,
}

/// Looks for patterns in a graph.
pub(super) struct Finder<'g, 'a> {
    graph: &'g Graph<'a>,
    constants: Constants<'g, 'a>,
    /// The nodes that take a value, once for each input.
    takers: Vec<Vec<usize>>,
    /// Which values are outputs of the graph.
    given: Vec<bool>,
}

impl<'g, 'a> Finder<'g, 'a> {
    pub(super) fn new(graph: &'g Graph<'a>) -> Self {
        let mut takers = vec![Vec::new(); graph.values()];
        for (index, node) in graph.nodes.iter().enumerate() {
            for value in &node.inputs {
                takers[*value].push(index);
            }
        }
        let mut given = vec![false; graph.values()];
        for value in graph.outputs() {
            given[value] = true;
        }
        Self {
            constants: Constants::of(graph),
            graph,
            takers,
            given,
        }
    }

    /// The pattern that a node belongs to, when it is the one that patterns are known by.
    pub(super) fn find(&self, index: usize) -> Option<Found> {
        match self.graph.nodes[index].op {
            "InstanceNormalization" => self.norm(index),
            "Mul" => self.gate(index),
            _ => None,
        }
    }

    /// Reshape to `[0, groups, -1]`, InstanceNormalization that neither scales nor shifts, Reshape to what it was, Mul and Add of a
    /// constant for each channel, and Sigmoid with Mul when they follow.
    fn norm(&self, index: usize) -> Option<Found> {
        let normalize = self.standard(&self.graph.nodes[index], "InstanceNormalization")?;
        let ([folded, ones, zeros], [normed]) = (&normalize.inputs[..], &normalize.outputs[..]) else {
            return None;
        };
        let fold = self.maker(*folded, "Reshape")?;
        let [x, shape] = fold.inputs[..] else { return None };
        let groups = match self.constants.get(shape)?.wholes()?[..] {
            [0, groups, -1] if groups > 0 && !allows_zero(fold) => groups,
            _ => return None,
        };
        let is_all = |value: usize, number: f32| {
            let values = self.constants.get(value).and_then(|constant| constant.floats());
            values.is_some_and(|values| {
                values.len() as i64 == groups && values.iter().all(|value| *value == number)
            })
        };
        if !is_all(*ones, 1.0) || !is_all(*zeros, 0.0) {
            return None;
        }
        let (_, unfold) = self.only_taker(*normed, "Reshape")?;
        let [_, shape] = unfold.inputs[..] else {
            return None;
        };
        let sizes = self.maker(shape, "Shape")?;
        let bare = attribute(sizes.bytes, "start").is_none() && attribute(sizes.bytes, "end").is_none();
        if unfold.inputs[0] != *normed || sizes.inputs != [x] || !bare || allows_zero(unfold) {
            return None;
        }
        let unfolded = *unfold.outputs.first()?;
        let (_, scaling) = self.only_taker(unfolded, "Mul")?;
        let (scale, scaled) = (other(scaling, unfolded)?, *scaling.outputs.first()?);
        let (adding, shifting) = self.only_taker(scaled, "Add")?;
        let (bias, shifted) = (other(shifting, scaled)?, *shifting.outputs.first()?);
        let channels = self.channels(scale)?;
        if channels != self.channels(bias)? || !channels.is_multiple_of(groups as u64) {
            return None;
        }
        let activation = self.activation(shifted);
        let place = activation.unwrap_or(adding);
        let mut node = self.node("GroupNorm", &[x, scale, bias], place)?;
        put_number(&mut node, "groups", groups as u64);
        put_float(&mut node, "epsilon", epsilon(normalize));
        put_number(&mut node, "silu", u64::from(activation.is_some()));
        Some(Found {
            place,
            inputs: vec![x, scale, bias],
            node,
        })
    }

    /// How many channels a float constant of a value for each has, as a picture takes it.
    fn channels(&self, value: usize) -> Option<u64> {
        let constant = self.constants.get(value)?;
        match constant.dims()?[..] {
            [channels, 1, 1] | [1, channels, 1, 1] if constant.is_float() => Some(channels),
            _ => None,
        }
    }

    /// The Mul of a value with its Sigmoid, when nobody else takes either.
    fn activation(&self, value: usize) -> Option<usize> {
        let [a, b] = self.takers[value][..] else {
            return None;
        };
        let nodes = &self.graph.nodes;
        let (gate, product) = if nodes[a].op == "Sigmoid" { (a, b) } else { (b, a) };
        let sigmoid = *self.standard(&nodes[gate], "Sigmoid")?.outputs.first()?;
        let (last, multiply) = self.only_taker(sigmoid, "Mul")?;
        let fits = last == product && other(multiply, value)? == sigmoid && !self.given[value];
        fits.then_some(last)
    }

    /// `first * gelu(second)` of the halves of a line, with the addition of a constant before it.
    fn gate(&self, index: usize) -> Option<Found> {
        let product = self.standard(&self.graph.nodes[index], "Mul")?;
        let [a, b] = product.inputs[..] else { return None };
        let (whole, width) = [(a, b), (b, a)]
            .into_iter()
            .find_map(|(first, gated)| self.halves(first, self.gelu(gated)?))?;
        let mut inputs = vec![whole];
        if let Some((sum, bias)) = self.biased(whole, width) {
            inputs = vec![sum, bias];
        }
        let node = self.node("GegluBias", &inputs, index)?;
        Some(Found {
            place: index,
            inputs,
            node,
        })
    }

    /// What a value is the exact GELU of.
    fn gelu(&self, value: usize) -> Option<usize> {
        let maker = self.graph.producer(value)?;
        if maker.op == "Gelu" {
            let exact = attribute(maker.bytes, "approximate")
                .is_none_or(|approximate| text(approximate, ATTRIBUTE_TEXT) == "none");
            return maker.inputs.first().copied().filter(|_| exact);
        }
        // 0.5, the input, and 1 + erf, multiplied in any order.
        let (mut open, mut input, mut inner, mut halved) = (vec![value], None, None, false);
        for _ in 0..5 {
            let Some(factor) = open.pop() else { break };
            if let Some(product) = self.maker(factor, "Mul") {
                open.extend(&product.inputs);
            } else if self.constants.scalar(factor) == Some(0.5) && !halved {
                halved = true;
            } else if let Some(of) = self.one_and_erf(factor).filter(|_| inner.is_none()) {
                inner = Some(of);
            } else if input.replace(factor).is_some() {
                return None;
            }
        }
        (open.is_empty() && halved && inner.is_some() && inner == input).then_some(input?)
    }

    /// What `1 + erf(x / sqrt(2))` is of.
    fn one_and_erf(&self, value: usize) -> Option<usize> {
        let sum = self.maker(value, "Add")?;
        let [a, b] = sum.inputs[..] else { return None };
        let is_one = |value| self.constants.scalar(value) == Some(1.0);
        let erf = if is_one(a) { b } else { a };
        if !is_one(a) && !is_one(b) {
            return None;
        }
        let [scaled] = self.maker(erf, "Erf")?.inputs[..] else {
            return None;
        };
        let scaling = self.graph.producer(scaled)?;
        let [x, by] = scaling.inputs[..] else { return None };
        let is = |value, number: f32| {
            self.constants
                .scalar(value)
                .is_some_and(|found| (found / number - 1.0).abs() < 1e-6)
        };
        match scaling.op {
            "Div" if is(by, std::f32::consts::SQRT_2) => Some(x),
            "Mul" if is(by, std::f32::consts::FRAC_1_SQRT_2) => Some(x),
            "Mul" if is(x, std::f32::consts::FRAC_1_SQRT_2) => Some(by),
            _ => None,
        }
    }

    /// The value that two others are the halves of along its last dimension, and how long that is.
    fn halves(&self, first: usize, second: usize) -> Option<(usize, u64)> {
        if let Some(split) = self.maker(first, "Split") {
            let whole = *split.inputs.first()?;
            let width = self.width(whole)?;
            let half = i64::try_from(width / 2).ok()?;
            let equal = match split.inputs.get(1) {
                Some(sizes) => self.constants.get(*sizes)?.wholes()? == [half, half],
                None => true,
            };
            let axis = number(attribute(split.bytes, "axis")?, ATTRIBUTE_NUMBER) as i64;
            let fits = split.outputs == [first, second] && axis == -1 && equal;
            return fits.then_some((whole, width));
        }
        let (before, after) = (self.maker(first, "Slice")?, self.maker(second, "Slice")?);
        let (whole, width) = (*before.inputs.first()?, self.width(*before.inputs.first()?)?);
        let of = |slice: &Node<'_>| {
            let [from, start, end, axes, ref steps @ ..] = slice.inputs[..] else {
                return None;
            };
            let wholes = |value| self.constants.get(value)?.wholes();
            let steady = match steps {
                [] => true,
                [step] => wholes(*step)? == [1],
                _ => false,
            };
            let place = |value| self.number(value, whole, width, &mut MAX_ARITHMETIC.clone());
            let fits = from == whole && wholes(axes)? == [-1] && steady;
            fits.then_some((place(start)?, place(end)?))
        };
        let (width, half) = (i64::try_from(width).ok()?, i64::try_from(width / 2).ok()?);
        let ((start, middle), (from, end)) = (of(before)?, of(after)?);
        let fits = start == 0 && middle == half && from == half && end >= width;
        fits.then_some((whole, width as u64))
    }

    /// A whole number that is computed from constants and from the last dimension of a value.
    fn number(&self, value: usize, whole: usize, width: u64, steps: &mut usize) -> Option<i64> {
        *steps = steps.checked_sub(1)?;
        if let Some(constant) = self.constants.get(value) {
            return match constant.wholes()?[..] {
                [only] => Some(only),
                _ => None,
            };
        }
        let node = self.graph.producer(value)?;
        self.standard(node, node.op)?;
        let mut of = |value| self.number(value, whole, width, steps);
        match (node.op, &node.inputs[..]) {
            ("Gather", [shape, place]) => {
                let shape = self.maker(*shape, "Shape")?;
                let bare =
                    attribute(shape.bytes, "start").is_none() && attribute(shape.bytes, "end").is_none();
                let last = of(*place)? == -1 && shape.inputs == [whole] && bare;
                i64::try_from(width).ok().filter(|_| last)
            }
            ("Add", [a, b]) => of(*a)?.checked_add(of(*b)?),
            ("Sub", [a, b]) => of(*a)?.checked_sub(of(*b)?),
            ("Mul", [a, b]) => of(*a)?.checked_mul(of(*b)?),
            ("Div", [a, b]) => of(*a)?.checked_div(of(*b)?),
            ("Identity", [a]) | ("Squeeze" | "Unsqueeze", [a, ..]) => of(*a),
            _ => None,
        }
    }

    /// The last dimension of a value in float32 that can be halved, when the constant that made the value tells.
    fn width(&self, value: usize) -> Option<u64> {
        let made = self.graph.producer(value)?;
        self.standard(made, made.op)?;
        let width = match (made.op, &made.inputs[..]) {
            ("Add", [a, b]) => self.vector(*a).or_else(|| self.vector(*b)),
            ("MatMul", [_, weights]) => self.columns(*weights),
            _ => None,
        };
        width.filter(|width| *width > 0 && width.is_multiple_of(2))
    }

    /// The product and the constant that a value is the sum of.
    fn biased(&self, value: usize, width: u64) -> Option<(usize, usize)> {
        let [a, b] = self.maker(value, "Add")?.inputs[..] else {
            return None;
        };
        [(a, b), (b, a)].into_iter().find(|(sum, bias)| {
            let weights = self
                .maker(*sum, "MatMul")
                .and_then(|product| product.inputs.get(1));
            let columns = weights.and_then(|weights| self.columns(*weights));
            columns == Some(width) && self.vector(*bias) == Some(width)
        })
    }

    /// The length of a constant of one dimension.
    fn vector(&self, value: usize) -> Option<u64> {
        let constant = self.constants.get(value)?;
        match constant.dims()?[..] {
            [length] if constant.is_float() => Some(length),
            _ => None,
        }
    }

    /// The last dimension of a constant of several.
    fn columns(&self, value: usize) -> Option<u64> {
        let constant = self.constants.get(value)?;
        match constant.dims()?[..] {
            [_, .., columns] if constant.is_float() => Some(columns),
            _ => None,
        }
    }

    /// A node of an operator of the standard.
    fn standard<'n>(&self, node: &'n Node<'a>, op: &str) -> Option<&'n Node<'a>> {
        let standard = matches!(text(node.bytes, NODE_DOMAIN), "" | "ai.onnx");
        (node.op == op && standard).then_some(node)
    }

    /// The node of an operator that makes a value.
    fn maker(&self, value: usize, op: &str) -> Option<&Node<'a>> {
        self.standard(self.graph.producer(value)?, op)
    }

    /// The only node that takes a value, when it is of an operator.
    fn only_taker(&self, value: usize, op: &str) -> Option<(usize, &Node<'a>)> {
        match self.takers[value][..] {
            [only] if !self.given[value] => Some((only, self.standard(&self.graph.nodes[only], op)?)),
            _ => None,
        }
    }

    /// A node of ours that gives what the one in its place gave.
    fn node(&self, op: &str, inputs: &[usize], place: usize) -> Option<Vec<u8>> {
        let [output] = self.graph.nodes[place].outputs[..] else {
            return None;
        };
        let inputs: Vec<&str> = inputs.iter().map(|value| self.graph.name(*value)).collect();
        let mut node = node(op, &inputs, self.graph.name(output));
        wire::put_bytes(&mut node, NODE_DOMAIN, super::super::fused::DOMAIN.as_bytes());
        Some(node)
    }
}

/// The other one of a node's two inputs.
fn other(node: &Node<'_>, value: usize) -> Option<usize> {
    match node.inputs[..] {
        [a, b] if a == value => Some(b),
        [a, b] if b == value => Some(a),
        _ => None,
    }
}

fn allows_zero(reshape: &Node<'_>) -> bool {
    attribute(reshape.bytes, "allowzero").is_some_and(|allows| number(allows, ATTRIBUTE_NUMBER) != 0)
}

/// What a norm adds to the variance.
fn epsilon(node: &Node<'_>) -> f32 {
    let given = attribute(node.bytes, "epsilon").and_then(|epsilon| {
        let mut fields = wire::fields(epsilon).flatten();
        fields.find(|field| field.number == ATTRIBUTE_FLOAT)?.float()
    });
    // What the standard says when it is not given.
    given.unwrap_or(1e-5)
}

/// Appends an attribute that is a float to a node.
fn put_float(node: &mut Vec<u8>, name: &str, value: f32) {
    let mut attribute = Vec::new();
    wire::put_bytes(&mut attribute, ATTRIBUTE_NAME, name.as_bytes());
    wire::put_float(&mut attribute, ATTRIBUTE_FLOAT, value);
    wire::put_number(&mut attribute, ATTRIBUTE_TYPE, TYPE_FLOAT);
    wire::put_bytes(node, NODE_ATTRIBUTE, &attribute);
}
