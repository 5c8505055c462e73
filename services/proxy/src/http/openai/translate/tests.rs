use bytes::Bytes;

use super::*;

fn generate(body: &str) -> Asked {
    translate(&Endpoint::Generations, Fields::json(body.as_bytes()).unwrap())
}

fn form(endpoint: &Endpoint, parts: &[(&str, Bytes)]) -> Asked {
    let parts = parts
        .iter()
        .map(|(name, data)| ((*name).to_owned(), data.clone()));
    translate(endpoint, Fields::form(parts.collect()))
}

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn png(width: u32, height: u32) -> Bytes {
    let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    file.extend(width.to_be_bytes());
    file.extend(height.to_be_bytes());
    file.into()
}

fn told(asked: &Asked) -> Vec<String> {
    let words = |p: &Problem| format!("{}: {}", p.field, p.rule);
    asked.problems.iter().map(words).collect()
}

#[test]
fn every_field_of_a_prompt_goes_where_it_belongs() {
    let mut asked = generate(
        r#"{"prompt": "a cat", "model": "demo", "n": 2, "size": "256x128", "response_format": "url", "negative_prompt": "dog",
            "num_inference_steps": 30, "guidance_scale": 4.5, "seed": 18446744073709551615, "scheduler": "euler_a",
            "quality": "high", "user": "u"}"#,
    );
    assert_eq!(told(&asked), [""; 0]);
    asked.fit(None);
    let expected = GenerateRequest {
        prompt: "a cat".into(),
        model: "demo".into(),
        image_count: 2,
        width: Some(256),
        height: Some(128),
        negative_prompt: "dog".into(),
        steps: Some(30),
        guidance_scale: Some(4.5),
        seeds: vec![u64::MAX],
        scheduler: "euler_a".into(),
        ..GenerateRequest::default()
    };
    assert_eq!(asked.request, expected);
    let reply = Reply {
        links: true,
        ..Reply::default()
    };
    assert_eq!(asked.reply, reply);
}

#[test]
fn what_is_absent_null_or_auto_is_the_models_own() {
    let mut asked =
        generate(r#"{"prompt": "a cat", "size": "auto", "n": null, "model": null, "stream": false}"#);
    assert_eq!(told(&asked), [""; 0]);
    asked.fit(None);
    let expected = GenerateRequest {
        prompt: "a cat".into(),
        image_count: 1,
        ..GenerateRequest::default()
    };
    assert_eq!((asked.request, asked.reply), (expected, Reply::default()));
}

#[test]
fn everything_that_is_wrong_is_told_by_its_name() {
    let asked = generate(
        r#"{"n": 11, "size": "1024", "response_format": "png", "partial_images": 4, "seed": -1, "stream": "yes",
            "guidance_scale": "7", "steps": 3, "output_format": "gif"}"#,
    );
    let expected = [
        "steps: is not known; known are prompt, model",
        "prompt: is required",
        "n: is 11 and must be at most 10",
        "size: must be auto or WIDTHxHEIGHT",
        "guidance_scale: must be a number",
        "seed: is -1 and must be at least 0",
        "response_format: must be one of url, b64_json",
        "stream: must be true or false",
        "partial_images: is 4 and must be at most 3",
        "output_format: is gif",
    ];
    let told = told(&asked);
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.starts_with(expected), "{told}");
    }
    for size in ["1x", "x1", "+1x1", "1x1x1", "1X1", "1 x 1"] {
        let asked = generate(&format!(r#"{{"prompt": "a", "size": "{size}"}}"#));
        assert_eq!(asked.problems.len(), 1, "{size}");
    }
    let huge = generate(r#"{"prompt": "a", "size": "99999999999x8", "num_inference_steps": 99999999999}"#);
    assert_eq!(
        (huge.request.width, huge.request.steps),
        (Some(u32::MAX), Some(u32::MAX)),
        "for the model's own limits"
    );
}

#[test]
fn links_are_not_streamed_and_partial_pictures_are() {
    let asked = generate(r#"{"prompt": "a", "stream": true, "response_format": "url"}"#);
    assert!(told(&asked)[0].starts_with("response_format: "));
    let asked = generate(r#"{"prompt": "a", "partial_images": 2}"#);
    assert_eq!(told(&asked), ["partial_images: needs stream"]);
}

#[test]
fn partial_pictures_come_at_even_steps() {
    let model = ModelInfo {
        default_steps: 20,
        ..ModelInfo::default()
    };
    for (body, model, interval) in [
        (r#""partial_images": 0"#, Some(&model), 0),
        (r#""partial_images": 1"#, Some(&model), 10),
        (r#""partial_images": 3"#, Some(&model), 5),
        (
            r#""partial_images": 3, "num_inference_steps": 2"#,
            Some(&model),
            1,
        ),
        (r#""partial_images": 2, "num_inference_steps": 9"#, None, 3),
        (r#""partial_images": 2"#, None, 1),
    ] {
        let mut asked = generate(&format!(r#"{{"prompt": "a", "stream": true, {body}}}"#));
        asked.fit(model);
        assert_eq!(asked.request.preview_interval, interval, "{body}");
        assert_eq!(told(&asked), [""; 0]);
    }
}

#[test]
fn an_edit_draws_where_its_mask_is_transparent_and_keeps_the_pictures_shape() {
    let parts = [
        ("image", png(200, 100)),
        ("mask", png(200, 100)),
        ("prompt", text("a hat")),
        ("strength", text("0.5")),
        ("seed", text("7")),
    ];
    let mut asked = form(&Endpoint::Edits, &parts);
    assert_eq!(told(&asked), [""; 0]);
    asked.fit(Some(&ModelInfo {
        size_multiple: 64,
        ..ModelInfo::default()
    }));
    let request = asked.request;
    assert_eq!(
        (request.init_image, request.mask_image),
        (png(200, 100), png(200, 100))
    );
    assert_eq!(request.mask_channel, i32::from(MaskChannel::Transparency));
    assert_eq!((request.width, request.height), (Some(192), Some(64)));
    assert_eq!((request.strength, request.seeds), (Some(0.5), vec![7]));
}

#[test]
fn an_edit_has_one_picture_and_a_mask_of_its_size() {
    let prompt = ("prompt", text("a hat"));
    let asked = form(&Endpoint::Edits, std::slice::from_ref(&prompt));
    assert_eq!(told(&asked), ["image: is required"]);
    let two = [("image[]", png(8, 8)), ("image[]", png(8, 8)), prompt.clone()];
    assert!(told(&form(&Endpoint::Edits, &two))[0].starts_with("image: is given 2 times"));
    let one = [("image[]", png(8, 8)), prompt.clone()];
    assert_eq!(told(&form(&Endpoint::Edits, &one)), [""; 0]);
    let other = [("image", png(8, 8)), ("mask", png(8, 16)), prompt];
    assert_eq!(
        told(&form(&Endpoint::Edits, &other)),
        ["mask: is 8 x 16 and must be as large as the image, 8 x 8"]
    );
    let nothing = [("image", png(8, 8)), ("prompt", text(""))];
    assert_eq!(told(&form(&Endpoint::Edits, &nothing)), ["prompt: is required"]);
}

#[test]
fn a_variation_needs_no_prompt_and_is_not_guided_without_one() {
    let asked = form(&Endpoint::Variations, &[("image", png(8, 8)), ("n", text("2"))]);
    assert_eq!(told(&asked), [""; 0]);
    assert_eq!(
        (asked.request.guidance_scale, asked.request.image_count),
        (Some(1.0), 2)
    );
    let guided = form(
        &Endpoint::Variations,
        &[("image", png(8, 8)), ("negative_prompt", text("dog"))],
    );
    assert_eq!(guided.request.guidance_scale, None);
    let masked = form(
        &Endpoint::Variations,
        &[("image", png(8, 8)), ("mask", png(8, 8))],
    );
    assert!(told(&masked)[0].starts_with("mask: is not known"));
}
