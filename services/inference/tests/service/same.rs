//! Same seed, same picture: whatever the company, the order and the batch.

use std::path::PathBuf;

use futures::future::join_all;
use mobula_inference::Config;
use mobula_kit::worker::ReplicaState;
use mobula_proto::common::v1::{Pixels, Priority, RandomSource};
use mobula_proto::image::v1::GuidanceInterval;
use mobula_proto::inference::v1::GenerateRequest;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config as Proptest, TestRunner};

use crate::support::{Drawn, Worker, plain, spec, tiny, windows};

fn request(width: u32, height: u32, scheduler: &str, seeds: &[u64], steps: u32) -> GenerateRequest {
    GenerateRequest {
        replica_id: "r".into(),
        prompt: plain(&(0..77).map(|i| (i * 31) % 500).collect::<Vec<_>>()),
        negative_prompt: plain(&[3; 77]),
        width,
        height,
        steps,
        guidance_scale: 4.0,
        scheduler: scheduler.into(),
        seeds: seeds.to_vec(),
        ..GenerateRequest::default()
    }
}

/// Draws requests alone, then all together, then in one request each, with other sizes and steps beside them.
async fn check(folder: PathBuf, side: u32, steps: u32, max_batch_rows: &str, lanes: &str) {
    let worker = Worker::start(Config::default()).await;
    let options = [("max_batch_rows", max_batch_rows), ("lanes", lanes)];
    let report = worker
        .assign(spec("r", &folder.display().to_string(), "onnx", &options))
        .await;
    assert_eq!(report.state(), ReplicaState::Running, "{}", report.message);
    let schedulers = ["euler_a", "dpmpp_2m", "pndm", "ddim", "euler_karras"];
    let one = |n: usize| request(side, side, schedulers[n % 5], &[n as u64], steps + n as u32 % 3);
    let mut alone = Vec::new();
    for n in 0..10 {
        alone.push(worker.draw(one(n)).await.unwrap().images()[0].1.to_vec());
    }
    let other = request(2 * side, side, "euler_a", &[77, 78, 79], steps + 2);
    let unguided = GenerateRequest {
        guidance_scale: 1.0,
        ..request(side, side, "ddim", &[5, 6], steps)
    };
    let (together, _, _) = tokio::join!(
        futures::future::join_all((0..10).rev().map(|n| worker.draw(one(n)))),
        worker.draw(other),
        worker.draw(unguided),
    );
    for (n, drawn) in together.into_iter().rev().enumerate() {
        assert!(
            drawn.unwrap().images()[0].1 == alone[n],
            "picture {n} changed in company"
        );
    }
    let many = request(side, side, schedulers[0], &[5, 0, 5], steps);
    let drawn = worker.draw(many).await.unwrap();
    let images = drawn.images();
    assert!(
        images[1].1 == alone[0],
        "a seed in a request of three gives another picture"
    );
    assert!(images[0].1 == images[2].1 && images[0].1 != images[1].1);
    worker.stop().await;
}

#[tokio::test]
async fn a_tiny_model_gives_the_same_bytes_in_any_company() {
    for rows in ["16", "5", "1"] {
        check(tiny("sd15"), 32, 4, rows, "1").await;
    }
    check(tiny("sd15-fp16"), 32, 4, "16", "1").await;
}

#[tokio::test]
async fn a_tiny_model_gives_the_same_bytes_in_any_company_when_lanes_share_its_calls() {
    for (rows, lanes) in [("16", "2"), ("5", "2"), ("16", "3")] {
        check(tiny("sd15"), 32, 4, rows, lanes).await;
    }
}

#[tokio::test]
async fn the_demo_model_gives_the_same_bytes_in_any_company() {
    for lanes in ["1", "2"] {
        check(demo(), 64, 3, "16", lanes).await;
    }
}

fn demo() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/demo")
}

#[tokio::test]
async fn the_same_seed_is_the_same_picture_with_and_without_lanes() {
    let mut drawn = Vec::new();
    for lanes in ["1", "2", "3"] {
        let worker = Worker::start(Config::default()).await;
        let folder = demo().display().to_string();
        let report = worker
            .assign(spec("r", &folder, "onnx", &[("lanes", lanes)]))
            .await;
        assert_eq!(report.state(), ReplicaState::Running, "{}", report.message);
        assert_eq!(worker.model().lanes.to_string(), lanes);
        let request = |n: u64| request(64, 64, "euler_a", &[n, n + 10, n + 20], 3 + n as u32);
        let all = join_all((0..3).map(|n| worker.draw(request(n)))).await;
        let all = all.into_iter().map(|drawn| files(&drawn.unwrap()));
        drawn.push(all.collect::<Vec<_>>());
        worker.stop().await;
    }
    assert!(
        drawn[0] == drawn[1] && drawn[0] == drawn[2],
        "lanes change a picture"
    );
}

/// Pictures by index.
fn files(drawn: &Drawn) -> Vec<(u32, Vec<u8>)> {
    let images = drawn.images();
    images
        .into_iter()
        .map(|(index, png)| (index, png.to_vec()))
        .collect()
}

/// A request with anything in it that can change a picture.
fn anything(encoders: usize) -> impl Strategy<Value = GenerateRequest> {
    let ids = || prop::collection::vec(1..500_u32, 77);
    let texts = (prop::collection::vec(ids(), 1..3), ids(), any::<bool>());
    let scheduler = prop::sample::select(vec![
        "",
        "pndm",
        "ddim",
        "euler_a",
        "dpmpp_2m_karras",
        "dpmpp_2m_sde",
        "heun",
        "dpm2_a",
        "lms",
        "unipc",
        "deis",
        "lcm",
        "dpmpp_sde",
        "dpmpp_2s",
        "tcd",
    ]);
    let size = (
        prop::sample::select(vec![32_u32, 48]),
        prop::sample::select(vec![32_u32, 64]),
    );
    let sampling = (
        1..6_u32,
        prop::sample::select(vec![0.0_f32, 1.0, 3.0, 7.5]),
        0..2_u32,
        any::<bool>(),
    );
    let seeds = prop::collection::vec(0..1000_u64, 1..4);
    let picture = (0..3_u32, 1..=10_u32, any::<u8>());
    (texts, scheduler, size, sampling, seeds, picture, 0..4_i32).prop_map(
        move |((prompt, negative, equal), scheduler, (width, height), sampling, seeds, picture, priority)| {
            let (steps, guidance_scale, clip_skip, interval) = sampling;
            let prompt_of = |texts: &[Vec<u32>]| {
                let pairs = texts
                    .iter()
                    .map(|ids| (&ids[..], if encoders == 2 { &ids[..] } else { &[] }));
                windows(&pairs.collect::<Vec<_>>())
            };
            let negative = vec![negative; prompt.len()];
            let (kind, tenths, shade) = picture;
            let pixels = |bytes: u32| Pixels {
                width,
                height,
                data: (0..width * height * bytes)
                    .map(|n| (n * 7) as u8 ^ shade)
                    .collect::<Vec<_>>()
                    .into(),
            };
            GenerateRequest {
                replica_id: "r".into(),
                prompt: prompt_of(&prompt),
                negative_prompt: prompt_of(if equal { &prompt } else { &negative }),
                width,
                height,
                steps,
                guidance_scale,
                guidance_rescale: if equal { 0.5 } else { 0.0 },
                guidance_interval: interval.then_some(GuidanceInterval { start: 0.0, end: 0.5 }),
                clip_skip,
                scheduler: scheduler.into(),
                seeds,
                init_image: (kind > 0).then(|| pixels(3)),
                mask_image: (kind > 1).then(|| pixels(1)),
                strength: tenths as f32 / 10.0,
                random_source: if shade > 127 {
                    RandomSource::Cuda
                } else {
                    RandomSource::Cpu
                }
                .into(),
                priority: Priority::try_from(priority).unwrap_or_default().into(),
                ..GenerateRequest::default()
            }
        },
    )
}

/// Mixes of random requests: each picture has the bytes it has alone, in another worker, in the reverse order.
async fn mixes(model: &str, encoders: usize, count: usize) {
    let mut runner = TestRunner::new_with_rng(
        Proptest::default(),
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let (worker, other) = (
        Worker::with_model(tiny(model)).await,
        Worker::with_model(tiny(model)).await,
    );
    let mut drawn_in_all = 0;
    for mix in 0..count {
        let strategy = prop::collection::vec(anything(encoders), 12..32);
        let requests = strategy.new_tree(&mut runner).unwrap().current();
        let together = join_all(requests.iter().map(|request| worker.draw(request.clone()))).await;
        let reversed = join_all(requests.iter().rev().map(|request| other.draw(request.clone()))).await;
        for ((request, together), reversed) in requests.iter().zip(together).zip(reversed.into_iter().rev()) {
            let alone = worker.draw(request.clone()).await;
            match (&alone, &together, &reversed) {
                (Ok(alone), Ok(together), Ok(reversed)) => {
                    drawn_in_all += 1;
                    assert_eq!(alone.images().len(), request.seeds.len());
                    let same = files(alone) == files(together) && files(alone) == files(reversed);
                    assert!(same, "{model}, mix {mix}: company changed {request:?}");
                }
                // Some schedulers cannot do some numbers of steps; then nobody may draw it.
                (Err(alone), Err(together), Err(reversed)) => {
                    assert_eq!(alone.message(), together.message());
                    assert_eq!(alone.message(), reversed.message());
                }
                _ => panic!("{model}, mix {mix}: company decides whether it is drawn: {request:?}"),
            }
        }
    }
    // Most of what is asked for can be drawn: the test is about something.
    assert!(drawn_in_all >= 8 * count, "{drawn_in_all}");
    worker.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn random_mixes_give_the_bytes_that_each_request_gives_alone() {
    mixes("sd15", 1, 4).await;
}

#[tokio::test]
async fn random_mixes_of_stable_diffusion_xl_give_the_bytes_that_each_request_gives_alone() {
    mixes("sdxl", 2, 2).await;
}
