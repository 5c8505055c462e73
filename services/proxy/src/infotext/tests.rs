use bytes::Bytes;
use mobula_proto::{
    common::v1::{Determinism, Priority, RandomSource, SamplerOptions},
    image::v1::{GuidanceInterval, ImageFormat, MaskChannel, PromptSyntax, Provenance},
};
use mobula_serving::route::Cost;

use super::*;
use crate::validate::{Calls, Chosen, Output, Refine, Source};

fn plan() -> Plan {
    Plan {
        prompt: "a red circle".into(),
        negative_prompt: String::new(),
        syntax: PromptSyntax::Unspecified,
        width: 128,
        height: 64,
        steps: 20,
        guidance_scale: 7.5,
        is_guided: true,
        guidance_rescale: 0.0,
        guidance_interval: None,
        chosen: chosen("dpmpp_2m_karras", ""),
        options: None,
        clip_skip: 0,
        source: None,
        random: RandomSource::Unspecified,
        priority: Priority::Unspecified,
        determinism: Determinism::Unspecified,
        conditions: None,
        negative_conditions: None,
        refine: None,
        seeds: vec![42],
        preview_interval: 0,
        output: Output {
            format: ImageFormat::Png,
            quality: 0,
            provenance: Provenance::Full,
        },
        cost: Cost::ROW,
    }
}

fn chosen(scheduler: &str, schedule: &str) -> Chosen {
    Chosen {
        scheduler: scheduler.into(),
        schedule: schedule.into(),
        asked: scheduler.into(),
        calls: Calls::ONE,
    }
}

const MODEL: Model<'_> = Model {
    name: "demo",
    digest: "0123456789abcdef",
};

#[test]
fn the_infotext_is_what_other_tools_read() {
    let expected = concat!(
        "a red circle\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 42, Size: 128x64, ",
        "Model hash: 0123456789, Model: demo, RNG: CPU, Version: mobula ",
        env!("CARGO_PKG_VERSION"),
    );
    assert_eq!(infotext(&plan(), MODEL, 42), expected);
}

#[test]
fn a_negative_prompt_has_its_own_line() {
    let plan = Plan {
        negative_prompt: "blue".into(),
        guidance_scale: 7.0,
        ..plan()
    };
    let text = infotext(&plan, MODEL, 1);
    assert!(
        text.starts_with("a red circle\nNegative prompt: blue\nSteps: 20"),
        "{text}"
    );
    assert!(text.contains("CFG scale: 7,"), "{text}");
}

#[test]
fn what_is_not_as_usual_is_written_as_a1111_names_it() {
    let plan = Plan {
        chosen: chosen("euler_a", "sgm_uniform"),
        clip_skip: 1,
        random: RandomSource::Cuda,
        guidance_rescale: 0.7,
        guidance_interval: Some(GuidanceInterval { start: 0.1, end: 0.9 }),
        options: Some(SamplerOptions {
            eta: Some(0.5),
            ..SamplerOptions::default()
        }),
        source: Some(Source {
            image: Bytes::from_static(b"png"),
            mask: None,
            channel: MaskChannel::Unspecified,
            strength: 0.6,
        }),
        refine: Some(Refine {
            model: "sdxl, refiner".into(),
            switch_at: 0.8,
            before: 16,
            is_guided: true,
            cost: Cost::ROW,
        }),
        ..plan()
    };
    let text = infotext(&plan, MODEL, 42);
    let expected = concat!(
        "a red circle\nSteps: 20, Sampler: Euler a, Schedule type: SGM Uniform, CFG scale: 7.5, Seed: 42, ",
        "Size: 128x64, Model hash: 0123456789, Model: demo, Denoising strength: 0.6, Clip skip: 2, Eta: 0.5, ",
        "CFG Rescale: 0.7, Skip Early CFG: 0.1, Refiner: \"sdxl, refiner\", Refiner switch at: 0.8, Version: mobula ",
        env!("CARGO_PKG_VERSION"),
    );
    assert_eq!(text, expected);
    let refiner = Model {
        name: "sdxl, refiner",
        digest: "fedc",
    };
    let chunks = chunks(&plan, MODEL, Some(refiner));
    for (keyword, text) in [
        ("mobula-scheduler", "euler_a"),
        ("mobula-sigma-schedule", "sgm_uniform"),
        ("mobula-clip-skip", "1"),
        ("mobula-guidance-interval", "0.1 0.9"),
        ("mobula-strength", "0.6"),
        ("mobula-random-source", "cuda"),
        ("mobula-refiner", "sdxl, refiner"),
        ("mobula-refiner-digest", "fedc"),
        ("mobula-refiner-switch-at", "0.8"),
    ] {
        let found = chunks.iter().find(|chunk| chunk.keyword == keyword);
        assert_eq!(found.map(|chunk| chunk.text.as_str()), Some(text), "{keyword}");
    }
}

#[test]
fn each_picture_has_its_own_seed_and_all_share_the_rest() {
    let chunks = chunks(
        &Plan {
            seeds: vec![5, 6],
            ..plan()
        },
        MODEL,
        None,
    );
    let of = |keyword: &str| -> Vec<_> {
        chunks
            .iter()
            .filter(|c| c.keyword == keyword)
            .map(|c| (c.image_index, c.text.as_str()))
            .collect()
    };
    assert_eq!(of("mobula-seed"), [(Some(0), "5"), (Some(1), "6")]);
    assert_eq!(of("mobula-steps"), [(None, "20")]);
    assert_eq!(of("parameters").len(), 2);
    assert_eq!(of("AI-Generated"), [(None, "true")]);
    assert_eq!(of("mobula-strength"), [], "nothing that is as usual");
}

#[test]
fn a_model_name_that_would_break_the_list_is_quoted() {
    assert_eq!(quoted("a, b"), "\"a, b\"");
    assert_eq!(quoted("plain"), "plain");
}
