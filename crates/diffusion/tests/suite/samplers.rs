//! Properties that hold for every class, choice, span and option: a clean refusal, or a schedule that ends.

use std::sync::Arc;

use mobula_diffusion::random::Source;
use mobula_diffusion::scheduler::Class;
use mobula_diffusion::{
    Ask, Choice, Code, Config, Guidance, Kind, Options, Sampler, Schedule, Span, Spec, Start, Trajectory,
};
use proptest::prelude::*;
use serde_json::json;

fn config() -> impl Strategy<Value = Config> {
    let class = proptest::sample::select(Class::ALL.to_vec());
    let levels = proptest::sample::select(vec![
        "",
        "use_karras_sigmas",
        "use_exponential_sigmas",
        "use_beta_sigmas",
        "use_flow_sigmas",
    ]);
    let prediction = proptest::sample::select(vec!["epsilon", "v_prediction", "sample", "flow_prediction"]);
    let spacing = proptest::sample::select(vec!["linspace", "leading", "trailing"]);
    (
        class,
        levels,
        prediction,
        spacing,
        any::<[bool; 4]>(),
        5_usize..=1000,
    )
        .prop_filter_map(
            "a value this class does not take",
            |(class, levels, prediction, spacing, [zero_snr, dynamic, last, threshold], train)| {
                let mut text = json!({
                    "_class_name": class.name(), "prediction_type": prediction, "timestep_spacing": spacing,
                    "num_train_timesteps": train, "rescale_betas_zero_snr": zero_snr, "thresholding": threshold,
                    "use_dynamic_shifting": dynamic, "final_sigmas_type": if last { "sigma_min" } else { "zero" },
                    "original_inference_steps": 5,
                });
                text[levels] = true.into();
                Config::from_json(&text.to_string()).ok()
            },
        )
}

fn choice() -> impl Strategy<Value = Choice> {
    let kind = proptest::option::of(proptest::sample::select(Kind::ALL.to_vec()));
    let schedule = proptest::option::of(proptest::sample::select(Schedule::ALL.to_vec()));
    (kind, schedule).prop_map(|(kind, schedule)| Choice { kind, schedule })
}

fn span() -> impl Strategy<Value = Span> {
    let part = || proptest::option::of(-0.1_f32..1.1);
    prop_oneof![
        Just(Span::Whole),
        (-0.1_f32..1.1).prop_map(Span::Strength),
        (part(), part()).prop_map(|(start, end)| Span::Part { start, end }),
        Just(Span::Strength(f32::NAN)),
    ]
}

fn options() -> impl Strategy<Value = Options> {
    let eta = proptest::option::of(0.0_f32..=1.0);
    let mu = proptest::option::of(-3.0_f32..3.0);
    (eta, 0.0_f32..50.0, 0.0_f32..2.0, 0.0_f32..20.0, 0.5_f32..1.5, mu).prop_map(
        |(eta, s_churn, s_tmin, s_tmax, s_noise, mu)| Options {
            eta,
            s_churn,
            s_tmin,
            s_tmax,
            s_noise,
            mu,
        },
    )
}

fn end(sampler: Sampler) -> Trajectory {
    let latents: Vec<f32> = (0..18_u8).map(|i| f32::from(i) * 0.1 - 0.9).collect();
    let start = if sampler.is_from_start() {
        Start::Noise
    } else {
        Start::Latents(latents.into())
    };
    let spec = Spec {
        channels: 2,
        height: 3,
        width: 3,
        guidance: Guidance::new(1.0),
        seed: 7,
        source: Source::Cpu,
        start,
    };
    let mut trajectory = Trajectory::new(spec, Arc::new(sampler)).unwrap();
    let mut input = vec![0.0; trajectory.input_values()];
    while !trajectory.is_done() {
        trajectory.write_input(&mut input).unwrap();
        let t = trajectory.timestep();
        input.iter_mut().for_each(|x| *x = (*x + 0.01 * t).sin());
        trajectory.accept(None, &input).unwrap();
    }
    trajectory
}

proptest! {
    #[test]
    fn every_ask_is_refused_by_field_or_ends_with_finite_latents(
        config in config(),
        choice in choice(),
        span in span(),
        options in options(),
        steps in 0_usize..60,
    ) {
        let ask = Ask { choice, steps, span, options };
        match Sampler::new(&config, &ask) {
            Err(error) => {
                prop_assert!(!error.field().is_empty() && error.code() != Code::Internal, "{}", error);
            }
            Ok(sampler) => {
                prop_assert!((1..=(2 * steps).max(steps + 9)).contains(&sampler.calls()));
                prop_assert!(sampler.sigmas().is_empty() || sampler.sigmas().len() == sampler.calls() + 1);
                let again = Choice::parse(&sampler.name(), "").unwrap();
                prop_assert_eq!(again.to_string(), sampler.name());
                // Steps follow each other from the first call to the last.
                let of: Vec<_> = (0..sampler.calls()).map(|call| sampler.step_of(call)).collect();
                prop_assert_eq!(of[0], 0);
                prop_assert!(of.windows(2).all(|pair| pair[0] == pair[1] || pair[0] + 1 == pair[1]), "{:?}", of);
                prop_assert_eq!(sampler.steps_done(0), 0);
                prop_assert_eq!(sampler.steps_done(sampler.calls()), sampler.span_steps());
                if span == Span::Whole {
                    prop_assert_eq!(sampler.span_steps(), steps);
                    let known = config.extra_calls();
                    let extra = known.iter().find(|(kind, _)| *kind == sampler.kind());
                    let all = (steps * sampler.calls_per_step()) as i32 + extra.map_or(0, |(_, extra)| *extra);
                    prop_assert!(steps < 4 || sampler.calls() as i32 == all, "{:?} {}", known, sampler.calls());
                }
                let trajectory = end(sampler);
                prop_assert!(trajectory.is_finite());
                prop_assert!(trajectory.latents().iter().all(|x| x.is_finite()));
            }
        }
    }

    #[test]
    fn a_part_and_the_rest_are_the_whole(
        kind in proptest::sample::select(vec![Kind::Ddim, Kind::Euler, Kind::DpmppTwoM, Kind::Heun, Kind::UniPc]),
        steps in 2_usize..50,
        at in 0.05_f32..0.95,
    ) {
        let text = r#"{"_class_name": "EulerDiscreteScheduler", "beta_schedule": "scaled_linear"}"#;
        let config = Config::from_json(text).unwrap();
        let part = |start, end| {
            let choice = Choice { kind: Some(kind), schedule: None };
            Sampler::new(&config, &Ask { choice, span: Span::Part { start, end }, ..Ask::steps(steps) })
        };
        let whole = part(None, None).unwrap();
        if let (Ok(base), Ok(refiner)) = (part(None, Some(at)), part(Some(at), None)) {
            let both = [base.timesteps(), refiner.timesteps()].concat();
            // A solver of two calls a step may begin one call before the cut (diffusers' rule).
            let extra = both.len() - whole.calls();
            prop_assert!(extra <= usize::from(kind == Kind::Heun));
            prop_assert_eq!(&both[base.calls() + extra..], &whole.timesteps()[base.calls()..]);
        }
    }

    #[test]
    fn no_name_makes_a_panic(scheduler in ".{0,40}", schedule in ".{0,20}") {
        if let Err(error) = Choice::parse(&scheduler, &schedule) {
            prop_assert!(matches!(error.field(), "scheduler" | "sigma_schedule"));
            prop_assert_eq!(error.code(), Code::InvalidArgument);
        }
    }
}

#[test]
fn calls_are_parts_of_steps_as_their_solver_takes_them() {
    let steps = |kind: &str, skip_prk: bool, span| {
        let text = format!(r#"{{"_class_name": "PNDMScheduler", "skip_prk_steps": {skip_prk}}}"#);
        let ask = Ask {
            choice: Choice::parse(kind, "").unwrap(),
            span,
            ..Ask::steps(5)
        };
        let sampler = Sampler::new(&Config::from_json(&text).unwrap(), &ask).unwrap();
        (0..sampler.calls())
            .map(|call| sampler.step_of(call))
            .collect::<Vec<_>>()
    };
    assert_eq!(steps("ddim", true, Span::Whole), [0, 1, 2, 3, 4]);
    assert_eq!(steps("heun", true, Span::Whole), [0, 0, 1, 1, 2, 2, 3, 3, 4]);
    assert_eq!(steps("pndm", true, Span::Whole), [0, 0, 1, 2, 3, 4]);
    assert_eq!(steps("pndm", true, Span::Strength(0.6)), [0, 0, 1, 2]);
    assert_eq!(
        steps("pndm", false, Span::Whole),
        [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 4]
    );
}

#[test]
fn a_trajectory_knows_when_its_latents_are_no_numbers() {
    let config = Config::from_json(r#"{"_class_name": "DDIMScheduler", "clip_sample": false}"#).unwrap();
    let spec = Spec {
        channels: 4,
        height: 20,
        width: 20,
        guidance: Guidance::new(1.0),
        seed: 7,
        source: Source::Cpu,
        start: Start::Noise,
    };
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for place in [0, 1023, 1024, 1599] {
            let sampler = Arc::new(Sampler::new(&config, &Ask::steps(3)).unwrap());
            let mut trajectory = Trajectory::new(spec.clone(), sampler).unwrap();
            let mut output = vec![0.5; 1600];
            trajectory.accept(None, &output).unwrap();
            assert!(trajectory.is_finite());
            output[place] = bad;
            trajectory.accept(None, &output).unwrap();
            assert!(!trajectory.is_finite(), "{bad} at {place}");
        }
    }
}
