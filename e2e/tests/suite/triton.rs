//! Triton's own client against a mesh that draws.

use mobula_e2e::{Check, Mesh, demo_model};

#[tokio::test]
async fn tritons_client_draws_streams_counts_and_is_told_what_is_wrong() -> anyhow::Result<()> {
    let mesh = Mesh::builder().model(&demo_model()?).start().await?;
    let check = Check {
        script: "triton-check.py",
        venv: "triton",
        tools: "triton",
    };
    check
        .run([mesh.http().to_string(), mesh.grpc().to_string()])
        .await?;
    mesh.stop().await
}
