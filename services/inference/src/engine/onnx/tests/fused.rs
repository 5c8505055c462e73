//! Networks with operators of our own against the same without, and those operators alone in sessions.

use super::*;
use crate::engine::onnx::dialect::Port;
use crate::engine::onnx::session::{Input, Network, Output, Values, read};

const MODELS: [&str; 12] = [
    "lcm",
    "sd15",
    "sd15-extdata",
    "sd15-fp16",
    "sd15-hidden",
    "sd15-inpaint",
    "sd15-legacy",
    "sd21",
    "sdxl",
    "sdxl-inpaint",
    "sdxl-refiner",
    "../../../../models/demo",
];

fn demo() -> PathBuf {
    tiny("../../../../models/demo")
}

/// A session with threads of its own.
fn session(model: &[u8], folder: &Path, threads: usize) -> Network {
    let (runtime, setup) = (runtime(), Setup::default());
    runtime.check().unwrap();
    let signal = Arc::new(Signal::new(&setup.providers).unwrap());
    let context = Context {
        own: Some(threads),
        operators: true,
        ..Context::new(&runtime, &setup, &signal)
    };
    Network::from_memory("network", model, folder, &context).unwrap()
}

/// The dimensions of an input for so many rows; what the network leaves open is small.
fn shape(port: &Port, rows: usize, side: usize) -> Vec<usize> {
    let open = |at: usize| match (port.dims.len(), at) {
        (_, 0) => rows,
        (4, 1) => 4,
        (4, _) => side,
        _ => 77,
    };
    let side = |(at, dim): (usize, &i64)| usize::try_from(*dim).unwrap_or_else(|_| open(at));
    port.dims.iter().enumerate().map(side).collect()
}

/// The values of an input: each row's are waves of its own number.
fn values(port: &Port, shape: &[usize], first: usize) -> Vec<f32> {
    let count: usize = shape.iter().product();
    let rows = shape.first().copied().unwrap_or(1).max(1);
    let value = |row: usize, at: usize| match port.name.as_str() {
        "timestep" if shape.is_empty() => 501.0,
        "timestep" => 37.0 * (row + first) as f32,
        _ => (0.7 * at as f32 + (row + first) as f32).sin(),
    };
    (0..count)
        .map(|i| value(i / (count / rows).max(1), i % (count / rows).max(1)))
        .collect()
}

/// What a network gives for rows from `first` on.
fn run(network: &mut Network, first: usize, rows: usize, side: usize) -> Vec<f32> {
    let ports = network.ports();
    let feeds: Vec<(Vec<usize>, Vec<f32>)> = ports
        .inputs
        .iter()
        .map(|port| {
            let shape = shape(port, rows, side);
            let values = values(port, &shape, first);
            (shape, values)
        })
        .collect();
    let inputs: Vec<Input<'_>> = ports
        .inputs
        .iter()
        .zip(&feeds)
        .map(|(port, (shape, values))| Input {
            port,
            shape,
            values: Values::Real(values),
        })
        .collect();
    let mut got = Vec::new();
    let name = ports.outputs[0].name.as_str();
    let mut outputs = [Output {
        name,
        values: &mut got,
    }];
    network.run(&inputs, &mut outputs).unwrap();
    got
}

/// The largest difference relative to the largest value.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    assert!(a.iter().chain(b).all(|value| value.is_finite()));
    let size = a.iter().fold(0.0_f32, |size, a| size.max(a.abs()));
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / size
}

/// How many nodes of an operator a model has.
fn count(model: &[u8], op: &str) -> usize {
    let mut found = 0;
    edit::with_graph(model, |graph| {
        let nodes = wire::collect(graph)?
            .into_iter()
            .filter(|field| field.number == edit::GRAPH_NODE);
        found = nodes
            .filter(|node| edit::text(node.bytes, edit::NODE_OP_TYPE) == op)
            .count();
        Ok(Vec::new())
    })
    .unwrap();
    found
}

#[test]
fn every_network_gives_what_it_gave() {
    for (model, part) in MODELS
        .iter()
        .flat_map(|model| [(model, "unet"), (model, "vae_decoder")])
    {
        let folder = tiny(model).join(part);
        let original = read("unet", &folder.join("model.onnx")).unwrap();
        let fused = edit::fused(&original).unwrap();
        // Networks in float16 are left alone.
        let Some(fused) = fused else {
            assert!(model.contains("fp16"), "{model}/{part}: nothing was found");
            continue;
        };
        let side = if part == "unet" { 16 } else { 8 };
        let plain = run(&mut session(&original, &folder, 1), 0, 2, side);
        let own = run(&mut session(&fused, &folder, 1), 0, 2, side);
        let difference = difference(&plain, &own);
        // They differ by 1e-6 to 4e-6.
        assert!(difference < 2e-5, "{model}/{part}: {difference}");
    }
}

#[test]
fn every_norm_and_gate_of_the_demo_model_is_found() {
    for (part, norms, active, gates) in [("unet", 25, 19, 6), ("vae_decoder", 21, 21, 0)] {
        let original = read("unet", &demo().join(part).join("model.onnx")).unwrap();
        let fused = edit::fused(&original).unwrap().unwrap();
        let of = |op| count(&fused, op);
        assert_eq!((of("GroupNorm"), of("GegluBias")), (norms, gates), "{part}");
        assert_eq!((of("InstanceNormalization"), of("Erf")), (0, 0), "{part}");
        let sigmoids = count(&original, "Sigmoid") - of("Sigmoid");
        assert_eq!(sigmoids, active, "{part}");
    }
}

#[test]
fn rows_give_the_same_bytes_alone_and_in_company_and_on_any_number_of_threads() {
    let folder = demo().join("unet");
    let original = read("unet", &folder.join("model.onnx")).unwrap();
    let fused = edit::fused(&edit::batched(&original, "timestep", "sample").unwrap_or(original));
    let model = fused.unwrap().unwrap();
    let mut alone = session(&model, &folder, 1);
    let each: Vec<f32> = (0..4).flat_map(|row| run(&mut alone, row, 1, 32)).collect();
    assert!(each.iter().all(|value| value.is_finite()));
    for threads in [1, 2, 3] {
        let together = run(&mut session(&model, &folder, threads), 0, 4, 32);
        let same = each
            .iter()
            .zip(&together)
            .all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same && each.len() == together.len(), "{threads} threads");
    }
}
