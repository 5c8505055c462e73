use proptest::prelude::*;

use super::*;
use crate::v2::{datatype::Datatype::Fp32, tensor::Tensor};

fn text(name: &str, texts: &[&'static str]) -> Tensor {
    Tensor::bytes(
        name,
        texts
            .iter()
            .map(|text| Bytes::from_static(text.as_bytes()))
            .collect(),
    )
}

fn ask(inputs: Vec<Tensor>, parameters: &[(&str, Value)]) -> Ask {
    Ask {
        inputs,
        parameters: parameters
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect(),
        ..Ask::default()
    }
}

fn told(drawing: &Drawing) -> Vec<String> {
    drawing
        .problems
        .iter()
        .map(|p| format!("{} {}", p.field, p.rule))
        .collect()
}

#[test]
fn tensors_and_parameters_become_a_request() {
    let inputs = vec![
        text("prompt", &["a"]),
        text("negative_prompt", &["b"]),
        Tensor::uint64("seed", &[3, 4]),
        Tensor::uint64("width", &[64]),
        Tensor::of(
            "guidance_scale",
            Fp32,
            vec![1, 1],
            Bytes::copy_from_slice(&2.5f32.to_le_bytes()),
        ),
    ];
    let parameters = [
        ("steps", Value::Integer(4)),
        ("scheduler", "euler_a".into()),
        ("guidance_end", Value::Number(0.5)),
        ("eta", Value::Integer(1)),
        ("format", "JPEG".into()),
        ("refiner", "r".into()),
        ("switch_at", Value::Number(0.8)),
        ("priority", Value::Integer(1)),
        ("timeout", Value::Integer(1_500_000)),
    ];
    let drawing = read(ask(inputs, &parameters), 16);
    assert_eq!(told(&drawing), [""; 0]);
    let [request] = &drawing.requests[..] else {
        panic!("{drawing:?}")
    };
    assert_eq!((&*request.prompt, &*request.negative_prompt), ("a", "b"));
    assert_eq!(
        (&request.seeds[..], request.width, request.height),
        (&[3, 4][..], Some(64), None)
    );
    assert_eq!((request.steps, request.guidance_scale), (Some(4), Some(2.5)));
    assert_eq!((&*request.scheduler, request.format), ("euler_a", 2));
    let interval = request.guidance_interval.unwrap();
    assert_eq!((interval.start, interval.end), (0.0, 0.5));
    assert_eq!(request.sampler_options.unwrap().eta, Some(1.0));
    assert_eq!(
        request.refiner.as_ref().map(|r| (&*r.model, r.switch_at)),
        Some(("r", 0.8))
    );
    assert_eq!(request.priority, i32::from(Priority::High));
    assert_eq!(drawing.common.timeout, Some(Duration::from_millis(1500)));
    assert_eq!(drawing.reply.outputs, [Output::Image, Output::Seed]);
    assert_eq!(drawing.reply.decoupled_by, None);
}

#[test]
fn several_prompts_are_as_many_requests() {
    let inputs = vec![
        text("prompt", &["a", "b"]),
        text("negative_prompt", &["n"]),
        Tensor::uint64("seed", &[1, 2, 3, 4]),
    ];
    let drawing = read(ask(inputs, &[("image_count", Value::Integer(2))]), 2);
    assert_eq!(told(&drawing), [""; 0]);
    let of = |nth: usize| {
        let request: &GenerateRequest = &drawing.requests[nth];
        (
            &*request.prompt,
            &*request.negative_prompt,
            &request.seeds[..],
            request.image_count,
        )
    };
    assert_eq!(
        (of(0), of(1)),
        (("a", "n", &[1, 2][..], 2), ("b", "n", &[3, 4][..], 2))
    );
    let one_seed = vec![text("prompt", &["a", "b"]), Tensor::uint64("seed", &[9])];
    let drawing = read(ask(one_seed, &[]), 2);
    assert!(drawing.requests.iter().all(|request| request.seeds == [9]));
}

#[test]
fn what_is_wrong_is_told_by_its_name() {
    let seeds = vec![
        text("prompt", &["a", "b"]),
        Tensor::uint64("seed", &[1, 2, 3]),
        text("negative_prompt", &["a", "b", "c"]),
    ];
    assert_eq!(
        told(&read(ask(seeds, &[]), 2)),
        [
            "negative_prompt has 3 elements for 2 prompts; one, or one for each",
            "seed has 3 values for 2 prompts; one, or as many for each"
        ]
    );
    let many = vec![text("prompt", &["a", "b", "c"])];
    assert_eq!(
        told(&read(ask(many, &[]), 2)),
        ["prompt has 3 elements and may have at most 2"]
    );
    let wrong = [
        ("prompt", Value::Integer(7)),
        ("priority", Value::Integer(4)),
        ("timeout", Value::Integer(-1)),
        ("sequence_id", Value::Integer(5)),
        ("format", "gif".into()),
        ("seed", Value::Integer(-1)),
        ("switch_at", Value::Number(0.5)),
        ("step", Value::Integer(4)),
    ];
    let told_of = told(&read(ask(Vec::new(), &wrong), 2));
    for start in [
        "step is not known; known are prompt",
        "prompt must be a string",
        "priority is 4 and must be at most 3",
        "timeout is -1 and must be at least 0",
        "sequence_id is given; there are no sequences",
        "format must be one of png, jpeg, webp",
        "seed is -1 and must be at least 0",
        "refiner is required",
    ] {
        assert!(
            told_of.iter().any(|said| said.starts_with(start)),
            "{start}: {told_of:#?}"
        );
    }
    assert_eq!(told(&read(Ask::default(), 2)).len(), 1, "a prompt");
}

#[test]
fn outputs_are_chosen_by_their_names() {
    let outputs = |names: &[&str], parameters: &[(&str, Value)]| {
        let mut asked = ask(vec![text("prompt", &["a"])], parameters);
        asked.outputs = names.iter().map(|name| (*name).to_owned()).collect();
        read(asked, 1)
    };
    let drawing = outputs(&["pixels", "seed", "pixels"], &[]);
    assert_eq!(drawing.reply.outputs, [Output::Pixels, Output::Seed]);
    assert_eq!(drawing.requests[0].provenance, i32::from(Provenance::None));
    let told_of = told(&outputs(&["pixels"], &[("format", "jpeg".into())]));
    assert_eq!(told_of, ["format is of output image, which is not asked for"]);
    assert_eq!(
        told(&outputs(&["latents"], &[])),
        ["latents is no output; there are image, seed, pixels"]
    );
    let drawing = outputs(
        &[],
        &[("preview_interval", Value::Integer(2)), ("progress", true.into())],
    );
    assert_eq!(drawing.reply.decoupled_by, Some("preview_interval"));
    assert!(drawing.reply.progress && drawing.requests[0].preview_interval == 2);
}

proptest! {
    #[test]
    fn no_request_panics_and_none_has_more_prompts_than_are_allowed(
        names in proptest::collection::vec(0..NAMES.len(), 0..8),
        counts in proptest::collection::vec(0usize..6, 8),
        numbers in proptest::collection::vec(any::<i64>(), 8),
        raw in any::<bool>(),
    ) {
        let mut asked = Ask::default();
        for (nth, name) in names.into_iter().enumerate() {
            let name = NAMES[name];
            if raw {
                let values = vec![numbers[nth] as u64; counts[nth]];
                asked.inputs.push(Tensor::uint64(name, &values));
            } else if counts[nth] > 2 {
                asked.inputs.push(Tensor::bytes(name, vec![Bytes::from_static(b"x"); counts[nth]]));
            } else {
                asked.parameters.insert(name.to_owned(), Value::Integer(numbers[nth].into()));
            }
        }
        let drawing = read(asked, 3);
        prop_assert!(drawing.requests.len() <= 3);
        prop_assert!(!drawing.problems.is_empty() || !drawing.requests.is_empty());
    }
}
