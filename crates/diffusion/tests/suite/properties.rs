//! Properties that hold for every scheduler, model configuration and company a trajectory keeps.

use std::sync::Arc;

use mobula_diffusion::random::Source;
use mobula_diffusion::{Ask, Choice, Code, Config, Error, Guidance, Kind, Sampler, Spec, Start, Trajectory};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Solvers of one call a step whose step counts are those of diffusers to the last (PNDM has one call more).
const SINGLE: [Kind; 5] = [
    Kind::Pndm,
    Kind::Ddim,
    Kind::Euler,
    Kind::EulerAncestral,
    Kind::DpmppTwoM,
];

fn kind() -> impl Strategy<Value = Kind> {
    proptest::sample::select(Kind::ALL.to_vec())
}

/// A model's configuration of any served class.
fn config() -> impl Strategy<Value = Config> {
    let class = proptest::sample::select(vec![
        "PNDMScheduler",
        "DDIMScheduler",
        "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
        "DPMSolverMultistepScheduler",
    ]);
    let prediction = proptest::sample::select(vec!["epsilon", "v_prediction", "sample"]);
    let spacing = proptest::sample::select(vec!["linspace", "leading", "trailing"]);
    let betas = proptest::sample::select(vec!["linear", "scaled_linear", "squaredcos_cap_v2"]);
    (class, prediction, spacing, betas, any::<[bool; 4]>(), 1_usize..=3).prop_map(
        |(class, prediction, spacing, betas, [skip, one, zero_snr, threshold], order)| {
            let text = json!({
                "_class_name": class, "prediction_type": prediction, "timestep_spacing": spacing,
                "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": betas, "steps_offset": 1,
                "skip_prk_steps": skip, "set_alpha_to_one": one, "rescale_betas_zero_snr": zero_snr,
                "thresholding": threshold, "solver_order": order,
            });
            Config::from_json(&text.to_string()).unwrap()
        },
    )
}

fn spec(seed: u64, guidance_scale: f32) -> Spec {
    Spec {
        channels: 4,
        height: 2,
        width: 3,
        guidance: Guidance::new(guidance_scale),
        seed,
        source: Source::Cpu,
        start: Start::Noise,
    }
}

/// A model whose answer is bounded and depends on all it is given.
fn answer(trajectory: &Trajectory, row: f32) -> Vec<f32> {
    let mut input = vec![0.0; trajectory.values()];
    trajectory.write_input(&mut input).unwrap();
    input
        .iter()
        .map(|x| (x + trajectory.timestep() * 0.01 + row).sin())
        .collect()
}

fn advance(trajectory: &mut Trajectory) {
    let cond = answer(trajectory, 1.0);
    let uncond = (trajectory.rows() == 2).then(|| answer(trajectory, 0.0));
    trajectory.accept(uncond.as_deref(), &cond).unwrap();
}

/// A sampler of the kind, or of the model's own.
fn make(config: &Config, kind: Option<Kind>, steps: usize) -> Result<Sampler, Error> {
    let choice = Choice { kind, schedule: None };
    let ask = Ask {
        choice,
        ..Ask::steps(steps)
    };
    Sampler::new(config, &ask)
}

fn sampler(kind: Kind, steps: usize) -> Arc<Sampler> {
    let text = r#"{"_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "clip_sample": false, "skip_prk_steps": true, "steps_offset": 1}"#;
    Arc::new(make(&Config::from_json(text).unwrap(), Some(kind), steps).unwrap())
}

proptest! {
    #[test]
    fn every_schedule_is_refused_for_a_reason_or_ends_with_finite_latents(
        config in config(),
        kind in proptest::option::of(kind()),
        steps in prop_oneof![15 => 1_usize..=60, 1 => 900_usize..=1000],
        seed in any::<u64>(),
        guidance in 0.0_f32..20.0,
    ) {
        match make(&config, kind, steps) {
            Err(error) => prop_assert!(!error.field().is_empty() && error.code() != Code::Internal, "{}", error),
            Ok(sampler) => {
                // Runge-Kutta steps of PNDM have nine calls more, second-order solvers nearly two a step.
                prop_assert!((steps..=(2 * steps).max(steps + 9)).contains(&sampler.calls()));
                let mut trajectory = Trajectory::new(spec(seed, guidance), Arc::new(sampler)).unwrap();
                for _ in 0..trajectory.steps() {
                    advance(&mut trajectory);
                }
                prop_assert!(trajectory.is_done());
                prop_assert!(trajectory.latents().iter().all(|x| x.is_finite()));
            }
        }
    }

    #[test]
    fn no_configuration_makes_a_panic(key in "[a-z_]{1,12}|solver_order|beta_start|trained_betas|steps_offset", number in any::<f64>(), text in ".{0,12}", pick in 0..5) {
        let value: Value = match pick {
            0 => json!(number),
            1 => json!(text),
            2 => json!([number]),
            3 => json!(null),
            _ => json!({ "a": text }),
        };
        for class in ["PNDMScheduler", "DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"] {
            let config = json!({ "_class_name": class, key.as_str(): value });
            if let Ok(config) = Config::from_json(&config.to_string()) {
                let _ = make(&config, None, 5);
            }
        }
    }
}

#[test]
fn every_kind_takes_the_step_counts_of_a_usual_model() {
    for kind in SINGLE {
        for steps in (1..=60).chain([99, 100, 250, 333, 500, 997, 998, 999]) {
            assert_eq!(
                sampler(kind, steps).calls(),
                steps + usize::from(kind == Kind::Pndm && steps > 1)
            );
        }
    }
}

#[test]
fn a_thousand_steps_are_refused_where_diffusers_cannot_take_them() {
    // Leading timesteps with an offset of 1 end beyond the training timesteps; DPM-Solver's 1001 points do not fit without a
    // repetition. diffusers raises, or gives NaN.
    let text = r#"{"_class_name": "PNDMScheduler", "skip_prk_steps": true, "steps_offset": 1}"#;
    let config = Config::from_json(text).unwrap();
    for kind in SINGLE {
        let refused = matches!(kind, Kind::Pndm | Kind::Ddim | Kind::DpmppTwoM);
        match make(&config, Some(kind), 1000) {
            Ok(sampler) => assert!(!refused && sampler.calls() == 1000, "{kind}"),
            Err(error) => assert!(refused && error.field() == "steps", "{error}"),
        }
    }
}

#[test]
fn the_predicted_picture_is_the_final_one_when_the_model_knows_it() {
    // A model that predicts the picture itself and always the same one must be believed by every scheduler that takes it.
    let text = r#"{"_class_name": "DDIMScheduler", "prediction_type": "sample", "clip_sample": false}"#;
    let config = Config::from_json(text).unwrap();
    for name in ["ddim", "euler", "euler_karras", "dpmpp_2m", "dpmpp_2m_karras"] {
        let ask = Ask {
            choice: Choice::parse(name, "").unwrap(),
            ..Ask::steps(10)
        };
        let sampler = Arc::new(Sampler::new(&config, &ask).unwrap());
        let mut trajectory = Trajectory::new(spec(3, 1.0), sampler).unwrap();
        let picture: Vec<f32> = (0..24_u8).map(|i| f32::from(i) * 0.05 - 0.5).collect();
        while !trajectory.is_done() {
            trajectory.accept(None, &picture).unwrap();
            assert_eq!(trajectory.predicted_original(), picture);
        }
        let far = trajectory
            .latents()
            .iter()
            .zip(&picture)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(far < 1e-4, "{name}: {far}");
    }
}
