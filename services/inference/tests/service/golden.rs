//! Pictures against those that diffusers draws with the same weights, seeds and settings (tools/reference/pipelines.py).

use std::path::PathBuf;

use crate::support::{Pixels, Worker, pixels, plain, tiny};
use mobula_proto::inference::v1::GenerateRequest;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    model: String,
    scheduler: String,
    prompt_ids: Vec<u32>,
    negative_prompt_ids: Vec<u32>,
    width: u32,
    height: u32,
    steps: u32,
    guidance_scale: f32,
    seed: u64,
    file: String,
}

pub(crate) fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn cases(model: &str) -> Vec<Case> {
    let text = std::fs::read_to_string(golden().join("cases.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_str(&text).unwrap();
    cases.into_iter().filter(|case| case.model == model).collect()
}

fn request(case: &Case) -> GenerateRequest {
    GenerateRequest {
        replica_id: "r".into(),
        prompt: plain(&case.prompt_ids),
        negative_prompt: plain(&case.negative_prompt_ids),
        width: case.width,
        height: case.height,
        steps: case.steps,
        guidance_scale: case.guidance_scale,
        scheduler: case.scheduler.clone(),
        seeds: vec![case.seed],
        ..GenerateRequest::default()
    }
}

/// Largest and mean difference of two pictures, in 8-bit levels.
pub(crate) fn difference(a: &Pixels, b: &Pixels) -> (u8, f64) {
    assert_eq!((a.width, a.height), (b.width, b.height));
    let each = || a.rgb.iter().zip(&b.rgb).map(|(a, b)| a.abs_diff(*b));
    (
        each().max().unwrap(),
        each().map(f64::from).sum::<f64>() / a.rgb.len() as f64,
    )
}

/// Draws every case of `model` with the files of `folder`, all at the same time, so that they share UNet calls.
async fn check(folder: &str, wanted: impl Fn(&Case) -> bool, allowed: (u8, f64)) {
    let worker = Worker::with_model(tiny(folder)).await;
    let mut cases = cases(&folder[..4]);
    assert_eq!(cases.len(), 21);
    cases.retain(wanted);
    let drawn = futures::future::join_all(cases.iter().map(|case| worker.draw(request(case)))).await;
    let mut wrong = Vec::new();
    for (case, drawn) in cases.iter().zip(drawn) {
        let reference = pixels(&std::fs::read(golden().join(&case.file)).unwrap());
        let (worst, mean) = difference(&drawn.unwrap().pixels(), &reference);
        if worst > allowed.0 || mean > allowed.1 {
            wrong.push(format!("{folder} {}: worst {worst}, mean {mean:.3}", case.file));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    worker.stop().await;
}

#[tokio::test]
async fn an_optimum_export_draws_what_diffusers_draws() {
    check("sd15", |_| true, (1, 0.1)).await;
}

#[tokio::test]
async fn a_v_prediction_model_draws_what_diffusers_draws() {
    check("sd21", |_| true, (1, 0.1)).await;
}

#[tokio::test]
async fn weights_in_other_files_give_the_same_pictures() {
    check("sd15-extdata", |_| true, (1, 0.1)).await;
}

#[tokio::test]
async fn the_older_dialects_draw_what_diffusers_draws() {
    // Their timestep is an integer, and Karras noise levels lie between the integers: it has been made real.
    check("sd15-legacy", |_| true, (1, 0.1)).await;
}

#[tokio::test]
async fn a_half_precision_export_is_close() {
    // Not ddim: with PNDM's configuration it clips its predictions, which with random weights makes a chaos of any rounding
    // (diffusers' own scheduler over the same half-precision network is as far from the picture in full precision).
    check("sd15-fp16", |case| case.scheduler != "ddim", (24, 2.0)).await;
}
