//! No request fails because a part of the mesh dies: replicas, workers and the controller are killed under load, in one
//! process, with the fake engine.

use mobula_e2e::{Load, Mesh, draw, prompt, until};
use mobula_proto::image::v1::GenerateRequest;
use mobula_proto::image::v1::generate_response::Event;

/// Makes a request of 20 steps take 40 ms: short enough for hundreds in a test, long enough to be caught half-way.
const STEP_US: u64 = 2_000;
/// Makes a request of 20 steps take 1 s.
const SLOW_STEP_US: u64 = 50_000;
const CALLERS: usize = 8;

fn numbered(n: usize) -> GenerateRequest {
    GenerateRequest {
        steps: Some(20),
        ..prompt("a picture under load", n as u64)
    }
}

#[tokio::test]
async fn a_replica_that_dies_under_load_costs_no_request() -> anyhow::Result<()> {
    let mut mesh = Mesh::builder().inference(2).step_us(STEP_US).start().await?;
    let load = Load::start(&mesh.client(), CALLERS, numbered);
    load.more(CALLERS * 4).await?;
    mesh.kill_inference();
    load.more(CALLERS * 4).await?;
    mesh.add_inference().await?;
    mesh.ready(2).await?;
    load.more(CALLERS * 4).await?;
    let report = load.finish().await;
    assert!(report.failures.is_empty() && report.cut == 0, "{report:?}");
    assert!(
        report.restarted > 0,
        "nothing was under way on the killed replica: {report:?}"
    );
    mesh.stop().await
}

#[tokio::test]
async fn requests_of_the_only_replica_wait_for_the_next_one_and_keep_their_seed() -> anyhow::Result<()> {
    let mut mesh = Mesh::builder().step_us(SLOW_STEP_US).start().await?;
    let request = || GenerateRequest {
        steps: Some(20),
        ..prompt("a red circle", 11)
    };
    let before = draw(&mesh.client(), request()).await?;

    let mut events = mesh.client().generate(request()).await?.into_inner();
    let (mut restarts, mut png) = (0, None);
    let mut killed = false;
    while let Some(message) = events.message().await? {
        match message.event {
            Some(Event::Step(step)) if step.index == 3 && !killed => {
                killed = true;
                mesh.kill_inference();
                mesh.add_inference().await?;
            }
            Some(Event::Restarted(restarted)) => {
                restarts += 1;
                assert!(!restarted.reason.is_empty());
            }
            Some(Event::Image(image)) => png = Some(image.data),
            _ => {}
        }
    }
    assert!(killed);
    assert_eq!(restarts, 1);
    assert_eq!(
        png.as_ref(),
        Some(&before.picture()?.png),
        "the same picture as without the death"
    );
    mesh.stop().await
}

#[tokio::test]
async fn a_preprocess_worker_that_dies_under_load_costs_no_request() -> anyhow::Result<()> {
    let mut mesh = Mesh::builder().preprocess(2).step_us(STEP_US).start().await?;
    let load = Load::start(&mesh.client(), CALLERS, numbered);
    load.more(CALLERS * 2).await?;
    mesh.kill_preprocess();
    load.more(CALLERS * 2).await?;
    mesh.add_preprocess().await?;
    load.more(CALLERS * 2).await?;
    let report = load.finish().await;
    assert!(report.failures.is_empty() && report.cut == 0, "{report:?}");
    mesh.stop().await
}

#[tokio::test]
async fn a_mesh_draws_on_without_its_controller_and_the_next_one_adopts_every_replica() -> anyhow::Result<()>
{
    let mut mesh = Mesh::builder().inference(2).step_us(STEP_US).start().await?;
    let before = mesh.running().await?;
    assert_eq!(before.len(), 3, "one preprocess, two pipelines: {before:?}");
    let load = Load::start(&mesh.client(), CALLERS, numbered);
    load.more(CALLERS).await?;
    mesh.kill_controller();
    load.more(CALLERS * 8).await?;
    mesh.start_controller().await?;
    let after = until("the old replicas at the new controller", || async {
        mesh.running().await.ok().filter(|running| running.len() == 3)
    });
    assert_eq!(after.await?, before, "nothing was moved");
    load.more(CALLERS * 4).await?;
    let report = load.finish().await;
    assert!(
        report.failures.is_empty() && report.cut == 0 && report.restarted == 0,
        "{report:?}"
    );
    mesh.stop().await
}

#[tokio::test]
async fn a_worker_that_comes_while_the_controller_is_away_is_used_once_it_is_back() -> anyhow::Result<()> {
    let mut mesh = Mesh::builder().step_us(STEP_US).start().await?;
    mesh.kill_controller();
    mesh.kill_inference();
    mesh.add_inference().await?;
    let waiting = tokio::spawn({
        let client = mesh.client();
        async move { draw(&client, prompt("a patient caller", 3)).await }
    });
    mesh.start_controller().await?;
    waiting.await??.picture()?;
    mesh.stop().await
}
