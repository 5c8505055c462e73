//! What callers see: events, errors, limits.

use std::time::Duration;

use mobula_kit::status;
use mobula_proto::common::v1::Latents;
use mobula_proto::inference::v1::generate_response::Event;
use mobula_proto::inference::v1::{GenerateRequest, TextChunk};
use sha2::{Digest, Sha256};
use tonic::{Code, Request};

use crate::support::{LIMIT, Worker, fake_request, pixels, spec};

#[tokio::test]
async fn a_request_is_answered_with_pictures_and_the_load() {
    let worker = Worker::with_fake(&[]).await;
    let drawn = worker.draw(fake_request(&[1, 2], 4)).await.unwrap();
    let first = drawn.events.first().unwrap();
    assert!(matches!(first.event, Some(Event::Accepted(_))));
    assert!(first.load.unwrap().ongoing_requests <= 1);
    let last = drawn.events.last().unwrap();
    assert!(matches!(last.event, Some(Event::Done(_))));
    assert_eq!(last.load.unwrap().queued_rows, 0);
    assert!(last.load.unwrap().row_ns > 0);
    let images = drawn.images();
    assert_eq!(images.len(), 2);
    assert_ne!(images[0].1, images[1].1);
    for response in &drawn.events {
        if let Some(Event::Image(image)) = &response.event {
            assert_eq!(image.digest, format!("{:x}", Sha256::digest(&image.data)));
            let pixels = pixels(&image.data);
            assert_eq!((pixels.width, pixels.height), (64, 64));
        }
    }
    worker.stop().await;
}

#[tokio::test]
async fn previews_come_at_the_interval_and_at_the_latents_size() {
    let worker = Worker::with_fake(&[("base_us", "20000")]).await;
    let request = GenerateRequest {
        preview_interval: 3,
        ..fake_request(&[1], 10)
    };
    let drawn = worker.draw(request).await.unwrap();
    let previews: Vec<_> = drawn
        .events
        .iter()
        .filter_map(|response| match &response.event {
            Some(Event::Preview(preview)) => Some(preview),
            _ => None,
        })
        .collect();
    let mut steps: Vec<_> = previews.iter().map(|preview| preview.step).collect();
    steps.sort_unstable();
    assert_eq!(steps, [3, 6, 9]);
    let pixels = pixels(&previews[0].png);
    assert_eq!((pixels.width, pixels.height), (8, 8));
    worker.stop().await;
}

#[tokio::test]
async fn pictures_that_the_caller_has_are_skipped_and_texts_go_where_they_belong() {
    let worker = Worker::with_fake(&[]).await;
    let chunk = |keyword: &str, text: &str, image_index| TextChunk {
        keyword: keyword.into(),
        text: text.into(),
        image_index,
    };
    let request = GenerateRequest {
        skip_images: vec![0],
        text_chunks: vec![
            chunk("prompt", "a b", None),
            chunk("seed", "5", Some(0)),
            chunk("seed", "6", Some(1)),
        ],
        ..fake_request(&[5, 6], 2)
    };
    let drawn = worker.draw(request).await.unwrap();
    let images = drawn.images();
    assert_eq!(images.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1]);
    let reader = png::Decoder::new(std::io::Cursor::new(images[0].1))
        .read_info()
        .unwrap();
    let texts = &reader.info().uncompressed_latin1_text;
    let texts: Vec<_> = texts
        .iter()
        .map(|text| (text.keyword.as_str(), text.text.as_str()))
        .collect();
    assert_eq!(texts, [("prompt", "a b"), ("seed", "6")]);
    worker.stop().await;
}

#[tokio::test]
async fn wrong_fields_are_named_and_nothing_else_is_disturbed() {
    let worker = Worker::with_fake(&[]).await;
    let wrong = GenerateRequest {
        width: 63,
        steps: 0,
        guidance_scale: f32::NAN,
        ..fake_request(&[1], 1)
    };
    let (wrong, right) = tokio::join!(worker.draw(wrong), worker.draw(fake_request(&[1], 3)));
    let status = wrong.err().unwrap();
    assert_eq!(status.code(), Code::InvalidArgument);
    let fields: Vec<_> = status::violations(&status)
        .into_iter()
        .map(|(field, _)| field)
        .collect();
    assert_eq!(fields, ["guidance_scale", "width", "steps"]);
    assert_eq!(right.unwrap().images().len(), 1);
    let unknown = GenerateRequest {
        scheduler: "unipz".into(),
        ..fake_request(&[1], 1)
    };
    let status = worker.draw(unknown).await.err().unwrap();
    assert!(status::violations(&status)[0].1.contains("dpmpp_2m"));
    let nowhere = GenerateRequest {
        replica_id: "x".into(),
        ..fake_request(&[1], 1)
    };
    assert_eq!(worker.draw(nowhere).await.err().unwrap().code(), Code::NotFound);
    worker.stop().await;
}

#[tokio::test]
async fn absurd_latents_are_refused_at_the_door_and_the_replica_goes_on() {
    let worker = Worker::with_fake(&[]).await;
    let latents = |value: f32| Latents {
        channels: 4,
        height: 8,
        width: 8,
        data: value.to_le_bytes().repeat(4 * 8 * 8).into(),
    };
    let going_on = |value| GenerateRequest {
        init_latents: vec![latents(value)],
        denoising_start: Some(0.5),
        ..fake_request(&[1], 4)
    };
    for absurd in [1e30, -2e6, f32::INFINITY] {
        let status = worker.draw(going_on(absurd)).await.err().unwrap();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        let violations = status::violations(&status);
        assert_eq!(violations[0].0, "init_latents");
        assert!(
            violations[0].1.contains("expected numbers from -1e6 to 1e6"),
            "{violations:?}"
        );
    }
    assert_eq!(worker.draw(going_on(1.0)).await.unwrap().images().len(), 1);
    worker.stop().await;
}

#[tokio::test]
async fn a_deadline_ends_the_stream_and_frees_the_replica() {
    let worker = Worker::with_fake(&[("base_us", "20000")]).await;
    let mut request = Request::new(fake_request(&[1], 900));
    request.set_timeout(Duration::from_millis(150));
    let mut client = worker.client.clone();
    let ended = tokio::time::timeout(LIMIT, async {
        let mut stream = client.generate(request).await?.into_inner();
        while stream.message().await?.is_some() {}
        Ok::<_, tonic::Status>(())
    });
    let status = ended.await.unwrap().unwrap_err();
    assert!(
        matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled),
        "{status:?}"
    );
    let drawn = worker.draw(fake_request(&[2], 1)).await.unwrap();
    assert_eq!(drawn.images().len(), 1);
    worker.stop().await;
}

#[tokio::test]
async fn a_full_replica_refuses_until_a_caller_leaves() {
    let worker = Worker::start(mobula_inference::Config::default()).await;
    let mut small = spec("r", "fake", "fake", &[("base_us", "5000")]);
    small.max_ongoing_requests = 1;
    worker.assign(small).await;
    let mut held = worker.open(fake_request(&[1], 900)).await.unwrap();
    assert!(held.message().await.unwrap().is_some());
    let status = worker.draw(fake_request(&[2], 1)).await.err().unwrap();
    assert_eq!(status.code(), Code::ResourceExhausted);
    drop(held);
    let freed = async {
        while worker.draw(fake_request(&[2], 1)).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, freed).await.unwrap();
    worker.stop().await;
}
