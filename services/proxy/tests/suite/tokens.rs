//! Prompts that come again: their tokens are kept, for as long as the replica that made them is there.

use crate::support::{Mesh, Worker, prompt};
use mobula_proto::image::v1 as image;
use mobula_proxy::Config;

async fn draws(mesh: &Mesh, change: impl FnOnce(&mut image::GenerateRequest)) {
    mesh.all(prompt(change)).await.unwrap();
}

/// How many times the preprocess worker was asked.
fn asked(mesh: &Mesh) -> usize {
    mesh.prepared.texts.lock().unwrap().len()
}

#[tokio::test]
async fn a_prompt_is_tokenized_once() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(Config::default(), &[&worker], 4).await;
    for seed in 0..3 {
        draws(&mesh, |r| r.seeds = vec![seed]).await;
    }
    assert_eq!(asked(&mesh), 1);
    let drawn = worker.requests();
    assert!(drawn.iter().all(|request| request.prompt == drawn[0].prompt
        && request.negative_prompt == drawn[0].negative_prompt
        && request.prompt.is_some()));
}

#[tokio::test]
async fn what_changes_tokens_is_asked_anew() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(Config::default(), &[&worker], 4).await;
    draws(&mesh, |_| {}).await;
    draws(&mesh, |r| r.prompt.push('!')).await;
    draws(&mesh, |r| r.negative_prompt = "fog".into()).await;
    draws(&mesh, |r| r.prompt_syntax = image::PromptSyntax::A1111.into()).await;
    draws(&mesh, |r| r.steps = Some(7)).await;
    // Without guidance the negative prompt is not seen.
    draws(&mesh, |r| r.guidance_scale = Some(1.0)).await;
    assert_eq!(asked(&mesh), 6);
    assert_ne!(worker.requests()[0].prompt, worker.requests()[1].prompt);
}

#[tokio::test]
async fn what_a_replica_said_goes_with_it() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(Config::default(), &[&worker], 4).await;
    draws(&mesh, |_| {}).await;
    mesh.reroute(|route| {
        for replica in route
            .replicas
            .iter_mut()
            .filter(|r| r.replica_id == "demo#preprocess")
        {
            replica.replica_id = "demo#newer".into();
        }
    });
    // The table is taken in some time after it was sent.
    crate::support::soon("the newer replica", async {
        while asked(&mesh) < 2 {
            draws(&mesh, |_| {}).await;
        }
    })
    .await;
    let last = mesh.prepared.texts.lock().unwrap().last().cloned().unwrap();
    assert_eq!(last.replica_id, "demo#newer");
}

#[tokio::test]
async fn nothing_is_kept_where_nothing_may_be() {
    let worker = Worker::start("a").await;
    let config = Config {
        max_kept_token_bytes: 0,
        ..Config::default()
    };
    let mesh = Mesh::start(config, &[&worker], 4).await;
    draws(&mesh, |_| {}).await;
    draws(&mesh, |_| {}).await;
    assert_eq!(asked(&mesh), 2);
}
