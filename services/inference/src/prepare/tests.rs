use std::path::Path;

use serde_json::Value;

use super::*;
use crate::engine::conformance;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A copy of a tiny model.
fn copy_of(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    copy(&models.join(name), folder.path());
    folder
}

fn args(folder: &Path) -> Args {
    Args {
        model: folder.to_owned(),
        check: false,
        size: Vec::new(),
        max_rows: 2,
        seconds: 1,
        providers: "cpu".to_owned(),
        lanes: "1".to_owned(),
        onnxruntime: None,
        threads: Some(2),
    }
}

fn report(args: &Args) -> String {
    let mut out = Vec::new();
    run(args, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn manifest(folder: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder.join("mobula.json")).unwrap()).unwrap()
}

fn load(folder: &Path) -> Onnx {
    let runtime = Runtime {
        library: None,
        threads: 2,
        spin: false,
    };
    Onnx::load(&Model::open(folder).unwrap(), &runtime, &Setup::default()).unwrap()
}

#[test]
fn a_prepared_model_is_used_and_its_manifest_keeps_what_others_wrote() {
    for name in ["sd15", "sd15-extdata", "sdxl"] {
        let folder = copy_of(name);
        let own = r#"{"defaults": {"steps": 7}, "card": "mine", "footprint": {"X": 1}}"#;
        std::fs::write(folder.path().join("mobula.json"), own).unwrap();
        let text = report(&args(folder.path()));
        assert!(text.contains("unet/model.batched.onnx is written"), "{text}");
        assert!(
            text.contains("text_encoder") && text.contains("timestep f32[]"),
            "{text}"
        );
        let manifest = manifest(folder.path());
        assert_eq!(
            (&manifest["defaults"]["steps"], &manifest["card"]),
            (&Value::from(7), &Value::from("mine"))
        );
        assert_eq!(manifest["footprint"]["X"], 1);
        assert!(
            manifest["footprint"]["CPUExecutionProvider"]["peak_bytes"]
                .as_u64()
                .unwrap()
                > 1 << 20
        );
        let model = Model::open(folder.path()).unwrap();
        assert_eq!(model.defaults.steps, 7);
        let mut engine = load(folder.path());
        let info = engine.info().clone();
        let side = (model.sample_size.0 * info.scale).next_multiple_of(info.multiple);
        let curve = model
            .profile
            .curve(&info.computes(), info.latents(side, side), info.window)
            .unwrap();
        assert_eq!(
            curve.iter().map(|(rows, _)| *rows).collect::<Vec<_>>(),
            [1, 2],
            "{name}"
        );
        conformance::check(&mut engine).unwrap();
        // A file that is not the one that was written is not used; the model loads as if it had not been prepared.
        std::fs::write(folder.path().join("unet/model.batched.onnx"), "spoilt").unwrap();
        assert!(load(folder.path()).info().mixed_timesteps, "{name}");
    }
}

#[test]
fn how_calls_are_best_divided_is_kept_for_the_threads_that_it_was_measured_with() {
    let folder = copy_of("sd15");
    let known = r#"{"lanes": {"16": {"lanes": 4, "gain": 1.5}, "2": {"lanes": 1, "gain": 77.5}}}"#;
    std::fs::write(folder.path().join("mobula.json"), known).unwrap();
    let auto = Args {
        lanes: "auto".to_owned(),
        ..args(folder.path())
    };
    let text = report(&auto);
    assert!(text.contains("times as fast"), "{text}");
    let manifest = manifest(folder.path());
    let found = &manifest["lanes"]["2"];
    // What was there for as many threads was measured anew.
    assert_ne!(found["gain"], 77.5);
    assert_eq!(manifest["lanes"]["16"]["lanes"], 4);
    let name = match found["lanes"].as_u64() {
        Some(1) => "CPUExecutionProvider",
        Some(2) => "CPUExecutionProvider, 2 lanes of 1",
        _ => panic!("{manifest}"),
    };
    assert!(manifest["profile"][name]["4x4x77"].is_array(), "{manifest}");
    assert!(
        manifest["footprint"][name]["loaded_bytes"].as_u64().is_some(),
        "{manifest}"
    );
    for (wrong, why) in [
        (
            r#"{"lanes": {"2": {"lanes": 3, "gain": 1.5}}}"#,
            "lanes of 2 threads",
        ),
        (
            r#"{"lanes": {"2": {"lanes": 0, "gain": 1.5}}}"#,
            "lanes of 2 threads",
        ),
        (
            r#"{"lanes": {"2": {"lanes": 2, "gain": -1}}}"#,
            "lanes of 2 threads",
        ),
    ] {
        std::fs::write(folder.path().join("mobula.json"), wrong).unwrap();
        let error = Model::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn it_is_the_prepared_file_that_a_worker_runs() {
    let folder = copy_of("sd15");
    report(&args(folder.path()));
    let output = |folder: &Path| {
        let mut engine = load(folder);
        let info = engine.info().clone();
        let condition = std::sync::Arc::new(crate::engine::Condition {
            states: vec![0.5; info.states()].into(),
            pooled: Vec::new().into(),
            time_ids: Vec::new().into(),
            guidance: Vec::new().into(),
        });
        let mut batch = crate::engine::Batch::new(&info);
        batch.reset(info.latents(32, 32), info.window);
        batch.push(500.0, &condition).unwrap().fill(0.5);
        engine.denoise(&mut batch).unwrap();
        batch.output(0).to_vec()
    };
    let prepared = output(folder.path());
    assert_eq!(prepared, output(copy_of("sd15").path()));
    // Another model's prepared UNet in its place, by the digest that the manifest then has: now the numbers are that one's.
    let other = copy_of("sd21");
    report(&args(other.path()));
    let file = folder.path().join("unet/model.batched.onnx");
    let own = model::file_digest(&file).unwrap();
    std::fs::copy(other.path().join("unet/model.batched.onnx"), &file).unwrap();
    let text = std::fs::read_to_string(folder.path().join("mobula.json")).unwrap();
    let changed = text.replace(&own, &model::file_digest(&file).unwrap());
    assert_ne!(text, changed);
    std::fs::write(folder.path().join("mobula.json"), changed).unwrap();
    assert_ne!(output(folder.path()), prepared);
    assert_eq!(output(folder.path()), output(other.path()));
}

#[test]
fn a_check_writes_nothing() {
    let folder = copy_of("sd15");
    let before = model::digest(folder.path()).unwrap();
    let checked = Args {
        check: true,
        ..args(folder.path())
    };
    let text = report(&checked);
    assert!(
        text.contains("one timestep for all rows") && text.contains("Nothing was written"),
        "{text}"
    );
    assert!(text.contains("can do: text to image"), "{text}");
    assert_eq!(model::digest(folder.path()).unwrap(), before);
}

/// Every file of a folder, hidden ones too, with its content.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            let content = std::fs::read(&path).unwrap();
            all.push((path, content));
        }
    }
    all.sort();
    all
}

/// What both ways of `prepare` say of a folder that no worker serves; they must change nothing and promise nothing.
fn refusal(folder: &Path) -> String {
    let before = files(folder);
    let refused = |check| {
        let mut out = Vec::new();
        let args = Args {
            check,
            ..args(folder)
        };
        let error = run(&args, &mut out).unwrap_err().to_string();
        let text = String::from_utf8(out).unwrap();
        assert!(!text.contains("can do"), "{text}");
        assert!(files(folder) == before, "{error}");
        error
    };
    let (checked, prepared) = (refused(true), refused(false));
    assert_eq!(checked, prepared);
    checked
}

#[test]
fn a_network_that_gives_no_numbers_is_named_and_nothing_is_written() {
    for part in ["text_encoder", "unet", "vae_decoder", "vae_encoder"] {
        let folder = copy_of("sd15-extdata");
        let file = folder.path().join(part).join("model.onnx_data");
        let length = std::fs::metadata(&file).unwrap().len() as usize;
        std::fs::write(&file, f32::NAN.to_le_bytes().repeat(length / 4)).unwrap();
        let error = refusal(folder.path());
        assert!(
            error.starts_with(&format!("{part}/model.onnx: ")) && error.contains("not finite"),
            "{part}: {error}"
        );
    }
}

#[test]
fn text_encoders_that_are_swapped_or_of_another_model_are_refused_in_words() {
    let swapped = copy_of("sdxl");
    let [first, second, aside] =
        ["text_encoder", "text_encoder_2", "aside"].map(|name| swapped.path().join(name));
    for (from, to) in [(&first, &aside), (&second, &first), (&aside, &second)] {
        std::fs::rename(from, to).unwrap();
    }
    let error = refusal(swapped.path());
    assert!(
        error.starts_with("text_encoder_2: it has no output text_embeds") && error.contains("swapped"),
        "{error}"
    );
    // Another model's encoder, whose states have another width.
    let other = copy_of("sd15");
    let narrow = copy_of("sdxl-refiner");
    let (from, to) = (
        narrow.path().join("text_encoder_2"),
        other.path().join("text_encoder"),
    );
    std::fs::remove_dir_all(&to).unwrap();
    copy(&from, &to);
    let error = refusal(other.path());
    assert!(
        error.starts_with("unet/model.onnx: its cross-attention takes text states of width 16")
            && error.contains("text_encoder/model.onnx gives states of width 24"),
        "{error}"
    );
}

#[test]
fn a_unet_with_a_timestep_per_row_needs_no_other() {
    let folder = copy_of("sd15-legacy");
    let text = report(&args(folder.path()));
    assert!(text.contains("takes a timestep per row as it is"), "{text}");
    assert!(!folder.path().join("unet/model.batched.onnx").exists());
    assert!(manifest(folder.path()).get("prepared").is_none());
}

#[test]
fn sizes_are_read_and_wrong_ones_are_named() {
    assert_eq!(size("768x512"), Ok((768, 512)));
    for wrong in ["768", "0x8", "axb", "99999x8"] {
        assert!(size(wrong).unwrap_err().contains("768x512"));
    }
    let folder = copy_of("sd15");
    let odd = Args {
        size: vec![(40, 32)],
        ..args(folder.path())
    };
    let error = run(&odd, &mut Vec::new()).unwrap_err().to_string();
    assert!(
        error.contains("--size") && error.contains("multiples of 16"),
        "{error}"
    );
}
