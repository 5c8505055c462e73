//! What goes into a model beside latents, against its references: prompt weights, the guidance scale's embedding, CUDA noise,
//! pictures and masks. golden/{emphasis,philox,images}.json are made by tools/reference/{emphasis,philox,images}.py.

use crate::common::{difference, floats, list, number, size};
use mobula_diffusion::embedding::guidance_scale_embedding;
use mobula_diffusion::random::{Random, Source};
use mobula_diffusion::{emphasis, image};
use serde_json::Value;

/// Largest difference of a state, relative to max(1, |x|).
const STATE_TOLERANCE: f64 = 1e-6;
/// Largest difference of a sine of some 10,000 radians: float32 holds such an angle to 5e-4.
const EMBEDDING_TOLERANCE: f64 = 2e-3;
/// Largest difference of a normal; the reference computes in float64 what the GPU and this crate round to float32 on the way.
const NOISE_TOLERANCE: f64 = 2e-6;

fn golden() -> Value {
    serde_json::from_str(include_str!("../golden/emphasis.json")).unwrap()
}

fn sizes(value: &Value) -> Vec<usize> {
    list(value).iter().map(size).collect()
}

#[test]
fn weights_that_keep_the_mean_are_those_of_automatic1111() {
    for case in list(&golden()["mean"]) {
        let mut states = floats(&case["states"]);
        emphasis::mean(&mut states, &floats(&case["weights"]), &sizes(&case["widths"])).unwrap();
        let far = difference(&states, &case["expected"]);
        assert!(far < STATE_TOLERANCE, "{far:e}");
    }
}

#[test]
fn weights_away_from_the_empty_prompt_are_those_of_compel() {
    for case in list(&golden()["away_from_empty"]) {
        let mut states = floats(&case["states"]);
        emphasis::away_from_empty(&mut states, &floats(&case["empty"]), &floats(&case["weights"])).unwrap();
        let far = difference(&states, &case["expected"]);
        assert!(far < STATE_TOLERANCE, "{far:e}");
    }
}

#[test]
fn mixed_prompts_are_those_of_compel() {
    for case in list(&golden()["mix"]) {
        let states: Vec<Vec<f32>> = list(&case["states"]).iter().map(floats).collect();
        let weights = floats(&case["weights"]);
        let variants: Vec<(f32, &[f32])> = weights
            .into_iter()
            .zip(states.iter().map(Vec::as_slice))
            .collect();
        let far = difference(&emphasis::mix(&variants).unwrap(), &case["expected"]);
        assert!(far < STATE_TOLERANCE, "{far:e}");
    }
}

#[test]
fn a_weighted_prompt_goes_the_whole_way_as_in_compel() {
    for case in list(&golden()["prompts"]) {
        let empty = floats(&case["empty"]);
        let variants: Vec<(f32, Vec<f32>)> = list(&case["variants"])
            .iter()
            .map(|variant| {
                let mut states = floats(&variant["states"]);
                emphasis::away_from_empty(&mut states, &empty, &floats(&variant["weights"])).unwrap();
                (number(&variant["counts"]) as f32, states)
            })
            .collect();
        let variants: Vec<(f32, &[f32])> = variants.iter().map(|(counts, z)| (*counts, &z[..])).collect();
        let far = difference(&emphasis::mix(&variants).unwrap(), &case["expected"]);
        assert!(far < STATE_TOLERANCE, "{far:e}");
    }
}

#[test]
fn the_embedded_guidance_scale_is_that_of_diffusers() {
    for case in list(&golden()["embedding"]) {
        let values = guidance_scale_embedding(number(&case["w"]) as f32, size(&case["dim"])).unwrap();
        let far = difference(&values, &case["expected"]);
        assert!(
            far < EMBEDDING_TOLERANCE,
            "w {}, dim {}: {far:e}",
            case["w"],
            case["dim"]
        );
    }
}

#[test]
fn cuda_noise_is_that_of_automatic1111_for_every_seed_and_draw() {
    let golden: Value = serde_json::from_str(include_str!("../golden/philox.json")).unwrap();
    for case in list(&golden["cases"]) {
        let mut random = Random::new(Source::Cuda, case["seed"].as_u64().unwrap());
        for draw in list(&case["draws"]) {
            let values = random.randn(size(&draw["size"]));
            for pair in list(&draw["values"]) {
                let far = (f64::from(values[size(&pair[0])]) - number(&pair[1])).abs();
                assert!(
                    far < NOISE_TOLERANCE,
                    "seed {} at {}: {far:e}",
                    case["seed"],
                    pair[0]
                );
            }
        }
    }
}

#[test]
fn pictures_and_masks_reach_the_encoder_as_in_diffusers() {
    let golden: Value = serde_json::from_str(include_str!("../golden/images.json")).unwrap();
    let bytes = |key: &str| -> Vec<u8> {
        let list = list(&golden[key]).iter();
        list.map(|x| u8::try_from(size(x)).unwrap()).collect()
    };
    let (height, width) = (size(&golden["height"]), size(&golden["width"]));
    let (rgb, mask) = (bytes("rgb"), bytes("mask"));
    let mut planes = image::to_planes(&rgb, height, width).unwrap();
    assert_eq!(planes, floats(&golden["planes"]));
    image::blank(&mut planes, &mask).unwrap();
    assert_eq!(planes, floats(&golden["masked"]));
    let weights = image::mask_weights(&mask, height, width, size(&golden["factor"])).unwrap();
    assert_eq!(weights, floats(&golden["weights"]));
}
