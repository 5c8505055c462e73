use std::path::Path;

use proptest::prelude::*;

use super::super::every;
use super::super::graph::{
    ATTRIBUTE_NAME, ATTRIBUTE_NUMBERS, ATTRIBUTE_TEXT, ATTRIBUTE_TYPE, MODEL_GRAPH, NODE_ATTRIBUTE,
    NODE_DOMAIN, NODE_OP_TYPE, NODE_OUTPUT, TENSOR_EXTERNAL, TENSOR_RAW, TENSOR_REAL, TENSOR_TYPE_ELEMENT,
    TENSOR_WHOLE, TYPE_TENSOR, VALUE_TYPE,
};
use super::*;

mod alone;
mod run;

/// A graph in parts, to be changed before it is put together.
struct Parts {
    opset: u64,
    inputs: Vec<&'static str>,
    constants: Vec<Vec<u8>>,
    nodes: Vec<Vec<u8>>,
    outputs: Vec<&'static str>,
}

impl Parts {
    fn model(&self) -> Vec<u8> {
        let (mut graph, mut opset, mut model) = <(Vec<u8>, Vec<u8>, Vec<u8>)>::default();
        for (number, all) in [(GRAPH_NODE, &self.nodes), (GRAPH_INITIALIZER, &self.constants)] {
            for one in all {
                wire::put_bytes(&mut graph, number, one);
            }
        }
        for (number, names) in [(GRAPH_INPUT, &self.inputs), (GRAPH_OUTPUT, &self.outputs)] {
            for name in names {
                wire::put_bytes(&mut graph, number, &declared(name));
            }
        }
        // `ModelProto`: the version of the format, the graph, that of the operators.
        wire::put_number(&mut model, 1, 8);
        wire::put_bytes(&mut model, MODEL_GRAPH, &graph);
        wire::put_number(&mut opset, 2, self.opset);
        wire::put_bytes(&mut model, 8, &opset);
        model
    }

    fn folds(&self) -> Option<Vec<u8>> {
        folded(&self.model()).unwrap()
    }
}

fn declared(name: &str) -> Vec<u8> {
    let (mut tensor, mut kind, mut value) = <(Vec<u8>, Vec<u8>, Vec<u8>)>::default();
    wire::put_number(&mut tensor, TENSOR_TYPE_ELEMENT, FLOAT);
    wire::put_bytes(&mut kind, TYPE_TENSOR, &tensor);
    wire::put_bytes(&mut value, VALUE_NAME, name.as_bytes());
    wire::put_bytes(&mut value, VALUE_TYPE, &kind);
    value
}

fn wave(count: usize) -> Vec<f32> {
    (0..count).map(|i| (0.7 * i as f64 + 1.0).sin() as f32).collect()
}

fn put_text(node: &mut Vec<u8>, name: &str, value: &str) {
    let mut attribute = Vec::new();
    wire::put_bytes(&mut attribute, ATTRIBUTE_NAME, name.as_bytes());
    wire::put_bytes(&mut attribute, ATTRIBUTE_TEXT, value.as_bytes());
    // `AttributeProto.AttributeType.STRING`.
    wire::put_number(&mut attribute, ATTRIBUTE_TYPE, 3);
    wire::put_bytes(node, NODE_ATTRIBUTE, &attribute);
}

/// A node with an attribute that holds a message: a tensor, or a graph.
fn with_message(mut node: Vec<u8>, name: &str, field: u64, message: &[u8]) -> Vec<u8> {
    let mut attribute = Vec::new();
    wire::put_bytes(&mut attribute, ATTRIBUTE_NAME, name.as_bytes());
    wire::put_bytes(&mut attribute, field, message);
    wire::put_number(
        &mut attribute,
        ATTRIBUTE_TYPE,
        if field == ATTRIBUTE_TENSOR { 4 } else { 5 },
    );
    wire::put_bytes(&mut node, NODE_ATTRIBUTE, &attribute);
    node
}

fn resize(place: &str, nearest: &str) -> Vec<u8> {
    let mut resize = node("Resize", &["x", "", "scales"], "doubled");
    put_text(&mut resize, "coordinate_transformation_mode", place);
    put_text(&mut resize, "nearest_mode", nearest);
    resize
}

fn conv(inputs: &[&str], output: &str) -> Vec<u8> {
    let mut conv = node("Conv", inputs, output);
    put_numbers(&mut conv, "kernel_shape", &[3, 3]);
    put_numbers(&mut conv, "pads", &[1, 1, 1, 1]);
    conv
}

/// Weights of three kernels for two channels.
fn weights(kind: u64) -> Vec<u8> {
    tensor("w", kind, &[3, 2, 3, 3], &wave(54))
}

/// A doubling of `x` and a convolution behind it.
fn plain() -> Parts {
    Parts {
        opset: 18,
        inputs: vec!["x"],
        constants: vec![
            tensor("scales", FLOAT, &[4], &SCALES),
            weights(FLOAT),
            tensor("b", FLOAT, &[3], &[0.5, -1.0, 2.0]),
        ],
        nodes: vec![resize("asymmetric", "floor"), conv(&["doubled", "w", "b"], "out")],
        outputs: vec!["out"],
    }
}

/// The operators of a model, and the names of its constants.
fn inside(model: &[u8]) -> (Vec<String>, Vec<String>) {
    let top = wire::collect(model).unwrap();
    let graph = Graph::read(only_graph(&top).unwrap()).unwrap();
    let constants = graph
        .fields
        .iter()
        .filter(|field| field.number == GRAPH_INITIALIZER);
    (
        graph.nodes.iter().map(|node| node.op.to_owned()).collect(),
        constants
            .map(|field| text(field.bytes, TENSOR_NAME).to_owned())
            .collect(),
    )
}

const FOUR: [&str; 6] = ["Conv", "Conv", "Conv", "Conv", "Concat", "DepthToSpace"];
const KERNELS: [&str; 4] = [
    "mobula_upsample_w0_00",
    "mobula_upsample_w0_01",
    "mobula_upsample_w0_10",
    "mobula_upsample_w0_11",
];

/// A convolution of a picture with zeros around it, from the rows and columns that lie so far before.
fn convolved(
    picture: &[f64],
    (height, width): (usize, usize),
    kernel: &[f64],
    before: (usize, usize),
) -> Vec<f64> {
    let side = kernel.len().isqrt();
    let at = |row: usize, column: usize| match (row.checked_sub(before.0), column.checked_sub(before.1)) {
        (Some(row), Some(column)) if row < height && column < width => picture[row * width + column],
        _ => 0.0,
    };
    let sum = |row: usize, column: usize| -> f64 {
        (0..side * side)
            .map(|i| kernel[i] * at(row + i / side, column + i % side))
            .sum()
    };
    (0..height * width).map(|i| sum(i / width, i % width)).collect()
}

#[test]
fn four_phases_are_the_convolution_of_the_doubled_picture_whatever_its_size() {
    let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|value| f64::from(*value)).collect() };
    let kernel = wave(9);
    for (height, width) in [(1, 1), (1, 4), (5, 1), (2, 2), (3, 5), (7, 4)] {
        let picture: Vec<f64> = (0..height * width).map(|i| (1.3 * i as f64).cos()).collect();
        let doubled: Vec<f64> = (0..4 * height * width)
            .map(|i| picture[i / (2 * width) / 2 * width + i % (2 * width) / 2])
            .collect();
        let expected = convolved(&doubled, (2 * height, 2 * width), &wide(&kernel), (1, 1));
        for (down, right) in PHASES {
            let small = wide(&phase_kernels(&kernel, (down, right)));
            let phase = convolved(&picture, (height, width), &small, (1 - down, 1 - right));
            for (i, value) in phase.iter().enumerate() {
                let (row, column) = (2 * (i / width) + down, 2 * (i % width) + right);
                let off = (value - expected[2 * width * row + column]).abs();
                assert!(off < 1e-6, "{height}x{width}, phase {down}{right}, {i}: {off}");
            }
        }
    }
}

#[test]
fn what_nobody_uses_any_more_goes_and_what_others_use_stays() {
    let folded = plain().folds().unwrap();
    assert_eq!(inside(&folded).0, FOUR);
    assert_eq!(inside(&folded).1, [&["b"], &KERNELS[..]].concat());
    // There is nothing left to do.
    assert_eq!(super::folded(&folded), Ok(None));
    // Two pairs share everything: the new kernels are there once.
    let mut two = plain();
    let mut second = node("Resize", &["out", "", "scales"], "again");
    put_text(&mut second, "nearest_mode", "round_prefer_ceil");
    two.nodes.extend([second, conv(&["again", "w", ""], "end")]);
    two.outputs = vec!["end"];
    let folded = two.folds().unwrap();
    assert_eq!(inside(&folded).0, [FOUR, FOUR].concat());
    assert_eq!(inside(&folded).1, [&["b"], &KERNELS[..]].concat());
    // Another convolution, a nested graph, an output and a caller need what the pair needed.
    let mut other = plain();
    other.nodes.push(conv(&["x", "w"], "end"));
    assert_eq!(inside(&other.folds().unwrap()).1[..2], ["w", "b"]);
    let mut nested = plain();
    let mut branch = Vec::new();
    wire::put_bytes(&mut branch, GRAPH_NODE, &node("Add", &["w", "scales"], "sum"));
    nested.nodes.push(with_message(
        node("If", &["always"], "end"),
        "then_branch",
        ATTRIBUTE_GRAPH,
        &branch,
    ));
    assert_eq!(inside(&nested.folds().unwrap()).1[..3], ["scales", "w", "b"]);
    let mut given = plain();
    given.outputs.push("w");
    assert_eq!(inside(&given.folds().unwrap()).1[..2], ["w", "b"]);
    // Chains go as far as nobody else uses them.
    let mut cast = plain();
    cast.constants[1] = tensor("half", FLOAT16, &[3, 2, 3, 3], &wave(54));
    let mut to = node("Cast", &["half"], "w");
    put_number(&mut to, "to", FLOAT);
    let roi = node("Concat", &["half", "half"], "roi");
    cast.nodes.splice(
        ..1,
        [to, roi, node("Resize", &["x", "roi", "scales", ""], "doubled")],
    );
    let folded = cast.folds().unwrap();
    assert_eq!(
        (&inside(&folded).0[..], &inside(&folded).1[0][..]),
        (&FOUR.map(str::to_owned)[..], "b")
    );
}

#[test]
fn what_is_made_stays_in_proportion_however_many_pairs_share_weights() {
    let mut parts = plain();
    parts.constants[1] = tensor("w", FLOAT16, &[64, 64, 3, 3], &wave(9 << 12));
    parts.nodes.clear();
    let mut names = vec!["x".to_owned()];
    for n in 0..500 {
        let weights = format!("w{n}");
        let mut cast = node("Cast", &["w"], &weights);
        put_number(&mut cast, "to", FLOAT);
        let pixels = names[n].clone();
        let (doubled, output) = (format!("d{n}"), format!("x{}", n + 1));
        let resize = node("Resize", &[&pixels, "", "scales"], &doubled);
        parts
            .nodes
            .extend([cast, resize, conv(&[&doubled, &weights], &output)]);
        names.push(output);
    }
    let (before, after) = (parts.model().len(), parts.folds().unwrap().len());
    assert!(after < 8 * before, "{after} bytes of {before}");
}

#[test]
fn the_shortest_pairs_are_not_blown_up() {
    let mut parts = plain();
    parts.nodes.clear();
    for n in 0..2_000 {
        let (mut resize, mut conv, mut pads) = <(Vec<u8>, Vec<u8>, Vec<u8>)>::default();
        wire::put_bytes(&mut pads, ATTRIBUTE_NAME, b"pads");
        wire::put_bytes(&mut pads, ATTRIBUTE_NUMBERS, &[1; 4]);
        let doubled = format!("{n}");
        for (node, op, inputs, output) in [
            (&mut resize, "Resize", ["x", "scales"], &doubled[..]),
            (&mut conv, "Conv", [&doubled[..], "w"], "y"),
        ] {
            for input in inputs {
                wire::put_bytes(node, NODE_INPUT, input.as_bytes());
            }
            wire::put_bytes(node, NODE_OUTPUT, output.as_bytes());
            wire::put_bytes(node, NODE_OP_TYPE, op.as_bytes());
        }
        wire::put_bytes(&mut conv, NODE_ATTRIBUTE, &pads);
        parts.nodes.extend([resize, conv]);
    }
    let (before, after) = (parts.model().len(), parts.folds().unwrap().len());
    // What is asked of every edit of every file is 16.
    assert!(after < 14 * before, "{after} bytes of {before}");
}

proptest! {
    #[test]
    fn any_change_of_a_pairs_bytes_is_folded_or_refused_or_left_alone(
        at in any::<prop::sample::Index>(),
        bytes in prop::collection::vec(any::<u8>(), 0..6),
        change in any::<(prop::sample::Index, u8)>(),
        length in 0..6_usize,
    ) {
        let mut model = plain().model();
        let at = at.index(model.len());
        let end = (at + length).min(model.len());
        model.splice(at..end, bytes);
        let place = change.0.index(model.len());
        model[place] = change.1;
        every(&model, Path::new("/nonexistent"));
    }
}
