//! Several real models on one deployment: each is loaded when a request names it, and draws what it draws alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use futures::future::try_join_all;
use mobula_e2e::{
    Builder, Load, Mesh, copy_model, decode, demo_model, draw, prompt, send, tiny_model, until,
};
use mobula_proto::image::v1::{GenerateRequest, ListModelsRequest};
use tempfile::TempDir;
use tonic::{Code, Request};

/// Few: the contracts do not depend on it, and debug builds are slow.
const STEPS: u32 = 4;
/// How many models a replica holds on demand.
const ROOM: usize = 2;
/// The models: two of other weights and shapes, and the demo model with another scale of its latents.
const IDS: [&str; 3] = ["bright", "sd15", "sd21"];

/// Folders of models, by id.
struct Shelf {
    folder: TempDir,
    models: BTreeMap<&'static str, PathBuf>,
}

impl Shelf {
    fn new() -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let bright = folder.path().join("bright");
        copy_model(&demo_model()?, &bright)?;
        let config = bright.join("vae_decoder/config.json");
        let text = fs::read_to_string(&config)?;
        anyhow::ensure!(text.contains("0.18215"), "{text}");
        fs::write(&config, text.replace("0.18215", "0.3"))?;
        let models = [bright, tiny_model("sd15")?, tiny_model("sd21")?];
        Ok(Self {
            folder,
            models: IDS.into_iter().zip(models).collect(),
        })
    }

    /// A mesh that serves the demo model, and the others on demand.
    fn mesh(&self) -> anyhow::Result<Builder> {
        let builder = Mesh::builder().model(&demo_model()?).max_models(ROOM);
        let models = self.models.iter();
        Ok(models.fold(builder, |builder, (id, folder)| builder.on_demand(id, folder)))
    }

    /// What each model draws in a mesh that serves nothing else.
    async fn alone(&self) -> anyhow::Result<BTreeMap<&'static str, Vec<u8>>> {
        let mut alone = BTreeMap::new();
        for (id, folder) in &self.models {
            let mesh = Mesh::builder().model(folder).start().await?;
            alone.insert(*id, pixels(&mesh, request("")).await?);
            mesh.stop().await?;
        }
        let different: BTreeSet<_> = alone.values().collect();
        assert_eq!(different.len(), IDS.len(), "no two models draw the same");
        Ok(alone)
    }
}

fn request(id: &str) -> GenerateRequest {
    GenerateRequest {
        model_id: id.into(),
        steps: Some(STEPS),
        ..prompt("a red circle", 11)
    }
}

async fn pixels(mesh: &Mesh, request: impl tonic::IntoRequest<GenerateRequest>) -> anyhow::Result<Vec<u8>> {
    let drawn = draw(&mesh.client(), request).await?;
    Ok(decode(&drawn.picture()?.png)?.rgb)
}

/// The same over HTTP, with Ray Serve's header.
async fn by_header(mesh: &Mesh, id: &str) -> anyhow::Result<Vec<u8>> {
    let path = format!("/imagine?prompt=a%20red%20circle&seed=11&steps={STEPS}");
    let request = http::Request::get(path).header("serve_multiplexed_model_id", id);
    let answer = send(mesh.http(), request.body(String::new())?).await?;
    anyhow::ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    Ok(decode(&answer.body)?.rgb)
}

/// The models on demand that each drawing replica holds, as the status tells.
async fn held(mesh: &Mesh) -> anyhow::Result<Vec<Vec<String>>> {
    let applications = mesh.status().await?.applications;
    let deployments = applications
        .into_iter()
        .flat_map(|application| application.deployments);
    let pipeline = deployments.filter(|deployment| deployment.name == "pipeline");
    let replicas = pipeline.flat_map(|deployment| deployment.replicas);
    Ok(replicas.map(|replica| replica.models).collect())
}

#[tokio::test]
async fn each_model_draws_beside_the_others_what_it_draws_alone() -> anyhow::Result<()> {
    let shelf = Shelf::new()?;
    let alone = shelf.alone().await?;
    let mesh = shelf.mesh()?.start().await?;
    assert_eq!(
        held(&mesh).await?,
        [Vec::<String>::new()],
        "none before one is named"
    );
    let own = pixels(&mesh, request("")).await?;
    assert!(alone.values().all(|other| *other != own));
    let mut before = None;
    // Twice around, with room for two of three: whoever is next has left before.
    for id in IDS.into_iter().chain(IDS) {
        assert_eq!(pixels(&mesh, request(id)).await?, alone[id], "{id} by its field");
        let mut named = Request::new(request(""));
        named.metadata_mut().insert("multiplexed_model_id", id.parse()?);
        assert_eq!(pixels(&mesh, named).await?, alone[id], "{id} by Ray's metadata");
        assert_eq!(by_header(&mesh, id).await?, alone[id], "{id} by Ray's header");
        let expected: BTreeSet<String> = before.into_iter().chain([id]).map(str::to_owned).collect();
        let what = format!("{expected:?} in the status");
        until(&what, || async {
            let held = held(&mesh).await.ok()?;
            (held.len() == 1 && held[0].iter().cloned().collect::<BTreeSet<_>>() == expected).then_some(())
        })
        .await?;
        before = Some(id);
    }
    assert_eq!(pixels(&mesh, request("")).await?, own, "its own model stays");
    let models = mesh
        .client()
        .list_models(ListModelsRequest {})
        .await?
        .into_inner()
        .models;
    let digests: BTreeSet<String> = models.into_iter().map(|model| model.digest).collect();
    assert_eq!(digests.len(), IDS.len() + 1, "each has files of its own");
    mesh.stop().await
}

#[tokio::test]
async fn models_that_are_asked_for_at_once_all_draw_though_not_all_have_room() -> anyhow::Result<()> {
    let shelf = Shelf::new()?;
    let alone = shelf.alone().await?;
    let mesh = shelf.mesh()?.start().await?;
    let drawn = IDS.iter().cycle().take(4 * IDS.len()).map(|id| {
        let mesh = &mesh;
        async move { anyhow::Ok((id, pixels(mesh, request(id)).await?)) }
    });
    for (id, drawn) in try_join_all(drawn).await? {
        assert_eq!(drawn, alone[id], "{id}");
    }
    assert!(held(&mesh).await?.iter().all(|held| held.len() <= ROOM));
    mesh.stop().await
}

#[tokio::test]
async fn a_hot_model_spreads_over_replicas_and_a_seed_keeps_its_picture() -> anyhow::Result<()> {
    // The demo model's shape: its work is worth a load elsewhere.
    const HOT: &str = "bright";
    const CALLERS: usize = 16;
    let shelf = Shelf::new()?;
    let mesh = shelf.mesh()?.inference(2).max_ongoing_requests(1).start().await?;
    pixels(&mesh, request(HOT)).await?;
    let holders = async || {
        let held = held(&mesh).await.ok()?;
        Some(held.iter().filter(|held| held.iter().any(|id| id == HOT)).count())
    };
    until("one replica with the model", || async {
        (holders().await? == 1).then_some(())
    })
    .await?;
    // Every seed comes again and again, wherever it is drawn: the load compares the pictures.
    let load = Load::start(&mesh.client(), CALLERS, |n| GenerateRequest {
        steps: Some(20),
        seeds: vec![n as u64 % 4],
        ..request(HOT)
    });
    until("two replicas with the model", || async {
        (holders().await? == 2).then_some(())
    })
    .await?;
    load.more(CALLERS).await?;
    let report = load.finish().await;
    assert!(report.failures.is_empty(), "{report:?}");
    mesh.stop().await
}

#[tokio::test]
async fn a_broken_or_unknown_model_is_refused_with_words_and_the_others_go_on() -> anyhow::Result<()> {
    let shelf = Shelf::new()?;
    let broken = shelf.folder.path().join("broken");
    copy_model(&demo_model()?, &broken)?;
    let network = broken.join("unet/model.onnx");
    fs::remove_file(&network)?;
    let nowhere = shelf.folder.path().join("nowhere");
    let mesh = shelf
        .mesh()?
        .on_demand("broken", &broken)
        .on_demand("nowhere", &nowhere)
        .start()
        .await?;
    let load = Load::start(&mesh.client(), 3, |n| GenerateRequest {
        seeds: vec![n as u64 % 4],
        ..request(["", "sd15"][n % 2])
    });
    load.more(3).await?;
    for (id, code, words) in [
        ("broken", Code::FailedPrecondition, "unet/model.onnx"),
        ("nowhere", Code::FailedPrecondition, "is no folder"),
        ("nobody", Code::NotFound, "bright, broken, nowhere, sd15, sd21"),
    ] {
        let status = draw(&mesh.client(), request(id)).await.unwrap_err();
        assert_eq!(status.code(), code, "{id}: {status:?}");
        assert!(status.message().contains(words), "{id}: {status:?}");
        let refused = by_header(&mesh, id).await.unwrap_err().to_string();
        assert!(refused.contains(words), "{id}: {refused}");
    }
    load.more(6).await?;
    let report = load.finish().await;
    assert!(report.failures.is_empty(), "{report:?}");

    // Once its folder is whole, the next request finds it so.
    fs::copy(demo_model()?.join("unet/model.onnx"), network)?;
    let mended = pixels(&mesh, request("broken")).await?;
    assert_eq!(
        mended,
        pixels(&mesh, request("")).await?,
        "a copy of the demo model"
    );
    mesh.stop().await
}
