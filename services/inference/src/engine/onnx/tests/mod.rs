use std::path::{Path, PathBuf};

use super::edit::wire;
use super::*;
use crate::engine::{Condition, conformance};

mod finite;
mod fused;
mod lanes;
mod memory;
mod reference;
mod rewrite;

fn runtime() -> Runtime {
    Runtime {
        library: None,
        threads: 2,
        spin: false,
    }
}

fn tiny(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/models")
        .join(name)
}

fn load(folder: &Path) -> Result<Onnx, Error> {
    Onnx::load(&Model::open(folder)?, &runtime(), &Setup::default())
}

/// An engine whose networks are those of the files.
fn load_plain(folder: &Path) -> Onnx {
    let setup = Setup {
        rewrite: false,
        ..Setup::default()
    };
    Onnx::load(&Model::open(folder).unwrap(), &runtime(), &setup).unwrap()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A copy of a tiny model that a test may break.
fn copy_of(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&tiny(name), folder.path());
    folder
}

#[test]
fn every_dialect_keeps_every_rule_of_an_engine() {
    for name in [
        "sd15",
        "sd15-legacy",
        "sd15-extdata",
        "sd15-fp16",
        "sd15-fp16-overflow",
        "sd15-hidden",
        "sd21",
    ] {
        let mut engine = load(&tiny(name)).unwrap();
        let info = engine.info();
        let encoder = &info.encoders[0];
        assert_eq!(
            (
                info.window,
                encoder.vocabulary,
                encoder.width,
                info.width,
                info.scale
            ),
            (77, 522, 16, 16, 8),
            "{name}"
        );
        // All of them are found in the graph, whether the export has outputs for them or not.
        assert_eq!(encoder.layers, 2, "{name}");
        // The exports come back whole only from sizes that their one halving divides.
        assert_eq!((info.multiple, info.mixed_timesteps), (16, true), "{name}");
        assert!(info.encodes_images && info.bucket.is_none(), "{name}");
        conformance::check(&mut engine).unwrap_or_else(|violation| panic!("{name}: {violation}"));
    }
}

#[test]
fn every_family_keeps_every_rule_of_an_engine_and_is_measured() {
    // Text widths, pooled text, numbers about the size, embedded guidance, input channels, layers of each encoder.
    for (name, widths, pooled, time_ids, guidance, channels, layers) in [
        ("sd15-inpaint", &[16][..], 0, 0, 0, 9, &[2][..]),
        ("lcm", &[16], 0, 0, 32, 4, &[2]),
        ("sdxl", &[16, 24], 20, 6, 0, 4, &[2, 2]),
        ("sdxl-inpaint", &[16, 24], 20, 6, 0, 9, &[2, 2]),
        ("sdxl-refiner", &[24], 20, 5, 0, 4, &[2]),
    ] {
        let mut engine = load(&tiny(name)).unwrap();
        let info = engine.info();
        let found: Vec<(usize, usize)> = info.encoders.iter().map(|e| (e.width, e.layers)).collect();
        let expected: Vec<(usize, usize)> = widths.iter().copied().zip(layers.iter().copied()).collect();
        assert_eq!(found, expected, "{name}");
        assert_eq!(
            (
                info.pooled,
                info.time_ids,
                info.guidance,
                info.input_channels,
                info.channels
            ),
            (pooled, time_ids, guidance, channels, 4),
            "{name}"
        );
        assert_eq!(info.width, widths.iter().sum::<usize>(), "{name}");
        conformance::check(&mut engine).unwrap_or_else(|violation| panic!("{name}: {violation}"));
    }
}

#[test]
fn bound_memory_gives_the_same_bytes() {
    let setup = Setup {
        io_binding: true,
        ..Setup::default()
    };
    for name in ["sd15", "sd15-fp16", "sdxl"] {
        let model = Model::open(&tiny(name)).unwrap();
        let mut bound = Onnx::load(&model, &runtime(), &setup).unwrap();
        conformance::check(&mut bound).unwrap_or_else(|violation| panic!("{name}: {violation}"));
        let mut free = load_plain(&tiny(name));
        for side in [16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 16] {
            assert_eq!(
                denoise(&mut bound, side, 501.0),
                denoise(&mut free, side, 501.0),
                "{name} {side}"
            );
        }
        bound.trim();
        assert_eq!(
            denoise(&mut bound, 32, 7.0),
            denoise(&mut free, 32, 7.0),
            "{name}"
        );
    }
}

#[test]
fn a_provider_that_is_not_there_is_refused_and_nothing_falls_back() {
    let model = Model::open(&tiny("sd15")).unwrap();
    for (providers, word) in [
        ("cuda,cpu", "CUDA"),
        ("tensorrt,cpu", "Tensorrt"),
        ("xnnpack", "XNNPACK"),
    ] {
        let setup = Setup::new(providers, None, "auto").unwrap();
        let error = Onnx::load(&model, &runtime(), &setup).unwrap_err().to_string();
        assert!(
            error.starts_with("option providers") && error.to_lowercase().contains(&word.to_lowercase()),
            "{error}"
        );
    }
}

/// One row's output, of a sample and a condition that are waves.
fn denoise(engine: &mut Onnx, side: usize, timestep: f32) -> Vec<f32> {
    let info = engine.info().clone();
    let wave = |length: usize| (0..length).map(|i| (i as f32 * 0.3).sin()).collect();
    let condition = Arc::new(Condition {
        states: wave(info.states()),
        pooled: wave(info.pooled),
        time_ids: wave(info.time_ids),
        guidance: wave(info.guidance),
    });
    let mut batch = Batch::new(&info);
    batch.reset(info.latents(side, side), info.window);
    let row = batch.push(timestep, &condition).unwrap();
    row.iter_mut()
        .enumerate()
        .for_each(|(i, value)| *value = (i as f32 * 0.7).sin());
    engine.denoise(&mut batch).unwrap();
    batch.output(0).to_vec()
}

#[test]
fn the_demo_model_keeps_every_rule_of_an_engine() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo");
    let mut engine = load(&demo).unwrap();
    assert!(engine.info().mixed_timesteps);
    conformance::check(&mut engine).unwrap();
}

#[test]
fn a_timestep_that_cannot_be_edited_is_shared_by_a_call() {
    let folder = copy_of("sd15");
    consume_timestep(folder.path());
    let mut engine = load(folder.path()).unwrap();
    assert!(!engine.info().mixed_timesteps);
    conformance::check(&mut engine).unwrap();
}

/// Gives the timestep a second consumer, which the edit refuses.
fn consume_timestep(folder: &Path) {
    let file = folder.join("unet/model.onnx");
    let model = std::fs::read(&file).unwrap();
    let mut edited = Vec::new();
    for field in wire::collect(&model).unwrap() {
        if field.number == 7 {
            let mut node = Vec::new();
            for (number, text) in [(1, "timestep"), (2, "nobody_takes_this"), (4, "Identity")] {
                wire::put_bytes(&mut node, number, text.as_bytes());
            }
            let mut graph = field.bytes.to_vec();
            wire::put_bytes(&mut graph, 1, &node);
            wire::put_bytes(&mut edited, 7, &graph);
        } else {
            edited.extend_from_slice(field.raw);
        }
    }
    std::fs::write(&file, edited).unwrap();
}

/// Rewrites a part's graph field by field: what `change` gives for a field takes its place.
fn change_graph(folder: &Path, part: &str, change: impl Fn(&wire::Field<'_>) -> Option<Vec<u8>>) {
    let file = folder.join(part).join("model.onnx");
    let model = std::fs::read(&file).unwrap();
    let edited = edit::with_graph(&model, |graph| {
        let mut out = Vec::new();
        for field in wire::collect(graph)? {
            match change(&field) {
                Some(content) => wire::put_bytes(&mut out, field.number, &content),
                None => out.extend_from_slice(field.raw),
            }
        }
        Ok(out)
    });
    std::fs::write(file, edited.unwrap()).unwrap();
}

/// Fixes the first dimension of a part's input.
fn fix_batch(folder: &Path, part: &str, input: &str, batch: u64) {
    change_graph(folder, part, |field| {
        let is_input =
            field.number == edit::GRAPH_INPUT && edit::text(field.bytes, edit::VALUE_NAME) == input;
        is_input.then(|| with_batch(field.bytes, batch))
    });
}

fn with_batch(value: &[u8], batch: u64) -> Vec<u8> {
    // ValueInfoProto.type, TypeProto.tensor_type, Tensor.shape, TensorShapeProto.dim
    fn first_of(message: &[u8], path: &[u64], new: &[u8]) -> Vec<u8> {
        let (Some(number), mut out, mut met) = (path.first(), Vec::new(), false) else {
            return new.to_vec();
        };
        for field in wire::collect(message).unwrap() {
            if field.number == *number && !met {
                met = true;
                wire::put_bytes(&mut out, *number, &first_of(field.bytes, &path[1..], new));
            } else {
                out.extend_from_slice(field.raw);
            }
        }
        out
    }
    let mut dim = Vec::new();
    wire::put_number(&mut dim, 1, batch);
    first_of(value, &[2, 1, 2, 1], &dim)
}

#[test]
fn parts_with_a_fixed_batch_of_one_are_run_one_by_one_and_other_batches_are_refused() {
    let folder = copy_of("sd15");
    fix_batch(folder.path(), "text_encoder", "input_ids", 1);
    fix_batch(folder.path(), "vae_decoder", "latent_sample", 1);
    let mut engine = load(folder.path()).unwrap();
    conformance::check(&mut engine).unwrap();
    fix_batch(folder.path(), "text_encoder", "input_ids", 3);
    let refused = load(folder.path()).unwrap_err().to_string();
    assert!(refused.contains("input_ids has a fixed batch of 3"), "{refused}");
}

#[test]
fn a_whole_timestep_is_made_real_where_the_network_casts_it() {
    let mut engine = load_plain(&tiny("sd15-legacy"));
    let mut original = load_plain(&tiny("sd15"));
    let at = |engine: &mut Onnx, timestep| denoise(engine, 32, timestep);
    assert_eq!(at(&mut engine, 946.375), at(&mut original, 946.375));
    assert_ne!(at(&mut engine, 946.375), at(&mut engine, 946.0));
}

#[test]
fn parts_that_do_not_fit_together_or_are_broken_are_named() {
    let wrong = |change: &dyn Fn(&Path)| {
        let folder = copy_of("sd15");
        change(folder.path());
        load(folder.path()).unwrap_err().to_string()
    };
    let garbage = wrong(&|folder| std::fs::write(folder.join("unet/model.onnx"), "no model").unwrap());
    assert!(
        garbage.starts_with("unet: model.onnx cannot be loaded"),
        "{garbage}"
    );
    let cut = wrong(&|folder| {
        let file = folder.join("vae_decoder/model.onnx");
        let model = std::fs::read(&file).unwrap();
        std::fs::write(file, &model[..model.len() / 2]).unwrap();
    });
    assert!(
        cut.starts_with("vae_decoder: model.onnx cannot be loaded"),
        "{cut}"
    );
    let swapped = wrong(&|folder| {
        std::fs::copy(
            folder.join("vae_decoder/model.onnx"),
            folder.join("text_encoder/model.onnx"),
        )
        .unwrap();
    });
    assert!(
        swapped.starts_with("text_encoder: it has the input latent_sample"),
        "{swapped}"
    );
    let folder = copy_of("sd15-extdata");
    std::fs::remove_file(folder.path().join("unet/model.onnx_data")).unwrap();
    let missing = load(folder.path()).unwrap_err().to_string();
    assert!(missing.contains("model.onnx_data"), "{missing}");
}

#[test]
fn without_the_library_the_error_names_the_script() {
    let runtime = Runtime {
        library: Some("/nowhere/libonnxruntime.so".into()),
        ..runtime()
    };
    let error = runtime.check().unwrap_err().to_string();
    assert!(
        error.contains("scripts/fetch-onnxruntime.sh") && error.contains("/nowhere"),
        "{error}"
    );
}

#[test]
fn weights_outside_the_models_folder_are_not_read() {
    // The name of the file with the weights, with another of the same length in its place.
    for (part, outside) in [
        ("unet", "/../../../secret"),
        ("vae_encoder", "/etc/../etc/pass"),
        ("text_encoder", "../../../../../a"),
    ] {
        let folder = copy_of("sd15-extdata");
        let file = folder.path().join(part).join("model.onnx");
        let mut model = std::fs::read(&file).unwrap();
        let inside = b"model.onnx_data";
        let places: Vec<usize> = model
            .windows(inside.len())
            .enumerate()
            .filter_map(|(place, bytes)| (bytes == inside).then_some(place))
            .collect();
        assert!(!places.is_empty());
        for place in places {
            model[place..place + inside.len()].copy_from_slice(&outside.as_bytes()[..inside.len()]);
        }
        std::fs::write(&file, model).unwrap();
        let error = load(folder.path()).unwrap_err().to_string();
        assert!(
            error.starts_with(part) && error.contains("not inside the model's folder"),
            "{error}"
        );
    }
}
