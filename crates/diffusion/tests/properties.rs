//! Properties that hold for every scheduler, model configuration and company a trajectory keeps.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::sync::Arc;

use mobula_diffusion::{Code, Config, Kind, Sampler, Spec, Trajectory};
use proptest::prelude::*;
use serde_json::{Value, json};

fn assert_send<T: Send + 'static>(value: T) -> T {
    value
}

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
        guidance_scale,
        seed,
        eta: 0.0,
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

fn sampler(kind: Kind, steps: usize) -> Arc<Sampler> {
    let text = r#"{"_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "clip_sample": false, "skip_prk_steps": true, "steps_offset": 1}"#;
    Arc::new(Sampler::new(&Config::from_json(text).unwrap(), Some(kind), steps).unwrap())
}

proptest! {
    #[test]
    fn company_and_order_do_not_change_a_trajectory(
        seeds in proptest::collection::vec((any::<u64>(), kind(), 1_usize..8), 2..5),
        order in proptest::collection::vec(any::<proptest::sample::Index>(), 200),
    ) {
        let fresh = || -> Vec<Trajectory> {
            seeds.iter().map(|(seed, kind, steps)| Trajectory::new(spec(*seed, 3.0), sampler(*kind, *steps)).unwrap()).collect()
        };
        let mut alone = fresh();
        for trajectory in &mut alone {
            while !trajectory.is_done() {
                advance(trajectory);
            }
        }
        let mut together = fresh();
        for index in order {
            let trajectory = index.get_mut(&mut together);
            if !trajectory.is_done() {
                advance(trajectory);
            }
        }
        for trajectory in &mut together {
            while !trajectory.is_done() {
                advance(trajectory);
            }
        }
        for (a, b) in alone.iter().zip(&together) {
            prop_assert_eq!(a.latents(), b.latents());
        }
    }

    #[test]
    fn every_schedule_is_refused_for_a_reason_or_ends_with_finite_latents(
        config in config(),
        kind in proptest::option::of(kind()),
        steps in prop_oneof![1_usize..=60, 900_usize..=1000],
        seed in any::<u64>(),
        guidance in 0.0_f32..20.0,
    ) {
        match Sampler::new(&config, kind, steps) {
            Err(error) => prop_assert!(!error.field().is_empty() && error.code() != Code::Internal, "{}", error),
            Ok(sampler) => {
                prop_assert!((steps..=steps + 9).contains(&sampler.calls()));
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
                let _ = Sampler::new(&config, None, 5);
            }
        }
    }
}

#[test]
fn every_kind_takes_the_step_counts_of_a_usual_model() {
    for kind in Kind::ALL {
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
    for kind in Kind::ALL {
        let refused = matches!(kind, Kind::Pndm | Kind::Ddim | Kind::DpmppTwoM);
        match Sampler::new(&config, Some(kind), 1000) {
            Ok(sampler) => assert!(!refused && sampler.calls() == 1000, "{kind}"),
            Err(error) => assert!(refused && error.field() == "steps", "{error}"),
        }
    }
}

#[test]
fn a_trajectory_moves_between_threads_with_its_noise_scaled() {
    let trajectory = assert_send(Trajectory::new(spec(7, 1.0), sampler(Kind::Euler, 5)).unwrap());
    let deviation = trajectory.sampler().initial_deviation();
    assert!(deviation > 14.0);
    let noise = mobula_diffusion::random::Generator::new(7).randn(24);
    assert!(
        trajectory
            .latents()
            .iter()
            .zip(noise)
            .all(|(x, n)| *x == n * deviation)
    );
}

#[test]
fn guidance_up_to_one_needs_one_row_and_above_it_two() {
    for (guidance, rows) in [(0.0, 1), (1.0, 1), (1.01, 2), (7.5, 2)] {
        let mut trajectory = Trajectory::new(spec(7, guidance), sampler(Kind::Ddim, 5)).unwrap();
        assert_eq!(trajectory.rows(), rows);
        let output = vec![0.5; trajectory.values()];
        let wrong = if rows == 2 { None } else { Some(output.as_slice()) };
        assert_eq!(
            trajectory.accept(wrong, &output).unwrap_err().code(),
            Code::Internal
        );
        assert_eq!(trajectory.step(), 0);
    }
}

#[test]
fn outputs_of_another_length_and_calls_too_many_are_refused_and_change_nothing() {
    let mut trajectory = Trajectory::new(spec(7, 1.0), sampler(Kind::Pndm, 2)).unwrap();
    let before = trajectory.latents().to_vec();
    assert!(trajectory.accept(None, &[0.0; 5]).is_err());
    assert!(trajectory.write_input(&mut [0.0; 5]).is_err());
    assert_eq!(trajectory.latents(), before);
    while !trajectory.is_done() {
        advance(&mut trajectory);
    }
    let output = vec![0.0; trajectory.values()];
    assert!(trajectory.accept(None, &output).is_err());
    assert_eq!((trajectory.step(), trajectory.steps()), (3, 3));
}

#[test]
fn a_spec_out_of_range_is_refused_by_field() {
    let good = spec(7, 7.5);
    for (bad, field) in [
        (Spec { width: 0, ..good }, "size"),
        (
            Spec {
                height: usize::MAX,
                width: 2,
                ..good
            },
            "size",
        ),
        (
            Spec {
                guidance_scale: f32::NAN,
                ..good
            },
            "guidance_scale",
        ),
        (
            Spec {
                guidance_scale: -1.0,
                ..good
            },
            "guidance_scale",
        ),
        (
            Spec {
                guidance_scale: f32::INFINITY,
                ..good
            },
            "guidance_scale",
        ),
        (Spec { eta: 1.5, ..good }, "eta"),
        (
            Spec {
                eta: f32::NAN,
                ..good
            },
            "eta",
        ),
    ] {
        let error = Trajectory::new(bad, sampler(Kind::Euler, 5)).unwrap_err();
        assert_eq!((error.field(), error.code()), (field, Code::InvalidArgument));
    }
}

#[test]
fn the_predicted_picture_is_the_final_one_when_the_model_knows_it() {
    // A model that predicts the picture itself and always the same one must be believed by every scheduler that takes it.
    let text = r#"{"_class_name": "DDIMScheduler", "prediction_type": "sample", "clip_sample": false}"#;
    let config = Config::from_json(text).unwrap();
    for kind in [
        Kind::Ddim,
        Kind::Euler,
        Kind::EulerKarras,
        Kind::DpmppTwoM,
        Kind::DpmppTwoMKarras,
    ] {
        let sampler = Arc::new(Sampler::new(&config, Some(kind), 10).unwrap());
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
        assert!(far < 1e-4, "{kind}: {far}");
    }
}
