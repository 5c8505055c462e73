//! Folded graphs, run beside their originals.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::super::{batched, float32};
use super::*;
use crate::engine::onnx::dialect::Port;
use crate::engine::onnx::session::{Context, Input, Network, Output, Values};
use crate::engine::onnx::{Runtime, Setup, Signal};

fn network(model: &[u8], folder: &Path) -> Network {
    let runtime = Runtime {
        library: None,
        threads: 2,
        spin: false,
    };
    runtime.check().unwrap();
    let setup = Setup::default();
    let signal = Arc::new(Signal::new(&setup.providers).unwrap());
    Network::from_memory("unet", model, folder, &Context::new(&runtime, &setup, &signal)).unwrap()
}

/// What a network's first output has: its shape and its values.
fn run(model: &[u8], folder: &Path, shape: impl Fn(&Port) -> Vec<usize>) -> (Vec<usize>, Vec<f32>) {
    let mut network = network(model, folder);
    let ports = network.ports();
    let shapes: Vec<Vec<usize>> = ports.inputs.iter().map(shape).collect();
    let values: Vec<Vec<f32>> = shapes.iter().map(|shape| wave(shape.iter().product())).collect();
    let inputs: Vec<Input<'_>> = ports
        .inputs
        .iter()
        .zip(shapes.iter().zip(&values))
        .map(|(port, (shape, values))| Input {
            port,
            shape,
            values: Values::Real(values),
        })
        .collect();
    let mut values = Vec::new();
    let output = Output {
        name: &ports.outputs[0].name,
        values: &mut values,
    };
    let shapes = network.run(&inputs, &mut [output]).unwrap();
    (shapes[0].clone(), values)
}

/// By how much values differ from others at most, as a part of the largest.
fn difference(values: &[f32], expected: &[f32]) -> f32 {
    assert!(expected.iter().chain(values).all(|value| value.is_finite()));
    let largest = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    let pairs = values.iter().zip(expected);
    pairs.fold(0.0_f32, |most, (a, b)| most.max((a - b).abs())) / largest
}

fn check(name: &str, original: &[u8], folder: &Path, shape: impl Fn(&Port) -> Vec<usize>) {
    let folded = folded(original)
        .unwrap()
        .unwrap_or_else(|| panic!("{name} was left alone"));
    let resizes = |model: &[u8]| {
        let (ops, _) = inside(model);
        ops.iter()
            .filter(|op| matches!(&op[..], "Resize" | "Upsample"))
            .count()
    };
    assert!(resizes(original) > 0, "{name}");
    assert_eq!(resizes(&folded), 0, "{name}");
    let (before, expected) = run(original, folder, &shape);
    let (after, values) = run(&folded, folder, &shape);
    assert_eq!(before, after, "{name}");
    let off = difference(&values, &expected);
    println!("{name}: {off:e}");
    assert!(off < 1e-4, "{name} differs by {off}");
}

#[test]
fn every_form_of_a_pair_is_the_same_function_in_sizes_odd_and_even() {
    let half = |tensor: Vec<u8>| {
        let mut parts = plain();
        parts.constants[1] = tensor;
        let mut cast = node("Cast", &["half"], "w");
        put_number(&mut cast, "to", FLOAT);
        parts.nodes.insert(0, cast);
        parts
    };
    // Values as numbers instead of raw bytes: float32, and the bits of float16; packed, and one by one.
    let rewritten = |name: &str, kind: u64, put: &dyn Fn(&mut Vec<u8>, &[u8])| {
        let mut out = Vec::new();
        for field in wire::fields(&tensor(name, kind, &[3, 2, 3, 3], &wave(54))).flatten() {
            match field.number {
                TENSOR_RAW => put(&mut out, field.bytes),
                _ => out.extend_from_slice(field.raw),
            }
        }
        out
    };
    let bits = |out: &mut Vec<u8>, raw: &[u8]| {
        for pair in raw.as_chunks::<2>().0 {
            wire::put_number(out, TENSOR_WHOLE, u16::from_le_bytes(*pair).into());
        }
    };
    let fixed = |out: &mut Vec<u8>, raw: &[u8]| {
        for quad in raw.as_chunks::<4>().0 {
            out.push((TENSOR_REAL as u8) << 3 | 5);
            out.extend(quad);
        }
    };
    let mut forms = vec![
        ("plain", plain()),
        ("float16", half(tensor("half", FLOAT16, &[3, 2, 3, 3], &wave(54)))),
        ("bits of float16", half(rewritten("half", FLOAT16, &bits))),
        (
            "cast for nothing",
            half(tensor("half", FLOAT, &[3, 2, 3, 3], &wave(54))),
        ),
    ];
    let mut form = |name, change: &dyn Fn(&mut Parts)| {
        let mut parts = plain();
        change(&mut parts);
        forms.push((name, parts));
    };
    form("packed numbers", &|parts| {
        parts.constants[1] = rewritten("w", FLOAT, &|out, raw| wire::put_bytes(out, TENSOR_REAL, raw));
    });
    form("numbers", &|parts| {
        parts.constants[1] = rewritten("w", FLOAT, &fixed)
    });
    form("nodes for constants", &|parts| {
        let constant = |name: &str, tensor: &[u8]| {
            with_message(node("Constant", &[], name), "value", ATTRIBUTE_TENSOR, tensor)
        };
        let nodes = [
            constant("scales", &parts.constants[0]),
            constant("w", &parts.constants[1]),
        ];
        parts.constants.drain(..2);
        parts.nodes.splice(0..0, nodes);
    });
    form("no bias", &|parts| {
        parts.nodes[1] = conv(&["doubled", "w"], "out")
    });
    form("empty bias", &|parts| {
        parts.nodes[1] = conv(&["doubled", "w", ""], "out")
    });
    form("every attribute", &|parts| {
        put_text(&mut parts.nodes[1], "auto_pad", "NOTSET");
        put_numbers(&mut parts.nodes[1], "strides", &[1, 1]);
        put_numbers(&mut parts.nodes[1], "dilations", &[1, 1]);
        put_number(&mut parts.nodes[1], "group", 1);
        put_text(&mut parts.nodes[0], "mode", "nearest");
        put_text(&mut parts.nodes[0], "keep_aspect_ratio_policy", "stretch");
        put_number(&mut parts.nodes[0], "antialias", 0);
    });
    form("nothing said", &|parts| {
        parts.nodes[0] = node("Resize", &["x", "", "scales"], "doubled")
    });
    for (opset, op) in [(9, "Upsample"), (10, "Resize")] {
        form(op, &|parts| {
            parts.opset = opset;
            parts.nodes[0] = node(op, &["x", "scales"], "doubled");
            put_text(&mut parts.nodes[0], "mode", "nearest");
        });
    }
    for (name, parts) in forms {
        for (height, width) in [(1, 1), (4, 6), (5, 3)] {
            let name = format!("{name}, {height}x{width}");
            check(&name, &parts.model(), Path::new("/"), |_| {
                vec![2, 2, height, width]
            });
        }
    }
}

#[test]
fn of_all_ways_to_find_the_nearest_pixel_those_fold_that_repeat_every_pixel_twice() {
    let mut folds = Vec::new();
    for place in [
        "half_pixel",
        "half_pixel_symmetric",
        "pytorch_half_pixel",
        "asymmetric",
        "tf_half_pixel_for_nn",
        "align_corners",
        "a new one",
    ] {
        for nearest in ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"] {
            let mut parts = plain();
            // The one of TensorFlow is not in later versions, the symmetric one not in earlier ones.
            parts.opset = if place == "half_pixel_symmetric" { 19 } else { 11 };
            // Version 11 has no optional inputs.
            parts.constants.push(tensor("roi", FLOAT, &[0], &[]));
            parts.nodes[0] = node("Resize", &["x", "roi", "scales"], "doubled");
            put_text(&mut parts.nodes[0], "coordinate_transformation_mode", place);
            put_text(&mut parts.nodes[0], "nearest_mode", nearest);
            let name = format!("{place} {nearest}");
            if parts.folds().is_some() {
                for side in 1..7 {
                    check(&name, &parts.model(), Path::new("/"), |_| {
                        vec![1, 2, side, 7 - side]
                    });
                }
                folds.push(name);
            } else if !matches!(place, "align_corners" | "a new one") {
                parts.outputs = vec!["doubled"];
                parts.nodes.truncate(1);
                let (_, values) = run(&parts.model(), Path::new("/"), |_| vec![1, 1, 3, 3]);
                let twice: Vec<f32> = (0..36).map(|i| wave(9)[i / 12 * 3 + i % 6 / 2]).collect();
                assert_ne!(values, twice, "{name}");
            }
        }
    }
    assert_eq!(folds.len(), 9, "{folds:?}");
}

/// The folders of models: those of the tests, and the one for demonstrations.
fn models() -> Vec<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests = std::fs::read_dir(here.join("tests/models")).unwrap();
    let mut all: Vec<PathBuf> = tests.map(|entry| entry.unwrap().path()).collect();
    all.push(here.join("../../models/demo"));
    all
}

#[test]
fn real_networks_are_the_same_functions_without_their_doublings() {
    let mut seen = HashSet::new();
    for (model, part) in models()
        .iter()
        .flat_map(|model| [(model, "unet"), (model, "vae_decoder")])
    {
        let folder = model.join(part);
        let Ok(mut file) = std::fs::read(folder.join("model.onnx")) else {
            continue;
        };
        let name = format!("{}, {part}", model.file_name().unwrap().to_string_lossy());
        match &name[..] {
            // Weights are in other files.
            "sd15-extdata, unet" | "sd15-extdata, vae_decoder" | "sd15-legacy, unet" => {
                assert_eq!(folded(&file), Ok(None), "{name}");
                continue;
            }
            half if half.contains("fp16") => {
                assert_eq!(folded(&file), Ok(None), "{name}");
                file = float32(&file, &folder).unwrap();
            }
            _ => {}
        }
        check(&name, &file, &folder, |port| {
            let open = match port.dims.len() {
                4 => [2, 4, 8, 12],
                _ => [2, 7, 7, 7],
            };
            let sides = port.dims.iter().zip(open);
            sides
                .map(|(side, open)| usize::try_from(*side).unwrap_or(open))
                .collect()
        });
        seen.insert(name);
    }
    assert!(seen.len() >= 20, "{seen:?}");
    assert!(
        seen.contains("demo, unet") && seen.contains("demo, vae_decoder"),
        "{seen:?}"
    );
}

#[test]
fn networks_without_doublings_stay_as_they_are() {
    for model in models() {
        for part in ["text_encoder", "vae_encoder"] {
            if let Ok(file) = std::fs::read(model.join(part).join("model.onnx")) {
                assert_eq!(folded(&file), Ok(None), "{} {part}", model.display());
            }
        }
    }
}

#[test]
fn edits_of_other_things_may_come_before_and_after() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/sd15/unet");
    let file = std::fs::read(folder.join("model.onnx")).unwrap();
    let timesteps = |model: &[u8]| batched(model, "timestep", "sample").unwrap();
    let folds = |model: &[u8]| folded(model).unwrap().unwrap();
    for edited in [timesteps(&folds(&file)), folds(&timesteps(&file))] {
        assert_eq!(network(&edited, &folder).ports().inputs[1].dims.len(), 1);
    }
}
