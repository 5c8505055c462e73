//! Models that replicas load on demand: how they are named, found, described, and where they are drawn.

use crate::support::{Act, Mesh, Worker, call, get, images, model, picture, prompt, soon};
use mobula_kit::status;
use mobula_proto::{
    control::v1::{DeploymentRoute, HeldModel, ModelInfo},
    image::v1::{self as image, GetModelRequest, ListModelsRequest, generate_response::Event},
};
use mobula_proxy::Config;
use tonic::{Code, Request, Status};

fn config() -> Config {
    Config {
        no_replica_timeout_s: 0.2,
        ..Config::default()
    }
}

/// A larger model than the replicas' own.
fn xl() -> ModelInfo {
    ModelInfo {
        digest: "ef".repeat(32),
        default_width: 256,
        default_height: 256,
        default_steps: 30,
        ..model()
    }
}

/// Workers that serve these models besides their own.
fn serve(workers: &[&Worker], ids: &[&str]) {
    for worker in workers {
        let models = ids.iter().map(|id| ((*id).to_owned(), xl()));
        worker.models.lock().unwrap().extend(models);
    }
}

/// The table says that the pipeline serves these models, and which replicas hold which.
fn tell(mesh: &Mesh, ids: &[&str], held: &[(&str, &str)]) {
    mesh.reroute(|deployment: &mut DeploymentRoute| {
        if deployment.name != "pipeline" {
            return;
        }
        deployment.models = ids.iter().map(|id| (*id).to_owned()).collect();
        for replica in &mut deployment.replicas {
            let here = held
                .iter()
                .filter(|(name, _)| replica.replica_id == format!("demo#{name}"));
            replica.models = here
                .map(|(_, id)| HeldModel {
                    model_id: (*id).to_owned(),
                    info: Some(xl()),
                })
                .collect();
        }
    });
}

/// Waits until the proxy knows of so many models.
async fn knows(mesh: &Mesh, count: usize) -> Vec<image::Model> {
    soon("the models", async {
        loop {
            let models = mesh.client.clone().list_models(ListModelsRequest {}).await;
            let models = models.unwrap().into_inner().models;
            if models.len() == count {
                return models;
            }
        }
    })
    .await
}

async fn mesh(workers: &[&Worker]) -> Mesh {
    let mesh = Mesh::start(config(), workers, 4).await;
    serve(workers, &["xl", "anime"]);
    tell(&mesh, &["anime", "xl"], &[]);
    knows(&mesh, 3).await;
    mesh
}

#[tokio::test]
async fn a_model_that_nobody_has_held_is_loaded_once_and_drawn_by_what_it_is() {
    let worker = Worker::start("a").await;
    let mesh = mesh(&[&worker]).await;
    let requests = (0..4).map(|seed| {
        mesh.all(prompt(move |r| {
            r.model_id = "xl".into();
            r.seeds = vec![seed];
        }))
    });
    for events in futures::future::join_all(requests).await {
        let events = events.unwrap();
        let Some(Event::Done(done)) = events.last() else {
            panic!("{events:?}")
        };
        let parameters = done.parameters.as_ref().unwrap();
        assert_eq!(
            (parameters.model.as_str(), parameters.model_id.as_str()),
            ("demo", "xl")
        );
        assert_eq!(
            (parameters.width, parameters.steps),
            (256, 30),
            "its own defaults"
        );
    }
    assert_eq!(*worker.loads.lock().unwrap(), ["xl"], "once for all");
    assert!(
        worker
            .requests()
            .iter()
            .all(|r| r.model_id == "xl" && r.width == 256)
    );
    let texts = mesh.prepared.texts.lock().unwrap().clone();
    assert!(texts.iter().all(|request| request.model_id == "xl"));
    let chunks = &worker.requests()[0].text_chunks;
    let name = chunks.iter().find(|chunk| chunk.keyword == "mobula-model");
    assert_eq!(name.unwrap().text, "xl");
}

#[tokio::test]
async fn rays_metadata_and_header_name_the_model() {
    let worker = Worker::start("a").await;
    let mesh = mesh(&[&worker]).await;
    let mut request = Request::new(prompt(|_| ()));
    let xl = "xl".parse().unwrap();
    request.metadata_mut().insert("multiplexed_model_id", xl);
    let mut events = mesh.generate(request).await;
    while events.next().await.unwrap().is_some() {}
    for header in ["serve_multiplexed_model_id", "serve-multiplexed-model-id"] {
        let request = format!(
            "GET /imagine?prompt=cat&seed=3 HTTP/1.1\r\nhost: m\r\n{header}: anime\r\nconnection: close\r\n\r\n"
        );
        let answer = call(mesh.http, &request).await;
        assert_eq!((answer.status, answer.body.clone()), (200, picture(3)));
        assert_eq!(answer.header("x-mobula-model-id"), "anime");
    }
    assert_eq!(get(mesh.http, "/imagine?prompt=cat").await.status, 200);
    let asked: Vec<_> = worker.requests().into_iter().map(|r| r.model_id).collect();
    assert_eq!(
        asked,
        ["xl", "anime", "anime", ""],
        "the replica's own model has no id"
    );
}

#[tokio::test]
async fn a_model_that_is_not_there_is_refused_with_those_that_are() {
    let worker = Worker::start("a").await;
    let mesh = mesh(&[&worker]).await;
    let status = mesh
        .all(prompt(|r| r.model_id = "nope".into()))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(
        status.message(),
        "demo serves no model \"nope\"; there are: anime, xl"
    );
    assert_eq!(status::reason(&status).as_deref(), Some("UNKNOWN_MODEL"));
    let request = "GET /imagine?prompt=cat HTTP/1.1\r\nhost: m\r\nserve_multiplexed_model_id: nope\r\nconnection: close\r\n\r\n";
    let answer = call(mesh.http, request).await;
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("anime, xl"), "{}", answer.text());
    tell(&mesh, &[], &[]);
    knows(&mesh, 1).await;
    let status = mesh.all(prompt(|r| r.model_id = "xl".into())).await.unwrap_err();
    assert_eq!(status.message(), "demo serves no model \"xl\"; there are: none");
    assert!(worker.requests().is_empty() && worker.loads.lock().unwrap().is_empty());
}

#[tokio::test]
async fn whoever_holds_the_model_draws_it() {
    let (a, b) = (Worker::start("a").await, Worker::start("b").await);
    let mesh = mesh(&[&a, &b]).await;
    tell(&mesh, &["anime", "xl"], &[("b", "xl")]);
    soon("who holds it", async {
        loop {
            let model = GetModelRequest {
                model_id: "xl".into(),
                ..Default::default()
            };
            let model = mesh
                .client
                .clone()
                .get_model(model)
                .await
                .unwrap()
                .into_inner()
                .model;
            if model.is_some_and(|model| model.ready_replicas == 1) {
                return;
            }
        }
    })
    .await;
    for _ in 0..10 {
        mesh.all(prompt(|r| r.model_id = "xl".into())).await.unwrap();
    }
    assert_eq!((a.requests().len(), b.requests().len()), (0, 10));
    assert!(b.loads.lock().unwrap().is_empty(), "it was known what it is");
    // Nobody holds the other one: it goes where fewest are.
    mesh.all(prompt(|r| r.model_id = "anime".into())).await.unwrap();
    assert_eq!((a.requests().len(), b.requests().len()), (1, 10));
}

#[tokio::test]
async fn models_on_demand_are_listed_behind_their_application() {
    let worker = Worker::start("a").await;
    let mesh = mesh(&[&worker]).await;
    mesh.all(prompt(|r| r.model_id = "xl".into())).await.unwrap();
    let models = knows(&mesh, 3).await;
    let told: Vec<_> = models
        .iter()
        .map(|m| (m.name.as_str(), m.model_id.as_str(), m.default_width))
        .collect();
    // What was never held is a name and nothing more.
    assert_eq!(
        told,
        [("demo", "", 128), ("demo", "anime", 0), ("demo", "xl", 256)]
    );
    let unknown = GetModelRequest {
        model_id: "nope".into(),
        ..Default::default()
    };
    let status = mesh.client.clone().get_model(unknown).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn a_replica_that_does_not_have_the_model_yet_is_passed_over() {
    let (old, new) = (Worker::start("old").await, Worker::start("new").await);
    let mesh = Mesh::start(config(), &[&old, &new], 4).await;
    serve(&[&new], &["xl"]);
    tell(&mesh, &["xl"], &[]);
    knows(&mesh, 2).await;
    for _ in 0..10 {
        mesh.all(prompt(|r| r.model_id = "xl".into())).await.unwrap();
    }
    assert_eq!(new.requests().len(), 10);
    assert!(old.requests().len() <= 1, "it is asked once");
    // With that one gone nobody has it, whoever else is there.
    mesh.publish(&[&old], 4, -1);
    tell(&mesh, &["xl"], &[]);
    soon("its end", async {
        while mesh.all(prompt(|r| r.model_id = "xl".into())).await.is_ok() {}
    })
    .await;
    let status = mesh.all(prompt(|r| r.model_id = "xl".into())).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    mesh.all(prompt(|_| ())).await.unwrap();
}

#[tokio::test]
async fn a_model_that_cannot_be_loaded_is_the_models_fault_and_tried_again_later() {
    let worker = Worker::start("a").await;
    let mesh = mesh(&[&worker]).await;
    let why = Status::internal("xl cannot be loaded: unet/model.onnx is broken");
    *worker.broken.lock().unwrap() = Some(why);
    let status = mesh.all(prompt(|r| r.model_id = "xl".into())).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Internal, "xl cannot be loaded: unet/model.onnx is broken")
    );
    let events = mesh.all(prompt(|r| r.model_id = "xl".into())).await.unwrap();
    assert_eq!(images(&events).len(), 1);
}

/// Has another deployment serve the application, with a line of no length, that nobody has told of its models.
fn hand_over(mesh: &Mesh, workers: &[&Worker], ids: &[&str]) {
    serve(workers, ids);
    let mut application = mesh.application("demo", model(), workers, (1, 0));
    application.deployments[1].name = "other".into();
    application.deployments[1].models = ids.iter().map(|id| (*id).to_owned()).collect();
    mesh.change(|table| table.applications = vec![application]);
}

#[tokio::test]
async fn accepted_requests_go_to_deployments_that_know_nothing_of_their_model_yet_and_let_nobody_wait() {
    let (a, b) = (Worker::start("a").await, Worker::start("b").await);
    let mesh = Mesh::start(config(), &[&a], 1).await;
    serve(&[&a], &["xl"]);
    tell(&mesh, &["xl"], &[("a", "xl")]);
    knows(&mesh, 2).await;
    let ask = |seed| {
        prompt(move |r| {
            r.model_id = "xl".into();
            r.seeds = vec![seed];
        })
    };
    a.will(Act::Hang);
    let mut running = mesh.generate(ask(0)).await;
    running.started().await;
    let mut waiting = Vec::new();
    for seed in 1..5 {
        let mut events = mesh.generate(ask(seed)).await;
        assert!(matches!(events.next().await.unwrap(), Some(Event::Accepted(_))));
        waiting.push(events);
    }
    hand_over(&mesh, &[&b], &["xl"]);
    for (seed, mut events) in (1..).zip(waiting) {
        let mut seen = Vec::new();
        while let Some(event) = events.next().await.unwrap() {
            seen.push(event);
        }
        assert_eq!(images(&seen)[0].seed, seed);
    }
    assert_eq!(*b.loads.lock().unwrap(), ["xl"]);
}

#[tokio::test]
async fn who_waits_for_a_model_to_be_loaded_looks_for_it_where_its_application_is_served_then() {
    let (a, b) = (Worker::start("a").await, Worker::start("b").await);
    let mesh = mesh(&[&a]).await;
    mesh.reroute(|deployment| {
        if deployment.name == "pipeline" {
            deployment.replicas.clear();
            deployment.expected = true;
        }
    });
    mesh.has_replicas(0).await;
    let meanwhile = async {
        mesh.reported("the wait", |reports| {
            let told = reports.last().into_iter().flat_map(|report| &report.demands);
            told.map(|demand| demand.queued).sum::<u32>() > 0
        })
        .await;
        hand_over(&mesh, &[&b], &["xl"]);
    };
    let (seen, ()) = tokio::join!(mesh.all(prompt(|r| r.model_id = "xl".into())), meanwhile);
    assert_eq!(images(&seen.unwrap()).len(), 1);
    assert_eq!(*b.loads.lock().unwrap(), ["xl"]);
}
