//! What is left alone.

use super::*;

/// Whether the plain graph still folds after one of its nodes was changed.
fn folds_with(place: usize, change: impl FnOnce(&mut Vec<u8>)) -> bool {
    let mut parts = plain();
    change(&mut parts.nodes[place]);
    parts.folds().is_some()
}

#[test]
fn nodes_that_do_another_thing_are_left_alone() {
    assert!(folds_with(0, |_| {}));
    let bare = node("Conv", &["doubled", "w", "b"], "out");
    assert!(!folds_with(1, |conv| conv.clone_from(&bare)));
    for (name, values) in [
        ("pads", &[1, 1, 0, 0][..]),
        ("strides", &[2, 2]),
        ("dilations", &[1, 2]),
        ("kernel_shape", &[1, 1]),
    ] {
        assert!(!folds_with(1, |conv| put_numbers(conv, name, values)), "{name}");
    }
    assert!(!folds_with(1, |conv| put_number(conv, "group", 2)));
    assert!(!folds_with(1, |conv| put_number(conv, "unknown", 0)));
    assert!(!folds_with(1, |conv| put_text(conv, "auto_pad", "SAME_UPPER")));
    assert!(!folds_with(0, |resize| put_text(resize, "mode", "linear")));
    assert!(!folds_with(0, |resize| put_numbers(resize, "axes", &[2, 3])));
    assert!(!folds_with(0, |resize| put_number(resize, "antialias", 1)));
    for place in [0, 1] {
        assert!(folds_with(place, |node| wire::put_bytes(
            node,
            NODE_DOMAIN,
            b"ai.onnx"
        )));
        assert!(!folds_with(place, |node| wire::put_bytes(
            node,
            NODE_DOMAIN,
            b"com.example"
        )));
        assert!(!folds_with(place, |node| wire::put_bytes(
            node,
            NODE_OUTPUT,
            b"second"
        )));
    }
    for inputs in [
        &["x", "", "scales", "sizes"][..],
        &["x", "", "x"],
        &["x", ""],
        &["", "", "scales"],
        &["x"],
        &[],
    ] {
        let other = node("Resize", inputs, "doubled");
        assert!(!folds_with(0, |resize| resize.clone_from(&other)), "{inputs:?}");
    }
    // The attributes of later versions are not those of an old one.
    let mut old = node("Upsample", &["x", "scales"], "doubled");
    assert!(folds_with(0, |resize| resize.clone_from(&old)));
    put_text(&mut old, "nearest_mode", "floor");
    assert!(!folds_with(0, |resize| resize.clone_from(&old)));
}

#[test]
fn constants_of_other_values_types_and_places_are_left_alone() {
    let (wave, long) = (wave(54), [1.0; 5]);
    for (place, name, kind, dims, values) in [
        (0, "scales", FLOAT, &[4][..], &[1.0, 1.0, 2.0, 3.0][..]),
        (0, "scales", FLOAT, &[4], &[1.0, 2.0, 2.0, 1.0]),
        (0, "scales", FLOAT, &[5], &long),
        (0, "scales", FLOAT16, &[4], &SCALES),
        (0, "scales", FLOAT, &[4], &SCALES[..3]),
        // The network computes in float16.
        (1, "w", FLOAT16, &[3, 2, 3, 3], &wave),
        (1, "w", FLOAT, &[3, 2, 1, 9], &wave),
        (1, "w", FLOAT, &[3, 3, 3, 3], &wave),
        (1, "w", FLOAT, &[usize::MAX, 2, 3, 3], &wave),
        (1, "w", FLOAT, &[0, 2, 3, 3], &[]),
        (1, "w", FLOAT, &[3, 2, 3, 3], &[f32::MAX; 54]),
        (1, "w", FLOAT, &[3, 2, 3, 3], &[f32::NAN; 54]),
        // float64.
        (1, "w", 11, &[3, 2, 3, 3], &wave),
    ] {
        let mut parts = plain();
        parts.constants[place] = tensor(name, kind, dims, values);
        assert_eq!(parts.folds(), None, "{name} {kind} {dims:?}");
    }
    let mut elsewhere = plain();
    let mut entry = Vec::new();
    wire::put_bytes(&mut entry, 1, b"location");
    wire::put_bytes(&mut entry, 2, b"weights.pb");
    wire::put_bytes(&mut elsewhere.constants[1], TENSOR_EXTERNAL, &entry);
    assert_eq!(elsewhere.folds(), None);
    // Computed, of another type than float32 behind the cast, or behind too many casts.
    for (op, to, times, folds) in [
        ("Cast", FLOAT, 4, true),
        ("Cast", FLOAT, 5, false),
        ("Cast", FLOAT16, 1, false),
        ("Relu", FLOAT, 1, false),
    ] {
        let mut parts = plain();
        parts.constants[1] = tensor("w0", FLOAT16, &[3, 2, 3, 3], &wave);
        for n in 0..times {
            let mut cast = node(op, &[&format!("w{n}")], &format!("w{}", n + 1));
            put_number(&mut cast, "to", to);
            parts.nodes.insert(n, cast);
        }
        parts.nodes[times + 1] = conv(&["doubled", &format!("w{times}")], "out");
        assert_eq!(parts.folds().is_some(), folds, "{op} {to} {times}");
    }
    // Callers may give others.
    for name in ["w", "scales"] {
        let mut given = plain();
        given.inputs.push(name);
        assert_eq!(given.folds(), None, "{name}");
    }
}

#[test]
fn doubled_pictures_that_others_use_are_left_alone() {
    let mut shown = plain();
    shown.outputs.push("doubled");
    assert_eq!(shown.folds(), None);
    let mut used = plain();
    used.nodes.push(node("Relu", &["doubled"], "end"));
    assert_eq!(used.folds(), None);
    let mut nested = plain();
    let mut branch = Vec::new();
    wire::put_bytes(&mut branch, GRAPH_OUTPUT, &declared("doubled"));
    let fork = node("If", &["always"], "end");
    nested
        .nodes
        .push(with_message(fork, "then_branch", ATTRIBUTE_GRAPH, &branch));
    assert_eq!(nested.folds(), None);
    // Names that new ones could be the same as.
    let mut named = plain();
    named
        .constants
        .push(tensor("mobula_upsample_", FLOAT, &[1], &[1.0]));
    assert_eq!(named.folds(), None);
    assert_eq!(folded(&[]), Err(Refused::NoGraph));
}
