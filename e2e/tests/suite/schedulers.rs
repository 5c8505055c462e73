//! Schedulers have names at the proxy's door and in the replicas, which share no code: what replicas list, the proxy must
//! read, reckon right and pass on.

use std::collections::BTreeSet;

use futures::stream::{self, StreamExt, TryStreamExt};
use mobula_e2e::{Mesh, draw, prompt};
use mobula_proto::image::v1::{GenerateRequest, GetModelRequest, Model};
use mobula_proxy::calls_per_step;

/// Few enough to be fast, and enough for a solver of third order.
const STEPS: u32 = 4;
/// Requests at a time.
const TOGETHER: usize = 16;

fn request(scheduler: &str, sigma_schedule: &str) -> GenerateRequest {
    GenerateRequest {
        scheduler: scheduler.into(),
        sigma_schedule: sigma_schedule.into(),
        steps: Some(STEPS),
        ..prompt("a red circle", 5)
    }
}

async fn model(mesh: &Mesh) -> anyhow::Result<Model> {
    let answer = mesh.client().get_model(GetModelRequest::default()).await?;
    Ok(answer.into_inner().model.unwrap_or_default())
}

#[tokio::test]
async fn every_scheduler_that_a_replica_lists_is_drawn_with_as_many_calls_as_the_proxy_reckons()
-> anyhow::Result<()> {
    let mesh = Mesh::builder().start().await?;
    let (client, model) = (mesh.client(), model(&mesh).await?);
    let calls: BTreeSet<u32> = stream::iter(&model.schedulers)
        .map(|name| {
            let client = &client;
            async move {
                let mut took = [0; 2];
                for (took, steps) in took.iter_mut().zip([STEPS, 2 * STEPS]) {
                    let request = GenerateRequest {
                        steps: Some(steps),
                        ..request(name, "")
                    };
                    let drawn = draw(client, request).await;
                    let drawn = drawn.map_err(|status| anyhow::anyhow!("{name}: {status:?}"))?;
                    drawn.picture()?;
                    let told = drawn.parameters.unwrap_or_default();
                    assert_eq!(told.scheduler, *name, "a listed name is the mesh's own");
                    assert_eq!(drawn.step, (steps, steps), "{name}");
                    *took = drawn.calls;
                }
                // What a scheduler does once, as PNDM's warm-up or a last step of one call, is no matter.
                let each = (took[1] - took[0]) / STEPS;
                assert_eq!(calls_per_step(name), Some(each), "{name}: {took:?} calls");
                anyhow::Ok(each)
            }
        })
        .buffer_unordered(TOGETHER)
        .try_collect()
        .await?;
    assert_eq!(Vec::from_iter(calls), [1, 2], "both kinds are listed");
    mesh.stop().await
}

#[tokio::test]
async fn every_schedule_that_a_replica_lists_is_drawn_beside_its_scheduler() -> anyhow::Result<()> {
    let mesh = Mesh::builder().start().await?;
    let model = model(&mesh).await?;
    assert!(model.sigma_schedules.len() > 1, "{:?}", model.sigma_schedules);
    for schedule in &model.sigma_schedules {
        let mut bases = model
            .schedulers
            .iter()
            .filter_map(|name| name.strip_suffix(schedule)?.strip_suffix('_'));
        let base = bases
            .find(|base| model.schedulers.iter().any(|name| name == base))
            .ok_or_else(|| anyhow::anyhow!("{schedule} goes with no scheduler"))?;
        let drawn = draw(&mesh.client(), request(base, schedule))
            .await
            .map_err(|status| anyhow::anyhow!("{base} with {schedule}: {status:?}"))?;
        let told = drawn.parameters.clone().unwrap_or_default();
        assert_eq!((&*told.scheduler, &told.sigma_schedule), (base, schedule));
        drawn.picture()?;
    }
    mesh.stop().await
}
