use mobula_proto::{
    common::v1::SamplerOptions,
    image::v1::{GuidanceInterval, Refiner, Task},
};
use proptest::prelude::*;

use super::*;

mod fields;
mod refiner;

const LIMITS: Limits = Limits {
    provenance: image::Provenance::Full,
    max_images: 16,
    max_prompt_bytes: 65_536,
    max_image_bytes: 1 << 10,
};

fn model() -> ModelInfo {
    ModelInfo {
        digest: "ab".repeat(32),
        default_width: 128,
        default_height: 128,
        default_steps: 20,
        default_guidance_scale: 7.5,
        default_scheduler: "pndm".into(),
        schedulers: ["pndm", "ddim", "euler", "euler_a", "dpmpp_2m"]
            .map(String::from)
            .into(),
        size_multiple: 8,
        max_size: 1024,
        max_steps: 150,
        tasks: [Task::TextToImage, Task::ImageToImage, Task::Inpaint]
            .map(i32::from)
            .into(),
        sigma_schedules: ["karras", "beta"].map(String::from).into(),
        max_clip_skip: 11,
        ..ModelInfo::default()
    }
}

fn refiner() -> ModelInfo {
    ModelInfo {
        tasks: [Task::Refine, Task::ImageToImage].map(i32::from).into(),
        ..model()
    }
}

fn asked(change: impl FnOnce(&mut image::GenerateRequest)) -> Result<Plan, Vec<Problem>> {
    let mut request = image::GenerateRequest {
        prompt: "a cat".into(),
        ..Default::default()
    };
    change(&mut request);
    with(request, &model(), None)
}

fn with(
    request: image::GenerateRequest,
    first: &ModelInfo,
    refiner: Option<&ModelInfo>,
) -> Result<Plan, Vec<Problem>> {
    plan(request, Models { first, refiner }, LIMITS, || 7)
}

/// The first bytes of a PNG file; all that is read here.
fn png(width: u32, height: u32) -> bytes::Bytes {
    let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    file.extend(width.to_be_bytes());
    file.extend(height.to_be_bytes());
    file.into()
}

fn problem(change: impl FnOnce(&mut image::GenerateRequest)) -> (String, Rule) {
    let mut problems = asked(change).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    let problem = problems.remove(0);
    (problem.field.into_owned(), problem.rule)
}

#[test]
fn absent_fields_take_the_models_defaults() {
    let plan = asked(|_| ()).unwrap();
    assert_eq!((plan.width, plan.height, plan.steps), (128, 128, 20));
    assert_eq!(
        (plan.guidance_scale, plan.chosen.scheduler.as_str()),
        (7.5, "pndm")
    );
    assert_eq!(plan.seeds, [7]);
    assert_eq!(plan.cost.get(), 40);
}

#[test]
fn every_bad_field_is_named() {
    assert_eq!(
        problem(|r| r.prompt.clear()),
        ("prompt".into(), Rule::TooShort { min: 1 })
    );
    assert_eq!(
        problem(|r| r.prompt = "x".repeat(1 << 20)),
        (
            "prompt".into(),
            Rule::TooLong {
                has: 1 << 20,
                max: 65_536
            }
        )
    );
    assert_eq!(
        problem(|r| r.negative_prompt = "x".repeat(65_537)),
        (
            "negative_prompt".into(),
            Rule::TooLong {
                has: 65_537,
                max: 65_536
            }
        )
    );
    assert_eq!(
        problem(|r| r.width = Some(0)),
        ("width".into(), Rule::at_least(0, 8_u8))
    );
    assert_eq!(
        problem(|r| r.width = Some(100)),
        ("width".into(), Rule::MultipleOf { is: 100, of: 8 })
    );
    assert_eq!(
        problem(|r| r.height = Some(1032)),
        ("height".into(), Rule::at_most(1032, 1024_u32))
    );
    assert_eq!(
        problem(|r| r.steps = Some(0)),
        ("steps".into(), Rule::at_least(0, 1_u8))
    );
    assert_eq!(
        problem(|r| r.steps = Some(10_000)),
        ("steps".into(), Rule::at_most(10_000, 150_u8))
    );
    assert_eq!(
        problem(|r| r.guidance_scale = Some(f32::NAN)),
        ("guidance_scale".into(), Rule::NotFinite)
    );
    assert_eq!(
        problem(|r| r.guidance_scale = Some(f32::INFINITY)),
        ("guidance_scale".into(), Rule::NotFinite)
    );
    assert_eq!(
        problem(|r| r.guidance_scale = Some(-1.0)),
        ("guidance_scale".into(), Rule::at_least(-1, 0_u8))
    );
    assert_eq!(
        problem(|r| r.guidance_scale = Some(1000.5)),
        ("guidance_scale".into(), Rule::at_most(1000.5_f32, 1000_u16))
    );
    assert_eq!(
        problem(|r| r.image_count = 17),
        ("image_count".into(), Rule::at_most(17, 16_u8))
    );
    assert_eq!(
        problem(|r| r.seeds = vec![1; 17]),
        (
            "seeds".into(),
            Rule::Wrong("has 17 values and may have at most 16".into())
        )
    );
    assert_eq!(problem(|r| r.format = 99).0, "format");
    let (field, rule) = problem(|r| r.scheduler = "turbo".into());
    assert_eq!(field, "scheduler");
    assert!(rule.to_string().contains("euler_a"), "{rule}");
    let more_seeds = |r: &mut image::GenerateRequest| (r.seeds, r.image_count) = (vec![1, 2, 3], 2);
    assert_eq!(problem(more_seeds).0, "seeds");
}

#[test]
fn all_problems_are_told_at_once() {
    let problems = asked(|r| {
        r.prompt.clear();
        r.width = Some(3);
        r.steps = Some(0);
    });
    let fields: Vec<_> = problems.unwrap_err().into_iter().map(|p| p.field).collect();
    assert_eq!(fields, ["prompt", "width", "steps"]);
}

#[test]
fn seeds_are_continued_or_drawn() {
    let seeds = |given: &[u64], count| {
        let given = given.to_vec();
        asked(|r| (r.seeds, r.image_count) = (given, count))
            .unwrap()
            .seeds
    };
    assert_eq!(seeds(&[3, 9], 4), [3, 9, 10, 11]);
    assert_eq!(seeds(&[3, 9], 0), [3, 9]);
    assert_eq!(seeds(&[u64::MAX], 2), [u64::MAX, 0]);
    assert_eq!(seeds(&[], 2), [7, 8]);
}

#[test]
fn cost_counts_the_calls_of_the_model_as_the_replica_says_that_its_schedulers_make_them() {
    let cost = |scheduler: &str, extra: &[(&str, i32)], switch_at: Option<f32>| {
        let extra = extra.iter().map(|(name, calls)| ((*name).to_owned(), *calls));
        let model = ModelInfo {
            schedulers: ["pndm", "heun"].map(String::from).into(),
            extra_calls: extra.collect(),
            ..model()
        };
        let last = ModelInfo {
            tasks: refiner().tasks,
            ..model.clone()
        };
        let request = image::GenerateRequest {
            prompt: "a cat".into(),
            scheduler: scheduler.into(),
            steps: Some(10),
            guidance_scale: Some(1.0),
            refiner: switch_at.map(|switch_at| Refiner {
                model: "refiner".into(),
                switch_at,
                ..Refiner::default()
            }),
            ..image::GenerateRequest::default()
        };
        let plan = with(request, &model, Some(&last)).unwrap();
        (plan.cost.get(), plan.refine.map(|refine| refine.cost.get()))
    };
    let known = [("pndm", 9), ("heun", -1)];
    assert_eq!(cost("pndm", &known, None), (19, None));
    assert_eq!(cost("", &known, None), (19, None), "the model's own");
    assert_eq!(cost("heun", &known, None), (19, None));
    assert_eq!(
        cost("pndm", &known, Some(0.6)),
        (15, Some(4)),
        "its first steps are the first model's"
    );
    assert_eq!(cost("pndm", &[], None), (10, None), "a replica that does not say");
}

#[test]
fn guidance_of_one_or_less_halves_the_cost() {
    assert_eq!(asked(|r| r.guidance_scale = Some(1.0)).unwrap().cost.get(), 20);
    assert!(!asked(|r| r.guidance_scale = Some(0.0)).unwrap().is_guided);
}

#[test]
fn request_ids_are_short_and_printable() {
    assert!(request_id("").is_ok());
    assert!(request_id("order 66/a~").is_ok());
    assert!(request_id("zwölf").is_err());
    assert!(request_id("a\nb").is_err());
    assert!(request_id(&"x".repeat(129)).is_err());
}

proptest! {
    #[test]
    fn a_plan_keeps_every_limit(
        width: Option<u32>, height: Option<u32>, steps: Option<u32>, guidance_scale: Option<f32>,
        seeds in prop::collection::vec(any::<u64>(), 0..20), image_count in 0u32..40, format in 0i32..4,
    ) {
        let asked = asked(|r| {
            (r.width, r.height, r.steps, r.guidance_scale) = (width, height, steps, guidance_scale);
            (r.seeds, r.image_count, r.format) = (seeds.clone(), image_count, format);
        });
        match asked {
            Ok(plan) => {
                prop_assert!(plan.width.is_multiple_of(8) && (8..=1024).contains(&plan.width));
                prop_assert!(plan.height.is_multiple_of(8) && (8..=1024).contains(&plan.height));
                prop_assert!((1..=150).contains(&plan.steps));
                prop_assert!((0.0..=1000.0).contains(&plan.guidance_scale));
                prop_assert!((1..=16).contains(&plan.seeds.len()));
                prop_assert_eq!(&plan.seeds[..seeds.len()], &seeds[..]);
            }
            Err(problems) => prop_assert!(!problems.is_empty()),
        }
    }
}
