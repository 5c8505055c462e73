//! Fields that most requests leave alone: what is refused, what is made of the rest, and what it costs.

use super::{refiner::refined, *};

#[test]
fn every_bad_value_is_named_with_its_limit() {
    type Change = fn(&mut image::GenerateRequest);
    let cases: &[(Change, &str, Rule)] = &[
        (|r| r.clip_skip = 12, "clip_skip", Rule::at_most(12, 11_u8)),
        (
            |r| r.guidance_rescale = 1.5,
            "guidance_rescale",
            Rule::at_most(1.5, 1_u8),
        ),
        (
            |r| r.guidance_rescale = -0.5,
            "guidance_rescale",
            Rule::at_least(-0.5, 0_u8),
        ),
        (
            |r| r.guidance_rescale = f32::NAN,
            "guidance_rescale",
            Rule::NotFinite,
        ),
        (
            |r| {
                r.guidance_interval = Some(GuidanceInterval {
                    start: -1.0,
                    end: 1.0,
                })
            },
            "guidance_interval.start",
            Rule::at_least(-1, 0_u8),
        ),
        (
            |r| r.guidance_interval = Some(GuidanceInterval { start: 0.0, end: 2.0 }),
            "guidance_interval.end",
            Rule::at_most(2, 1_u8),
        ),
        (
            |r| r.guidance_interval = Some(GuidanceInterval { start: 0.5, end: 0.5 }),
            "guidance_interval.end",
            Rule::Wrong("is 0.5 and must be above start, which is 0.5".into()),
        ),
        (
            |r| {
                r.sampler_options = Some(SamplerOptions {
                    eta: Some(1.5),
                    ..Default::default()
                })
            },
            "sampler_options.eta",
            Rule::at_most(1.5, 1_u8),
        ),
        (
            |r| {
                r.sampler_options = Some(SamplerOptions {
                    s_churn: Some(-1.0),
                    ..Default::default()
                })
            },
            "sampler_options.s_churn",
            Rule::at_least(-1, 0_u8),
        ),
        (
            |r| {
                r.sampler_options = Some(SamplerOptions {
                    s_noise: Some(f32::INFINITY),
                    ..Default::default()
                })
            },
            "sampler_options.s_noise",
            Rule::NotFinite,
        ),
        (
            |r| {
                let (s_tmin, s_tmax) = (Some(2.0), Some(1.0));
                r.sampler_options = Some(SamplerOptions {
                    s_tmin,
                    s_tmax,
                    ..Default::default()
                });
            },
            "sampler_options.s_tmax",
            Rule::Wrong("is 1 and must not be below s_tmin, which is 2".into()),
        ),
        (
            |r| {
                r.size_conditions = Some(SizeConditions {
                    crop_left: 65_537,
                    ..Default::default()
                })
            },
            "size_conditions.crop_left",
            Rule::at_most(65_537, 65_536_u32),
        ),
        (
            |r| {
                let aesthetic_score = Some(101.0);
                r.negative_size_conditions = Some(SizeConditions {
                    aesthetic_score,
                    ..Default::default()
                });
            },
            "negative_size_conditions.aesthetic_score",
            Rule::at_most(101, 100_u8),
        ),
        (
            |r| r.sigma_schedule = "steep".into(),
            "sigma_schedule",
            Rule::OneOf(vec!["karras".into(), "beta".into()]),
        ),
        (
            |r| r.priority = 9,
            "priority",
            Rule::OneOf(
                ["PRIORITY_LOW", "PRIORITY_NORMAL", "PRIORITY_HIGH"]
                    .map(String::from)
                    .into(),
            ),
        ),
        (
            |r| r.determinism = 9,
            "determinism",
            Rule::OneOf(
                ["DETERMINISM_STRICT", "DETERMINISM_FAST"]
                    .map(String::from)
                    .into(),
            ),
        ),
        (
            |r| r.random_source = -1,
            "random_source",
            Rule::OneOf(
                ["RANDOM_SOURCE_CPU", "RANDOM_SOURCE_CUDA"]
                    .map(String::from)
                    .into(),
            ),
        ),
        (
            |r| r.strength = Some(0.5),
            "strength",
            Rule::Wrong("needs init_image".into()),
        ),
        (
            |r| r.mask_image = png(8, 8),
            "mask_image",
            Rule::Wrong("needs init_image".into()),
        ),
    ];
    for (change, field, rule) in cases {
        assert_eq!(problem(change), ((*field).to_owned(), rule.clone()), "{field}");
    }
    assert_eq!(problem(|r| r.prompt_syntax = 9).0, "prompt_syntax");
}

#[test]
fn schedulers_are_known_by_all_their_names() {
    let chosen = |name: &str, schedule: &str| {
        asked(|r| (r.scheduler, r.sigma_schedule) = (name.into(), schedule.into())).map(|plan| plan.chosen)
    };
    for (name, schedule, canonical) in [
        ("Euler a", "", "euler_a"),
        ("EulerDiscreteScheduler", "", "euler"),
        ("DPM++ 2M Karras", "", "dpmpp_2m_karras"),
        ("dpmpp_2m_karras", "Karras", "dpmpp_2m_karras"),
    ] {
        let chosen = chosen(name, schedule).unwrap();
        assert_eq!(
            (chosen.scheduler.as_str(), chosen.asked.as_str()),
            (canonical, canonical)
        );
        assert_eq!(chosen.schedule, "", "the name says it");
    }
    let apart = chosen("DPM++ 2M", "Karras").unwrap();
    assert_eq!(
        (apart.scheduler.as_str(), apart.schedule.as_str()),
        ("dpmpp_2m", "karras")
    );
    let own = chosen("", "beta").unwrap();
    assert_eq!(
        (own.scheduler.as_str(), own.asked.as_str(), own.schedule.as_str()),
        ("pndm", "", "beta")
    );
    let refused = |name: &str, schedule: &str| {
        let problem = chosen(name, schedule).unwrap_err().remove(0);
        (problem.field.into_owned(), problem.rule.to_string())
    };
    let (field, why) = refused("Heun", "");
    assert!(
        field == "scheduler" && why.contains("pndm, ddim"),
        "known, not by this model: {why}"
    );
    let (field, why) = refused("DPM++ 2S a", "");
    assert!(
        field == "scheduler" && why.contains("diffusers has no") && why.contains("euler_a"),
        "{why}"
    );
    let (field, why) = refused("dpmpp_2m_karras", "beta");
    assert!(field == "sigma_schedule" && why.contains("karras"), "{why}");
    assert_eq!(refused("euler_exponential", "").0, "scheduler");
}

#[test]
fn a_schedule_that_the_scheduler_does_not_have_is_refused_with_those_that_it_has() {
    let model = ModelInfo {
        schedulers: ["ddim", "euler", "euler_karras", "euler_beta"]
            .map(String::from)
            .into(),
        default_scheduler: "ddim".into(),
        ..model()
    };
    let chosen = |name: &str, schedule: &str| {
        let request = image::GenerateRequest {
            prompt: "a cat".into(),
            scheduler: name.into(),
            sigma_schedule: schedule.into(),
            ..Default::default()
        };
        with(request, &model, None).map_err(|mut problems| problems.remove(0))
    };
    assert!(chosen("Euler", "Karras").is_ok() && chosen("euler_beta", "").is_ok());
    let problem = chosen("ddim", "karras").unwrap_err();
    assert_eq!(problem.field, "sigma_schedule");
    assert_eq!(
        problem.rule.to_string(),
        "must be empty with scheduler ddim, which has its own only"
    );
    let problem = chosen("euler", "lu").unwrap_err();
    assert_eq!(
        (&*problem.field, problem.rule),
        (
            "sigma_schedule",
            Rule::OneOf(vec!["karras".into(), "beta".into()])
        )
    );
    assert_eq!(chosen("", "karras").unwrap_err().field, "sigma_schedule");
    let problem = chosen("DDIM Karras", "").unwrap_err();
    assert_eq!(
        (&*problem.field, problem.rule),
        (
            "scheduler",
            Rule::OneOfMany {
                meant: Some("ddim".into()),
                some: model.schedulers.clone(),
                more: 0
            }
        )
    );
}

#[test]
fn a_picture_to_start_from_has_its_own_size_and_one_to_draw_into_the_models() {
    let from = asked(|r| r.init_image = png(203, 97)).unwrap();
    assert_eq!(
        (from.width, from.height),
        (200, 96),
        "rounded down, as diffusers does"
    );
    assert_eq!(from.source.as_ref().map(|s| s.strength), Some(0.8));
    assert_eq!(from.cost.get(), 2 * 16 * (200 * 96) / (128 * 128) + 1);
    let into = asked(|r| (r.init_image, r.mask_image) = (png(200, 96), png(50, 50))).unwrap();
    assert_eq!((into.width, into.height), (128, 128));
    assert_eq!(into.source.map(|s| s.strength), Some(1.0));
    let mixed = asked(|r| (r.init_image, r.width) = (png(200, 96), Some(64))).unwrap();
    assert_eq!((mixed.width, mixed.height), (64, 96));
    let other = asked(|r| (r.init_image, r.width, r.height) = (png(5000, 4), Some(64), Some(64)));
    assert!(other.is_ok(), "the size that is asked for counts");
    for (width, height) in [(5000, 64), (64, 5000), (7, 64), (64, 7)] {
        let (field, rule) = problem(|r| r.init_image = png(width, height));
        assert_eq!(field, "init_image");
        assert!(rule.to_string().contains("must be 8 to 1024"), "{rule}");
    }
}

#[test]
fn files_are_refused_at_the_door() {
    let (field, rule) = problem(|r| r.init_image = "GIF89a and so on".into());
    assert_eq!(
        (field.as_str(), rule.to_string().contains("PNG, JPEG or WebP")),
        ("init_image", true)
    );
    let (field, rule) = problem(|r| (r.init_image, r.mask_image) = (png(64, 64), "no mask".into()));
    assert_eq!(
        (field.as_str(), rule.to_string().contains("PNG, JPEG or WebP")),
        ("mask_image", true)
    );
    let (field, rule) = problem(|r| r.init_image = vec![0; 2000].into());
    assert_eq!(field, "init_image");
    assert_eq!(rule.to_string(), "has 2000 bytes and may have at most 1024");
    assert_eq!(
        problem(|r| (r.init_image, r.strength) = (png(64, 64), Some(1.5))).1,
        Rule::at_most(1.5, 1_u8)
    );
    let (field, rule) = problem(|r| (r.init_image, r.strength) = (png(64, 64), Some(0.01)));
    assert_eq!(field, "strength");
    assert!(rule.to_string().contains("leaves none of 20 steps"), "{rule}");
}

#[test]
fn a_model_is_asked_only_for_what_it_can_do() {
    let text_only = ModelInfo {
        tasks: Vec::new(),
        ..model()
    };
    let request = |init: bool, mask: bool| image::GenerateRequest {
        prompt: "a cat".into(),
        init_image: if init { png(64, 64) } else { bytes::Bytes::new() },
        mask_image: if mask { png(64, 64) } else { bytes::Bytes::new() },
        ..Default::default()
    };
    let field = |request, model: &ModelInfo| with(request, model, None).unwrap_err().remove(0).field;
    assert_eq!(field(request(true, false), &text_only), "init_image");
    assert_eq!(field(request(true, true), &text_only), "mask_image");
    assert_eq!(field(request(false, false), &refiner()), "init_image");
    let alone = with(request(true, false), &refiner(), None).unwrap();
    assert_eq!(
        alone.source.map(|s| s.strength),
        Some(0.3),
        "diffusers' default for a refiner"
    );
}

#[test]
fn cost_follows_what_is_computed() {
    let rows = |change: fn(&mut image::GenerateRequest)| asked(change).unwrap().cost.get();
    assert_eq!(rows(|_| ()), 40);
    assert_eq!(
        rows(|r| (r.init_image, r.strength) = (png(128, 128), Some(0.5))),
        20,
        "half of the steps"
    );
    assert_eq!(
        rows(|r| r.guidance_interval = Some(GuidanceInterval {
            start: 0.0,
            end: 0.25
        })),
        25
    );
    let two_calls = ModelInfo {
        schedulers: vec!["heun".into()],
        extra_calls: [("heun".into(), -1)].into(),
        ..model()
    };
    let request = || image::GenerateRequest {
        prompt: "a cat".into(),
        scheduler: "heun".into(),
        ..Default::default()
    };
    assert_eq!(with(request(), &two_calls, None).unwrap().cost.get(), 78);
    let embedded = ModelInfo {
        guidance_embedded: true,
        ..two_calls
    };
    let plan = with(request(), &embedded, None).unwrap();
    assert_eq!((plan.cost.get(), plan.is_guided), (39, false));
}

proptest! {
    #[test]
    fn no_request_panics(
        strength: Option<f32>, clip_skip: u32, guidance_rescale: f32, start: f32, end: f32, switch_at: f32,
        scheduler in "[A-Za-z+_0-9 ]{0,20}", file in prop::collection::vec(any::<u8>(), 0..64), steps in 0u32..200,
        numbers in any::<[i32; 4]>(), eta: Option<f32>, s_tmax: Option<f32>, is_masked: bool,
    ) {
        let request = image::GenerateRequest {
            strength, clip_skip, guidance_rescale, scheduler,
            guidance_interval: Some(GuidanceInterval { start, end }),
            mask_image: if is_masked { png(64, 64) } else { bytes::Bytes::new() },
            init_image: file.into(),
            prompt_syntax: numbers[0], priority: numbers[1], determinism: numbers[2], random_source: numbers[3],
            sampler_options: Some(SamplerOptions { eta, s_tmax, ..Default::default() }),
            ..refined(switch_at, steps)
        };
        let _ = with(request, &model(), Some(&refiner()));
    }
}

#[test]
fn stable_diffusion_xl_has_strengths_of_its_own_where_none_is_said() {
    let xl = ModelInfo {
        pipeline_class: "StableDiffusionXLPipeline".into(),
        ..model()
    };
    let strength = |mask: bool| {
        let request = image::GenerateRequest {
            prompt: "a cat".into(),
            init_image: png(128, 128),
            mask_image: if mask { png(128, 128) } else { bytes::Bytes::new() },
            ..Default::default()
        };
        with(request, &xl, None)
            .unwrap()
            .source
            .map(|source| source.strength)
    };
    assert_eq!((strength(false), strength(true)), (Some(0.3), Some(0.9999)));
}
