//! Same seed, same picture: whatever the company, the order and the batch.

use std::path::PathBuf;

use mobula_inference::Config;
use mobula_kit::worker::ReplicaState;
use mobula_proto::inference::v1::GenerateRequest;

use crate::support::{Worker, spec, tiny};

fn request(width: u32, height: u32, scheduler: &str, seeds: &[u64], steps: u32) -> GenerateRequest {
    GenerateRequest {
        replica_id: "r".into(),
        prompt_ids: (0..77).map(|i| (i * 31) % 500).collect(),
        negative_prompt_ids: vec![3; 77],
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
async fn check(folder: PathBuf, side: u32, steps: u32, max_batch_rows: &str) {
    let worker = Worker::start(Config::default()).await;
    let options = [("max_batch_rows", max_batch_rows)];
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
        check(tiny("sd15"), 32, 4, rows).await;
    }
    check(tiny("sd15-fp16"), 32, 4, "16").await;
}

#[tokio::test]
async fn the_demo_model_gives_the_same_bytes_in_any_company() {
    check(
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/demo"),
        64,
        3,
        "16",
    )
    .await;
}
