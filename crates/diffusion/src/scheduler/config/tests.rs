use super::*;
use crate::{Code, Sampler};

fn with(class: &str, keys: &str) -> String {
    format!(r#"{{"_class_name": "{class}", "_diffusers_version": "0.39.0"{keys}}}"#)
}

fn refusal(class: &str, keys: &str) -> String {
    let error = Config::from_json(&with(class, keys)).unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    error.to_string()
}

#[test]
fn the_models_own_scheduler_is_told_by_class_and_karras() {
    for (class, keys, kind) in [
        ("PNDMScheduler", "", Kind::Pndm),
        ("DDIMScheduler", "", Kind::Ddim),
        ("EulerDiscreteScheduler", "", Kind::Euler),
        (
            "EulerDiscreteScheduler",
            r#", "use_karras_sigmas": true"#,
            Kind::EulerKarras,
        ),
        (
            "EulerAncestralDiscreteScheduler",
            r#", "use_karras_sigmas": true"#,
            Kind::EulerAncestral,
        ),
        (
            "DPMSolverMultistepScheduler",
            r#", "use_karras_sigmas": true"#,
            Kind::DpmppTwoMKarras,
        ),
    ] {
        assert_eq!(Config::from_json(&with(class, keys)).unwrap().kind(), kind);
    }
}

#[test]
fn a_saved_python_infinity_is_read() {
    let text = with(
        "DPMSolverMultistepScheduler",
        r#", "lambda_min_clipped": -Infinity, "variance_type": null"#,
    );
    assert!(Sampler::new(&Config::from_json(&text).unwrap(), None, 20).is_ok());
}

#[test]
fn a_value_that_is_not_served_is_refused_by_key_and_value() {
    for (class, keys, expected) in [
        ("UniPCMultistepScheduler", "", "DPMSolverMultistepScheduler"),
        (
            "PNDMScheduler",
            r#", "beta_schedule": "sigmoid""#,
            "`beta_schedule` is \"sigmoid\"",
        ),
        ("PNDMScheduler", r#", "beta_start": "x""#, "beta_start"),
        ("PNDMScheduler", r#", "beta_end": 1.5"#, "beta_end"),
        (
            "PNDMScheduler",
            r#", "num_train_timesteps": 0"#,
            "num_train_timesteps",
        ),
        (
            "PNDMScheduler",
            r#", "num_train_timesteps": 1e99"#,
            "num_train_timesteps",
        ),
        (
            "PNDMScheduler",
            r#", "prediction_type": "flow_prediction""#,
            "v_prediction",
        ),
        ("PNDMScheduler", r#", "timestep_spacing": "middling""#, "trailing"),
        (
            "PNDMScheduler",
            r#", "trained_betas": [0.1, 0.2]"#,
            "trained_betas",
        ),
        (
            "PNDMScheduler",
            r#", "trained_betas": [0.1, -0.2]"#,
            "trained_betas",
        ),
        ("PNDMScheduler", r#", "skip_prk_steps": "yes""#, "skip_prk_steps"),
        (
            "DDIMScheduler",
            r#", "clip_sample_range": -1"#,
            "clip_sample_range",
        ),
        (
            "EulerDiscreteScheduler",
            r#", "use_beta_sigmas": true"#,
            "use_beta_sigmas",
        ),
        (
            "EulerDiscreteScheduler",
            r#", "use_karras_sigmas": true, "use_exponential_sigmas": true"#,
            "only one",
        ),
        (
            "EulerDiscreteScheduler",
            r#", "interpolation_type": "cubic""#,
            "log_linear",
        ),
        (
            "EulerDiscreteScheduler",
            r#", "final_sigmas_type": "one""#,
            "sigma_min",
        ),
        ("EulerDiscreteScheduler", r#", "sigma_min": -3"#, "sigma_min"),
        (
            "DPMSolverMultistepScheduler",
            r#", "solver_order": 4"#,
            "solver_order",
        ),
        (
            "DPMSolverMultistepScheduler",
            r#", "solver_type": "rk""#,
            "midpoint",
        ),
        (
            "DPMSolverMultistepScheduler",
            r#", "algorithm_type": "magic""#,
            "dpmsolver++",
        ),
        (
            "DPMSolverMultistepScheduler",
            r#", "algorithm_type": "dpmsolver""#,
            "final_sigmas_type",
        ),
        (
            "DPMSolverMultistepScheduler",
            r#", "use_flow_sigmas": true"#,
            "flow",
        ),
        (
            "DPMSolverMultistepScheduler",
            r#", "variance_type": "learned""#,
            "variance",
        ),
    ] {
        let text = refusal(class, keys);
        assert!(text.contains(expected), "{keys}: {text}");
    }
}

#[test]
fn keys_of_other_classes_are_ignored_as_diffusers_does_and_listed() {
    let text = with(
        "DDIMScheduler",
        r#", "skip_prk_steps": true, "solver_order": 9, "clip_sample": false"#,
    );
    assert_eq!(
        Config::from_json(&text).unwrap().ignored(),
        ["skip_prk_steps", "solver_order"]
    );
}

#[test]
fn a_key_that_only_the_asked_class_has_is_checked_when_it_is_asked_for() {
    let config = Config::from_json(&with("DDIMScheduler", r#", "solver_order": 9"#)).unwrap();
    let error = Sampler::new(&config, Some(Kind::DpmppTwoM), 20).unwrap_err();
    assert_eq!(error.field(), "solver_order");
    assert!(Sampler::new(&config, None, 20).is_ok());
}

#[test]
fn broken_files_are_named_and_nothing_panics() {
    for text in [
        "",
        "{",
        "[]",
        "null",
        "{}",
        r#"{"_class_name": 5}"#,
        "-Infinity",
        "\"\\",
    ] {
        assert_eq!(
            Config::from_json(text).unwrap_err().code(),
            Code::FailedPrecondition,
            "{text}"
        );
    }
}

#[test]
fn step_counts_out_of_range_are_refused() {
    let config = Config::from_json(&with("PNDMScheduler", r#", "skip_prk_steps": true"#)).unwrap();
    for steps in [0, 1001, 10_000, usize::MAX] {
        assert_eq!(
            Sampler::new(&config, None, steps).unwrap_err(),
            Error::Steps { steps, max: 1000 }
        );
    }
    let runge = Config::from_json(&with("PNDMScheduler", "")).unwrap();
    assert_eq!(Sampler::new(&runge, None, 3).unwrap_err().field(), "steps");
    let short = Config::from_json(&with("DDIMScheduler", r#", "num_train_timesteps": 50"#)).unwrap();
    assert_eq!(
        Sampler::new(&short, None, 51).unwrap_err(),
        Error::Steps { steps: 51, max: 50 }
    );
}

#[test]
fn a_schedule_without_finite_coefficients_is_refused() {
    // Zero terminal SNR has no signal at the first timestep, so a predicted noise says nothing there.
    let keys = r#", "rescale_betas_zero_snr": true, "timestep_spacing": "trailing""#;
    let config = Config::from_json(&with("DDIMScheduler", keys)).unwrap();
    assert_eq!(
        Sampler::new(&config, None, 20).unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[test]
fn prediction_types_that_a_scheduler_has_no_step_for_are_refused() {
    let config = Config::from_json(&with("DDIMScheduler", r#", "prediction_type": "sample""#)).unwrap();
    for kind in [Kind::Pndm, Kind::EulerAncestral] {
        let error = Sampler::new(&config, Some(kind), 20).unwrap_err();
        assert_eq!(error.field(), "scheduler");
        assert!(error.to_string().contains("sample"), "{error}");
    }
}
