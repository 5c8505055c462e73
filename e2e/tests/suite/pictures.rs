//! Pictures from pictures, on the demo model and through the whole mesh: files in, files out.

use futures::future::try_join_all;
use mobula_e2e::{Mesh, Png, decode, demo_model, draw, get, prompt};
use mobula_kit::status::violations;
use mobula_preprocess::image::{Limits, decode as read};
use mobula_proto::common::v1::Priority;
use mobula_proto::image::v1::{GenerateRequest, GetModelRequest, ImageFormat, PromptSyntax, Task};
use tonic::Code;

/// Fewer than the default, because debug builds of the numerics are slow; the contracts do not depend on it.
const STEPS: u32 = 8;

fn request(text: &str, seed: u64) -> GenerateRequest {
    GenerateRequest {
        steps: Some(STEPS),
        ..prompt(text, seed)
    }
}

/// Mean difference of two pictures' values where `of` says so, by column.
fn difference(a: &Png, b: &Png, of: impl Fn(u32) -> bool) -> f64 {
    let columns = (0..a.rgb.len()).map(|i| (i, (i / 3) as u32 % a.width));
    let chosen: Vec<_> = columns
        .filter(|(_, column)| of(*column))
        .map(|(i, _)| f64::from(a.rgb[i].abs_diff(b.rgb[i])))
        .collect();
    chosen.iter().sum::<f64>() / chosen.len() as f64
}

/// A mask of which the right half is white.
fn right_half(side: u32) -> anyhow::Result<Vec<u8>> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, side, side);
    encoder.set_color(png::ColorType::Grayscale);
    let row = (0..side).map(|column| if column < side / 2 { 0 } else { 255 });
    let row: Vec<u8> = row.collect();
    encoder
        .write_header()?
        .write_image_data(&row.repeat(side as usize))?;
    Ok(file)
}

#[tokio::test]
async fn a_picture_from_a_picture_has_the_same_bytes_alone_and_in_company() -> anyhow::Result<()> {
    let mesh = Mesh::builder().model(&demo_model()?).start().await?;
    let client = mesh.client();
    let first = draw(&client, request("a red circle on a blue background", 1)).await?;
    let first = first.picture()?.clone();
    let from = |strength| GenerateRequest {
        init_image: first.png.clone(),
        strength: Some(strength),
        ..request("a green square on a white background", 2)
    };
    let alone = draw(&client, from(0.75)).await?;
    assert_eq!(alone.step, (6, 6), "8 steps at strength 0.75");
    let told = alone.parameters.clone().unwrap_or_default();
    assert_eq!((told.strength, told.steps), (0.75, STEPS));
    let alone = alone.picture()?.clone();
    assert_eq!(
        draw(&client, from(0.75)).await?.picture()?.png,
        alone.png,
        "twice"
    );

    let company = [
        from(0.75),
        request("a large yellow star", 3),
        from(0.4),
        from(0.75),
        GenerateRequest {
            priority: Priority::High.into(),
            ..from(0.75)
        },
    ];
    let together = try_join_all(company.map(|request| draw(&client, request))).await?;
    for (i, is_same) in [true, false, false, true, true].into_iter().enumerate() {
        assert_eq!(together[i].picture()?.png == alone.png, is_same, "number {i}");
    }

    let (start, little, much) = (
        decode(&first.png)?,
        decode(&together[2].picture()?.png)?,
        decode(&alone.png)?,
    );
    let all = |_| true;
    assert!(
        difference(&start, &little, all) < difference(&start, &much, all),
        "less strength leaves more of the picture"
    );
    let infotext = much.texts.get("parameters").cloned().unwrap_or_default();
    assert!(infotext.contains("Denoising strength: 0.75"), "{infotext}");
    mesh.stop().await
}

#[tokio::test]
async fn what_the_mask_keeps_stays_and_the_rest_is_drawn_anew() -> anyhow::Result<()> {
    let mesh = Mesh::builder().model(&demo_model()?).start().await?;
    let client = mesh.client();
    let model = client
        .clone()
        .get_model(GetModelRequest::default())
        .await?
        .into_inner()
        .model;
    let tasks: Vec<_> = model.iter().flat_map(|model| model.tasks()).collect();
    for task in [Task::TextToImage, Task::ImageToImage, Task::Inpaint] {
        assert!(tasks.contains(&task), "{task:?} is not in {tasks:?}");
    }
    let first = draw(&client, request("a red circle on a blue background", 1)).await?;
    let first = first.picture()?.clone();
    let start = decode(&first.png)?;
    let into = || -> anyhow::Result<_> {
        Ok(GenerateRequest {
            init_image: first.png.clone(),
            mask_image: right_half(start.width)?.into(),
            ..request("a large yellow star on a green background", 2)
        })
    };
    let drawn = draw(&client, into()?).await?;
    let drawn = drawn.picture()?.clone();
    assert_eq!(draw(&client, into()?).await?.picture()?.png, drawn.png, "twice");
    let picture = decode(&drawn.png)?;
    let middle = start.width / 2;
    // The convolutions of the decoder reach a few pixels across the mask's edge.
    let edge = 16;
    let kept = difference(&start, &picture, |column| column + edge < middle);
    let anew = difference(&start, &picture, |column| column >= middle + edge);
    assert!(kept * 4.0 < anew, "kept {kept}, anew {anew}");
    mesh.stop().await
}

#[tokio::test]
async fn a_picture_is_brought_to_the_size_that_is_asked_for() -> anyhow::Result<()> {
    let mesh = Mesh::builder().model(&demo_model()?).start().await?;
    let client = mesh.client();
    let file = right_half(101)?;
    let own = GenerateRequest {
        init_image: file.clone().into(),
        ..request("a red circle", 1)
    };
    let drawn = draw(&client, own.clone()).await?;
    let picture = decode(&drawn.picture()?.png)?;
    assert_eq!((picture.width, picture.height), (96, 96), "its own, rounded down");
    let asked = GenerateRequest {
        width: Some(64),
        height: Some(128),
        ..own
    };
    let drawn = draw(&client, asked).await?;
    let picture = decode(&drawn.picture()?.png)?;
    assert_eq!((picture.width, picture.height), (64, 128));

    let cut = GenerateRequest {
        init_image: file[..file.len() / 2].to_vec().into(),
        ..request("a red circle", 1)
    };
    let status = draw(&client, cut).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let fields: Vec<_> = violations(&status).into_iter().map(|(field, _)| field).collect();
    assert_eq!(fields, ["init_image"], "{status:?}");
    mesh.stop().await
}

#[tokio::test]
async fn names_of_other_front_ends_draw_the_same_as_the_meshs_own() -> anyhow::Result<()> {
    let mesh = Mesh::builder().model(&demo_model()?).start().await?;
    let client = mesh.client();
    let by = |scheduler: &str, sigma_schedule: &str| GenerateRequest {
        scheduler: scheduler.into(),
        sigma_schedule: sigma_schedule.into(),
        ..request("a red circle on a blue background", 7)
    };
    let own = draw(&client, by("dpmpp_2m_karras", "")).await?.picture()?.clone();
    for (scheduler, schedule) in [
        ("DPM++ 2M Karras", ""),
        ("DPM++ 2M", "Karras"),
        ("DPMSolverMultistepScheduler", "karras"),
    ] {
        let drawn = draw(&client, by(scheduler, schedule)).await?;
        let same = decode(&drawn.picture()?.png)?.rgb == decode(&own.png)?.rgb;
        assert!(same, "{scheduler} {schedule}");
    }
    let path = "/imagine?prompt=a%20red%20circle%20on%20a%20blue%20background&seed=7&steps=8&scheduler=DPM%2B%2B%202M%20Karras&priority=high";
    let answer = get(mesh.http(), path).await?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(decode(&answer.body)?.rgb, decode(&own.png)?.rgb);
    mesh.stop().await
}

#[tokio::test]
async fn weights_in_a_prompt_change_the_picture_only_where_they_are_understood() -> anyhow::Result<()> {
    let mesh = Mesh::builder().model(&demo_model()?).start().await?;
    let client = mesh.client();
    let by = |text: &str, syntax: PromptSyntax| GenerateRequest {
        prompt_syntax: syntax.into(),
        ..request(text, 7)
    };
    let rgb = async |text: &str, syntax| -> anyhow::Result<Vec<u8>> {
        let drawn = draw(&client, by(text, syntax)).await?;
        Ok(decode(&drawn.picture()?.png)?.rgb)
    };
    let plain = rgb("a red circle", PromptSyntax::Plain).await?;
    assert_eq!(
        rgb("a red circle", PromptSyntax::A1111).await?,
        plain,
        "nothing is weighted"
    );
    assert_eq!(
        rgb("a (red:1.0) circle", PromptSyntax::A1111).await?,
        plain,
        "a weight of 1"
    );
    assert_ne!(rgb("a (red:1.4) circle", PromptSyntax::A1111).await?, plain);
    assert_ne!(rgb("a red++ circle", PromptSyntax::Compel).await?, plain);
    mesh.stop().await
}

#[tokio::test]
async fn a_picture_is_the_same_in_every_format() -> anyhow::Result<()> {
    let mesh = Mesh::builder().model(&demo_model()?).start().await?;
    let client = mesh.client();
    let mut files = Vec::new();
    for format in [ImageFormat::Png, ImageFormat::Webp, ImageFormat::Jpeg] {
        let asked = GenerateRequest {
            format: format.into(),
            ..request("a red circle on a blue background", 1)
        };
        files.push(draw(&client, asked).await?.picture()?.png.clone());
    }
    let pixels = |at: usize| read(&files[at], &Limits::default()).map_err(|why| anyhow::anyhow!("{why}"));
    let (png, webp, jpeg) = (pixels(0)?, pixels(1)?, pixels(2)?);
    assert_eq!(png.data, webp.data);
    assert!(files[1].starts_with(b"RIFF") && files[2].starts_with(b"\xff\xd8"));
    let off = png
        .data
        .iter()
        .zip(&jpeg.data)
        .map(|(a, b)| f64::from(a.abs_diff(*b)));
    let mean = off.sum::<f64>() / png.data.len() as f64;
    assert!(
        mean > 0.0 && mean < 2.0,
        "a JPEG of quality 95 is {mean} off in the mean"
    );
    for file in &files {
        let says = |part: &[u8]| file.windows(part.len()).any(|window| window == part);
        assert!(says(b"trainedAlgorithmicMedia") && says(b"mobula:Seed=\"1\""));
    }
    let jpeg = get(
        mesh.http(),
        "/imagine?prompt=a+red+circle&steps=2&seed=1&format=jpeg&quality=80&provenance=none",
    )
    .await?;
    assert_eq!(jpeg.headers["content-type"], "image/jpeg");
    assert!(!jpeg.body.windows(7).any(|window| window == b"mobula:"));
    Ok(())
}
