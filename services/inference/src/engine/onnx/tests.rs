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
