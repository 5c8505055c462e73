//! LMS, Heun, KDPM2, DPM-Solver singlestep and SDE, DEIS and UniPC against diffusers: golden/solvers.json is made by
//! tools/reference/schedulers_solvers.py.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::common::{difference, floats, list, number, size};
use mobula_diffusion::random::Source;
use mobula_diffusion::{
    Ask, Choice, Config, Error, Guidance, Options, Posterior, Sampler, Span, Spec, Start, Trajectory,
};
use serde_json::Value;

/// Largest difference of a latent, relative to max(1, |x|).
const LATENT_TOLERANCE: f64 = 1e-4;
/// Largest difference of a timestep; diffusers finds some of them in float32.
const TIMESTEP_TOLERANCE: f64 = 1e-3;
/// Largest difference of a noise level, relative to max(1, |x|); the file has five digits.
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

/// The sampler of a case.
fn sampler(golden: &Value, case: &Value) -> Result<Sampler, Error> {
    let config = &golden["configs"][case["config"].as_str().unwrap()];
    let config = Config::from_json(config.as_str().unwrap()).unwrap();
    let (start, end) = (maybe(&case["start"]), maybe(&case["end"]));
    let span = match maybe(&case["strength"]) {
        Some(strength) => Span::Strength(strength),
        None if start.is_some() || end.is_some() => Span::Part { start, end },
        None => Span::Whole,
    };
    let ask = Ask {
        choice: Choice::parse(case["kind"].as_str().unwrap_or_default(), "").unwrap(),
        steps: size(&case["steps"]),
        span,
        options: Options {
            s_noise: maybe(&case["s_noise"]).unwrap_or(1.0),
            mu: maybe(&case["mu"]),
            ..Options::default()
        },
    };
    let sampler = Sampler::new(&config, &ask)?;
    if let Some(kind) = case["kind"].as_str() {
        assert_eq!(sampler.name(), kind);
    }
    Ok(sampler)
}

/// What the case's trajectory starts from.
fn start(golden: &Value, case: &Value) -> Start {
    let picture: Arc<[f32]> = floats(&golden["header"]["picture"]).into();
    if !case["start"].is_null() {
        Start::Latents(picture)
    } else if case["strength"].is_null() {
        Start::Noise
    } else {
        Start::Image {
            image: Posterior {
                mean: picture,
                deviation: None,
                scaling: 1.0,
                shift: 0.0,
            },
            mask: None,
        }
    }
}

/// The largest differences of a case.
#[derive(Debug, Default, Clone, Copy)]
struct Differences {
    latents: f64,
    timesteps: f64,
    sigmas: f64,
}

impl Differences {
    fn are_small(&self) -> bool {
        self.latents <= LATENT_TOLERANCE
            && self.timesteps <= TIMESTEP_TOLERANCE
            && self.sigmas <= SIGMA_TOLERANCE
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            latents,
            timesteps,
            sigmas,
        } = self;
        write!(
            f,
            "latents {latents:.1e}, timesteps {timesteps:.1e}, sigmas {sigmas:.1e}"
        )
    }
}

/// Follows a case to its end.
fn follow(golden: &Value, case: &Value, sampler: Sampler) -> Differences {
    let shape = list(&golden["header"]["shape"]);
    let spec = Spec {
        channels: size(&shape[0]),
        height: size(&shape[1]),
        width: size(&shape[2]),
        guidance: Guidance::new(number(&case["guidance"]) as f32),
        seed: case["seed"].as_u64().unwrap(),
        source: Source::Cpu,
        start: start(golden, case),
    };
    let mut differences = Differences {
        timesteps: difference(sampler.timesteps(), &case["timesteps"]),
        sigmas: difference(sampler.sigmas(), &case["sigmas"]),
        latents: 0.0,
    };
    let mut trajectory = Trajectory::new(spec, Arc::new(sampler)).unwrap();
    let mut input = vec![0.0; trajectory.values()];
    for kept in list(&case["latents"]) {
        while trajectory.step() < size(&kept[0]) {
            trajectory.write_input(&mut input).unwrap();
            let t = trajectory.timestep();
            let cond = model(&input, t, 1);
            let uncond = (trajectory.rows() == 2).then(|| model(&input, t, 0));
            trajectory.accept(uncond.as_deref(), &cond).unwrap();
            assert!(trajectory.predicted_original().iter().all(|x| x.is_finite()));
        }
        let latents = difference(trajectory.latents(), &kept[1]);
        differences.latents = differences.latents.max(latents);
    }
    assert!(trajectory.is_done());
    differences
}

#[test]
fn every_solver_follows_diffusers() {
    let golden: Value = serde_json::from_str(include_str!("../golden/solvers.json")).unwrap();
    let (mut wrong, mut refused, mut rounded) = (Vec::new(), 0, 0);
    let mut worst: BTreeMap<String, (usize, Differences)> = BTreeMap::new();
    for case in list(&golden["cases"]) {
        let label = |what: &str| {
            let config = case["config"].as_str().unwrap();
            let (mut case, config) = (case.clone(), golden["configs"][config].clone());
            for long in ["timesteps", "sigmas", "latents"] {
                case.as_object_mut().unwrap().remove(long);
            }
            format!("{what}: {case} {config}")
        };
        let sampler = sampler(&golden, case);
        if !case["not_finite"].is_null() {
            refused += 1;
            if sampler.is_ok() {
                wrong.push(label("diffusers gives no finite picture"));
            }
            continue;
        }
        let sampler = match sampler {
            Ok(sampler) => sampler,
            Err(error) => {
                wrong.push(label(&error.to_string()));
                continue;
            }
        };
        rounded += usize::from(!case["rounded"].is_null());
        let kind = sampler.kind().to_string();
        let differences = follow(&golden, case, sampler);
        if !differences.are_small() {
            wrong.push(label(&format!("{differences}")));
        }
        let (count, largest) = worst.entry(kind).or_default();
        *count += 1;
        largest.latents = largest.latents.max(differences.latents);
        largest.timesteps = largest.timesteps.max(differences.timesteps);
        largest.sigmas = largest.sigmas.max(differences.sigmas);
    }
    println!("{refused} schedules are refused where diffusers gives no finite picture");
    println!(
        "{rounded} trajectories are compared with correctly rounded functions; largest differences of all:"
    );
    for (kind, (count, largest)) in &worst {
        println!("  {kind}: {count} trajectories, {largest}");
    }
    assert!(refused > 0 && worst.len() == 8);
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// DPM-Solver SDE draws on the device that the latents are on, so its path is another one with the CUDA generator.
#[test]
fn a_path_is_of_the_source_and_the_seed_that_was_asked_for() {
    let config = |seed: &str| {
        let text = format!(r#"{{"_class_name": "DPMSolverSDEScheduler", "noise_sampler_seed": {seed}}}"#);
        Config::from_json(&text).unwrap()
    };
    let run = |config: &Config, source: Source, seed: u64| {
        let sampler = Sampler::new(config, &Ask::steps(4)).unwrap();
        let spec = Spec {
            channels: 2,
            height: 3,
            width: 3,
            guidance: Guidance::new(1.0),
            seed,
            source,
            start: Start::Latents([0.5; 18].into()),
        };
        let mut trajectory = Trajectory::new(spec, Arc::new(sampler)).unwrap();
        while !trajectory.is_done() {
            trajectory.accept(None, &[0.1; 18]).unwrap();
        }
        assert!(trajectory.latents().iter().all(|x| x.is_finite()));
        trajectory.latents().to_vec()
    };
    let (free, fixed) = (config("null"), config("9"));
    assert_ne!(run(&free, Source::Cpu, 1), run(&free, Source::Cpu, 2));
    assert_ne!(run(&free, Source::Cpu, 1), run(&free, Source::Cuda, 1));
    assert_eq!(run(&fixed, Source::Cpu, 1), run(&fixed, Source::Cpu, 2));
    assert_eq!(run(&fixed, Source::Cpu, 1), run(&free, Source::Cpu, 9));
}
