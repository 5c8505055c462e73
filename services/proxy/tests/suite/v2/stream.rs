//! `ModelStreamInfer`.

use std::sync::Arc;

use super::*;
use mobula_proto::{
    control::v1::ReportDemandRequest, image::v1::CancelRequest, oip::ModelStreamInferResponse,
};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// A stream that requests can be sent into.
async fn open(
    mesh: &Mesh,
) -> (
    mpsc::Sender<ModelInferRequest>,
    Streaming<ModelStreamInferResponse>,
) {
    let (send, requests) = mpsc::channel(16);
    let answers = client(mesh)
        .model_stream_infer(ReceiverStream::new(requests))
        .await
        .unwrap();
    (send, answers.into_inner())
}

async fn next(answers: &mut Streaming<ModelStreamInferResponse>) -> Option<ModelStreamInferResponse> {
    soon("an answer", answers.message()).await.unwrap()
}

fn with(mut request: ModelInferRequest, parameters: &[(&str, ParameterChoice)]) -> ModelInferRequest {
    let parameters = parameters.iter();
    request
        .parameters
        .extend(parameters.map(|(name, choice)| ((*name).to_owned(), parameter(choice.clone()))));
    request
}

fn is_final(answer: &ModelInferResponse) -> bool {
    says(answer, "triton_final_response") == Some(ParameterChoice::BoolParam(true))
}

#[tokio::test]
async fn what_is_wrong_with_one_request_is_an_answer_and_the_others_are_drawn() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let (send, mut answers) = open(&mesh).await;
    let mut unknown = ask("none", "a", 1);
    unknown.model_name = "other".into();
    let mut wrong = ask("wrong", "a", 1);
    wrong.inputs[1].shape = vec![7];
    for request in [ask("one", "a", 1), wrong, unknown, ask("two", "b", 2)] {
        send.send(request).await.unwrap();
    }
    drop(send);
    let mut told = std::collections::BTreeMap::new();
    while let Some(answer) = next(&mut answers).await {
        let response = answer.infer_response.unwrap();
        assert!(is_final(&response), "{response:?}");
        let image = (!response.outputs.is_empty()).then(|| elements(&output(&response, "image").1));
        assert!(
            told.insert(response.id.clone(), (answer.error_message, image))
                .is_none()
        );
    }
    assert_eq!(told["one"], (String::new(), Some(vec![picture(1)])));
    assert_eq!(told["two"], (String::new(), Some(vec![picture(2)])));
    assert!(told["wrong"].0.starts_with("seed: has 1 values"), "{told:?}");
    assert!(
        told["none"].0.starts_with("there is no model \"other\""),
        "{told:?}"
    );
}

#[tokio::test]
async fn who_asks_for_it_is_told_how_far_a_request_is() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let (send, mut answers) = open(&mesh).await;
    let yes = || ParameterChoice::BoolParam(true);
    let mut request = ask("r", "a", 1);
    request.inputs[1] = int64("seed", &[1, 2]);
    let request = with(
        request,
        &[
            ("progress", yes()),
            ("preview_interval", ParameterChoice::Int64Param(5)),
            ("triton_enable_empty_final_response", yes()),
        ],
    );
    send.send(request.clone()).await.unwrap();
    let mut kinds = Vec::new();
    let mut images = Vec::new();
    loop {
        let answer = next(&mut answers).await.unwrap();
        assert_eq!(answer.error_message, "");
        let response = answer.infer_response.unwrap();
        assert_eq!((&*response.id, &*response.model_name), ("r", "demo"));
        if let Some(ParameterChoice::StringParam(kind)) = says(&response, "event") {
            kinds.push(kind.clone());
            match kind.as_str() {
                "image" => images.push((
                    elements(&output(&response, "image").1),
                    output(&response, "seed").1,
                )),
                "preview" => assert_eq!(elements(&output(&response, "preview").1), [[1]]),
                _ => assert!(response.outputs.is_empty()),
            }
        }
        if is_final(&response) {
            assert!(response.outputs.is_empty() && says(&response, "total_us").is_some());
            break;
        }
    }
    assert_eq!(
        kinds,
        ["accepted", "started", "step", "preview", "image", "image"]
    );
    let seed = |seed: u64| (vec![picture(seed)], seed.to_le_bytes().to_vec());
    assert_eq!(images, [seed(1), seed(2)]);
    // Who does not ask for an empty end is told by the last picture.
    let mut decoupled = ask("d", "a", 1);
    decoupled.inputs[1] = int64("seed", &[1, 2]);
    send.send(with(decoupled, &[("decoupled", yes())])).await.unwrap();
    let first = next(&mut answers).await.unwrap().infer_response.unwrap();
    let last = next(&mut answers).await.unwrap().infer_response.unwrap();
    assert!(!is_final(&first) && is_final(&last));
    assert_eq!(elements(&output(&last, "image").1), [picture(2)]);
    assert!(says(&last, "total_us").is_some() && says(&first, "total_us").is_none());
    drop(send);
    assert!(next(&mut answers).await.is_none());
}

#[tokio::test]
async fn a_lost_request_is_an_error_with_its_id() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let (send, mut answers) = open(&mesh).await;
    worker.will(Act::Break(1, tonic::Status::internal("it broke")));
    let mut request = ask("r", "a", 1);
    request.inputs[1] = int64("seed", &[1, 2]);
    send.send(with(request, &[("decoupled", ParameterChoice::BoolParam(true))]))
        .await
        .unwrap();
    let mut answer = next(&mut answers).await.unwrap();
    if answer.error_message.is_empty() {
        answer = next(&mut answers).await.unwrap();
    }
    assert_eq!(answer.error_message, "it broke");
    let response = answer.infer_response.unwrap();
    assert!(response.id == "r" && is_final(&response));
    // The stream lives on.
    send.send(ask("next", "a", 3)).await.unwrap();
    let answer = next(&mut answers).await.unwrap().infer_response.unwrap();
    assert_eq!(elements(&output(&answer, "image").1), [picture(3)]);
}

#[tokio::test]
async fn so_many_requests_of_a_stream_run_at_a_time() {
    let mut worker = Worker::start("a").await;
    let config = Config {
        max_stream_requests: 2,
        ..config()
    };
    let mesh = Mesh::start(config, &[&worker], 8).await;
    let gates: Vec<_> = (0..3).map(|_| Arc::<Notify>::default()).collect();
    for gate in &gates {
        worker.will(Act::Gate(Arc::clone(gate)));
    }
    let (send, mut answers) = open(&mesh).await;
    for seed in 1..=3 {
        send.send(ask("", "a", seed)).await.unwrap();
    }
    for _ in 0..2 {
        soon("a call", worker.called.recv()).await.unwrap();
    }
    assert!(worker.called.try_recv().is_err(), "the third waits");
    gates[0].notify_one();
    assert!(next(&mut answers).await.is_some());
    soon("the third call", worker.called.recv()).await.unwrap();
    gates[1].notify_one();
    gates[2].notify_one();
    drop(send);
    assert!(next(&mut answers).await.is_some() && next(&mut answers).await.is_some());
    assert!(next(&mut answers).await.is_none());
}

#[tokio::test]
async fn a_stream_that_is_dropped_ends_its_requests() {
    let mut worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    worker.will(Act::Hang);
    let (send, answers) = open(&mesh).await;
    send.send(ask("", "a", 1)).await.unwrap();
    soon("the call", worker.called.recv()).await.unwrap();
    // A client that holds on to its requests does not let go of the stream.
    drop((answers, send));
    soon("the end", worker.dropped.recv()).await.unwrap();
}

fn encode() -> ModelInferRequest {
    let mut input = int64("input_ids", &[1, 2]);
    input.shape = vec![1, 2];
    ModelInferRequest {
        model_name: "demo.text_encoder".into(),
        inputs: vec![input],
        ..Default::default()
    }
}

#[tokio::test]
async fn a_replica_whose_stages_fail_again_and_again_is_left_out() {
    let (a, b) = (Worker::start("a").await, Worker::start("b").await);
    let mesh = Mesh::start(config(), &[&a, &b], 4).await;
    for _ in 0..5 {
        a.will(Act::Break(0, Status::internal("the model failed")));
    }
    for _ in 0..50 {
        b.will(Act::Break(0, Status::invalid_argument("not so")));
    }
    let mut broken = 0;
    while broken < 5 {
        // Those that `b` gets fail by what was asked of it, which is not its own fault.
        let failed = client(&mesh).model_infer(encode()).await.unwrap_err();
        let is_broken = failed.code() == Code::Internal;
        assert!(is_broken || failed.code() == Code::InvalidArgument, "{failed}");
        broken += u32::from(is_broken);
    }
    let out = |reports: &[ReportDemandRequest]| -> Vec<String> {
        let told = reports.last().map(|report| &report.restrained[..]);
        let out = told.unwrap_or_default().iter().filter(|told| told.ejected_ms > 0);
        out.map(|told| told.replica_id.clone()).collect()
    };
    let reports = mesh.reported("the ejection", |reports| !out(reports).is_empty());
    assert_eq!(out(&reports.await), ["demo#a"]);
}

#[tokio::test]
async fn a_call_of_a_stage_that_waits_at_deployments_others_take_the_place_of_goes_to_those() {
    let (mut a, b) = (Worker::start("a").await, Worker::start("b").await);
    let mesh = Mesh::start(config(), &[&a], 1).await;
    a.will(Act::Hang);
    let mut first = client(&mesh);
    let busy = tokio::spawn(async move { first.model_infer(encode()).await });
    soon("the call", a.called.recv()).await.unwrap();
    let mut second = client(&mesh);
    let waiting = tokio::spawn(async move { second.model_infer(encode()).await });
    mesh.reported("the wait", |reports| {
        let told = reports.last().into_iter().flat_map(|report| &report.demands);
        told.map(|demand| demand.queued).sum::<u32>() == 1
    })
    .await;
    b.will(Act::Break(0, Status::invalid_argument("b was asked")));
    let mut application = mesh.application("demo", crate::support::model(), &[&b], (1, -1));
    application.deployments[1].name = "other".into();
    mesh.change(|table| table.applications = vec![application]);
    let answered = soon("the answer", waiting).await.unwrap().unwrap_err();
    assert_eq!(
        (answered.code(), answered.message()),
        (Code::InvalidArgument, "b was asked")
    );
    busy.abort();
}

#[tokio::test]
async fn a_call_of_a_stage_that_waited_for_a_first_replica_keeps_the_place_that_it_was_let_in_for() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::bare(config()).await;
    let expected = |queued| {
        let mut application = mesh.application("demo", crate::support::model(), &[], (1, queued));
        application.deployments[1].expected = true;
        mesh.change(|table| {
            table.controller_id = "controller".into();
            table.applications = vec![application];
        });
    };
    expected(1);
    soon("the route", async {
        while !crate::support::get(mesh.http, "/-/routes")
            .await
            .text()
            .contains("demo")
        {}
    })
    .await;
    let mut client = client(&mesh);
    let waiting = tokio::spawn(async move { client.model_infer(encode()).await });
    mesh.reported("the wait", |reports| {
        let told = reports.last().into_iter().flat_map(|report| &report.demands);
        told.map(|demand| demand.queued).sum::<u32>() > 0
    })
    .await;
    // One request is what the replica takes, and nobody may wait: it is that one.
    worker.will(Act::Break(0, Status::invalid_argument("it was asked")));
    mesh.publish(&[&worker], 1, 0);
    let answered = soon("the answer", waiting).await.unwrap().unwrap_err();
    assert_eq!(answered.message(), "it was asked");
}

#[tokio::test]
async fn a_call_of_a_stage_is_a_request_that_its_id_ends() {
    let mut worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let named = || {
        let mut request = Request::new(encode());
        request
            .metadata_mut()
            .insert("x-request-id", "mine".parse().unwrap());
        request
    };
    worker.will(Act::Hang);
    let mut first = client(&mesh);
    let running = tokio::spawn(async move { first.model_infer(named()).await });
    soon("the call", worker.called.recv()).await.unwrap();
    let taken = client(&mesh).model_infer(named()).await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists);
    let cancel = || CancelRequest {
        request_id: "mine".into(),
    };
    mesh.client.clone().cancel(cancel()).await.unwrap();
    let ended = soon("the end", running).await.unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::Cancelled);
    soon("the end at the worker", worker.dropped.recv())
        .await
        .unwrap();
    let again = mesh.client.clone().cancel(cancel()).await.unwrap_err();
    assert_eq!(again.code(), Code::NotFound);
}
