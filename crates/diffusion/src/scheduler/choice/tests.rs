use super::*;

#[test]
fn every_name_that_is_listed_survives_the_round_trip() {
    for kind in Kind::ALL {
        let alone = Choice {
            kind: Some(kind),
            schedule: None,
        };
        assert_eq!(Choice::parse(&alone.to_string(), "").unwrap(), alone);
        for schedule in Schedule::ALL {
            let choice = Choice {
                kind: Some(kind),
                schedule: Some(schedule),
            };
            let known = kind.class().schedules().contains(&schedule);
            let in_one = Choice::parse(&choice.to_string(), "");
            let in_two = Choice::parse(kind.name(), schedule.name());
            assert_eq!(in_one, in_two);
            match in_one {
                Ok(parsed) => assert!(known && parsed == choice, "{choice}"),
                Err(error) => assert!(!known && error.field() == "sigma_schedule", "{error}"),
            }
        }
    }
}

#[test]
fn names_of_other_front_ends_and_of_diffusers_mean_the_same() {
    for (name, expected) in [
        ("Euler a", "euler_a"),
        ("Euler", "euler"),
        ("EULER", "euler"),
        ("DPM++ 2M Karras", "dpmpp_2m_karras"),
        ("DPM++ 2M SDE Karras", "dpmpp_2m_sde_karras"),
        ("DPM++ 2M SDE Exponential", "dpmpp_2m_sde_exponential"),
        ("DPM++ 3M SDE", "dpmpp_3m_sde"),
        ("DPM++ SDE Karras", "dpmpp_sde_karras"),
        ("DPM2 a Karras", "dpm2_a_karras"),
        ("DPM2", "dpm2"),
        ("LMS Karras", "lms_karras"),
        ("UniPC", "unipc"),
        ("DDIM", "ddim"),
        ("PLMS", "pndm"),
        ("LCM", "lcm"),
        ("Heun", "heun"),
        ("K_EULER_ANCESTRAL", "euler_a"),
        ("k_dpm_2_a", "dpm2_a"),
        ("k_dpmpp_2m", "dpmpp_2m"),
        ("K_LMS", "lms"),
        ("uni_pc", "unipc"),
        ("EulerDiscreteScheduler", "euler"),
        ("EulerAncestralDiscreteScheduler", "euler_a"),
        ("DPMSolverMultistepScheduler", "dpmpp_2m"),
        ("DPMSolverSDE", "dpmpp_sde"),
        ("FlowMatchEulerDiscreteScheduler", "flow_euler"),
        ("KDPM2AncestralDiscreteScheduler", "dpm2_a"),
        ("euler simple", "euler_simple"),
        ("DPM++ 2M SGM Uniform", "dpmpp_2m_sgm_uniform"),
    ] {
        assert_eq!(Choice::parse(name, "").unwrap().to_string(), expected, "{name}");
    }
    for class in Class::ALL {
        let kind = Choice::parse(class.name(), "").unwrap().kind.unwrap();
        assert_eq!(kind.class(), class);
    }
    let both = Choice::parse("DPM++ 2M", "Align Your Steps").unwrap();
    assert_eq!(both.to_string(), "dpmpp_2m_ays");
    assert_eq!(Choice::parse("", "Automatic").unwrap(), Choice::default());
}

#[test]
fn what_is_not_served_is_refused_with_the_names_or_the_reason() {
    for (scheduler, schedule, field, expected) in [
        ("eulr", "", "scheduler", "dpmpp_2m"),
        ("eulr_karras", "", "scheduler", "_karras"),
        ("DPM++ 2S a", "", "scheduler", "dpmpp_2s"),
        ("k_dpmpp_2s_a", "", "scheduler", "dpmpp_2s"),
        ("DPM adaptive", "", "scheduler", "depends"),
        ("euler_a_karras", "", "sigma_schedule", "sgm_uniform"),
        ("ddim", "karras", "sigma_schedule", "sgm_uniform"),
        ("euler", "lu", "sigma_schedule", "exponential"),
        ("euler_karras", "beta", "sigma_schedule", "accepted are karras"),
        ("euler", "karas", "sigma_schedule", "kl_optimal"),
        ("lcm", "karras", "sigma_schedule", "none"),
    ] {
        let error = Choice::parse(scheduler, schedule).unwrap_err();
        assert_eq!(error.field(), field, "{scheduler} {schedule}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let long = "x".repeat(10_000);
    assert!(Choice::parse(&long, "").unwrap_err().to_string().len() < 1000);
}
