//! Trajectories against diffusers' pipelines: golden/trajectories.json is made by tools/reference/trajectories.py.

use std::sync::Arc;

use crate::common::{difference, floats, list, number, size};
use mobula_diffusion::embedding::guidance_scale_embedding;
use mobula_diffusion::random::Source;
use mobula_diffusion::{
    Ask, Choice, Config, Error, Guidance, Mask, Options, Posterior, Sampler, Span, Spec, Start, Trajectory,
};
use serde_json::Value;

/// Largest difference of a latent or a model input, relative to max(1, |x|).
const TOLERANCE: f64 = 1e-4;
/// The same for DPM++ SDE: its noise is a Brownian path asked at times rounded to a millionth, over which the path moves by a
/// thousandth, and a last bit of torch's exponential (its vendor's) decides which way a time is rounded.
const BROWNIAN_TOLERANCE: f64 = 1e-2;
/// Largest difference of the embedded guidance scale; float32 holds the angle it is a sine of no better.
const EMBEDDING_TOLERANCE: f64 = 2e-3;

/// The stand-in UNet of tools/reference/schedulers.py: row 0 is unconditional, row 1 (or the only one) conditional. A UNet of nine
/// channels adds parts of the mask and the masked picture to its latents first.
fn model(input: &[f32], values: usize, pixels: usize, timestep: f32, row: usize) -> Vec<f32> {
    let (latents, extra) = input.split_at(values);
    let term = |(index, x): (usize, &f32)| {
        let mut x = f64::from(*x);
        if !extra.is_empty() {
            x += 0.3 * f64::from(extra[index % pixels]) + 0.2 * f64::from(extra[pixels + index]);
        }
        let angle = 0.9 * x + 0.002 * f64::from(timestep) + 0.5 * row as f64 + 0.1 * index as f64;
        (0.8 * angle.sin()) as f32
    };
    latents.iter().enumerate().map(term).collect()
}

fn maybe(value: &Value) -> Option<f32> {
    value.as_f64().map(|x| x as f32)
}

/// The sampler of a case: the model's configuration is always a PNDM one, with the case's own keys.
fn sampler(golden: &Value, case: &Value) -> Result<Sampler, Error> {
    let mut config = golden["base"].clone();
    for (key, value) in case["config"].as_object().unwrap() {
        config[key] = value.clone();
    }
    let config = Config::from_json(&config.to_string()).unwrap();
    let (start, end) = (maybe(&case["start"]), maybe(&case["end"]));
    let span = match maybe(&case["strength"]) {
        // As diffusers' own pipeline of those models; any other scheduler takes it for plain strength.
        Some(strength) if case["kind"].as_str().is_none_or(|kind| kind.starts_with("lcm")) => {
            Span::Consistency(strength)
        }
        Some(strength) => Span::Strength(strength),
        None if start.is_some() || end.is_some() => Span::Part { start, end },
        None => Span::Whole,
    };
    let ask = Ask {
        choice: Choice::parse(case["kind"].as_str().unwrap(), "").unwrap(),
        steps: size(&case["steps"]),
        span,
        options: Options {
            // The pipelines give 0 where nothing else is asked for, whatever the scheduler's own default.
            eta: Some(maybe(&case["eta"]).unwrap_or(0.0)),
            ..Options::default()
        },
    };
    Sampler::new(&config, &ask)
}

fn posterior(golden: &Value, case: &Value, index: usize) -> Posterior {
    let entry = &golden["posteriors"][size(&case["posteriors"][index])];
    Posterior {
        mean: floats(&entry["mean"]).into(),
        deviation: entry["deviation"]
            .is_array()
            .then(|| floats(&entry["deviation"]).into()),
        scaling: number(&case["scaling"]) as f32,
        shift: 0.0,
    }
}

fn start(golden: &Value, case: &Value) -> Start {
    match case["task"].as_str().unwrap().trim_start_matches("xl_") {
        "image" if case["latents"].is_array() => Start::Latents(floats(&case["latents"]).into()),
        "image" => Start::Image {
            image: posterior(golden, case, 0),
            mask: None,
        },
        "inpaint" => Start::Image {
            image: posterior(golden, case, 0),
            mask: Some(Mask {
                weights: floats(&case["mask"]).into(),
                masked: posterior(golden, case, 1),
                concatenated: case["concatenated"].as_bool() == Some(true),
            }),
        },
        _ => Start::Noise,
    }
}

fn spec(golden: &Value, case: &Value) -> Spec {
    let shape: Vec<usize> = list(&golden["header"]["shape"]).iter().map(size).collect();
    Spec {
        channels: shape[0],
        height: shape[1],
        width: shape[2],
        guidance: Guidance {
            scale: number(&case["guidance"]) as f32,
            rescale: maybe(&case["rescale"]).unwrap_or(0.0),
            interval: maybe(&case["interval"][0]).zip(maybe(&case["interval"][1])),
            embedded: case["embedding"].is_number(),
        },
        seed: case["seed"].as_u64().unwrap(),
        source: Source::Cpu,
        start: start(golden, case),
    }
}

/// Follows one case to its end; returns the largest differences of inputs and of latents.
fn follow(golden: &Value, case: &Value) -> Result<(f64, f64), Error> {
    let spec = spec(golden, case);
    let pixels = spec.height * spec.width;
    let mut trajectory = Trajectory::new(spec, Arc::new(sampler(golden, case)?))?;
    assert_eq!(
        trajectory.steps(),
        size(&case["calls"]),
        "calls of {}",
        label(case)
    );
    let mut input = vec![0.0; trajectory.input_values()];
    let (mut inputs, mut latents) = (0.0_f64, 0.0_f64);
    let at = |list_of: &Value, call: usize| list(list_of).iter().find(|x| size(&x[0]) == call).cloned();
    while !trajectory.is_done() {
        let call = trajectory.step();
        if let Some(rows) = case["rows"].as_array() {
            assert_eq!(
                trajectory.rows(),
                size(&rows[call]),
                "rows of call {call} of {}",
                label(case)
            );
        }
        trajectory.write_input(&mut input)?;
        if let Some(expected) = at(&case["inputs"], call) {
            inputs = inputs.max(difference(&input, &expected[1]));
        }
        let answer = |row| model(&input, trajectory.values(), pixels, trajectory.timestep(), row);
        let (cond, uncond) = (answer(1), trajectory.is_guided().then(|| answer(0)));
        trajectory.accept(uncond.as_deref(), &cond)?;
        if let Some(expected) = at(&case["kept"], trajectory.step()) {
            latents = latents.max(difference(trajectory.latents(), &expected[1]));
        }
    }
    Ok((inputs, latents))
}

fn label(case: &Value) -> String {
    let mut case = case.clone();
    for key in ["inputs", "kept", "latents", "mask", "posteriors", "timestep_cond"] {
        case.as_object_mut().unwrap().remove(key);
    }
    case.to_string()
}

fn golden() -> Value {
    serde_json::from_str(include_str!("../golden/trajectories.json")).unwrap()
}

#[test]
fn every_start_and_guidance_follows_the_pipelines_of_diffusers() {
    let golden = golden();
    let cases = list(&golden["cases"]);
    let mut wrong = Vec::new();
    let mut all: Vec<(f64, f64, String)> = Vec::new();
    for case in cases {
        match follow(&golden, case) {
            Err(error) => wrong.push(format!("{error}: {}", label(case))),
            Ok((inputs, latents)) => all.push((inputs, latents, label(case))),
        }
    }
    all.sort_by(|a, b| b.1.max(b.0).total_cmp(&a.1.max(a.0)));
    println!(
        "{} trajectories; largest differences of inputs and latents:",
        all.len()
    );
    for (inputs, latents, label) in all.iter().take(12) {
        println!("  {inputs:.2e} {latents:.2e} {label}");
    }
    for (inputs, latents, label) in &all {
        let tolerance = if label.contains("dpmpp_sde") {
            BROWNIAN_TOLERANCE
        } else {
            TOLERANCE
        };
        if inputs.max(*latents) > tolerance {
            wrong.push(format!("{inputs:.1e} {latents:.1e} {label}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

#[test]
fn the_golden_file_has_every_start_with_and_without_its_choices() {
    let golden = golden();
    let count = |is: &dyn Fn(&Value) -> bool| list(&golden["cases"]).iter().filter(|case| is(case)).count();
    for task in [
        "text",
        "image",
        "inpaint",
        "xl_text",
        "xl_image",
        "xl_inpaint",
        "interval",
    ] {
        assert!(count(&|case| case["task"] == task) >= 5, "{task}");
    }
    assert!(count(&|case| case["concatenated"] == true) >= 20);
    assert!(count(&|case| case["samples"] == true) >= 10);
    assert!(count(&|case| case["start"].is_number() && case["end"].is_number()) >= 5);
}

#[test]
fn the_pipelines_give_the_scale_minus_one_to_models_that_embed_it() {
    let golden = golden();
    let cases = list(&golden["cases"])
        .iter()
        .filter(|case| case["embedding"].is_number());
    let mut seen = 0;
    for case in cases {
        let w = number(&case["guidance"]) as f32 - 1.0;
        let values = guidance_scale_embedding(w, size(&case["embedding"])).unwrap();
        let far = difference(&values, &case["timestep_cond"]);
        assert!(far < EMBEDDING_TOLERANCE, "{far:e}");
        seen += 1;
    }
    assert!(seen >= 2);
}
