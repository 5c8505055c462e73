//! OpenAI's own package against a mesh that draws.

use mobula_e2e::{Check, Mesh, demo_model};

#[tokio::test]
async fn openais_package_draws_edits_varies_streams_and_is_told_what_is_wrong() -> anyhow::Result<()> {
    let mesh = Mesh::builder().model(&demo_model()?).start().await?;
    let check = Check {
        script: "openai-check.py",
        venv: "venv",
        tools: "openai",
    };
    check.run([format!("http://{}", mesh.http())]).await?;
    mesh.stop().await
}
