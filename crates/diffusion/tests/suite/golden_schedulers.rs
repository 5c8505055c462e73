//! Schedulers against diffusers: golden/schedulers_*.json are made by tools/reference/schedulers.py.

use std::sync::Arc;

use crate::common::{difference, floats, list, number, size};
use mobula_diffusion::random::Source;
use mobula_diffusion::{
    Ask, Choice, Config, Guidance, Options, Posterior, Sampler, Span, Spec, Start, Trajectory,
};
use serde_json::Value;

/// Largest difference of a latent or of a predicted picture, relative to max(1, |x|).
const LATENT_TOLERANCE: f64 = 1e-4;
/// Largest difference of a timestep, relative to max(1, |t|); the files have three decimals.
const TIMESTEP_TOLERANCE: f64 = 1e-3;
/// Largest difference of a noise level, relative to max(1, |x|).
const SIGMA_TOLERANCE: f64 = 1e-5;

/// The stand-in UNet of tools/reference/schedulers.py: row 0 is unconditional, row 1 (or the only one) conditional.
fn model(input: &[f32], timestep: f32, row: usize) -> Vec<f32> {
    let term = |(index, x): (usize, &f32)| {
        let angle = 0.9 * f64::from(*x) + 0.002 * f64::from(timestep) + 0.5 * row as f64 + 0.1 * index as f64;
        (0.8 * angle.sin()) as f32
    };
    input.iter().enumerate().map(term).collect()
}

fn maybe(value: &Value) -> Option<f32> {
    value.as_f64().map(|x| x as f32)
}

fn ask(case: &Value) -> Ask {
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
    let default = Options::default();
    Ask {
        choice: Choice::parse(case["kind"].as_str().unwrap_or_default(), "").unwrap(),
        steps: size(&case["steps"]),
        span,
        options: Options {
            eta: maybe(&case["eta"]),
            s_churn: maybe(&case["s_churn"]).unwrap_or(default.s_churn),
            s_tmin: maybe(&case["s_tmin"]).unwrap_or(default.s_tmin),
            s_tmax: maybe(&case["s_tmax"]).unwrap_or(default.s_tmax),
            s_noise: maybe(&case["s_noise"]).unwrap_or(default.s_noise),
            mu: maybe(&case["mu"]),
        },
    }
}

/// The picture, or the latents of another model, that a case begins with.
fn start(case: &Value, picture: &[f32]) -> Start {
    if case["start"].is_number() {
        return Start::Latents(picture.into());
    }
    if case["strength"].is_number() {
        return Start::Image {
            image: Posterior {
                mean: picture.into(),
                deviation: None,
                scaling: 1.0,
                shift: 0.0,
            },
            mask: None,
        };
    }
    Start::Noise
}

/// Largest differences of one case.
struct Differences {
    latents: f64,
    timesteps: f64,
    sigmas: f64,
}

/// Follows one golden case.
fn follow(golden: &Value, case: &Value) -> Differences {
    let name = case["config"].as_str().unwrap();
    let config = Config::from_json(golden["configs"][name].as_str().unwrap()).unwrap();
    let made = Sampler::new(&config, &ask(case));
    if case["refused"] == true {
        assert_eq!(made.unwrap_err().field(), "steps", "{case}");
        return Differences {
            latents: 0.0,
            timesteps: 0.0,
            sigmas: 0.0,
        };
    }
    let sampler = Arc::new(made.unwrap_or_else(|error| panic!("{case}: {error}")));
    if let Some(kind) = case["kind"].as_str() {
        assert!(sampler.name().starts_with(kind), "{kind}: {}", sampler.name());
    }
    let timesteps = difference(sampler.timesteps(), &case["timesteps"]);
    let sigmas = match case["sigmas"].as_array() {
        Some(_) if !sampler.sigmas().is_empty() => difference(sampler.sigmas(), &case["sigmas"]),
        _ => 0.0,
    };
    let header = &golden["header"];
    let shape: Vec<usize> = list(&header["shape"]).iter().map(size).collect();
    let spec = Spec {
        channels: shape[0],
        height: shape[1],
        width: shape[2],
        guidance: Guidance::new(number(&case["guidance"]) as f32),
        seed: case["seed"].as_u64().unwrap(),
        source: Source::Cpu,
        start: start(case, &floats(&header["picture"])),
    };
    let mut trajectory = Trajectory::new(spec, sampler).unwrap();
    let mut input = vec![0.0; trajectory.values()];
    let mut latents = 0.0_f64;
    for kept in list(&case["latents"]) {
        while trajectory.step() < size(&kept[0]) {
            trajectory.write_input(&mut input).unwrap();
            let t = trajectory.timestep();
            let cond = model(&input, t, 1);
            let uncond = (trajectory.rows() == 2).then(|| model(&input, t, 0));
            trajectory.accept(uncond.as_deref(), &cond).unwrap();
            assert!(trajectory.predicted_original().iter().all(|x| x.is_finite()));
            if case["original"][0] == trajectory.step() {
                latents = latents.max(difference(trajectory.predicted_original(), &case["original"][1]));
            }
        }
        latents = latents.max(difference(trajectory.latents(), &kept[1]));
    }
    assert!(trajectory.is_done(), "{case}");
    Differences {
        latents,
        timesteps,
        sigmas,
    }
}

fn follow_all(text: &str) {
    let golden: Value = serde_json::from_str(text).unwrap();
    let cases = list(&golden["cases"]);
    let mut wrong = Vec::new();
    let mut all: Vec<(f64, String)> = Vec::new();
    for case in cases {
        let Differences {
            latents,
            timesteps,
            sigmas,
        } = follow(&golden, case);
        let mut label = case.clone();
        for key in ["latents", "original", "timesteps", "sigmas"] {
            label.as_object_mut().unwrap().remove(key);
        }
        if latents > LATENT_TOLERANCE || timesteps > TIMESTEP_TOLERANCE || sigmas > SIGMA_TOLERANCE {
            wrong.push(format!(
                "latents {latents:.1e} timesteps {timesteps:.1e} sigmas {sigmas:.1e} {label}"
            ));
        }
        all.push((latents, label.to_string()));
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

#[test]
fn schedulers_over_cumulative_alphas_follow_diffusers() {
    follow_all(include_str!("../golden/schedulers_alphas.json"));
}

#[test]
fn the_euler_family_follows_diffusers() {
    follow_all(include_str!("../golden/schedulers_euler.json"));
}

#[test]
fn dpm_solver_multistep_follows_diffusers() {
    follow_all(include_str!("../golden/schedulers_dpm.json"));
}
