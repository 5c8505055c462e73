//! Parts of a split application under load: they die, callers leave them, and one is scaled alone.

use anyhow::Context;
use mobula_e2e::{Load, Mesh, prompt, until};
use mobula_kit::channel;
use mobula_proto::control::v1::ScaleRequest;
use mobula_proto::control::v1::serve_service_client::ServeServiceClient;
use mobula_proto::image::v1::GenerateRequest;
use mobula_proto::image::v1::generate_response::Event;

use crate::split::{all, files};

/// With the fake engine: a request is 40 ms at the denoiser and 20 ms at the VAE, so that both are caught at work.
const STEP_US: u64 = 2_000;
const DECODE_US: u64 = 20_000;
const CALLERS: usize = 8;

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
    // The proxy knows the denoiser; the other parts may be a moment later.
    let before = until("a replica of every part", || async {
        mesh.running().await.ok().filter(|all| all.len() == 4)
    })
    .await?;
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
