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
    for part in PARTS {
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
        (model.sample_size, model.levels, model.window, model.vocabulary),
        ((4, 4), 2, 77, 522)
    );
    assert_eq!(model.scaling_factor, 0.18215);
    assert_eq!(
        model.defaults,
        Defaults {
            steps: 50,
            guidance_scale: 7.5,
            scheduler: Kind::Ddim
        }
    );
    assert_eq!(model.schedulers()[0], Kind::Ddim);
    assert!(model.schedulers().len() > 3);
}

#[test]
fn parts_without_a_configuration_are_taken_for_stable_diffusion_1() {
    let folder = folder();
    for part in PARTS {
        std::fs::remove_file(folder.path().join(part).join("config.json")).unwrap();
    }
    let model = Model::open(folder.path()).unwrap();
    assert_eq!(
        (model.sample_size, model.levels, model.vocabulary),
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
            scheduler: Kind::EulerAncestral
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
    assert_eq!(error(&folder), "model_index.json: is missing");
    assert!(
        Model::open(Path::new("/nowhere"))
            .unwrap_err()
            .to_string()
            .contains("is no folder")
    );
}

#[test]
fn other_kinds_of_models_are_refused_with_their_kind() {
    let folder = folder();
    for (index, word) in [
        (
            r#"{"_class_name": "StableDiffusionXLPipeline"}"#,
            "two text encoders",
        ),
        (
            r#"{"_class_name": "StableDiffusionPipeline", "text_encoder_2": ["transformers", "X"]}"#,
            "two text encoders",
        ),
        (
            r#"{"_class_name": "FluxPipeline", "transformer": ["diffusers", "X"]}"#,
            "transformer",
        ),
        (
            r#"{"_class_name": "KandinskyPipeline"}"#,
            "not a text-to-image pipeline",
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
        (r#"{"in_channels": 9}"#, "inpainting"),
        (r#"{"addition_embed_type": "text_time"}"#, "addition_embed_type"),
        (r#"{"time_cond_proj_dim": 256}"#, "latent consistency"),
        (r#"{"sample_size": 0}"#, "sample_size"),
    ] {
        write(&folder, "unet/config.json", unet);
        assert!(error(&folder).contains(word), "{}", error(&folder));
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
