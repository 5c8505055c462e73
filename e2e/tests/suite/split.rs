//! A split application: text encoder, denoiser and VAE are deployments of their own, and what they draw together is what one
//! deployment draws alone, to the byte.

use bytes::Bytes;
use futures::future::try_join_all;
use mobula_e2e::{Builder, Drawn, Mesh, Up, demo_model, draw, prompt, tiny_model};
use mobula_proto::common::v1::Priority;
use mobula_proto::image::v1::{GenerateRequest, ImageFormat, PromptSyntax, Refiner};

/// Fewer than the default, because debug builds of the numerics are slow; the contracts do not depend on it.
const STEPS: u32 = 6;

pub(super) fn request(text: &str, seed: u64) -> GenerateRequest {
    GenerateRequest {
        steps: Some(STEPS),
        ..prompt(text, seed)
    }
}

/// A mask of which the right half is white.
pub(super) fn right_half(side: u32) -> anyhow::Result<Bytes> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, side, side);
    encoder.set_color(png::ColorType::Grayscale);
    let row: Vec<u8> = (0..side)
        .map(|column| if column < side / 2 { 0 } else { 255 })
        .collect();
    encoder
        .write_header()?
        .write_image_data(&row.repeat(side as usize))?;
    Ok(file.into())
}

/// Requests of every kind; those that start from a picture start from `from`.
fn kinds(from: &Bytes) -> anyhow::Result<Vec<GenerateRequest>> {
    let red = || request("a red circle on a blue background", 1);
    let from_picture = |seed| GenerateRequest {
        init_image: from.clone(),
        strength: Some(0.7),
        ..request("a green square on a white background", seed)
    };
    Ok(vec![
        red(),
        GenerateRequest {
            seeds: vec![7, 8, 9],
            negative_prompt: "blurred".into(),
            preview_interval: 2,
            ..red()
        },
        GenerateRequest {
            guidance_scale: Some(1.0),
            format: ImageFormat::Webp.into(),
            ..red()
        },
        GenerateRequest {
            prompt: "a (red:1.4) circle and a [blue|green] square".into(),
            prompt_syntax: PromptSyntax::A1111.into(),
            format: ImageFormat::Jpeg.into(),
            quality: 80,
            ..red()
        },
        GenerateRequest {
            scheduler: "euler_a".into(),
            clip_skip: 1,
            priority: Priority::High.into(),
            width: Some(64),
            height: Some(128),
            ..red()
        },
        from_picture(4),
        GenerateRequest {
            priority: Priority::Low.into(),
            seeds: vec![5, 6],
            ..from_picture(5)
        },
        GenerateRequest {
            mask_image: right_half(128)?,
            ..from_picture(6)
        },
    ])
}

/// Index, digest and file of each picture, by index.
pub(super) fn files(drawn: &Drawn) -> Vec<(u32, String, Bytes)> {
    let mut files: Vec<_> = drawn
        .pictures
        .iter()
        .map(|picture| (picture.index, picture.digest.clone(), picture.png.clone()))
        .collect();
    files.sort();
    files
}

pub(super) async fn all(mesh: &Mesh, requests: &[GenerateRequest]) -> anyhow::Result<Vec<Drawn>> {
    let client = mesh.client();
    Ok(try_join_all(requests.iter().map(|request| draw(&client, request.clone()))).await?)
}

/// What one deployment draws of requests of every kind, and what the same application draws split.
async fn both(
    builder: Builder,
    requests: &[GenerateRequest],
    replicas: usize,
) -> anyhow::Result<[Vec<Drawn>; 2]> {
    let whole = builder.clone().start().await?;
    let expected = all(&whole, requests).await?;
    whole.stop().await?;
    let split = builder.inference(replicas).split().start().await?;
    let got = all(&split, requests).await?;
    split.stop().await?;
    Ok([expected, got])
}

#[tokio::test]
async fn parts_draw_the_bytes_of_the_whole() -> anyhow::Result<()> {
    let builder = || -> anyhow::Result<_> { Ok(Mesh::builder().model(&demo_model()?)) };
    let whole = builder()?.start().await?;
    let first = draw(&whole.client(), request("a red circle on a blue background", 1)).await?;
    let requests = kinds(&first.picture()?.png)?;
    let expected = all(&whole, &requests).await?;
    whole.stop().await?;
    let split = builder()?.inference(2).split().start().await?;
    let got = all(&split, &requests).await?;
    let mut replicas = Vec::new();
    for ((request, expected), got) in requests.iter().zip(&expected).zip(&got) {
        assert_eq!(files(expected), files(got), "{request:?}");
        assert_eq!(expected.step, got.step, "{request:?}");
        assert_eq!(expected.parameters, got.parameters, "{request:?}");
        assert_eq!(expected.previews > 0, got.previews > 0, "{request:?}");
        replicas.extend(got.replicas.iter().cloned());
    }
    assert!(
        replicas.iter().all(|id| id.starts_with("e2e#denoiser#")),
        "what draws is the denoiser: {replicas:?}"
    );
    split.stop().await
}

#[tokio::test]
async fn parts_of_stable_diffusion_xl_hand_over_to_a_refiner_as_the_whole_does() -> anyhow::Result<()> {
    let builder = Mesh::builder()
        .model(&tiny_model("sdxl")?)
        .refiner(&tiny_model("sdxl-refiner")?);
    let asked = |switch_at: Option<f32>| GenerateRequest {
        model: "e2e".into(),
        steps: Some(10),
        image_count: 2,
        negative_prompt: "blue".into(),
        refiner: switch_at.map(|switch_at| Refiner {
            model: "refiner".into(),
            switch_at,
            ..Refiner::default()
        }),
        ..prompt("a red circle", 5)
    };
    let [expected, got] = both(builder, &[asked(None), asked(Some(0.8))], 1).await?;
    for (expected, got) in expected.iter().zip(&got) {
        assert_eq!(files(expected), files(got));
        assert_eq!(expected.step, got.step);
    }
    assert_ne!(files(&got[0]), files(&got[1]), "the refiner did something");
    Ok(())
}

#[tokio::test]
async fn models_on_demand_are_held_by_every_part() -> anyhow::Result<()> {
    let builder = Mesh::builder()
        .model(&demo_model()?)
        .on_demand("sd15", &tiny_model("sd15")?)
        .max_models(1);
    let of = |model_id: &str| GenerateRequest {
        model_id: model_id.into(),
        ..request("a red circle", 11)
    };
    let [expected, got] = both(builder, &[of(""), of("sd15")], 1).await?;
    for (expected, got) in expected.iter().zip(&got) {
        assert_eq!(files(expected), files(got));
    }
    Ok(())
}

#[tokio::test]
async fn an_application_is_split_by_the_shipped_manifest_and_scaled_by_command() -> anyhow::Result<()> {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/apps/split.yaml");
    let folder = demo_model()?.display().to_string();
    let split = std::fs::read_to_string(shipped)?.replace("models/demo", &folder);
    let whole = format!(
        "applications:\n- name: default\n  route_prefix: /\n  import_path: mobula.image:text_to_image\n  args: {{model: {folder}}}\n"
    );
    let up = Up::serving(&whole).await?;
    let red = || request("a red circle on a blue background", 3);
    let expected = draw(&up.client()?, red()).await?;
    up.write("split.yaml", &split)?;
    let told = up.told(&["deploy", "split.yaml", "--wait", "90"]).await?;
    assert!(
        told.contains("text_encoder") && told.contains("denoiser"),
        "{told}"
    );
    let got = draw(&up.client()?, red()).await?;
    assert_eq!(files(&expected), files(&got));
    assert!(
        got.replicas[0].starts_with("default#denoiser#"),
        "{:?}",
        got.replicas
    );
    up.told(&["scale", "default/text_encoder", "2"]).await?;
    up.settled("default", "text_encoder", 2).await?;
    let told = up.told(&["explain", "deployment", "default/vae"]).await?;
    assert!(told.contains("vae"), "{told}");
    assert_eq!(files(&draw(&up.client()?, red()).await?), files(&expected));
    Ok(())
}
