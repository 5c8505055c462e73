//! Deployments of an application that others take the place of: requests that wait there go to the others, and what was
//! drawn there is finished.

use std::sync::Arc;

use crate::support::{Act, Mesh, Worker, images, names, prompt, soon};
use mobula_proto::control::v1::{ApplicationRoute, DeploymentRoute};
use mobula_proto::image::v1::{ListModelsRequest, generate_response::Event};
use mobula_proxy::Config;
use tokio::sync::Notify;
use tonic::Status;

/// The deployment that draws, under this name.
fn drawing(mut application: ApplicationRoute, name: &str) -> DeploymentRoute {
    let mut deployment = application.deployments.remove(1);
    deployment.name = name.into();
    deployment
}

/// Has deployments draw, the first before the others.
fn serve(mesh: &Mesh, drawing: Vec<DeploymentRoute>) {
    mesh.change(|table| {
        let deployments = &mut table.applications[0].deployments;
        deployments.truncate(1);
        deployments.extend(drawing);
    });
}

#[tokio::test]
async fn requests_that_wait_go_to_the_deployment_that_takes_the_place_and_those_that_draw_are_finished() {
    let (a, b) = (Worker::start("a").await, Worker::start("b").await);
    let mesh = Mesh::start(Config::default(), &[&a], 1).await;
    let of = |workers: &[&Worker], name: &str| {
        let application = mesh.application("demo", crate::support::model(), workers, (1, -1));
        drawing(application, name)
    };
    let opens = Arc::<Notify>::default();
    a.will(Act::Gate(Arc::clone(&opens)));
    let mut running = mesh.generate(prompt(|_| ())).await;
    running.started().await;
    let mut waiting = mesh.generate(prompt(|asked| asked.seeds = vec![7])).await;
    waiting.next().await.unwrap();
    // Both are there: the new one takes who comes, the old one has the line that it had.
    serve(&mesh, vec![of(&[&b], "whole"), of(&[&a], "pipeline")]);
    soon("a request on the new one", async {
        while b.requests().is_empty() {
            mesh.all(prompt(|_| ())).await.unwrap();
        }
    })
    .await;
    let before = b.requests().len();
    serve(&mesh, vec![of(&[&b], "whole")]);
    let mut events = Vec::new();
    while let Some(event) = soon("the one that waited", waiting.next()).await.unwrap() {
        events.push(event);
    }
    events.retain(|event| !matches!(event, Event::Waiting(_)));
    assert_eq!(names(&events), ["started", "step", "image", "done"]);
    assert_eq!(images(&events)[0].seed, 7);
    assert_eq!(b.requests().len(), before + 1);
    for _ in 0..4 {
        opens.notify_one();
    }
    let mut events = Vec::new();
    while let Some(event) = running.next().await.unwrap() {
        events.push(event);
    }
    assert_eq!(names(&events), ["step", "image", "done"], "it was not cut");
    let models = mesh.client.clone().list_models(ListModelsRequest {}).await;
    assert_eq!(models.unwrap().into_inner().models[0].ready_replicas, 1);
}

#[tokio::test]
async fn a_request_that_loses_the_last_replica_of_the_old_deployment_is_drawn_by_the_new_one_but_for_what_came()
 {
    let (a, b) = (Worker::start("a").await, Worker::start("b").await);
    let mesh = Mesh::start(Config::default(), &[&a], 1).await;
    let application = mesh.application("demo", crate::support::model(), &[&b], (1, -1));
    let new = drawing(application, "whole");
    a.will(Act::Break(1, Status::unavailable("lost")));
    a.will(Act::Gate(Arc::default()));
    let mut running = mesh.generate(prompt(|asked| asked.seeds = vec![1, 2])).await;
    let mut events = Vec::new();
    while !names(&events).ends_with(&["restarted", "started", "step"]) {
        events.extend(soon("the second try", running.next()).await.unwrap());
    }
    serve(&mesh, vec![new]);
    soon("the new table", async {
        while b.requests().is_empty() {
            mesh.all(prompt(|_| ())).await.unwrap();
        }
    })
    .await;
    a.server.kill().await;
    while let Some(event) = soon("the rest", running.next()).await.unwrap() {
        events.push(event);
    }
    let seeds: Vec<u64> = images(&events).iter().map(|image| image.seed).collect();
    assert_eq!(seeds, [1, 2], "{:?}", names(&events));
    assert_eq!(
        names(&events).iter().filter(|name| **name == "restarted").count(),
        2
    );
    assert_eq!(b.requests().last().unwrap().skip_images, [0]);
}
