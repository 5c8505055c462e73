//! Models that a replica loads when a request names them.

use mobula_kit::worker::{ReplicaSpec, ReplicaState};
use mobula_proto::inference::v1::LoadModelRequest;
use tonic::Code;

use crate::support::{Worker, fake_request, spec};

/// A replica of the fake engine with three models on demand, of which it holds two.
async fn worker() -> Worker {
    let worker = Worker::start(mobula_inference::Config::default()).await;
    let models = ["cats", "dogs", "fish"].map(|id| (id.to_owned(), "fake".to_owned()));
    let spec = ReplicaSpec {
        models: models.into(),
        max_models: 2,
        ..spec("r", "fake", "fake", &[("base_us", "2000")])
    };
    let report = worker.assign(spec).await;
    assert_eq!(report.state(), ReplicaState::Running, "{}", report.message);
    worker
}

fn held(worker: &Worker) -> Vec<String> {
    let report = worker.replicas.reports().remove(0);
    report.models.into_iter().map(|model| model.model_id).collect()
}

#[tokio::test]
async fn a_model_is_loaded_when_a_request_names_it_and_the_least_recently_used_leaves() {
    let worker = worker().await;
    assert!(held(&worker).is_empty());
    for id in ["cats", "dogs", "cats", "fish"] {
        let mut request = fake_request(&[1], 4);
        request.model_id = id.to_owned();
        let drawn = worker.draw(request).await.unwrap();
        assert_eq!(drawn.images().len(), 1);
    }
    assert_eq!(held(&worker), ["cats", "fish"]);
    // Its own model serves on.
    worker.draw(fake_request(&[1], 4)).await.unwrap();
}

#[tokio::test]
async fn loading_can_be_asked_for_and_says_what_the_model_is() {
    let worker = worker().await;
    let ask = |id: &str| LoadModelRequest {
        replica_id: "r".to_owned(),
        model_id: id.to_owned(),
    };
    let mut client = worker.client.clone();
    let first = client.load_model(ask("cats")).await.unwrap().into_inner();
    assert!(first.was_loaded);
    assert_eq!(first.model.unwrap().pipeline_class, "Fake");
    let again = client.load_model(ask("cats")).await.unwrap().into_inner();
    assert!(!again.was_loaded);
    let own = client.load_model(ask("")).await.unwrap().into_inner();
    assert!(!own.was_loaded && own.model.is_some());
}

#[tokio::test]
async fn those_who_ask_for_a_model_at_the_same_time_share_the_load() {
    let worker = worker().await;
    let ask = || {
        let mut client = worker.client.clone();
        async move {
            let request = LoadModelRequest {
                replica_id: "r".to_owned(),
                model_id: "dogs".to_owned(),
            };
            client.load_model(request).await.unwrap().into_inner().was_loaded
        }
    };
    let loads = futures::future::join_all((0..8).map(|_| ask())).await;
    assert_eq!(loads.into_iter().filter(|loaded| *loaded).count(), 1);
}

#[tokio::test]
async fn models_in_use_stay_and_an_unknown_one_is_named_with_those_there_are() {
    let worker = worker().await;
    let mut streams = Vec::new();
    for id in ["cats", "dogs"] {
        let mut request = fake_request(&[1], 200);
        request.model_id = id.to_owned();
        let mut stream = worker.open(request).await.unwrap();
        stream.message().await.unwrap();
        streams.push(stream);
    }
    let mut third = fake_request(&[1], 4);
    third.model_id = "fish".to_owned();
    let status = worker.draw(third.clone()).await.err().unwrap();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    drop(streams);
    let mut unknown = fake_request(&[1], 4);
    unknown.model_id = "birds".to_owned();
    let status = worker.draw(unknown).await.err().unwrap();
    assert_eq!(status.code(), Code::InvalidArgument);
    let violations = mobula_kit::status::violations(&status);
    assert_eq!(violations[0].0, "model_id");
    assert!(violations[0].1.contains("cats, dogs, fish"), "{violations:?}");
}
