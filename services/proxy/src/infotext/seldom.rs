//! Parameters that most pictures are made without, and that are written only where they are not as usual.

use std::fmt::Display;

use mobula_proto::{
    common::v1::{RandomSource, SizeConditions},
    image::v1::PromptSyntax,
};

use super::{Model, quoted};
use crate::validate::Plan;

/// A1111 counts the text encoder's layers from the last one, which is 1; diffusers counts those that are left out.
const CLIP_SKIP_OF_A1111: u32 = 1;

/// Adds them as A1111 names them, in its order.
pub(super) fn parts(plan: &Plan, add: &mut dyn FnMut(&str, &dyn Display)) {
    if let Some(source) = &plan.source {
        add("Denoising strength", &source.strength);
    }
    if plan.clip_skip > 0 {
        add("Clip skip", &plan.clip_skip.saturating_add(CLIP_SKIP_OF_A1111));
    }
    // Where it is silent it means CUDA's numbers.
    if plan.random != RandomSource::Cuda {
        add("RNG", &"CPU");
    }
    let options = plan.options.unwrap_or_default();
    for (name, value) in [
        ("Eta", options.eta),
        ("Sigma churn", options.s_churn),
        ("Sigma tmin", options.s_tmin),
        ("Sigma tmax", options.s_tmax),
        ("Sigma noise", options.s_noise),
    ] {
        if let Some(value) = value {
            add(name, &value);
        }
    }
    if plan.guidance_rescale > 0.0 {
        add("CFG Rescale", &plan.guidance_rescale);
    }
    if let Some(interval) = plan.guidance_interval.filter(|interval| interval.start > 0.0) {
        add("Skip Early CFG", &interval.start);
    }
    if let Some(refine) = &plan.refine {
        add("Refiner", &quoted(&refine.model));
        add("Refiner switch at", &refine.switch_at);
    }
}

/// As the mesh names them.
pub(super) fn chunks(plan: &Plan, refiner: Option<Model<'_>>) -> Vec<(&'static str, String)> {
    let mut chunks = Vec::new();
    let mut add = |name, value: Option<String>| chunks.extend(value.map(|value| (name, value)));
    let schedule = &plan.chosen.schedule;
    add(
        "mobula-sigma-schedule",
        (!schedule.is_empty()).then(|| schedule.clone()),
    );
    let syntax = match plan.syntax {
        PromptSyntax::Unspecified | PromptSyntax::Plain => None,
        PromptSyntax::A1111 => Some("a1111"),
        PromptSyntax::Compel => Some("compel"),
    };
    add("mobula-prompt-syntax", syntax.map(str::to_owned));
    add(
        "mobula-clip-skip",
        (plan.clip_skip > 0).then(|| plan.clip_skip.to_string()),
    );
    let rescale = plan.guidance_rescale;
    add(
        "mobula-guidance-rescale",
        (rescale > 0.0).then(|| rescale.to_string()),
    );
    add(
        "mobula-guidance-interval",
        plan.guidance_interval
            .map(|part| format!("{} {}", part.start, part.end)),
    );
    let options = plan.options.unwrap_or_default();
    for (name, value) in [
        ("mobula-eta", options.eta),
        ("mobula-s-churn", options.s_churn),
        ("mobula-s-tmin", options.s_tmin),
        ("mobula-s-tmax", options.s_tmax),
        ("mobula-s-noise", options.s_noise),
    ] {
        add(name, value.map(|value| value.to_string()));
    }
    let source = plan.source.as_ref();
    add(
        "mobula-strength",
        source.map(|source| source.strength.to_string()),
    );
    let is_cuda = plan.random == RandomSource::Cuda;
    add("mobula-random-source", is_cuda.then(|| "cuda".to_owned()));
    add("mobula-size-conditions", plan.conditions.map(condition));
    add(
        "mobula-negative-size-conditions",
        plan.negative_conditions.map(condition),
    );
    if let Some(refine) = &plan.refine {
        add("mobula-refiner", Some(refine.model.clone()));
        add("mobula-refiner-switch-at", Some(refine.switch_at.to_string()));
        let digest = refiner.map(|refiner| refiner.digest.to_owned());
        add("mobula-refiner-digest", digest);
    }
    chunks
}

/// Original size, cut and target size, then the scores that were given.
fn condition(told: SizeConditions) -> String {
    let mut text = format!(
        "{}x{} {},{} {}x{}",
        told.original_width,
        told.original_height,
        told.crop_left,
        told.crop_top,
        told.target_width,
        told.target_height
    );
    for score in [told.aesthetic_score, told.negative_aesthetic_score]
        .into_iter()
        .flatten()
    {
        text.push_str(&format!(" {score}"));
    }
    text
}
