//! The demo model and the library that runs it. A test that needs them fails without them; it is never skipped in silence.

use std::path::{Path, PathBuf};

use anyhow::Context;

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
