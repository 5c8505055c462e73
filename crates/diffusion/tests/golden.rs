//! Noise and trajectories against torch and diffusers: golden/*.json are made by tools/reference/{noise,schedulers}.py.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::sync::Arc;

use mobula_diffusion::random::Generator;
use mobula_diffusion::{Config, Kind, Sampler, Spec, Trajectory};
use serde_json::Value;

/// Largest difference of a value drawn in torch's scalar path, which uses the platform's f64 functions. Draws of 16 values and more
/// must be equal.
const SCALAR_NOISE_TOLERANCE: f64 = 1e-7;
/// Largest difference of a latent, relative to max(1, |x|).
const LATENT_TOLERANCE: f64 = 1e-4;

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

fn size(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

/// The stand-in UNet of tools/reference/schedulers.py: row 0 is unconditional, row 1 (or the only one) conditional.
fn model(input: &[f32], timestep: f32, row: usize) -> Vec<f32> {
    let term = |(index, x): (usize, &f32)| {
        let angle = 0.9 * f64::from(*x) + 0.002 * f64::from(timestep) + 0.5 * row as f64 + 0.1 * index as f64;
        (0.8 * angle.sin()) as f32
    };
    input.iter().enumerate().map(term).collect()
}

/// Largest difference of two lists relative to max(1, |expected|).
fn difference(got: &[f32], expected: &Value) -> f64 {
    let expected = list(expected);
    assert_eq!(got.len(), expected.len());
    let each = got.iter().zip(expected).map(|(got, expected)| {
        let expected = number(expected);
        let difference = (f64::from(*got) - expected).abs() / expected.abs().max(1.0);
        if difference.is_nan() {
            f64::INFINITY
        } else {
            difference
        }
    });
    each.fold(0.0, f64::max)
}

#[test]
fn noise_is_that_of_torch_for_every_seed_and_size() {
    let golden: Value = serde_json::from_str(include_str!("golden/noise.json")).unwrap();
    let mut largest = 0.0_f64;
    for case in list(&golden["cases"]) {
        let mut generator = Generator::new(case["seed"].as_u64().unwrap());
        for draw in list(&case["draws"]) {
            let values = generator.randn(size(&draw["size"]));
            let tolerance = if values.len() < 16 {
                SCALAR_NOISE_TOLERANCE
            } else {
                0.0
            };
            for pair in list(&draw["values"]) {
                // The file has nine digits, which is enough to name one f32.
                let difference = f64::from((values[size(&pair[0])] - number(&pair[1]) as f32).abs());
                assert!(
                    difference <= tolerance,
                    "seed {} at {}: {difference}",
                    case["seed"],
                    pair[0]
                );
                largest = largest.max(difference);
            }
        }
    }
    let long = &golden["long"];
    let values = Generator::new(long["seed"].as_u64().unwrap()).randn(size(&long["size"]));
    let sum: u64 = values.iter().map(|value| u64::from(value.to_bits())).sum();
    assert_eq!(
        Some(sum),
        long["sum_of_bits"].as_u64(),
        "a value of a long draw differs in its last bit"
    );
    println!("largest difference of noise: {largest:.2e}");
}

/// Follows one golden case; returns the largest differences of latents and of timesteps.
fn follow(case: &Value, config: &str, shape: &[usize]) -> (f64, f64) {
    let config = Config::from_json(config).unwrap();
    let kind: Option<Kind> = case["kind"].as_str().map(|name| name.parse().unwrap());
    let sampler = Arc::new(Sampler::new(&config, kind, size(&case["steps"])).unwrap());
    if let Some(kind) = kind {
        assert_eq!(sampler.kind(), kind);
    }
    let timesteps = difference(sampler.timesteps(), &case["timesteps"]);
    if !list(&case["sigmas"]).is_empty() && !sampler.sigmas().is_empty() {
        let sigmas = difference(sampler.sigmas(), &case["sigmas"]);
        assert!(sigmas < 1e-5, "sigmas differ by {sigmas:e}: {case}");
    }
    let spec = Spec {
        channels: shape[0],
        height: shape[1],
        width: shape[2],
        guidance_scale: number(&case["guidance"]) as f32,
        seed: case["seed"].as_u64().unwrap(),
        eta: number(&case["eta"]) as f32,
    };
    let mut trajectory = Trajectory::new(spec, sampler).unwrap();
    let mut input = vec![0.0; trajectory.values()];
    let mut largest = 0.0_f64;
    for kept in list(&case["latents"]) {
        while trajectory.step() < size(&kept[0]) {
            trajectory.write_input(&mut input).unwrap();
            let t = trajectory.timestep();
            let cond = model(&input, t, 1);
            let uncond = (trajectory.rows() == 2).then(|| model(&input, t, 0));
            trajectory.accept(uncond.as_deref(), &cond).unwrap();
            assert!(trajectory.predicted_original().iter().all(|x| x.is_finite()));
        }
        largest = largest.max(difference(trajectory.latents(), &kept[1]));
    }
    assert!(trajectory.is_done());
    (largest, timesteps)
}

#[test]
fn every_scheduler_follows_diffusers() {
    let golden: Value = serde_json::from_str(include_str!("golden/schedulers.json")).unwrap();
    let shape: Vec<usize> = list(&golden["header"]["shape"]).iter().map(size).collect();
    let cases = list(&golden["cases"]);
    let mut wrong = Vec::new();
    let mut all: Vec<(f64, String)> = Vec::new();
    for case in cases {
        let name = case["config"].as_str().unwrap();
        let (latents, timesteps) = follow(case, golden["configs"][name].as_str().unwrap(), &shape);
        let label = format!(
            "{name} {} {} steps seed {}",
            case["kind"], case["steps"], case["seed"]
        );
        if latents > LATENT_TOLERANCE || timesteps > 1e-3 {
            wrong.push(format!(
                "{label}: latents {latents:.1e}, timesteps {timesteps:.1e}"
            ));
        }
        all.push((latents, label));
    }
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    println!("{} trajectories; largest differences:", cases.len());
    for (latents, label) in all.iter().take(8) {
        println!("  {latents:.2e} {label}");
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}
