//! A base model and a refiner as two applications of one mesh. The two are tiny models with random weights of Stable
//! Diffusion XL's shapes: their pictures are noise, and what they do is all there.

use mobula_e2e::{Mesh, decode, draw, prompt, tiny_model};
use mobula_kit::status::violations;
use mobula_proto::image::v1::{GenerateRequest, PromptSyntax, Refiner};
use tonic::Code;

const STEPS: u32 = 10;

fn request(switch_at: Option<f32>) -> GenerateRequest {
    GenerateRequest {
        model: "e2e".into(),
        steps: Some(STEPS),
        image_count: 2,
        negative_prompt: "blue".into(),
        refiner: switch_at.map(|switch_at| Refiner {
            model: "refiner".into(),
            switch_at,
            ..Refiner::default()
        }),
        ..prompt("a red circle", 5)
    }
}

#[tokio::test]
async fn the_last_steps_are_drawn_by_the_refiner_and_a_seed_keeps_its_picture() -> anyhow::Result<()> {
    let mesh = Mesh::builder()
        .model(&tiny_model("sdxl")?)
        .refiner(&tiny_model("sdxl-refiner")?)
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
            ..Refiner::default()
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
        .model(&tiny_model("sdxl")?)
        .refiner(&tiny_model("sdxl-refiner")?)
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

#[tokio::test]
async fn a_refiner_may_be_one_of_an_applications_models_on_demand() -> anyhow::Result<()> {
    let apart = Mesh::builder()
        .model(&tiny_model("sdxl")?)
        .refiner(&tiny_model("sdxl-refiner")?)
        .start()
        .await?;
    let expected = draw(&apart.client(), request(Some(0.8))).await?;
    apart.stop().await?;
    let mesh = Mesh::builder()
        .model(&tiny_model("sdxl")?)
        .on_demand("polish", &tiny_model("sdxl-refiner")?)
        .on_demand("plain", &tiny_model("sd15")?)
        .max_models(1)
        .start()
        .await?;
    let by = |model_id: &str| GenerateRequest {
        refiner: Some(Refiner {
            model: "e2e".into(),
            switch_at: 0.8,
            model_id: model_id.into(),
        }),
        ..request(None)
    };
    let client = mesh.client();
    let refined = draw(&client, by("polish")).await?;
    for (one, other) in refined.pictures.iter().zip(&expected.pictures) {
        assert_eq!(decode(&one.png)?.rgb, decode(&other.png)?.rgb);
    }
    let texts = decode(&refined.pictures[0].png)?.texts;
    assert_eq!(texts.get("mobula-refiner").map(String::as_str), Some("polish"));
    for (model_id, field) in [("nobody", "refiner.model_id"), ("plain", "refiner.model")] {
        let status = draw(&client, by(model_id)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert_eq!(violations(&status)[0].0, field);
    }
    mesh.stop().await
}
