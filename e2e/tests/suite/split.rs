//! A split application: text encoder, denoiser and VAE are deployments of their own, and what they draw together is what one
//! deployment draws alone, to the byte; whatever dies, leaves or is scaled meanwhile.

use anyhow::Context;
use bytes::Bytes;
use futures::future::try_join_all;
use mobula_e2e::{
    Builder, Drawn, Load, Mesh, Up, copy_model, decode, demo_model, draw, prompt, tiny_model, until,
};
use mobula_kit::channel;
use mobula_proto::common::v1::Priority;
use mobula_proto::control::v1::ScaleRequest;
use mobula_proto::control::v1::serve_service_client::ServeServiceClient;
use mobula_proto::image::v1::generate_response::Event;
use mobula_proto::image::v1::{GenerateRequest, ImageFormat, PromptSyntax, Refiner};

/// Fewer than the default, because debug builds of the numerics are slow; the contracts do not depend on it.
const STEPS: u32 = 6;
/// With the fake engine: a request is 40 ms at the denoiser and 20 ms at the VAE, so that both are caught at work.
const STEP_US: u64 = 2_000;
const DECODE_US: u64 = 20_000;
const CALLERS: usize = 8;

fn request(text: &str, seed: u64) -> GenerateRequest {
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
fn files(drawn: &Drawn) -> Vec<(u32, String, Bytes)> {
    let mut files: Vec<_> = drawn
        .pictures
        .iter()
        .map(|picture| (picture.index, picture.digest.clone(), picture.png.clone()))
        .collect();
    files.sort();
    files
}

async fn all(mesh: &Mesh, requests: &[GenerateRequest]) -> anyhow::Result<Vec<Drawn>> {
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

fn numbered(n: usize) -> GenerateRequest {
    GenerateRequest {
        steps: Some(20),
        // Few enough for each to be drawn again and again, and compared.
        ..prompt("a picture under load", (n % 16) as u64)
    }
}

#[tokio::test]
async fn parts_that_die_under_load_cost_no_request_and_change_no_picture() -> anyhow::Result<()> {
    let builder = || Mesh::builder().step_us(STEP_US).decode_us(DECODE_US);
    let whole = builder().start().await?;
    let expected = all(&whole, &(0..16).map(numbered).collect::<Vec<_>>()).await?;
    whole.stop().await?;
    let mut mesh = builder().inference(2).split().start().await?;
    let load = Load::start(&mesh.client(), CALLERS, numbered);
    load.more(CALLERS * 2).await?;
    // The oldest worker dies each time, and another one comes: two replicas of each part, all of them once.
    for _ in 0..6 {
        mesh.kill_inference();
        load.more(CALLERS).await?;
        mesh.add_inference().await?;
        until("two replicas of every part", || async {
            let running = mesh.running().await.ok()?;
            (running.len() == 7).then_some(())
        })
        .await?;
        load.more(CALLERS).await?;
    }
    let report = load.finish().await;
    assert!(
        report.failures.is_empty() && report.cut == 0 && report.lost == 0 && report.doubled == 0,
        "{report:?}"
    );
    assert_eq!(report.different, 0, "{report:?}");
    assert!(
        report.restarted > 0,
        "nothing was under way on a killed replica: {report:?}"
    );
    let got = all(&mesh, &(0..16).map(numbered).collect::<Vec<_>>()).await?;
    for (expected, got) in expected.iter().zip(&got) {
        assert_eq!(files(expected), files(got));
    }
    mesh.stop().await
}

/// Requests that the replicas of each part have, by the deployment's name.
async fn ongoing(mesh: &Mesh) -> anyhow::Result<Vec<(String, u32)>> {
    let applications = mesh.status().await?.applications;
    let deployments = applications
        .into_iter()
        .flat_map(|application| application.deployments);
    let of = |replicas: &[mobula_proto::control::v1::ReplicaStatus]| {
        replicas
            .iter()
            .filter_map(|replica| replica.load)
            .map(|load| load.ongoing_requests)
            .sum()
    };
    Ok(deployments
        .map(|deployment| (deployment.name, of(&deployment.replicas)))
        .collect())
}

#[tokio::test]
async fn a_caller_who_leaves_is_freed_at_whatever_part_it_is() -> anyhow::Result<()> {
    // Decoding takes long enough for a heartbeat to tell of it.
    let mesh = Mesh::builder()
        .step_us(STEP_US)
        .decode_us(1_500_000)
        .split()
        .start()
        .await?;
    let asked = |steps: u32| GenerateRequest {
        steps: Some(steps),
        seeds: (0..8).collect(),
        ..prompt("nobody waits for it", 1)
    };
    let at = async |part: &str, expected: fn(u32) -> bool| {
        until(&format!("requests of {part}"), || async {
            let all = ongoing(&mesh).await.ok()?;
            all.iter()
                .any(|(name, count)| name == part && expected(*count))
                .then_some(())
        })
        .await
    };
    for (part, steps) in [("denoiser", 900), ("vae", 2)] {
        let mut events = mesh.client().generate(asked(steps)).await?.into_inner();
        let mut seen = 0;
        while let Some(message) = events.message().await? {
            if let Some(Event::Step(step)) = message.event {
                seen = step.index;
                if part == "denoiser" || step.index == step.of {
                    break;
                }
            }
        }
        assert!(seen > 0);
        // The last step is told before the latents are; reading on is what conducts the rest.
        if part == "vae" {
            let reader = tokio::spawn(async move { while let Ok(Some(_)) = events.message().await {} });
            at(part, |count| count > 0).await?;
            reader.abort();
        } else {
            at(part, |count| count > 0).await?;
            drop(events);
        }
        at(part, |count| count == 0).await?;
    }
    mesh.stop().await
}

#[tokio::test]
async fn one_part_is_scaled_and_the_others_stay_as_they_are() -> anyhow::Result<()> {
    let mut mesh = Mesh::builder().step_us(STEP_US).split().start().await?;
    let before = mesh.running().await?;
    assert_eq!(before.len(), 4, "{before:?}");
    let load = Load::start(&mesh.client(), CALLERS, numbered);
    load.more(CALLERS).await?;
    mesh.add_inference().await?;
    let mut client = ServeServiceClient::new(channel::lazy(&mesh.controller().to_string())?);
    let scale = async |client: &mut ServeServiceClient<_>, replicas| {
        let request = ScaleRequest {
            application: "e2e".into(),
            deployment: "vae".into(),
            replicas,
            ..ScaleRequest::default()
        };
        client.scale(request).await.context("the scale is refused")
    };
    scale(&mut client, 2).await?;
    until("a second vae", || async {
        mesh.running().await.ok().filter(|all| all.len() == 5)
    })
    .await?;
    load.more(CALLERS * 2).await?;
    let after = mesh.running().await?;
    assert!(before.iter().all(|id| after.contains(id)), "{before:?} {after:?}");
    assert_eq!(
        after.iter().filter(|id| id.starts_with("e2e#vae#")).count(),
        2,
        "{after:?}"
    );
    scale(&mut client, 1).await?;
    until("one vae", || async {
        mesh.running().await.ok().filter(|all| all.len() == 4)
    })
    .await?;
    load.more(CALLERS).await?;
    let report = load.finish().await;
    assert!(
        report.failures.is_empty() && report.cut == 0 && report.different == 0,
        "{report:?}"
    );
    mesh.stop().await
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

/// The demo model, and another whose denoiser and VAE both differ from its: a picture of the parts of both is neither's.
fn two_models(folder: &std::path::Path) -> anyhow::Result<[std::path::PathBuf; 2]> {
    let other = folder.join("other");
    copy_model(&demo_model()?, &other)?;
    for (file, from, to) in [
        ("vae_decoder/config.json", "0.18215", "0.3"),
        (
            "scheduler/scheduler_config.json",
            "\"beta_end\": 0.02",
            "\"beta_end\": 0.03",
        ),
    ] {
        let text = std::fs::read_to_string(other.join(file))?;
        anyhow::ensure!(text.contains(from), "{text}");
        std::fs::write(other.join(file), text.replace(from, to))?;
    }
    Ok([demo_model()?, other])
}

#[tokio::test]
async fn an_update_to_another_model_draws_with_parts_of_one_model_only() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let models = two_models(folder.path())?;
    let config = |model: &std::path::Path| {
        format!(
            "applications:\n- name: default\n  route_prefix: /\n  import_path: mobula.image:split\n  args: {{model: {}}}\n",
            model.display()
        )
    };
    let up = Up::serving(&config(&models[0])).await?;
    let one = || request("a red circle on a blue background", 3);
    let pixels = async || -> anyhow::Result<Vec<u8>> {
        let drawn = draw(&up.client()?, one()).await?;
        Ok(decode(&drawn.picture()?.png)?.rgb)
    };
    let before = pixels().await?;
    up.write("other.yaml", &config(&models[1]))?;
    let deploys = up.told(&["deploy", "other.yaml", "--wait", "120"]);
    let mut deploys = std::pin::pin!(deploys);
    let mut meanwhile = Vec::new();
    loop {
        tokio::select! {
            biased;
            told = &mut deploys => break drop(told?),
            drawn = pixels() => meanwhile.push(drawn?),
        }
    }
    let after = pixels().await?;
    assert_ne!(before, after, "the two models draw the same");
    let mixed = meanwhile
        .iter()
        .filter(|drawn| **drawn != before && **drawn != after);
    assert_eq!(mixed.count(), 0, "of {}", meanwhile.len());
    assert!(
        meanwhile.contains(&before),
        "nothing was drawn while the update went on"
    );
    Ok(())
}
