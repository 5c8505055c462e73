use mobula_proto::{
    common::v1::{Determinism, Priority, RandomSource},
    image::v1::{GuidanceInterval, PromptSyntax},
};
use proptest::prelude::*;

use super::*;

fn problems(query: &str) -> Vec<(String, Rule)> {
    Query::parse(query)
        .problems
        .into_iter()
        .map(|p| (p.field.into_owned(), p.rule))
        .collect()
}

#[test]
fn the_ray_client_is_understood() {
    let query = Query::parse("prompt=a%20cute%20cat+is%20dancing.&img_size=512");
    assert_eq!(query.problems, []);
    assert_eq!(query.request.prompt, "a cute cat is dancing.");
    assert_eq!(
        (query.request.width, query.request.height),
        (Some(512), Some(512))
    );
}

#[test]
fn every_field_is_read() {
    let query = Query::parse(
        "prompt=%E7%8C%AB&negative_prompt=b%26c&width=64&height=128&steps=5&guidance_scale=%207.5&seed=18446744073709551615&scheduler=euler_a",
    );
    assert_eq!(query.problems, []);
    let expected = image::GenerateRequest {
        prompt: "猫".into(),
        negative_prompt: "b&c".into(),
        width: Some(64),
        height: Some(128),
        steps: Some(5),
        guidance_scale: Some(7.5),
        seeds: vec![u64::MAX],
        scheduler: "euler_a".into(),
        ..Default::default()
    };
    assert_eq!(query.request, expected);
}

#[test]
fn what_is_seldom_asked_for_has_a_name_too() {
    let query = Query::parse(
        "prompt=a&sigma_schedule=karras&prompt_syntax=A1111&clip_skip=2&guidance_rescale=0.7&guidance_end=0.8&priority=low&random_source=cuda&determinism=fast&eta=0.5&s_churn=1&refiner=xl&refiner_model_id=art&switch_at=0.8",
    );
    assert_eq!(query.problems, []);
    let expected = image::GenerateRequest {
        prompt: "a".into(),
        sigma_schedule: "karras".into(),
        prompt_syntax: PromptSyntax::A1111.into(),
        clip_skip: 2,
        guidance_rescale: 0.7,
        guidance_interval: Some(GuidanceInterval { start: 0.0, end: 0.8 }),
        priority: Priority::Low.into(),
        random_source: RandomSource::Cuda.into(),
        determinism: Determinism::Fast.into(),
        sampler_options: Some(SamplerOptions {
            eta: Some(0.5),
            s_churn: Some(1.0),
            ..SamplerOptions::default()
        }),
        refiner: Some(image::Refiner {
            model: "xl".into(),
            model_id: "art".into(),
            switch_at: 0.8,
        }),
        ..Default::default()
    };
    assert_eq!(query.request, expected);
    for (field, name) in [
        ("sampler_options.eta", "eta"),
        ("guidance_interval.end", "guidance_end"),
        ("refiner.model", "refiner"),
        ("refiner.model_id", "refiner_model_id"),
        ("refiner.switch_at", "switch_at"),
    ] {
        assert_eq!(query.given_as(field), name);
    }
}

#[test]
fn words_that_are_none_of_a_fields_are_told_with_those_that_are() {
    assert_eq!(
        problems("prompt=a&priority=urgent&clip_skip=-1&switch_at=0.5"),
        [
            ("clip_skip".to_owned(), Rule::at_least(-1, 0_u8)),
            (
                "priority".to_owned(),
                Rule::OneOf(["low", "normal", "high"].map(String::from).into())
            ),
            ("refiner".to_owned(), Rule::Missing),
        ]
    );
}

#[test]
fn every_problem_is_told_at_once() {
    assert_eq!(
        problems("img_size=abc&steps=1.5&guidance_scale=x&seed=-1&sampler=foo"),
        [
            ("sampler".to_owned(), Rule::Unexpected(FIELDS)),
            ("prompt".to_owned(), Rule::Missing),
            ("img_size".to_owned(), Rule::NotInteger),
            ("steps".to_owned(), Rule::NotInteger),
            ("guidance_scale".to_owned(), Rule::NotNumber),
            ("seed".to_owned(), Rule::at_least(-1, 0_u8)),
        ]
    );
    assert_eq!(
        problems("prompt=%ff%fe"),
        [("prompt".to_owned(), Rule::NotUnicode)]
    );
    assert_eq!(
        problems("prompt=a&seed=18446744073709551616"),
        [("seed".to_owned(), Rule::at_most("18446744073709551616", u64::MAX))]
    );
}

#[test]
fn a_field_is_complained_of_once_and_strangers_up_to_a_bound() {
    assert_eq!(
        problems("prompt=a&steps=%ff&steps=x"),
        [("steps".to_owned(), Rule::NotUnicode)]
    );
    assert_eq!(
        problems("prompt=a&b=1&c=2&b=%ff&c=4"),
        ["b", "c"].map(|name| (name.to_owned(), Rule::Unexpected(FIELDS)))
    );
    let many: String = (0..10_000).map(|i| format!("&x{i}=1")).collect();
    assert_eq!(problems(&format!("prompt=a{many}")).len(), UNKNOWN_TOLD);
}

#[test]
fn the_last_value_of_a_name_counts() {
    assert_eq!(Query::parse("prompt=a&prompt=b").request.prompt, "b");
}

#[test]
fn a_problem_with_a_side_is_told_of_img_size_when_that_was_given() {
    assert_eq!(Query::parse("img_size=3").given_as("width"), "img_size");
    assert_eq!(Query::parse("img_size=3&width=4").given_as("width"), "width");
    assert_eq!(Query::parse("prompt=a").given_as("width"), "width");
}

proptest! {
    #[test]
    fn no_query_panics(query in ".{0,80}") {
        let _ = Query::parse(&query);
    }

    #[test]
    fn any_prompt_survives_encoding(prompt in "\\PC{1,40}") {
        let encoded: String = prompt.bytes().map(|b| format!("%{b:02X}")).collect();
        let query = Query::parse(&format!("prompt={encoded}"));
        prop_assert_eq!(query.problems, []);
        prop_assert_eq!(query.request.prompt, prompt);
    }
}
