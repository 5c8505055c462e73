//! Triton's own client against a mesh that draws.

use std::path::Path;

use anyhow::Context as _;
use mobula_e2e::{Mesh, demo_model};

#[tokio::test]
async fn tritons_client_draws_streams_counts_and_is_told_what_is_wrong() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the checkout")?;
    let python = root.join(".tools/triton/bin/python");
    anyhow::ensure!(
        python.is_file(),
        "no {}: run scripts/tools.sh triton",
        python.display()
    );
    let mesh = Mesh::builder().model(&demo_model()?).start().await?;
    let check = tokio::process::Command::new(python)
        .arg(root.join("scripts/triton-check.py"))
        .args([mesh.http().to_string(), mesh.grpc().to_string()])
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
