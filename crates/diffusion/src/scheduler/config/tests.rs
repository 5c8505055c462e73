use super::*;
use crate::Code;

fn with(class: &str, keys: &str) -> String {
    format!(r#"{{"_class_name": "{class}", "_diffusers_version": "0.39.0"{keys}}}"#)
}

fn refusal(class: &str, keys: &str) -> String {
    let error = Config::from_json(&with(class, keys)).unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    error.to_string()
}

fn sampler(config: &Config, name: &str, steps: usize) -> Result<Sampler, Error> {
    let ask = Ask {
        choice: Choice::parse(name, "").unwrap(),
        ..Ask::steps(steps)
    };
    Sampler::new(config, &ask)
}

#[test]
fn the_models_own_scheduler_is_told_by_class_and_flags() {
    for (class, keys, name) in [
        ("PNDMScheduler", "", "pndm"),
        ("DDIMScheduler", "", "ddim"),
        ("DDPMScheduler", "", "ddpm"),
        ("LCMScheduler", "", "lcm"),
        ("EulerDiscreteScheduler", "", "euler"),
        (
            "EulerDiscreteScheduler",
            r#", "use_karras_sigmas": true"#,
            "euler_karras",
        ),
        (
            "EulerDiscreteScheduler",
            r#", "use_beta_sigmas": true"#,
            "euler_beta",
        ),
        (
            "EulerAncestralDiscreteScheduler",
            r#", "use_karras_sigmas": true"#,
            "euler_a",
        ),
        (
            "DPMSolverMultistepScheduler",
            r#", "use_lu_lambdas": true"#,
            "dpmpp_2m_lu",
        ),
        (
            "DPMSolverMultistepScheduler",
            r#", "use_karras_sigmas": true, "algorithm_type": "sde-dpmsolver++", "solver_order": 3"#,
            "dpmpp_3m_sde_karras",
        ),
        (
            "DPMSolverMultistepScheduler",
            r#", "algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min""#,
            "dpm_2m",
        ),
        ("EDMEulerScheduler", "", "edm_euler_karras"),
        ("FlowMatchEulerDiscreteScheduler", "", "flow_euler"),
    ] {
        let config = Config::from_json(&with(class, keys)).unwrap();
        assert_eq!(config.name(), name);
        assert_eq!(sampler(&config, "", 20).unwrap().name(), name);
        assert_eq!(sampler(&config, name, 20).unwrap().name(), name);
    }
}

#[test]
fn every_name_that_is_listed_works_and_no_family_is_offered_another() {
    for (class, offered, withheld) in [
        ("PNDMScheduler", "dpmpp_2m_sde_karras", "flow_euler"),
        ("PNDMScheduler", "euler_ays", "edm_euler"),
        ("FlowMatchEulerDiscreteScheduler", "dpmpp_2m", "euler"),
        (
            "FlowMatchEulerDiscreteScheduler",
            "flow_euler_beta",
            "dpmpp_2m_karras",
        ),
        ("EDMEulerScheduler", "edm_euler_exponential", "euler"),
    ] {
        let config = Config::from_json(&with(class, r#", "skip_prk_steps": true"#)).unwrap();
        let choices = config.choices();
        assert_eq!(choices[0], config.name());
        let has = |name: &str| choices.iter().any(|choice| choice == name);
        assert!(has(offered) && !has(withheld), "{class}: {choices:?}");
        for choice in &choices {
            let few = matches!(choice.as_str(), "lcm" | "tcd");
            assert!(
                sampler(&config, choice, if few { 4 } else { 20 }).is_ok(),
                "{choice}"
            );
        }
        let error = sampler(&config, withheld, 20).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    }
}

#[test]
fn a_dynamic_shift_grows_with_the_picture() {
    let keys = r#", "use_dynamic_shifting": true"#;
    let config = Config::from_json(&with("FlowMatchEulerDiscreteScheduler", keys)).unwrap();
    assert_eq!((config.mu(256), config.mu(4096)), (Some(0.5), Some(1.15)));
    assert_eq!(sampler(&config, "", 20).unwrap_err().field(), "mu");
    let fixed = Config::from_json(&with("FlowMatchEulerDiscreteScheduler", "")).unwrap();
    assert_eq!(fixed.mu(256), None);
}

#[test]
fn a_saved_python_infinity_is_read() {
    let text = with(
        "DPMSolverMultistepScheduler",
        r#", "lambda_min_clipped": -Infinity, "variance_type": null"#,
    );
    assert!(sampler(&Config::from_json(&text).unwrap(), "", 20).is_ok());
}

#[test]
fn a_range_is_told_in_words_and_not_in_hundreds_of_digits() {
    let refusal = |class: &str, key: &str, value: &str| {
        let text = format!(r#"{{"_class_name": "{class}", "{key}": {value}}}"#);
        Config::from_json(&text).unwrap_err().to_string()
    };
    for (class, key, value, words) in [
        ("PNDMScheduler", "beta_start", "0", "a number above 0 to 0.999999"),
        ("PNDMScheduler", "beta_end", "1.5", "a number above 0 to 0.999999"),
        (
            "DPMSolverMultistepScheduler",
            "lambda_min_clipped",
            "\"x\"",
            "a number, or minus infinity",
        ),
        (
            "DPMSolverSinglestepScheduler",
            "lambda_min_clipped",
            "\"x\"",
            "a number, or minus infinity",
        ),
        (
            "DDIMScheduler",
            "clip_sample_range",
            "-1",
            "a number from 0 to 1000000",
        ),
    ] {
        let why = refusal(class, key, value);
        assert!(why.ends_with(&format!("expected {words}")), "{why}");
    }
}

#[test]
fn a_value_that_is_not_served_is_refused_by_key_and_value() {
    for (class, keys, expected) in [
        ("UnCLIPScheduler", "", "DPMSolverMultistepScheduler"),
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
            "DDPMScheduler",
            r#", "variance_type": "learned_range""#,
            "learned_range",
        ),
        (
            "DDPMScheduler",
            r#", "variance_type": "fixed_large_log""#,
            "negative",
        ),
        (
            "LCMScheduler",
            r#", "original_inference_steps": 0"#,
            "whole number",
        ),
        (
            "EDMEulerScheduler",
            r#", "sigma_schedule": "beta""#,
            "exponential",
        ),
        (
            "EDMEulerScheduler",
            r#", "prediction_type": "sample""#,
            "v_prediction",
        ),
        (
            "FlowMatchEulerDiscreteScheduler",
            r#", "time_shift_type": "cubic""#,
            "exponential, linear",
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
            r#", "use_dynamic_shifting": true, "time_shift_type": "linear""#,
            "exponentially",
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
    let config = Config::from_json(&with("DDIMScheduler", r#", "solver_type": "rk""#)).unwrap();
    let error = sampler(&config, "dpmpp_2m", 20).unwrap_err();
    assert_eq!(error.field(), "solver_type");
    assert!(sampler(&config, "", 20).is_ok());
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
            sampler(&config, "", steps).unwrap_err(),
            Error::Steps { steps, max: 1000 }
        );
    }
    let runge = Config::from_json(&with("PNDMScheduler", "")).unwrap();
    assert_eq!(sampler(&runge, "", 3).unwrap_err().field(), "steps");
    let short = Config::from_json(&with("DDIMScheduler", r#", "num_train_timesteps": 50"#)).unwrap();
    assert_eq!(
        sampler(&short, "", 51).unwrap_err(),
        Error::Steps { steps: 51, max: 50 }
    );
}

#[test]
fn a_schedule_without_finite_coefficients_is_refused() {
    // Zero terminal SNR has no signal at the first timestep, so a predicted noise says nothing there.
    let keys = r#", "rescale_betas_zero_snr": true, "timestep_spacing": "trailing""#;
    let config = Config::from_json(&with("DDIMScheduler", keys)).unwrap();
    assert_eq!(
        sampler(&config, "", 20).unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[test]
fn prediction_types_that_a_scheduler_has_no_step_for_are_refused() {
    let config = Config::from_json(&with("DDIMScheduler", r#", "prediction_type": "sample""#)).unwrap();
    for name in ["pndm", "euler_a"] {
        let error = sampler(&config, name, 20).unwrap_err();
        assert_eq!(error.field(), "scheduler");
        assert!(error.to_string().contains("sample"), "{error}");
    }
}
