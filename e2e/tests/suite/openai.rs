//! OpenAI's own package against a mesh that draws.

use std::path::Path;

use anyhow::Context as _;
use mobula_e2e::{Mesh, demo_model};

#[tokio::test]
async fn openais_package_draws_edits_varies_streams_and_is_told_what_is_wrong() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the checkout")?;
    let python = root.join(".tools/venv/bin/python");
    anyhow::ensure!(
        python.is_file(),
        "no {}: run scripts/tools.sh openai",
        python.display()
    );
    let mesh = Mesh::builder().model(&demo_model()?).start().await?;
    let check = tokio::process::Command::new(python)
        .arg(root.join("scripts/openai-check.py"))
        .arg(format!("http://{}", mesh.http()))
        .kill_on_drop(true)
        .output()
        .await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        check.status.success(),
        "{}{}",
        text(&check.stdout),
        text(&check.stderr)
    );
    mesh.stop().await
}
