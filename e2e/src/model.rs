//! The demo model and the library that runs it. A test that needs them fails without them; it is never skipped in silence.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// Copies a model's folder, so that a test may change it.
///
/// # Errors
/// When a file cannot be read or written.
pub fn copy_model(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (source, copy) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_model(&source, &copy)?;
        } else {
            std::fs::copy(&source, &copy).with_context(|| source.display().to_string())?;
        }
    }
    Ok(())
}

/// A tiny model with random weights, of those that the inference service is tested with; its pictures are noise.
///
/// # Errors
/// When it, or the library that runs it, is missing.
pub fn tiny_model(name: &str) -> anyhow::Result<PathBuf> {
    demo_model()?;
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../services/inference/tests/models");
    tests.join(name).canonicalize().with_context(|| name.to_owned())
}

/// The demo model's folder.
///
/// # Errors
/// When the model or the library that runs it is missing; the text says how to get it.
pub fn demo_model() -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the checkout")?;
    let model = root.join("models/demo");
    anyhow::ensure!(
        model.join("model_index.json").is_file(),
        "{} has no demo model",
        model.display()
    );
    let library = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from);
    let library = library.unwrap_or_else(|| root.join(".ort/lib/libonnxruntime.so"));
    anyhow::ensure!(
        library.is_file(),
        "no ONNX Runtime at {}: run scripts/fetch-onnxruntime.sh",
        library.display()
    );
    Ok(model)
}
