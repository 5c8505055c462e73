//! Callers who stay and do not read.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use mobula_kit::metrics;
use mobula_proto::{
    image::v1::{generate_response::Event, image_service_client::ImageServiceClient},
    oip::{
        InferParameter, ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
        infer_parameter::ParameterChoice,
    },
};
use mobula_proxy::Config;
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, transport::Channel};

use crate::{
    support::{Act, Mesh, Worker, images, prompt, soon},
    v2::ask,
};

/// Bytes of a large preview.
const PREVIEW: usize = 256 << 10;
/// Bytes that may be on the way to one reader who does not read: the windows of both hops and what transports buffer.
const ON_THE_WAY: usize = 24 << 20;
/// Callers who do not read.
const READERS: usize = 8;

/// A connection of its own, as callers have.
fn channel(mesh: &Mesh) -> Channel {
    mobula_kit::channel::lazy(&mesh.grpc.to_string()).unwrap()
}

/// Where previews are counted that are poured out for a request.
type Sent = Arc<AtomicUsize>;

/// Others are served while all is sent that can be sent without a reader, and that is so much at the most.
async fn others_are_served(mesh: &Mesh, sent: &[Sent]) {
    let all = || {
        let each = sent.iter().map(|sent| sent.load(Ordering::Relaxed));
        each.sum::<usize>()
    };
    // It is all on its way when nothing moves any more.
    let still = async {
        let mut before = usize::MAX;
        while before != all() {
            before = all();
            for _ in 0..20 {
                // By the same worker and over the same connection.
                let events = mesh.all(prompt(|r| r.seeds = vec![1])).await.unwrap();
                assert_eq!(images(&events).len(), 1);
            }
        }
    };
    soon("the end of what is sent", still).await;
    for sent in sent {
        let bytes = sent.load(Ordering::Relaxed) * PREVIEW;
        assert!(bytes > 0 && bytes <= ON_THE_WAY, "{bytes} bytes");
    }
}

#[tokio::test]
async fn callers_who_do_not_read_cost_bounded_memory_and_slow_nobody() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(Config::default(), &[&worker], 100).await;
    let sent: Vec<_> = (0..READERS).map(|_| Sent::default()).collect();
    let mut unread = Vec::new();
    for sent in &sent {
        worker.will(Act::Pour(PREVIEW, Arc::clone(sent)));
        let mut client = ImageServiceClient::new(channel(&mesh));
        let request = prompt(|r| r.preview_interval = 1);
        let mut events = client.generate(request).await.unwrap().into_inner();
        let previewed = async {
            loop {
                let event = events.message().await.unwrap().unwrap().event;
                if matches!(event, Some(Event::Preview(_))) {
                    return;
                }
            }
        };
        soon("a preview", previewed).await;
        unread.push((client, events));
    }
    others_are_served(&mesh, &sent).await;
    drop(unread);
}

/// A request of the Open Inference Protocol that wants a preview after every step.
fn previewed(id: &str) -> ModelInferRequest {
    let mut request = ask(id, "a red circle", 1);
    let interval = InferParameter {
        parameter_choice: Some(ParameterChoice::Int64Param(1)),
    };
    request.parameters.insert("preview_interval".into(), interval);
    request
}

#[tokio::test]
async fn streams_of_requests_that_nobody_reads_cost_bounded_memory_and_slow_nobody() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(Config::default(), &[&worker], 100).await;
    let sent: Vec<_> = (0..READERS).map(|_| Sent::default()).collect();
    let mut unread = Vec::new();
    for sent in &sent {
        worker.will(Act::Pour(PREVIEW, Arc::clone(sent)));
        let (send, requests) = mpsc::channel(100);
        let mut client = GrpcInferenceServiceClient::new(channel(&mesh));
        send.send(previewed("poured")).await.unwrap();
        let answers = client.model_stream_infer(ReceiverStream::new(requests)).await;
        let mut answers = answers.unwrap().into_inner();
        let answer = soon("a preview", answers.message()).await.unwrap().unwrap();
        let outputs = answer.infer_response.unwrap().outputs;
        assert_eq!(outputs[0].name, "preview", "{}", answer.error_message);
        unread.push((client, send, answers));
    }
    others_are_served(&mesh, &sent).await;
    // What a stream asks for beyond that is not even begun.
    let before = worker.requests().len();
    for (_, send, _) in &unread {
        for nth in 0..64 {
            send.send(previewed(&nth.to_string())).await.unwrap();
        }
    }
    let begun: usize = others_begun(&mesh, &worker, before).await;
    assert_eq!(begun, 0, "nobody reads the answers");
    drop(unread);
}

/// Requests that the worker was asked for since then, beside those that this makes to let time pass.
async fn others_begun(mesh: &Mesh, worker: &Worker, before: usize) -> usize {
    const MADE: usize = 40;
    for _ in 0..MADE {
        let events = mesh.all(prompt(|r| r.seeds = vec![1])).await.unwrap();
        assert_eq!(images(&events).len(), 1);
    }
    worker.requests().len() - before - MADE
}

#[tokio::test]
async fn a_caller_who_never_reads_is_let_go_of_in_the_end_and_its_place_is_free() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(Config::default(), &[&worker], 1).await;
    worker.will(Act::Pour(PREVIEW, Arc::default()));
    let channel = mobula_kit::channel::lazy(&mesh.grpc.to_string()).unwrap();
    let mut client = ImageServiceClient::new(channel);
    let request = prompt(|r| r.preview_interval = 1);
    let mut events = client.generate(request).await.unwrap().into_inner();
    assert!(events.message().await.unwrap().is_some());
    mobula_hostile::pause();
    let start = Instant::now();
    let is_gone = || {
        let page = metrics::render(&metrics::install());
        page.contains("mobula_stalled_total{what=\"answer\"}")
    };
    while !is_gone() {
        assert!(start.elapsed() < Duration::from_secs(600), "it is held for ever");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tokio::time::resume();
    let drawn = mesh.all(prompt(|r| r.seeds = vec![1])).await.unwrap();
    assert_eq!(images(&drawn).len(), 1);
    let told = async {
        loop {
            if let Err(status) = events.message().await {
                return status;
            }
        }
    };
    assert_eq!(soon("its end", told).await.code(), Code::Cancelled);
}
