//! Small graphs with the patterns, whole and broken.

use super::super::graph::{
    ATTRIBUTE_NAME, ATTRIBUTE_NUMBER, ATTRIBUTE_TENSOR, FLOAT, FLOAT16, GRAPH_OUTPUT, MODEL_GRAPH,
    NODE_INPUT, NODE_OP_TYPE, TENSOR_DIMS, TENSOR_RAW, TENSOR_TYPE, node, texts,
};
use super::*;

const INT64: u64 = 7;

/// A graph under construction.
#[derive(Clone, Default)]
struct Draft(Vec<(u64, Vec<u8>)>);

fn named(name: &str) -> Vec<u8> {
    let mut value = Vec::new();
    wire::put_bytes(&mut value, VALUE_NAME, name.as_bytes());
    value
}

fn tensor(name: &str, kind: u64, dims: &[u64], raw: &[u8]) -> Vec<u8> {
    let mut tensor = Vec::new();
    for dim in dims {
        wire::put_number(&mut tensor, TENSOR_DIMS, *dim);
    }
    wire::put_number(&mut tensor, TENSOR_TYPE, kind);
    wire::put_bytes(&mut tensor, TENSOR_NAME, name.as_bytes());
    wire::put_bytes(&mut tensor, TENSOR_RAW, raw);
    tensor
}

impl Draft {
    fn op(&mut self, op: &str, inputs: &[&str], output: &str) -> &mut Self {
        self.0.push((GRAPH_NODE, node(op, inputs, output)));
        self
    }

    fn with_number(&mut self, name: &str, value: i64) -> &mut Self {
        let mut attribute = Vec::new();
        wire::put_bytes(&mut attribute, ATTRIBUTE_NAME, name.as_bytes());
        wire::put_number(&mut attribute, ATTRIBUTE_NUMBER, value as u64);
        let last = &mut self.0.last_mut().unwrap().1;
        wire::put_bytes(last, NODE_ATTRIBUTE, &attribute);
        self
    }

    /// A Constant node of whole numbers.
    fn wholes(&mut self, name: &str, values: &[i64]) -> &mut Self {
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let (mut constant, mut attribute) = (node("Constant", &[], name), named("value"));
        let value = tensor("", INT64, &[values.len() as u64], &raw);
        wire::put_bytes(&mut attribute, ATTRIBUTE_TENSOR, &value);
        wire::put_bytes(&mut constant, NODE_ATTRIBUTE, &attribute);
        self.0.push((GRAPH_NODE, constant));
        self
    }

    fn floats(&mut self, name: &str, dims: &[u64], value: f32) -> &mut Self {
        let count: u64 = dims.iter().product();
        let raw = value.to_le_bytes().repeat(count as usize);
        self.0.push((GRAPH_INITIALIZER, tensor(name, FLOAT, dims, &raw)));
        self
    }

    fn output(&mut self, name: &str) -> &mut Self {
        self.0.push((GRAPH_OUTPUT, named(name)));
        self
    }

    fn model(&self) -> Vec<u8> {
        let (mut graph, mut model) = (Vec::new(), Vec::new());
        wire::put_bytes(&mut graph, GRAPH_INPUT, &named("x"));
        for (number, content) in &self.0 {
            wire::put_bytes(&mut graph, *number, content);
        }
        wire::put_bytes(&mut model, MODEL_GRAPH, &graph);
        model
    }

    /// The nodes after the edit as `op(inputs)`, and the names of its constants.
    fn fused(&self) -> Option<(Vec<String>, Vec<String>)> {
        let edited = fused(&self.model()).unwrap()?;
        assert_eq!(fused(&edited), Ok(None), "a second edit finds something");
        let (mut nodes, mut constants) = (Vec::new(), Vec::new());
        with_graph(&edited, |graph| {
            for field in wire::collect(graph)? {
                if field.number == GRAPH_NODE {
                    let inputs: Vec<&str> = texts(field.bytes, NODE_INPUT).collect();
                    nodes.push(format!(
                        "{}({})",
                        text(field.bytes, NODE_OP_TYPE),
                        inputs.join(",")
                    ));
                } else if field.number == GRAPH_INITIALIZER {
                    constants.push(text(field.bytes, TENSOR_NAME).to_owned());
                }
            }
            Ok(Vec::new())
        })
        .unwrap();
        Some((nodes, constants))
    }

    fn nodes(&self) -> Vec<String> {
        self.fused().map(|(nodes, _)| nodes).unwrap_or_default()
    }
}

/// A norm of four channels in two groups, up to `y`.
fn norm() -> Draft {
    let mut draft = Draft::default();
    draft.floats("ones", &[2], 1.0).floats("zeros", &[2], 0.0);
    draft
        .floats("scale", &[4, 1, 1], 2.0)
        .floats("bias", &[4, 1, 1], 3.0);
    draft
        .wholes("to", &[0, 2, -1])
        .op("Reshape", &["x", "to"], "folded");
    draft.op("InstanceNormalization", &["folded", "ones", "zeros"], "normed");
    draft
        .op("Shape", &["x"], "sizes")
        .op("Reshape", &["normed", "sizes"], "unfolded");
    draft
        .op("Mul", &["unfolded", "scale"], "scaled")
        .op("Add", &["bias", "scaled"], "y");
    draft
}

#[test]
fn a_norm_becomes_one_node_and_nothing_of_it_is_left() {
    let (nodes, constants) = norm().output("y").fused().unwrap();
    assert_eq!(nodes, ["GroupNorm(x,scale,bias)"]);
    assert_eq!(constants, ["scale", "bias"]);
    let mut active = norm();
    active
        .op("Sigmoid", &["y"], "s")
        .op("Mul", &["s", "y"], "z")
        .output("z");
    assert_eq!(active.nodes(), ["GroupNorm(x,scale,bias)"]);
}

#[test]
fn what_others_use_stays() {
    // The norm's result goes elsewhere too: its activation stays apart.
    let mut shared = norm();
    shared
        .op("Sigmoid", &["y"], "s")
        .op("Mul", &["s", "y"], "z")
        .output("z")
        .output("y");
    let expected = ["GroupNorm(x,scale,bias)", "Sigmoid(y)", "Mul(s,y)"];
    assert_eq!(shared.nodes(), expected);
    // Something inside of it goes elsewhere: it stays as it is.
    for inner in ["normed", "unfolded", "scaled"] {
        assert_eq!(norm().output("y").output(inner).fused(), None, "{inner}");
        let mut taken = norm();
        taken.op("Relu", &[inner], "r").output("r").output("y");
        assert_eq!(taken.fused(), None, "{inner}");
    }
    // What is before it may go anywhere.
    let mut before = norm();
    before.op("Relu", &["sizes"], "r").output("r").output("y");
    let expected = ["Shape(x)", "GroupNorm(x,scale,bias)", "Relu(sizes)"];
    assert_eq!(before.nodes(), expected);
    // A constant that old files list among the inputs would be asked for.
    let mut old = norm();
    old.0.push((GRAPH_INPUT, named("ones")));
    assert_eq!(old.output("y").fused().unwrap().1, ["ones", "scale", "bias"]);
}

#[test]
fn norms_of_another_form_are_left() {
    let change = |at: &str, to: Vec<u8>| {
        let mut draft = norm();
        let of = |(number, content): &(u64, Vec<u8>)| {
            *number == GRAPH_INITIALIZER && text(content, TENSOR_NAME) == at
        };
        let place = draft.0.iter().position(of).unwrap();
        draft.0[place].1 = to;
        draft.output("y").clone()
    };
    let half = |name: &str| tensor(name, FLOAT16, &[4, 1, 1], &[0; 8]);
    assert_eq!(change("scale", half("scale")).fused(), None);
    let flat = tensor("scale", FLOAT, &[4], &[0; 16]);
    assert_eq!(change("scale", flat).fused(), None);
    assert_eq!(
        change("bias", tensor("bias", FLOAT, &[6, 1, 1], &[0; 24])).fused(),
        None
    );
    assert_eq!(change("ones", tensor("ones", FLOAT, &[2], &[1; 8])).fused(), None);
    assert_eq!(change("ones", tensor("ones", FLOAT, &[2], &[0; 3])).fused(), None);
    // In a file of its own, it may be anything.
    let mut outside = tensor("zeros", FLOAT, &[2], &[0; 8]);
    wire::put_number(&mut outside, 14, 1);
    assert_eq!(change("zeros", outside).fused(), None);
    // A graph inside may use any value.
    let (mut nested, mut attribute) = (norm(), named("body"));
    wire::put_bytes(&mut attribute, ATTRIBUTE_GRAPH, &[]);
    nested.op("Relu", &["y"], "z").output("z");
    wire::put_bytes(
        &mut nested.0.iter_mut().rev().nth(1).unwrap().1,
        NODE_ATTRIBUTE,
        &attribute,
    );
    assert_eq!(nested.fused(), None);
    // An operator of somebody else's with the same name.
    let mut foreign = norm();
    wire::put_bytes(&mut foreign.0.last_mut().unwrap().1, 7, b"theirs");
    assert_eq!(foreign.output("y").fused(), None);
}

/// A product of eight columns and its bias, `h`.
fn product() -> Draft {
    let mut draft = Draft::default();
    draft.floats("weights", &[5, 8], 1.0).floats("bias", &[8], 0.5);
    draft
        .op("MatMul", &["x", "weights"], "m")
        .op("Add", &["bias", "m"], "h");
    draft.floats("root", &[], std::f32::consts::SQRT_2);
    draft.floats("one", &[], 1.0).floats("half", &[], 0.5);
    draft
}

/// The exact GELU of `b`, times `a`.
fn gate(draft: &mut Draft) -> &mut Draft {
    draft.op("Div", &["b", "root"], "d").op("Erf", &["d"], "e");
    draft
        .op("Add", &["e", "one"], "p")
        .op("Mul", &["b", "p"], "q")
        .op("Mul", &["q", "half"], "g");
    draft.op("Mul", &["a", "g"], "y").output("y")
}

/// Slices whose ends are computed from the shape, as exporters write them.
fn slices(draft: &mut Draft, by: i64) -> &mut Draft {
    draft
        .wholes("last", &[-1])
        .wholes("zero", &[0])
        .wholes("by", &[by])
        .wholes("two", &[2]);
    draft
        .op("Shape", &["h"], "sizes")
        .op("Gather", &["sizes", "last"], "width");
    draft
        .op("Div", &["width", "by"], "middle")
        .op("Mul", &["middle", "two"], "end");
    draft.op("Slice", &["h", "zero", "middle", "last"], "a");
    draft.op("Slice", &["h", "middle", "end", "last"], "b")
}

#[test]
fn a_gate_becomes_one_node_with_the_bias_before_it() {
    let mut sliced = product();
    gate(slices(&mut sliced, 2));
    let (nodes, constants) = sliced.fused().unwrap();
    assert_eq!(nodes, ["MatMul(x,weights)", "GegluBias(m,bias)"]);
    assert_eq!(constants, ["weights", "bias"]);
    // Slices of other places are none of its business.
    let mut elsewhere = product();
    gate(slices(&mut elsewhere, 4));
    assert_eq!(elsewhere.fused(), None);
    // Two outputs, and one node for the activation.
    let split = |axis| {
        let mut draft = product();
        draft.op("Split", &["h"], "a").with_number("axis", axis);
        wire::put_bytes(&mut draft.0.last_mut().unwrap().1, 2, b"b");
        draft
            .op("Gelu", &["b"], "g")
            .op("Mul", &["g", "a"], "y")
            .output("y");
        draft
    };
    assert_eq!(split(-1).nodes(), ["MatMul(x,weights)", "GegluBias(m,bias)"]);
    assert_eq!(split(1).fused(), None);
    // The first half goes elsewhere too.
    let mut shared = product();
    gate(slices(&mut shared, 2)).output("a");
    let nodes = shared.nodes();
    assert!(
        nodes.contains(&"Slice(h,zero,middle,last)".to_owned()),
        "{nodes:?}"
    );
    assert!(nodes.contains(&"GegluBias(m,bias)".to_owned()), "{nodes:?}");
}

#[test]
fn files_without_a_pattern_or_without_a_graph_are_left_or_refused() {
    let mut plain = Draft::default();
    plain.op("Mul", &["x", "x"], "y").output("y");
    assert_eq!(plain.fused(), None);
    assert_eq!(fused(b""), Err(Refused::NoGraph));
    assert!(matches!(
        fused(&norm().model()[1..]),
        Err(Refused::Malformed(_) | Refused::NoGraph)
    ));
}

#[test]
fn a_chain_of_many_products_takes_time_in_proportion() {
    let mut draft = product();
    draft.op("Mul", &["h", "h"], "m0");
    for n in 0..20_000 {
        let (from, to) = (format!("m{n}"), format!("m{}", n + 1));
        draft.op("Mul", &[&from, &from], &to);
    }
    draft.output("m20000");
    assert_eq!(draft.fused(), None);
}
