//! What Stable Diffusion XL is told of a picture's size (`time_ids`), as diffusers' `_get_add_time_ids` orders it.

use std::sync::Arc;

use mobula_proto::common::v1::SizeConditions;
use mobula_proto::inference::v1::GenerateRequest;

use super::Violations;
use crate::engine::Info;

/// Largest size or crop that may be named; the models were trained with a few thousand pixels.
const MAX_PIXELS: u32 = 1 << 16;
/// Diffusers' defaults of the refiner's pipeline.
const AESTHETIC: [f32; 2] = [6.0, 2.5];

/// The numbers for the prompt and for the negative prompt; empty where the model takes none.
pub(super) fn time_ids(wrong: &mut Violations, request: &GenerateRequest, info: &Info) -> [Arc<[f32]>; 2] {
    let fields = [
        ("size_conditions", request.size_conditions.as_ref()),
        (
            "negative_size_conditions",
            request.negative_size_conditions.as_ref(),
        ),
    ];
    for (field, given) in fields {
        wrong.expect(given.is_none() || info.time_ids > 0, field, || {
            "this model takes no size conditions (it is not of Stable Diffusion XL)".into()
        });
        if let Some(given) = given {
            check(wrong, field, given);
        }
    }
    if info.time_ids == 0 {
        return [Arc::default(), Arc::default()];
    }
    let prompt = request.size_conditions.unwrap_or_default();
    let negative = request.negative_size_conditions.unwrap_or(prompt);
    [(0, prompt), (1, negative)].map(|(n, given)| {
        let own = |given: u32, own: u32| if given == 0 { own as f32 } else { given as f32 };
        let mut numbers = vec![
            own(given.original_height, request.height),
            own(given.original_width, request.width),
            given.crop_top as f32,
            given.crop_left as f32,
        ];
        if info.time_ids == 5 {
            let score = [prompt.aesthetic_score, prompt.negative_aesthetic_score][n];
            numbers.push(score.unwrap_or(AESTHETIC[n]));
        } else {
            numbers.push(own(given.target_height, request.height));
            numbers.push(own(given.target_width, request.width));
        }
        numbers.into()
    })
}

fn check(wrong: &mut Violations, field: &str, given: &SizeConditions) {
    for (name, value) in [
        ("original_width", given.original_width),
        ("original_height", given.original_height),
        ("crop_left", given.crop_left),
        ("crop_top", given.crop_top),
        ("target_width", given.target_width),
        ("target_height", given.target_height),
    ] {
        wrong.expect(value <= MAX_PIXELS, &format!("{field}.{name}"), || {
            format!("{value} is above {MAX_PIXELS}")
        });
    }
    for (name, value) in [
        ("aesthetic_score", given.aesthetic_score),
        ("negative_aesthetic_score", given.negative_aesthetic_score),
    ] {
        if let Some(value) = value {
            wrong.number(&format!("{field}.{name}"), value, (0.0, 100.0));
        }
    }
}
