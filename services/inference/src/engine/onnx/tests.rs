use std::path::{Path, PathBuf};

use super::*;
use crate::engine::conformance;

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
    Onnx::load(&Model::open(folder)?, &runtime())
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
    for name in ["sd15", "sd15-legacy", "sd15-extdata", "sd15-fp16", "sd21"] {
        let mut engine = load(&tiny(name)).unwrap();
        let info = engine.info();
        assert_eq!(
            (info.window, info.vocabulary, info.width, info.scale),
            (77, 522, 16, 8),
            "{name}"
        );
        // The exports come back whole only from sizes that their one halving divides.
        assert_eq!((info.multiple, info.mixed_timesteps), (16, true), "{name}");
        conformance::check(&mut engine).unwrap_or_else(|violation| panic!("{name}: {violation}"));
    }
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
    // A second consumer of the timestep, which the edit refuses.
    let folder = copy_of("sd15");
    let file = folder.path().join("unet/model.onnx");
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
    let mut engine = load(folder.path()).unwrap();
    assert!(!engine.info().mixed_timesteps);
    conformance::check(&mut engine).unwrap();
}

/// Rewrites a part's graph field by field: what `change` gives for a field takes its place.
fn change_graph(folder: &Path, part: &str, change: impl Fn(&wire::Field<'_>) -> Option<Vec<u8>>) {
    let file = folder.join(part).join("model.onnx");
    let model = std::fs::read(&file).unwrap();
    let edited = timestep::with_graph(&model, |graph| {
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
        let is_input = field.number == timestep::GRAPH_INPUT
            && timestep::text(field.bytes, timestep::VALUE_NAME) == input;
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
    let denoise = |engine: &mut Onnx, timestep: f32| {
        let info = engine.info().clone();
        let states: std::sync::Arc<[f32]> = vec![0.5; info.states()].into();
        let mut batch = Batch::new(&info);
        batch.reset(info.latents(2 * info.multiple, 2 * info.multiple));
        let row = batch.push(timestep, &states).unwrap();
        row.fill(0.5);
        engine.denoise(&mut batch).unwrap();
        batch.output(0).to_vec()
    };
    let mut engine = load(&tiny("sd15-legacy")).unwrap();
    let mut original = load(&tiny("sd15")).unwrap();
    assert_eq!(denoise(&mut engine, 946.375), denoise(&mut original, 946.375));
    assert_ne!(denoise(&mut engine, 946.375), denoise(&mut engine, 946.0));
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
