//! The engine's networks against diffusers' (tools/reference/networks.py made the values, of waves that are made again here).

use std::collections::HashMap;

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct File {
    stride: usize,
    models: HashMap<String, Case>,
}

#[derive(Deserialize)]
struct Case {
    text: Vec<Text>,
    unet: Kept,
    vae: HashMap<String, Vae>,
    inverted: Option<Inverted>,
}

#[derive(Deserialize)]
struct Text {
    clip_skip: usize,
    states: Kept,
    pooled: Option<Kept>,
}

#[derive(Deserialize)]
struct Vae {
    decoded: Kept,
    mean: Kept,
    deviation: Kept,
}

#[derive(Deserialize)]
struct Inverted {
    vectors: usize,
    states: Kept,
}

/// Some of the values of an output.
#[derive(Deserialize)]
struct Kept {
    count: usize,
    values: Vec<f32>,
}

impl Kept {
    /// The largest difference to what the engine gave.
    fn difference(&self, got: &[f32], stride: usize) -> f32 {
        assert_eq!(got.len(), self.count);
        let pairs = got.iter().step_by(stride).zip(&self.values);
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    /// The same as a part of the largest value: rounding of sums is, and kernels of different processors sum in different orders.
    fn part(&self, got: &[f32], stride: usize) -> f32 {
        let largest = self
            .values
            .iter()
            .fold(1.0, |most: f32, value| most.max(value.abs()));
        self.difference(got, stride) / largest
    }
}

fn file() -> File {
    let text = include_str!("../../../../tests/networks.json");
    serde_json::from_str(text).unwrap()
}

pub(super) fn wave(key: usize, count: usize) -> Vec<f32> {
    (0..count)
        .map(|i| (0.7 * i as f64 + key as f64).sin() as f32)
        .collect()
}

/// Two windows as the script has them, for each encoder.
fn ids(info: &Info) -> Vec<u32> {
    let mut all = Vec::new();
    for row in 0..2_u32 {
        let mut window = vec![521; info.window];
        window[0] = 520;
        for word in 0..9 + row {
            window[1 + word as usize] = (row * 31 + 7 * word) % 520;
        }
        for _ in &info.encoders {
            all.extend_from_slice(&window);
        }
    }
    all
}

#[test]
fn text_states_are_those_of_diffusers_for_every_clip_skip() {
    let File { stride, models } = file();
    for (name, case) in &models {
        let mut engine = load(&tiny(name)).unwrap();
        let ids = ids(engine.info());
        assert_eq!(engine.info().max_clip_skip(), case.text.len() - 1, "{name}");
        let mut out = Encoded::default();
        for text in &case.text {
            engine.encode(&ids, text.clip_skip, &mut out).unwrap();
            let off = text.states.difference(&out.states, stride);
            assert!(
                off < 2e-5,
                "{name}, clip_skip {}: states differ by {off}",
                text.clip_skip
            );
            match &text.pooled {
                None => assert!(out.pooled.is_empty()),
                Some(pooled) => {
                    let off = pooled.difference(&out.pooled, stride);
                    assert!(off < 2e-5, "{name}: pooled text differs by {off}");
                }
            }
        }
    }
}

#[test]
fn clip_skip_is_the_same_with_and_without_outputs_for_the_layers() {
    // The export with hidden states and the one without, and a float16 one, which has fewer bits.
    let reference = &file().models["sd15"];
    for (name, tolerance) in [
        ("sd15-hidden", 2e-5),
        ("sd15-extdata", 2e-5),
        ("sd15-legacy", 2e-5),
        ("sd15-fp16", 2e-2),
    ] {
        let mut engine = load(&tiny(name)).unwrap();
        let ids = ids(engine.info());
        let mut out = Encoded::default();
        for text in &reference.text {
            engine.encode(&ids, text.clip_skip, &mut out).unwrap();
            let off = text.states.difference(&out.states, file().stride);
            assert!(off < tolerance, "{name}, clip_skip {}: {off}", text.clip_skip);
        }
    }
}

#[test]
fn layers_that_cannot_be_told_apart_are_not_offered() {
    let folder = copy_of("sd15");
    let file = folder.path().join("text_encoder/config.json");
    let config = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        config.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3"),
    )
    .unwrap();
    let mut engine = load(folder.path()).unwrap();
    assert_eq!(engine.info().max_clip_skip(), 0);
    conformance::check(&mut engine).unwrap();
}

#[test]
fn unet_calls_are_those_of_diffusers() {
    let File { stride, models } = file();
    for (name, case) in &models {
        let mut engine = load(&tiny(name)).unwrap();
        let info = engine.info().clone();
        let shape = Shape {
            channels: 4,
            height: 8,
            width: 12,
        };
        let mut batch = Batch::new(&info);
        batch.reset(shape, info.window);
        let (states, pooled) = (wave(2, 2 * info.states()), wave(3, 2 * info.pooled));
        let guidance = wave(4, 2 * info.guidance);
        let samples = wave(1, 2 * info.input_channels * shape.positions());
        let part =
            |all: &[f32], row: usize| -> Arc<[f32]> { all[row * all.len() / 2..][..all.len() / 2].into() };
        for (row, timestep) in [900.0, 100.0].into_iter().enumerate() {
            let condition = Arc::new(Condition {
                states: part(&states, row),
                pooled: part(&pooled, row),
                time_ids: (0..info.time_ids).map(|i| 64.0 * (row + i) as f32).collect(),
                guidance: part(&guidance, row),
            });
            let sample = batch.push(timestep, &condition).unwrap();
            sample.copy_from_slice(&part(&samples, row));
        }
        engine.denoise(&mut batch).unwrap();
        let off = case.unet.difference(batch.outputs_mut(), stride);
        assert!(off < 5e-5, "{name}: the UNet's output differs by {off}");
    }
}

#[test]
fn the_vae_is_that_of_diffusers_whole_and_in_tiles() {
    let File { stride, models } = file();
    let (shape, mut planes, mut moments) = (
        Shape {
            channels: 4,
            height: 10,
            width: 14,
        },
        Vec::new(),
        Moments::default(),
    );
    for (name, case) in &models {
        for (kind, tile_above) in [("whole", 112), ("tiled", 111)] {
            let setup = Setup {
                tile_above,
                ..Setup::default()
            };
            let mut engine = Onnx::load(&Model::open(&tiny(name)).unwrap(), &runtime(), &setup).unwrap();
            let vae = &case.vae[kind];
            let decoded = engine
                .decode(&wave(5, shape.values()), shape, &mut planes)
                .unwrap();
            assert!(decoded.again.is_empty());
            let off = vae.decoded.part(&planes, stride);
            assert!(off < 1e-5, "{name}, {kind}: the picture differs by {off}");
            engine
                .encode_images(&wave(6, 3 * 80 * 112), 112, 80, &mut moments)
                .unwrap();
            let off = vae.mean.part(&moments.mean, stride);
            assert!(off < 1e-5, "{name}, {kind}: the mean differs by {off}");
            let off = vae.deviation.part(&moments.deviation, stride);
            assert!(off < 1e-5, "{name}, {kind}: the deviation differs by {off}");
        }
        let [whole, tiled] = ["whole", "tiled"].map(|kind| &case.vae[kind].decoded.values);
        assert!(
            whole.iter().zip(tiled).any(|(a, b)| (a - b).abs() > 1e-3),
            "{name}: tiles make no difference"
        );
    }
}

#[test]
fn vectors_of_textual_inversion_are_those_of_diffusers_wherever_the_table_is() {
    let File { stride, models } = file();
    let inverted = models["sd15"].inverted.as_ref().unwrap();
    for (name, tolerance) in [
        ("sd15", 2e-5),
        ("sd15-extdata", 2e-5),
        ("sd15-legacy", 2e-5),
        ("sd15-fp16", 2e-2),
    ] {
        let folder = copy_of(name);
        std::fs::create_dir(folder.path().join("embeddings")).unwrap();
        std::fs::copy(
            tiny("embeddings").join("three.safetensors"),
            folder.path().join("embeddings/three.safetensors"),
        )
        .unwrap();
        let mut engine = load(folder.path()).unwrap();
        assert_eq!(
            engine.info().encoders[0].vocabulary as usize,
            522 + inverted.vectors,
            "{name}"
        );
        conformance::check(&mut engine).unwrap();
        let mut ids = ids(engine.info());
        for window in ids.chunks_exact_mut(77) {
            for place in 0..inverted.vectors {
                window[3 + place] = 522 + place as u32;
            }
        }
        let mut out = Encoded::default();
        engine.encode(&ids, 0, &mut out).unwrap();
        let off = inverted.states.difference(&out.states, stride);
        assert!(off < tolerance, "{name}: states differ by {off}");
        engine.encode(&ids, 1, &mut out).unwrap();
    }
}

#[test]
fn both_encoders_of_xl_take_their_own_vectors() {
    let folder = copy_of("sdxl");
    std::fs::create_dir(folder.path().join("embeddings")).unwrap();
    std::fs::copy(
        tiny("embeddings").join("xl-three.safetensors"),
        folder.path().join("embeddings/xl-three.safetensors"),
    )
    .unwrap();
    let mut engine = load(folder.path()).unwrap();
    let vocabularies: Vec<u32> = engine.info().encoders.iter().map(|e| e.vocabulary).collect();
    assert_eq!(vocabularies, [525, 525]);
    conformance::check(&mut engine).unwrap();
}
