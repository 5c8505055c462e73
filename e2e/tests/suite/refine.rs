//! A base model and a refiner as two applications of one mesh. The two are tiny models with random weights of Stable
//! Diffusion XL's shapes: their pictures are noise, and what they do is all there.

use std::path::{Path, PathBuf};

use mobula_e2e::{Mesh, decode, demo_model, draw, prompt};
use mobula_kit::status::violations;
use mobula_proto::image::v1::{GenerateRequest, PromptSyntax, Refiner};
use tonic::Code;

const STEPS: u32 = 10;

fn model(name: &str) -> anyhow::Result<PathBuf> {
    // Also checks that the library that runs them is there.
    demo_model()?;
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../services/inference/tests/models");
    Ok(tests.join(name).canonicalize()?)
}

fn request(switch_at: Option<f32>) -> GenerateRequest {
    GenerateRequest {
        model: "e2e".into(),
        steps: Some(STEPS),
        image_count: 2,
        negative_prompt: "blue".into(),
        refiner: switch_at.map(|switch_at| Refiner {
            model: "refiner".into(),
            switch_at,
        }),
        ..prompt("a red circle", 5)
    }
}

#[tokio::test]
async fn the_last_steps_are_drawn_by_the_refiner_and_a_seed_keeps_its_picture() -> anyhow::Result<()> {
    let mesh = Mesh::builder()
        .model(&model("sdxl")?)
        .refiner(&model("sdxl-refiner")?)
        .start()
        .await?;
    let client = mesh.client();
    let refined = draw(&client, request(Some(0.8))).await?;
    assert_eq!(refined.pictures.len(), 2);
    assert_eq!(refined.step, (STEPS, STEPS), "both halves count as one");
    assert!(
        refined.replicas.len() == 2
            && refined.replicas[0].starts_with("e2e#")
            && refined.replicas[1].starts_with("refiner#"),
        "{:?}",
        refined.replicas
    );
    let again = draw(&client, request(Some(0.8))).await?;
    assert_eq!(again.pictures, refined.pictures);
    let alone = draw(&client, request(None)).await?;
    let sooner = draw(&client, request(Some(0.5))).await?;
    for other in [&alone, &sooner] {
        assert_ne!(
            decode(&other.pictures[0].png)?.rgb,
            decode(&refined.pictures[0].png)?.rgb
        );
    }
    let texts = decode(&refined.pictures[0].png)?.texts;
    assert_eq!(texts.get("mobula-refiner").map(String::as_str), Some("refiner"));

    let to_itself = GenerateRequest {
        refiner: Some(Refiner {
            model: "nobody".into(),
            switch_at: 0.8,
        }),
        ..request(None)
    };
    let status = draw(&client, to_itself).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert_eq!(violations(&status)[0].0, "refiner.model");
    mesh.stop().await
}

#[tokio::test]
async fn a_prompt_that_changes_on_the_way_goes_on_with_the_refiner() -> anyhow::Result<()> {
    let mesh = Mesh::builder()
        .model(&model("sdxl")?)
        .refiner(&model("sdxl-refiner")?)
        .start()
        .await?;
    let client = mesh.client();
    // The base model takes the first 5 of 10 steps.
    let picture = async |text: &str| {
        let request = GenerateRequest {
            prompt: text.into(),
            prompt_syntax: PromptSyntax::A1111.into(),
            image_count: 1,
            ..request(Some(0.5))
        };
        let drawn = draw(&client, request).await?;
        anyhow::Ok(decode(&drawn.picture()?.png)?.rgb)
    };
    let never = picture("a red circle").await?;
    assert_eq!(picture("a [red:blue:10] circle").await?, never);
    let (early, switch, late) = (
        picture("a [red:blue:3] circle").await?,
        picture("a [red:blue:5] circle").await?,
        picture("a [red:blue:8] circle").await?,
    );
    assert!(
        switch != never && late != never && switch != late && early != switch,
        "each of them changes at another step"
    );
    // What changes with the handover changes for the refiner alone.
    let refined = picture("a [red:[blue:green:5]:3] circle").await?;
    assert_ne!(refined, early);
    mesh.stop().await
}
