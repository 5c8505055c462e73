use super::*;

fn port(name: &str, dtype: Dtype, dims: &[i64]) -> Port {
    Port {
        name: name.to_owned(),
        dtype: Some(dtype),
        dims: dims.to_vec(),
    }
}

fn unet(sample: &[i64], timestep: Port, output: &str) -> Ports {
    Ports {
        part: "unet",
        inputs: vec![
            port("sample", Dtype::F32, sample),
            timestep,
            port("encoder_hidden_states", Dtype::F32, &[-1, -1, 768]),
        ],
        outputs: vec![port(output, Dtype::F32, &[-1, 4, -1, -1])],
    }
}

#[test]
fn all_three_dialects_of_a_unet_match() {
    for (timestep, output) in [
        (port("timestep", Dtype::F32, &[]), "out_sample"),
        (port("timestep", Dtype::I64, &[-1]), "out_sample"),
        (port("timestep", Dtype::F16, &[1]), "latent"),
    ] {
        let matched = Unet::of(&unet(&[-1, 4, -1, -1], timestep, output)).unwrap();
        assert_eq!(matched.output.name, output);
    }
}

#[test]
fn the_inputs_of_xl_and_of_consistency_models_match() {
    let timestep = port("timestep", Dtype::F32, &[]);
    let mut xl = unet(&[-1, 9, -1, -1], timestep.clone(), "out_sample");
    xl.inputs.push(port("text_embeds", Dtype::F32, &[-1, 1280]));
    assert!(Unet::of(&xl).unwrap_err().to_string().contains("only one of"));
    xl.inputs.push(port("time_ids", Dtype::I64, &[-1, 6]));
    let matched = Unet::of(&xl).unwrap();
    assert!(matched.pooled.is_some() && matched.time_ids.is_some() && matched.guidance.is_none());
    let mut lcm = unet(&[-1, 4, -1, -1], timestep, "out_sample");
    lcm.inputs.push(port("timestep_cond", Dtype::F32, &[-1, 256]));
    assert_eq!(Unet::of(&lcm).unwrap().guidance.unwrap().dims, [-1, 256]);
}

#[test]
fn models_of_other_kinds_are_refused_by_name() {
    let timestep = port("timestep", Dtype::F32, &[]);
    let mut control = unet(&[-1, 4, -1, -1], timestep.clone(), "out_sample");
    control
        .inputs
        .push(port("down_block_0", Dtype::F32, &[-1, 320, -1, -1]));
    assert!(Unet::of(&control).unwrap_err().to_string().contains("ControlNet"));
    let edit = unet(&[-1, 8, -1, -1], timestep.clone(), "out_sample");
    assert!(
        Unet::of(&edit)
            .unwrap_err()
            .to_string()
            .contains("InstructPix2Pix")
    );
    let fixed = unet(&[2, 4, 64, 64], timestep.clone(), "out_sample");
    assert!(
        Unet::of(&fixed)
            .unwrap_err()
            .to_string()
            .contains("fixed batch of 2")
    );
    let still = unet(&[-1, 4, 64, -1], timestep, "out_sample");
    assert!(
        Unet::of(&still)
            .unwrap_err()
            .to_string()
            .contains("height and width [64, -1]")
    );
}

#[test]
fn a_second_text_encoder_is_matched_by_its_outputs_whatever_shape_they_declare() {
    let output = |name: &str, dims: &[i64]| port(name, Dtype::F32, dims);
    let mut second = Ports {
        part: "text_encoder_2",
        inputs: vec![port("input_ids", Dtype::I64, &[-1, -1])],
        outputs: vec![
            output("text_embeds", &[-1, -1]),
            output("last_hidden_state", &[-1, -1, 24]),
            output("hidden_states.1", &[-1, -1, 24]),
            output("hidden_states.0", &[-1, -1, 24]),
        ],
    };
    let matched = TextEncoder::of(&second).unwrap();
    assert_eq!(matched.pooled.unwrap().name, "text_embeds");
    let names: Vec<&str> = matched.hidden.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(names, ["hidden_states.0", "hidden_states.1"]);
    second.outputs.truncate(1);
    assert!(TextEncoder::of(&second).unwrap().states.is_none());
}

#[test]
fn both_kinds_of_vae_encoders_match() {
    for name in ["latent_parameters", "latent_sample"] {
        let encoder = Ports {
            part: "vae_encoder",
            inputs: vec![port("sample", Dtype::F32, &[-1, 3, -1, -1])],
            outputs: vec![port(name, Dtype::F32, &[-1, -1, -1, -1])],
        };
        assert_eq!(Encoder::of(&encoder).unwrap().latents.name, name);
    }
}

#[test]
fn a_part_in_the_wrong_folder_is_refused_with_what_it_has() {
    let decoder = Ports {
        part: "vae_decoder",
        inputs: vec![port("latent", Dtype::F32, &[-1, 4, -1, -1])],
        outputs: vec![port("sample", Dtype::F32, &[-1, 3, -1, -1])],
    };
    assert!(Decoder::of(&decoder).is_ok());
    let text = TextEncoder::of(&decoder).unwrap_err().to_string();
    assert!(text.contains("vae_decoder") && text.contains("latent"), "{text}");
    let wrong = Ports {
        inputs: vec![port("input_ids", Dtype::F32, &[-1, -1])],
        ..decoder
    };
    assert!(
        TextEncoder::of(&wrong)
            .unwrap_err()
            .to_string()
            .contains("input_ids is Some(F32)")
    );
}
