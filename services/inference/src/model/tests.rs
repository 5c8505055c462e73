use super::*;

/// A folder with the configuration of a tiny model and empty networks.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/sd21");
    for file in [
        "model_index.json",
        "unet/config.json",
        "vae_decoder/config.json",
        "text_encoder/config.json",
        "scheduler/scheduler_config.json",
    ] {
        let target = folder.path().join(file);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(source.join(file), target).unwrap();
    }
    for part in ["text_encoder", "unet", "vae_decoder"] {
        std::fs::write(folder.path().join(part).join("model.onnx"), "").unwrap();
    }
    folder
}

fn write(folder: &tempfile::TempDir, file: &str, text: &str) {
    std::fs::write(folder.path().join(file), text).unwrap();
}

fn error(folder: &tempfile::TempDir) -> String {
    Model::open(folder.path()).unwrap_err().to_string()
}

#[test]
fn a_folder_says_what_it_is_and_diffusers_defaults_fill_the_rest() {
    let model = Model::open(folder().path()).unwrap();
    assert_eq!(model.class, "StableDiffusionPipeline");
    assert_eq!(
        (
            model.sample_size,
            model.levels,
            model.window(),
            model.encoders[0].vocabulary
        ),
        ((4, 4), 2, 77, 522)
    );
    assert_eq!(
        (model.vae.scaling, model.vae.shift, model.vae.tile),
        (0.18215, 0.0, 32)
    );
    assert_eq!(model.tasks, [Task::TextToImage]);
    assert_eq!(
        model.defaults,
        Defaults {
            steps: 50,
            guidance_scale: 7.5,
            scheduler: "ddim".into()
        }
    );
    assert_eq!(model.scheduler.choices()[0], "ddim");
}

#[test]
fn parts_without_a_configuration_are_taken_for_stable_diffusion_1() {
    let folder = folder();
    for part in ["text_encoder", "unet", "vae_decoder"] {
        std::fs::remove_file(folder.path().join(part).join("config.json")).unwrap();
    }
    let model = Model::open(folder.path()).unwrap();
    assert_eq!(
        (model.sample_size, model.levels, model.encoders[0].vocabulary),
        ((64, 64), 4, 49_408)
    );
}

#[test]
fn the_manifest_overrides_the_defaults() {
    let folder = folder();
    write(
        &folder,
        "mobula.json",
        r#"{"defaults": {"steps": 20, "scheduler": "euler_a"}, "name": "x"}"#,
    );
    let defaults = Model::open(folder.path()).unwrap().defaults;
    assert_eq!(
        defaults,
        Defaults {
            steps: 20,
            guidance_scale: 7.5,
            scheduler: "euler_a".into()
        }
    );
    write(
        &folder,
        "mobula.json",
        r#"{"defaults": {"scheduler": "fastest"}}"#,
    );
    assert!(error(&folder).contains("fastest"));
    write(&folder, "mobula.json", r#"{"defaults": {"steps": 0}}"#);
    assert!(error(&folder).contains("mobula.json: steps is 0"));
    let guidance = |scale: &str| format!(r#"{{"defaults": {{"guidance_scale": {scale}}}}}"#);
    write(&folder, "mobula.json", &guidance("-1"));
    assert!(error(&folder).starts_with("mobula.json: guidance_scale is -1, expected 0 to 1000"));
    write(&folder, "mobula.json", &guidance("0.0"));
    assert_eq!(Model::open(folder.path()).unwrap().defaults.guidance_scale, 0.0);
    write(
        &folder,
        "mobula.json",
        r#"{"latent_rgb": {"weights": [[1, 2]], "bias": [0, 0, 0]}}"#,
    );
    assert!(error(&folder).starts_with("mobula.json"));
}

#[test]
fn a_missing_or_broken_file_is_named() {
    let folder = folder();
    std::fs::remove_file(folder.path().join("unet/model.onnx")).unwrap();
    assert!(error(&folder).starts_with("unet/model.onnx: is missing"));
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3438411239\n";
    write(&folder, "unet/model.onnx", pointer);
    assert!(error(&folder).starts_with("unet/model.onnx: is a Git LFS pointer"));
    write(&folder, "model_index.json", "{");
    assert!(error(&folder).starts_with("model_index.json: EOF"));
    std::fs::remove_file(folder.path().join("model_index.json")).unwrap();
    let told = error(&folder);
    let named = folder.path().display().to_string();
    assert!(
        told.starts_with(&format!("{named}: has no model_index.json")),
        "{told}"
    );
    assert!(told.contains("optimum-cli export onnx"), "what to do: {told}");
    assert!(
        Model::open(Path::new("/nowhere"))
            .unwrap_err()
            .to_string()
            .contains("is no folder")
    );
}

/// A tiny model of tests/models.
fn tiny(name: &str) -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/models")
        .join(name);
    Model::open(&folder).unwrap()
}

#[test]
fn every_family_says_what_it_can_do_and_what_it_needs() {
    use Task::{ImageToImage, Inpaint, Refine, TextToImage};
    let all = [TextToImage, ImageToImage, Inpaint];
    for (name, tasks, steps, guidance, time_ids) in [
        ("sd15", &all[..], 50, 7.5, 0),
        ("sd15-inpaint", &[Inpaint], 50, 7.5, 0),
        ("lcm", &all, 4, 8.5, 0),
        ("sdxl", &all, 50, 5.0, 6),
        ("sdxl-inpaint", &[Inpaint], 50, 7.5, 6),
        ("sdxl-refiner", &[Refine, ImageToImage, Inpaint], 50, 5.0, 5),
    ] {
        let model = tiny(name);
        assert_eq!(model.tasks, tasks, "{name}");
        assert_eq!(
            (model.defaults.steps, model.defaults.guidance_scale),
            (steps, guidance),
            "{name}"
        );
        assert_eq!(model.time_ids, time_ids, "{name}");
        assert_eq!(model.is_xl, name.starts_with("sdxl"), "{name}");
        assert_eq!(model.is_refiner, name == "sdxl-refiner", "{name}");
        assert_eq!(
            model.force_zeros_for_empty_prompt,
            ["sdxl", "sdxl-inpaint"].contains(&name),
            "{name}"
        );
        let parts: Vec<&str> = model.encoders.iter().map(|encoder| encoder.part).collect();
        assert_eq!(
            parts.len(),
            if ["sdxl", "sdxl-inpaint"].contains(&name) {
                2
            } else {
                1
            }
        );
        assert_eq!(model.upcasts_vae(), model.is_xl, "{name}");
    }
    assert!(tiny("sdxl-refiner").requires_aesthetics_score);
    assert_eq!(tiny("sdxl").vae.scaling, 0.13025);
    assert_ne!(tiny("sdxl").latent_rgb, tiny("sd15").latent_rgb);
}

#[test]
fn names_of_all_exporters_are_known_and_the_task_of_the_class_comes_first() {
    let folder = folder();
    std::fs::create_dir(folder.path().join("vae_encoder")).unwrap();
    write(&folder, "vae_encoder/model.onnx", "");
    for (class, first) in [
        ("ORTStableDiffusionPipeline", Task::TextToImage),
        ("OnnxStableDiffusionImg2ImgPipeline", Task::ImageToImage),
        ("StableDiffusionInpaintPipelineLegacy", Task::Inpaint),
        ("ORTLatentConsistencyModelImg2ImgPipeline", Task::ImageToImage),
    ] {
        write(
            &folder,
            "model_index.json",
            &format!(r#"{{"_class_name": "{class}"}}"#),
        );
        let model = Model::open(folder.path()).unwrap();
        assert_eq!((model.tasks[0], model.tasks.len()), (first, 3), "{class}");
    }
}

#[test]
fn other_kinds_of_models_are_refused_with_their_kind() {
    let folder = folder();
    for (index, word) in [
        (
            r#"{"_class_name": "StableDiffusionPipeline", "text_encoder_2": ["transformers", "X"]}"#,
            "second text encoder",
        ),
        (
            r#"{"_class_name": "StableDiffusion3Pipeline"}"#,
            "Stable Diffusion 3",
        ),
        (
            r#"{"_class_name": "FluxPipeline", "transformer": ["diffusers", "X"]}"#,
            "Flux",
        ),
        (
            r#"{"_class_name": "StableDiffusionPipeline", "transformer": ["diffusers", "X"]}"#,
            "transformer",
        ),
        (
            r#"{"_class_name": "StableDiffusionControlNetPipeline"}"#,
            "ControlNet",
        ),
        (r#"{"_class_name": "KandinskyPipeline"}"#, "Kandinsky"),
        (
            r#"{"_class_name": "OddPipeline"}"#,
            "no pipeline of the Stable Diffusion",
        ),
        (
            r#"{"_class_name": "StableDiffusionPipeline", "text_encoder": ["transformers", "T5EncoderModel"]}"#,
            "T5",
        ),
        (
            r#"{"_class_name": "StableDiffusionPipeline", "requires_safety_checker": true,
                "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}"#,
            "requires_safety_checker",
        ),
        (
            r#"{"_class_name": "StableDiffusionXLPipeline"}"#,
            "text_encoder_2/model.onnx: is missing",
        ),
    ] {
        write(&folder, "model_index.json", index);
        assert!(error(&folder).contains(word), "{}", error(&folder));
    }
    write(
        &folder,
        "model_index.json",
        r#"{"_class_name": "StableDiffusionPipeline", "transformer": [null, null]}"#,
    );
    for (unet, word) in [
        (r#"{"in_channels": 9}"#, "vae_encoder/model.onnx: is missing"),
        (r#"{"in_channels": 8}"#, "InstructPix2Pix"),
        (
            r#"{"addition_embed_type": "text_time"}"#,
            "addition_embed_type is text_time",
        ),
        (
            r#"{"addition_embed_type": "image"}"#,
            "addition_embed_type is image",
        ),
        (r#"{"time_cond_proj_dim": 99999}"#, "time_cond_proj_dim"),
        (r#"{"sample_size": 0}"#, "sample_size"),
    ] {
        write(&folder, "unet/config.json", unet);
        assert!(error(&folder).contains(word), "{}", error(&folder));
    }
    std::fs::remove_file(folder.path().join("unet/config.json")).unwrap();
    for (vae, word) in [
        (r#"{"latent_channels": 16}"#, "latent_channels is 16"),
        (r#"{"scaling_factor": 0}"#, "scaling_factor"),
        (r#"{"latents_mean": [0, 0, 0, 0]}"#, "do not come together"),
        (
            r#"{"latents_mean": [0], "latents_std": [1]}"#,
            "one finite number per channel",
        ),
        (r#"{"sample_size": 1}"#, "sample_size"),
    ] {
        write(&folder, "vae_decoder/config.json", vae);
        assert!(error(&folder).contains(word), "{}", error(&folder));
    }
}

#[test]
fn a_manifest_says_what_was_prepared_and_measured() {
    let folder = folder();
    let manifest = |file: &str, curve: &str| {
        let text = format!(
            r#"{{"prepared": {{"unet": {{"file": "{file}", "source": "a", "digest": "b", "unit": 2}}}},
                "profile": {{"CPUExecutionProvider": {{"4x4x77": {curve}}}}}}}"#
        );
        write(&folder, "mobula.json", &text);
        Model::open(folder.path())
    };
    let model = manifest("model.batched.onnx", "[[1, 10], [2, 15]]").unwrap();
    assert_eq!(model.prepared.unwrap().file, "model.batched.onnx");
    let shape = crate::engine::Shape {
        channels: 4,
        height: 4,
        width: 4,
    };
    let curve = model.profile.curve("CPUExecutionProvider", shape, 77);
    assert_eq!(curve, Some(&[(1, 10), (2, 15)][..]));
    for (file, curve) in [
        ("../../x.onnx", "[]"),
        ("x.pb", "[]"),
        ("x.onnx", "[[2, 1], [1, 2]]"),
    ] {
        assert!(
            manifest(file, curve)
                .unwrap_err()
                .to_string()
                .starts_with("mobula.json"),
            "{file} {curve}"
        );
    }
}

#[test]
fn the_digest_changes_with_any_name_and_any_byte() {
    let folder = folder();
    let first = digest(folder.path()).unwrap();
    assert_eq!(first.len(), 64);
    assert_eq!(digest(folder.path()).unwrap(), first);
    write(&folder, ".hidden", "not a part of the model");
    assert_eq!(digest(folder.path()).unwrap(), first);
    write(&folder, "unet/model.onnx", "x");
    let second = digest(folder.path()).unwrap();
    std::fs::rename(
        folder.path().join("unet/model.onnx"),
        folder.path().join("unet/model2.onnx"),
    )
    .unwrap();
    let third = digest(folder.path()).unwrap();
    assert!(first != second && second != third && first != third);
}

#[test]
fn a_folder_in_place_of_a_file_is_refused_and_not_read() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("model_index.json")).unwrap();
    let why = Model::open(folder.path()).unwrap_err().to_string();
    assert!(
        why.contains("model_index.json") && why.contains("no regular file"),
        "{why}"
    );
}
