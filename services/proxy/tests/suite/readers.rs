//! Callers who stay and do not read.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use mobula_proto::image::v1::{generate_response::Event, image_service_client::ImageServiceClient};
use mobula_proxy::Config;

use crate::support::{Act, Mesh, Worker, images, prompt, soon};

/// Bytes of a large preview.
const PREVIEW: usize = 256 << 10;
/// Bytes that may be on the way to one reader who does not read: the windows of both hops and what transports buffer.
const ON_THE_WAY: usize = 24 << 20;

#[tokio::test]
async fn callers_who_do_not_read_cost_bounded_memory_and_slow_nobody() {
    const READERS: usize = 8;
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(Config::default(), &[&worker], 100).await;
    let sent: Vec<_> = (0..READERS).map(|_| Arc::<AtomicUsize>::default()).collect();
    let mut unread = Vec::new();
    for sent in &sent {
        worker.will(Act::Pour(PREVIEW, Arc::clone(sent)));
        // Each has a connection of its own, as callers have.
        let channel = mobula_kit::channel::lazy(&mesh.grpc.to_string()).unwrap();
        let mut client = ImageServiceClient::new(channel);
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
    // All that can be sent without a reader is on its way when nothing moves any more.
    let all = || {
        sent.iter()
            .map(|sent| sent.load(Ordering::Relaxed))
            .sum::<usize>()
    };
    let still = async {
        let mut before = usize::MAX;
        while before != all() {
            before = all();
            for _ in 0..20 {
                // Others are served all the while, by the same worker and over the same connection.
                let events = mesh.all(prompt(|r| r.seeds = vec![1])).await.unwrap();
                assert_eq!(images(&events).len(), 1);
            }
        }
    };
    soon("the end of what is sent", still).await;
    for sent in &sent {
        let bytes = sent.load(Ordering::Relaxed) * PREVIEW;
        assert!(bytes > 0 && bytes <= ON_THE_WAY, "{bytes} bytes");
    }
    drop(unread);
}
