use mobula_diffusion::Kind;
use mobula_proto::common::v1::{self as common, Prompt as Sent, PromptSpan, PromptVariant, PromptWindow};
use mobula_proto::image::v1::GuidanceInterval;
use mobula_proto::inference::v1::TextChunk;

use super::*;
use crate::engine::{Encoder, fake};

type Change = fn(&mut GenerateRequest);

fn info() -> Info {
    let encoder = Encoder {
        vocabulary: 10,
        width: 4,
        layers: 2,
    };
    Info {
        window: 3,
        encoders: vec![encoder],
        multiple: 16,
        ..fake::info()
    }
}

fn prompt(ids: &[u32]) -> Option<Sent> {
    let window = PromptWindow {
        ids: ids.to_vec(),
        ..PromptWindow::default()
    };
    let variant = PromptVariant {
        weight: 1.0,
        windows: vec![window],
    };
    let span = PromptSpan {
        until_step: 0,
        variants: vec![variant],
    };
    Some(Sent {
        spans: vec![span],
        ..Sent::default()
    })
}

fn right() -> GenerateRequest {
    GenerateRequest {
        prompt: prompt(&[1, 2, 3]),
        negative_prompt: prompt(&[4, 5, 6]),
        width: 32,
        height: 64,
        steps: 20,
        guidance_scale: 7.5,
        scheduler: "euler_a".into(),
        seeds: vec![5, 6, 7],
        skip_images: vec![1],
        ..GenerateRequest::default()
    }
}

fn pixels(width: u32, height: u32, bytes: usize) -> Option<common::Pixels> {
    Some(common::Pixels {
        width,
        height,
        data: vec![0; width as usize * height as usize * bytes].into(),
    })
}

/// A request that goes on from latents of one value.
fn with_latents(value: f32) -> GenerateRequest {
    let shape = info().latents(32, 64);
    let latents = common::Latents {
        channels: shape.channels as u32,
        height: shape.height as u32,
        width: shape.width as u32,
        data: value.to_le_bytes().repeat(shape.values()).into(),
    };
    GenerateRequest {
        init_latents: vec![latents; 3],
        denoising_start: Some(0.5),
        ..right()
    }
}

fn check(request: GenerateRequest) -> Result<Checked, Vec<(String, String)>> {
    let model = Model {
        info: &info(),
        max_size: 64,
        is_xl: false,
        max_windows: 2,
    };
    super::check(request, &model)
}

#[test]
fn a_right_request_is_taken_as_it_is() {
    let checked = check(right()).unwrap();
    assert_eq!(checked.pictures, [(0, 5), (2, 7)]);
    assert_eq!(checked.ask.choice.kind, Some(Kind::EulerAncestral));
    assert!(check(with_latents(9e5)).is_ok());
    let ids: Vec<_> = checked.negative.as_ref().unwrap().ids().collect();
    assert_eq!(**ids[0], [4, 5, 6]);
    let unguided = GenerateRequest {
        guidance_scale: 1.0,
        negative_prompt: None,
        ..right()
    };
    assert_eq!(check(unguided).unwrap().negative, None);
}

#[test]
fn a_picture_to_start_from_brings_its_strength() {
    let request = GenerateRequest {
        init_image: pixels(32, 64, 3),
        mask_image: pixels(32, 64, 1),
        strength: 0.5,
        ..right()
    };
    let checked = check(request).unwrap();
    assert_eq!(checked.ask.span, mobula_diffusion::scheduler::Span::Strength(0.5));
    assert!(matches!(checked.origin, Origin::Picture { mask: Some(_), .. }));
}

#[test]
fn each_wrong_field_is_named() {
    let cases: [(&str, Change); 39] = [
        ("prompt", |r| r.prompt = None),
        ("prompt", |r| r.prompt = prompt(&[1, 2])),
        ("prompt", |r| r.prompt = prompt(&[1, 2, 10])),
        ("prompt", |r| r.prompt.as_mut().unwrap().spans.clear()),
        ("prompt", |r| {
            r.prompt.as_mut().unwrap().spans[0].variants[0].windows[0].ids_2 = vec![1, 2, 3];
        }),
        ("prompt", |r| {
            r.prompt.as_mut().unwrap().spans[0].variants[0].windows[0].weights = vec![1.0, f32::NAN, 1.0];
        }),
        ("prompt", |r| {
            r.prompt.as_mut().unwrap().spans[0].variants[0].weight = 0.0
        }),
        ("prompt", |r| {
            let window = r.prompt.as_ref().unwrap().spans[0].variants[0].windows[0].clone();
            for prompt in [&mut r.prompt, &mut r.negative_prompt] {
                prompt.as_mut().unwrap().spans[0].variants[0].windows = vec![window.clone(); 3];
            }
        }),
        ("negative_prompt", |r| r.negative_prompt = None),
        ("negative_prompt", |r| {
            let variant = &mut r.negative_prompt.as_mut().unwrap().spans[0].variants[0];
            variant.windows = vec![variant.windows[0].clone(); 2];
        }),
        ("width", |r| r.width = 0),
        ("width", |r| r.width = 24),
        ("height", |r| r.height = 80),
        ("steps", |r| r.steps = 0),
        ("steps", |r| r.steps = 10_000),
        ("guidance_scale", |r| r.guidance_scale = f32::NAN),
        ("guidance_scale", |r| r.guidance_scale = f32::INFINITY),
        ("guidance_scale", |r| r.guidance_scale = -1.0),
        ("guidance_rescale", |r| r.guidance_rescale = 1.5),
        ("guidance_interval", |r| {
            r.guidance_interval = Some(GuidanceInterval { start: 0.5, end: 0.5 });
        }),
        ("sigma_schedule", |r| r.scheduler = "pndm_karras".into()),
        ("sigma_schedule", |r| r.sigma_schedule = "carousel".into()),
        ("sampler_options.eta", |r| {
            r.sampler_options = Some(common::SamplerOptions {
                eta: Some(2.0),
                ..common::SamplerOptions::default()
            });
        }),
        ("clip_skip", |r| r.clip_skip = 3),
        ("seeds", |r| (r.seeds, r.skip_images) = (vec![], vec![])),
        ("seeds", |r| r.seeds = vec![0; 65]),
        ("skip_images", |r| r.skip_images = vec![3]),
        ("init_image", |r| {
            (r.init_image, r.strength) = (pixels(16, 64, 3), 0.5)
        }),
        ("mask_image", |r| r.mask_image = pixels(32, 64, 1)),
        ("size_conditions", |r| {
            r.size_conditions = Some(common::SizeConditions::default())
        }),
        ("text_chunks", |r| r.text_chunks = vec![TextChunk::default()]),
        ("priority", |r| r.priority = 4),
        ("random_source", |r| r.random_source = 3),
        ("determinism", |r| r.determinism = -1),
        ("prompt.emphasis", |r| r.prompt.as_mut().unwrap().emphasis = 99),
        ("negative_prompt.emphasis", |r| {
            r.negative_prompt.as_mut().unwrap().emphasis = 99;
        }),
        ("init_latents", |r| *r = with_latents(1.1e6)),
        ("init_latents", |r| *r = with_latents(-1e30)),
        ("init_latents", |r| *r = with_latents(f32::NAN)),
    ];
    for (field, change) in cases {
        let mut request = right();
        change(&mut request);
        let wrong = check(request).unwrap_err();
        assert_eq!(
            wrong.iter().map(|(field, _)| field.as_str()).collect::<Vec<_>>(),
            [field],
            "{wrong:?}"
        );
    }
}

#[test]
fn a_refusal_tells_which_ends_of_a_range_are_in_it() {
    let why = |change: Change| {
        let mut request = with_latents(1.0);
        change(&mut request);
        check(request).unwrap_err().remove(0).1
    };
    assert_eq!(
        why(|r| r.denoising_start = Some(0.0)),
        "0 is not above 0 and below 1"
    );
    assert_eq!(
        why(|r| r.denoising_end = Some(1.0)),
        "1 is not above 0 and below 1"
    );
    assert_eq!(why(|r| r.guidance_rescale = 1.5), "1.5 is not from 0 to 1");
    assert_eq!(why(|r| r.steps = 0), "0 is not from 1 to 1000");
    assert_eq!(
        why(|r| {
            r.sampler_options = Some(common::SamplerOptions {
                s_tmax: Some(-1.0),
                ..common::SamplerOptions::default()
            });
        }),
        "-1 is not 0 or above"
    );
}

#[test]
fn all_wrong_fields_are_told_at_once() {
    let wrong = check(GenerateRequest::default()).unwrap_err();
    let fields: Vec<_> = wrong.iter().map(|(field, _)| field.as_str()).collect();
    assert_eq!(fields, ["prompt", "width", "height", "steps", "seeds"]);
}
