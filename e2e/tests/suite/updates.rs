//! Updates of split applications: to another model, to another graph and back, under load. Every request is answered, by
//! parts of one model.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use mobula_e2e::{Load, Up, copy_model, decode, demo_model, draw, until};
use mobula_proto::control::v1::{DeploymentStatus, ReplicaState, ReplicaStatus};
use mobula_proto::image::v1::{GenerateRequest, GenerateResponse, generate_response::Event};
use tonic::Streaming;

use crate::changes::{CALLERS, finished, more, numbered};
use crate::split::request;

const PARTS: [(&str, usize); 3] = [("text_encoder", 1), ("denoiser", 2), ("vae", 1)];

/// The demo model, and another whose denoiser and VAE both differ from its: a picture of the parts of both is neither's.
fn two_models(folder: &Path) -> anyhow::Result<[PathBuf; 2]> {
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
    let config = |model: &Path| {
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

/// An application of the fake engine in the place of a model, split.
fn split(model: &Path) -> String {
    let parts = PARTS.map(|(name, replicas)| {
        format!("- {{name: {name}, num_replicas: {replicas}, ray_actor_options: {{num_cpus: 0.2}}}}\n")
    });
    format!(
        "
name: sd
route_prefix: /sd
import_path: mobula.image:split
args: {{model: {}, engine: fake, options: {{base_us: 1000, decode_us: 5000}}}}
deployments:
- {{name: preprocess, ray_actor_options: {{num_cpus: 0.1}}}}
{}",
        model.display(),
        parts.concat()
    )
}

/// The same in one piece.
fn whole(model: &Path) -> String {
    format!(
        "
name: sd
route_prefix: /sd
import_path: mobula.image:text_to_image
args: {{model: {}, engine: fake, options: {{base_us: 1000, decode_us: 5000}}}}
deployments:
- {{name: preprocess, ray_actor_options: {{num_cpus: 0.1}}}}
- {{name: pipeline, num_replicas: 2, ray_actor_options: {{num_cpus: 0.2}}}}
",
        model.display()
    )
}

/// A mesh with short heartbeats, of which an update takes some for every replica.
async fn mesh(application: &str) -> anyhow::Result<Up> {
    // A file that says which model drew it is another one after an update.
    let variables = [
        ("MOBULA_HEARTBEAT_MS", "200".to_owned()),
        ("MOBULA_PROVENANCE", "marker".to_owned()),
    ];
    let up = Up::start(&["--engine", "fake"], &variables).await?;
    up.put(application).await?;
    Ok(up)
}

/// Looks whether every part runs as it was last asked to.
///
/// # Errors
/// When there is no model of which every part has a running replica.
async fn look(up: &Up) -> anyhow::Result<bool> {
    let applications = up.status().await?.applications;
    let found = applications.into_iter().find(|a| a.name == "sd");
    let mut parts = found.map(|a| a.deployments).unwrap_or_default();
    parts.retain(|part| part.name != "preprocess");
    let runs = |replica: &&ReplicaStatus| replica.state() == ReplicaState::Running;
    let is_whole = |outdated: bool| {
        let has = |part: &DeploymentStatus| {
            let mut running = part.replicas.iter().filter(runs);
            running.any(|replica| replica.outdated == outdated)
        };
        parts.iter().all(has)
    };
    anyhow::ensure!(is_whole(true) || is_whole(false), "{parts:#?}");
    Ok(parts.iter().all(|part| {
        let current = part.replicas.iter().filter(|r| runs(r) && !r.outdated).count();
        current == part.replicas.len() && current == part.target_replicas as usize
    }))
}

/// Waits until it does, and looks all the while.
async fn in_step(up: &Up) -> anyhow::Result<()> {
    let looked = until("every part to be updated", || async {
        match look(up).await {
            Ok(is_done) => is_done.then_some(Ok(())),
            Err(broken) => Some(Err(broken)),
        }
    });
    looked.await.flatten().map_err(|error| error.context(up.output()))
}

async fn settled(up: &Up) -> anyhow::Result<()> {
    for (part, replicas) in PARTS {
        up.settled("sd", part, replicas).await?;
    }
    Ok(())
}

/// The demo model under two names: with the fake engine two models that draw the same.
fn namesakes(folder: &Path) -> anyhow::Result<[PathBuf; 2]> {
    let other = folder.join("other");
    copy_model(&demo_model()?, &other)?;
    Ok([demo_model()?, other])
}

#[tokio::test]
async fn parts_go_to_another_model_in_step_under_load_and_no_request_notices() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let models = namesakes(folder.path())?;
    let up = mesh(&split(&models[0])).await?;
    settled(&up).await?;
    let load = Load::start(&up.client()?, CALLERS, numbered);
    more(&up, &load).await?;
    for model in [&models[1], &models[0]] {
        up.put(&split(model)).await?;
        in_step(&up).await?;
        settled(&up).await?;
        more(&up, &load).await?;
    }
    // And back before it is done.
    up.put(&split(&models[1])).await?;
    until("a part of the next model", || async {
        let parts = up.deployment("sd", "denoiser").await.ok()??;
        let runs = |r: &ReplicaStatus| r.state() == ReplicaState::Running && !r.outdated;
        parts.replicas.iter().any(runs).then_some(())
    })
    .await?;
    up.put(&split(&models[0])).await?;
    in_step(&up).await?;
    settled(&up).await?;
    more(&up, &load).await?;
    finished(&up, load).await;
    Ok(())
}

#[tokio::test]
async fn parts_of_a_model_that_is_not_there_are_taken_back_under_load() -> anyhow::Result<()> {
    let model = demo_model()?;
    let up = mesh(&split(&model)).await?;
    settled(&up).await?;
    let load = Load::start(&up.client()?, CALLERS, numbered);
    more(&up, &load).await?;
    let broken = split(Path::new("/no/such/model")).replace(
        "engine: fake, options: {base_us: 1000, decode_us: 5000}",
        "engine: onnx",
    );
    up.put(&broken).await?;
    until("the update to be taken back", || async {
        let config = up.told(&["config", "sd"]).await.ok()?;
        config.contains(&model.display().to_string()).then_some(())
    })
    .await
    .map_err(|error| error.context(up.output()))?;
    settled(&up).await?;
    more(&up, &load).await?;
    finished(&up, load).await;
    Ok(())
}

#[tokio::test]
async fn an_application_is_split_and_made_whole_again_under_load_and_no_request_notices() -> anyhow::Result<()>
{
    let model = demo_model()?;
    let up = mesh(&whole(&model)).await?;
    up.settled("sd", "pipeline", 2).await?;
    let load = Load::start(&up.client()?, CALLERS, numbered);
    more(&up, &load).await?;
    for _ in 0..2 {
        up.put(&split(&model)).await?;
        settled(&up).await?;
        until("the whole to be gone", || async {
            let whole = up.deployment("sd", "pipeline").await.ok()?;
            whole.is_none().then_some(())
        })
        .await
        .map_err(|error| error.context(up.output()))?;
        more(&up, &load).await?;
        up.put(&whole(&model)).await?;
        up.settled("sd", "pipeline", 2).await?;
        until("the parts to be gone", || async {
            let vae = up.deployment("sd", "vae").await.ok()?;
            vae.is_none().then_some(())
        })
        .await
        .map_err(|error| error.context(up.output()))?;
        more(&up, &load).await?;
    }
    let report = finished(&up, load).await;
    assert_eq!(report.different, 0);
    Ok(())
}

/// Reads events to the first of a kind.
async fn read_to(
    events: &mut Streaming<GenerateResponse>,
    is_it: impl Fn(&Event) -> bool,
) -> anyhow::Result<()> {
    while let Some(message) = events.message().await? {
        if message.event.as_ref().is_some_and(&is_it) {
            return Ok(());
        }
    }
    anyhow::bail!("the stream ended before that")
}

#[tokio::test]
async fn a_split_application_that_is_deleted_decodes_every_picture_whose_steps_are_done() -> anyhow::Result<()>
{
    const REQUESTS: u64 = 6;
    let model = demo_model()?;
    // One picture is decoded at a time, slowly: the others wait for it at the proxy.
    let application = split(&model)
        .replace("decode_us: 5000", "decode_us: 300000")
        .replace("{name: vae,", "{name: vae, max_ongoing_requests: 1,");
    let up = mesh(&application).await?;
    settled(&up).await?;
    let mut client = up.client()?;
    let mut streams = Vec::new();
    for seed in 0..REQUESTS {
        let asked = GenerateRequest {
            model: "sd".into(),
            ..request("a picture", seed)
        };
        streams.push(client.generate(asked).await?.into_inner());
    }
    // All have a denoiser before the application goes; while one is decoded, the steps of the others are done.
    for events in &mut streams {
        read_to(events, |event| matches!(event, Event::Started(_))).await?;
    }
    let (first, others) = streams.split_first_mut().context("there are some")?;
    read_to(first, |event| matches!(event, Event::Image(_))).await?;
    up.told(&["delete", "sd"]).await?;
    for events in others {
        let drawn = read_to(events, |event| matches!(event, Event::Image(_))).await;
        drawn.map_err(|error| error.context(up.output()))?;
    }
    until("the application to be gone", || async {
        let applications = up.status().await.ok()?.applications;
        applications.iter().all(|a| a.name != "sd").then_some(())
    })
    .await
    .map_err(|error| error.context(up.output()))
}
