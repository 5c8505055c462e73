//! An ONNX graph as its nodes, constants and values, borrowed from the bytes of the file, for edits that follow what feeds what.
//!
//! It reads names and operators only; tensors stay where they are. A graph of any size and form is read or refused in time and
//! memory proportional to its bytes.

use std::collections::HashMap;

use super::Refused;
use super::wire::{self, Field};

// Field numbers of onnx.proto (onnx/onnx, `onnx/onnx.proto`, stable since IR version 3).
pub(super) const MODEL_GRAPH: u64 = 7;
pub(super) const MODEL_OPSET: u64 = 8;
pub(super) const OPSET_DOMAIN: u64 = 1;
pub(super) const OPSET_VERSION: u64 = 2;
pub(crate) const GRAPH_NODE: u64 = 1;
pub(super) const GRAPH_INITIALIZER: u64 = 5;
pub(crate) const GRAPH_INPUT: u64 = 11;
pub(super) const GRAPH_OUTPUT: u64 = 12;
pub(super) const GRAPH_VALUE_INFO: u64 = 13;
pub(super) const NODE_INPUT: u64 = 1;
pub(super) const NODE_OUTPUT: u64 = 2;
pub(super) const NODE_NAME: u64 = 3;
pub(crate) const NODE_OP_TYPE: u64 = 4;
pub(super) const NODE_ATTRIBUTE: u64 = 5;
pub(super) const NODE_DOMAIN: u64 = 7;
pub(super) const ATTRIBUTE_NAME: u64 = 1;
pub(super) const ATTRIBUTE_NUMBER: u64 = 3;
pub(super) const ATTRIBUTE_TEXT: u64 = 4;
pub(super) const ATTRIBUTE_TENSOR: u64 = 5;
pub(super) const ATTRIBUTE_GRAPH: u64 = 6;
pub(super) const ATTRIBUTE_NUMBERS: u64 = 8;
pub(super) const ATTRIBUTE_TENSORS: u64 = 10;
pub(super) const ATTRIBUTE_GRAPHS: u64 = 11;
pub(super) const ATTRIBUTE_TYPE: u64 = 20;
pub(super) const TENSOR_DIMS: u64 = 1;
pub(super) const TENSOR_TYPE: u64 = 2;
pub(super) const TENSOR_REAL: u64 = 4;
pub(super) const TENSOR_WHOLE: u64 = 5;
pub(super) const TENSOR_NAME: u64 = 8;
pub(super) const TENSOR_RAW: u64 = 9;
pub(super) const TENSOR_EXTERNAL: u64 = 13;
pub(super) const TENSOR_LOCATION: u64 = 14;
pub(crate) const VALUE_NAME: u64 = 1;
pub(super) const VALUE_TYPE: u64 = 2;
pub(super) const TYPE_TENSOR: u64 = 1;
pub(super) const TENSOR_TYPE_ELEMENT: u64 = 1;
pub(super) const TENSOR_TYPE_SHAPE: u64 = 2;
pub(super) const SHAPE_DIM: u64 = 1;
pub(super) const DIM_PARAM: u64 = 2;
/// `TensorProto.DataType`.
pub(super) const FLOAT: u64 = 1;
pub(super) const FLOAT16: u64 = 10;
/// `AttributeProto.AttributeType.INT` and `INTS`.
const INT: u64 = 2;
const INTS: u64 = 7;

/// One node.
pub(super) struct Node<'a> {
    pub(super) op: &'a str,
    pub(super) inputs: Vec<usize>,
    pub(super) outputs: Vec<usize>,
    /// The `NodeProto`.
    pub(super) bytes: &'a [u8],
    /// The field in the graph, to copy it.
    pub(super) raw: &'a [u8],
}

/// A graph whose values have numbers in place of names.
pub(super) struct Graph<'a> {
    pub(super) fields: Vec<Field<'a>>,
    pub(super) nodes: Vec<Node<'a>>,
    names: Vec<&'a str>,
    numbers: HashMap<&'a str, usize>,
    /// The constants by their names; the first of a name.
    constants: HashMap<&'a str, &'a [u8]>,
    /// Which node makes a value.
    producers: Vec<Option<usize>>,
    /// Which values depend on an input of the graph.
    alive: Vec<bool>,
    /// Inputs of the graph that are no constants.
    inputs: Vec<usize>,
}

impl<'a> Graph<'a> {
    /// Reads a `GraphProto`; its nodes must stand in the order in which they run, as the format demands.
    pub(super) fn read(graph: &'a [u8]) -> Result<Self, Refused> {
        let fields = wire::collect(graph)?;
        let mut all = Self {
            fields,
            nodes: Vec::new(),
            names: Vec::new(),
            numbers: HashMap::new(),
            constants: HashMap::new(),
            producers: Vec::new(),
            alive: Vec::new(),
            inputs: Vec::new(),
        };
        for field in &all.fields {
            if field.number == GRAPH_INITIALIZER {
                let name = text(field.bytes, TENSOR_NAME);
                all.constants.entry(name).or_insert(field.bytes);
            }
        }
        for field in all.fields.clone() {
            match field.number {
                GRAPH_INPUT => {
                    let name = text(field.bytes, VALUE_NAME);
                    let value = all.number(name);
                    // Old files list their constants among the inputs.
                    all.alive[value] = !all.constants.contains_key(name);
                    if all.alive[value] {
                        all.inputs.push(value);
                    }
                }
                GRAPH_NODE => all.add(&field),
                _ => {}
            }
        }
        for index in 0..all.nodes.len() {
            let takes = all.nodes[index].inputs.iter().any(|value| all.alive[*value]);
            for place in 0..all.nodes[index].outputs.len() {
                let value = all.nodes[index].outputs[place];
                all.alive[value] |= takes;
            }
        }
        Ok(all)
    }

    fn add(&mut self, field: &Field<'a>) {
        let inputs = texts(field.bytes, NODE_INPUT)
            .map(|name| self.number(name))
            .collect();
        let outputs: Vec<usize> = texts(field.bytes, NODE_OUTPUT)
            .map(|name| self.number(name))
            .collect();
        for value in &outputs {
            self.producers[*value] = Some(self.nodes.len());
        }
        self.nodes.push(Node {
            op: text(field.bytes, NODE_OP_TYPE),
            inputs,
            outputs,
            bytes: field.bytes,
            raw: field.raw,
        });
    }

    fn number(&mut self, name: &'a str) -> usize {
        let next = self.names.len();
        let number = *self.numbers.entry(name).or_insert(next);
        if number == next {
            self.names.push(name);
            self.producers.push(None);
            self.alive.push(false);
        }
        number
    }

    /// The number of a value, when there is one of that name.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.numbers.get(name).copied()
    }

    pub(super) fn name(&self, value: usize) -> &'a str {
        self.names[value]
    }

    /// Values in all; they are numbered from 0.
    pub(super) fn values(&self) -> usize {
        self.names.len()
    }

    /// The inputs that are no constants.
    pub(super) fn inputs(&self) -> &[usize] {
        &self.inputs
    }

    /// The outputs that something makes.
    pub(super) fn outputs(&self) -> impl Iterator<Item = usize> {
        let outputs = self.fields.iter().filter(|field| field.number == GRAPH_OUTPUT);
        outputs.filter_map(|field| self.find(text(field.bytes, VALUE_NAME)))
    }

    /// Whether a value depends on an input of the graph.
    pub(super) fn is_alive(&self, value: usize) -> bool {
        self.alive[value]
    }

    /// The node that makes a value.
    pub(super) fn producer(&self, value: usize) -> Option<&Node<'a>> {
        self.maker(value).map(|index| &self.nodes[index])
    }

    /// The place of the node that makes a value.
    pub(super) fn maker(&self, value: usize) -> Option<usize> {
        self.producers[value]
    }

    /// Whether a value or constant has a name that begins so.
    pub(super) fn has_prefix(&self, prefix: &str) -> bool {
        let mut names = self.names.iter().chain(self.constants.keys());
        names.any(|name| name.starts_with(prefix))
    }

    /// The values that a value is made of, itself included.
    pub(super) fn cone(&self, value: usize) -> Vec<bool> {
        let mut inside = vec![false; self.names.len()];
        let mut open = vec![value];
        while let Some(value) = open.pop() {
            if std::mem::replace(&mut inside[value], true) {
                continue;
            }
            if let Some(node) = self.producer(value) {
                open.extend(node.inputs.iter().filter(|input| !inside[**input]));
            }
        }
        inside
    }

    /// The constant of a name, as its `TensorProto`.
    pub(super) fn constant(&self, name: &str) -> Option<&'a [u8]> {
        self.constants.get(name).copied()
    }

    /// The declaration of an output, as its `ValueInfoProto`.
    pub(super) fn output(&self, name: &str) -> Option<&'a [u8]> {
        self.fields
            .iter()
            .find(|field| field.number == GRAPH_OUTPUT && text(field.bytes, VALUE_NAME) == name)
            .map(|field| field.bytes)
    }
}

/// The dimensions of a `TensorProto`.
pub(super) fn dims(tensor: &[u8]) -> Result<Vec<u64>, wire::Malformed> {
    numbers(tensor, TENSOR_DIMS)
}

/// The whole numbers of a repeated field; packed or not.
pub(super) fn numbers(message: &[u8], number: u64) -> Result<Vec<u64>, wire::Malformed> {
    let mut numbers = Vec::new();
    for field in wire::collect(message)?
        .iter()
        .filter(|field| field.number == number)
    {
        if field.bytes.is_empty() {
            numbers.push(field.value);
        } else {
            numbers.extend(wire::packed(field.bytes)?);
        }
    }
    Ok(numbers)
}

/// The attributes of a node, as `AttributeProto`s.
pub(super) fn attributes(node: &[u8]) -> impl Iterator<Item = &[u8]> {
    wire::fields(node)
        .flatten()
        .filter(|field| field.number == NODE_ATTRIBUTE)
        .map(|field| field.bytes)
}

/// The attribute of a node with that name.
pub(super) fn attribute<'a>(node: &'a [u8], name: &str) -> Option<&'a [u8]> {
    attributes(node).find(|attribute| text(attribute, ATTRIBUTE_NAME) == name)
}

/// The number in a field; 0 when absent.
pub(super) fn number(message: &[u8], number: u64) -> u64 {
    wire::fields(message)
        .flatten()
        .filter(|field| field.number == number)
        .map(|field| field.value)
        .last()
        .unwrap_or(0)
}

/// The strings of a repeated field.
pub(crate) fn texts(message: &[u8], number: u64) -> impl Iterator<Item = &str> {
    wire::fields(message)
        .flatten()
        .filter(move |field| field.number == number)
        .map(|field| field.text())
}

/// The string of a field; empty when absent.
pub(crate) fn text(message: &[u8], number: u64) -> &str {
    texts(message, number).next().unwrap_or_default()
}

/// A node of given inputs and one output.
pub(super) fn node(op: &str, inputs: &[&str], output: &str) -> Vec<u8> {
    let mut node = Vec::new();
    for input in inputs {
        wire::put_bytes(&mut node, NODE_INPUT, input.as_bytes());
    }
    wire::put_bytes(&mut node, NODE_OUTPUT, output.as_bytes());
    wire::put_bytes(&mut node, NODE_NAME, output.as_bytes());
    wire::put_bytes(&mut node, NODE_OP_TYPE, op.as_bytes());
    node
}

/// Appends an attribute that is a number to a node.
pub(super) fn put_number(node: &mut Vec<u8>, name: &str, value: u64) {
    let mut attribute = Vec::new();
    wire::put_bytes(&mut attribute, ATTRIBUTE_NAME, name.as_bytes());
    wire::put_number(&mut attribute, ATTRIBUTE_NUMBER, value);
    wire::put_number(&mut attribute, ATTRIBUTE_TYPE, INT);
    wire::put_bytes(node, NODE_ATTRIBUTE, &attribute);
}

/// Appends an attribute that is a list of numbers to a node.
pub(super) fn put_numbers(node: &mut Vec<u8>, name: &str, values: &[u64]) {
    let mut attribute = Vec::new();
    wire::put_bytes(&mut attribute, ATTRIBUTE_NAME, name.as_bytes());
    for value in values {
        wire::put_number(&mut attribute, ATTRIBUTE_NUMBERS, *value);
    }
    wire::put_number(&mut attribute, ATTRIBUTE_TYPE, INTS);
    wire::put_bytes(node, NODE_ATTRIBUTE, &attribute);
}
