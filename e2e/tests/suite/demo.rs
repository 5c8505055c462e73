//! The demo model on ONNX Runtime: what a newcomer sees first.

use futures::future::try_join_all;
use mobula_e2e::{Mesh, decode, demo_model, draw, get, prompt};
use mobula_proto::image::v1::{GenerateRequest, GetModelRequest};
use sha2::{Digest, Sha256};

const PROMPT: &str = "a red circle on a blue background";
/// Fewer than the default, because debug builds of the numerics are slow; the contracts do not depend on it.
const STEPS: u32 = 8;

fn request(seed: u64) -> GenerateRequest {
    GenerateRequest {
        steps: Some(STEPS),
        ..prompt(PROMPT, seed)
    }
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[tokio::test]
async fn http_draws_a_picture_of_the_models_native_size_with_its_parameters_inside() -> anyhow::Result<()> {
    let mesh = Mesh::builder().model(&demo_model()?).start().await?;
    let path = "/imagine?prompt=a%20red%20circle%20on%20a%20blue%20background&seed=3&img_size=128";
    let answer = get(mesh.http(), path).await?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "image/png");
    let png = decode(&answer.body)?;
    assert_eq!((png.width, png.height), (128, 128));
    let told: String = png
        .texts
        .iter()
        .map(|(keyword, text)| format!("{keyword}: {text}\n"))
        .collect();
    let model = mesh
        .client()
        .get_model(GetModelRequest::default())
        .await?
        .into_inner()
        .model
        .unwrap_or_default();
    for part in [PROMPT, "Seed: 3", "Size: 128x128", "Steps: ", "CFG scale: "] {
        assert!(told.contains(part), "{part:?} is not in the PNG's text:\n{told}");
    }
    assert!(
        told.contains(&model.digest[..10]),
        "the model's digest {} is not in:\n{told}",
        model.digest
    );
    mesh.stop().await
}

#[tokio::test]
async fn a_seed_draws_the_same_bytes_on_every_replica_and_in_any_company() -> anyhow::Result<()> {
    let mesh = Mesh::builder().inference(2).model(&demo_model()?).start().await?;
    let client = mesh.client();
    let alone = draw(&client, request(1)).await?.picture()?.clone();
    assert_eq!(alone.digest, hex(&alone.png), "the digest is of the file");
    // Twice the seed among others: with two replicas and power of two choices both of them get some.
    let seeds = [1, 2, 3, 1, 4, 5, 1, 6];
    let together = try_join_all(seeds.map(|seed| draw(&client, request(seed)))).await?;
    let mut replicas: Vec<_> = together.iter().flat_map(|drawn| drawn.replicas.clone()).collect();
    replicas.sort();
    replicas.dedup();
    assert_eq!(replicas.len(), 2, "both replicas had work");
    for (seed, drawn) in seeds.into_iter().zip(&together) {
        let same = drawn.picture()?.png == alone.png;
        assert_eq!(same, seed == 1, "seed {seed}");
    }
    mesh.stop().await
}
