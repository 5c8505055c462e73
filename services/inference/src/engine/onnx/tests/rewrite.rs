//! Networks that are rewritten to go faster: the original's pictures, and a row's own bytes whatever it shares its call with.

use super::*;
use crate::engine::onnx::lanes::Choice;

fn load_with(folder: &Path, rewrite: bool, lanes: usize) -> Onnx {
    let setup = Setup {
        rewrite,
        lanes: Choice::Fixed(lanes),
        ..Setup::default()
    };
    Onnx::load(&Model::open(folder).unwrap(), &runtime(), &setup).unwrap()
}

/// What rows get: each is of a picture and has a text, by numbers.
fn drawn(engine: &mut Onnx, rows: &[(usize, usize)]) -> Vec<Vec<f32>> {
    let info = engine.info().clone();
    let mut batch = Batch::new(&info);
    batch.reset(info.latents(info.multiple, 2 * info.multiple), info.window);
    let wave = |number: usize, length: usize| (0..length).map(move |i| ((i + 5 * number) as f32 * 0.3).sin());
    for (picture, text) in rows {
        let condition = Arc::new(Condition {
            states: wave(*text, info.states()).collect(),
            pooled: wave(*text, info.pooled).collect(),
            time_ids: wave(*text, info.time_ids).collect(),
            guidance: wave(*text, info.guidance).collect(),
        });
        let timestep = if info.mixed_timesteps {
            90.0 * *picture as f32
        } else {
            501.0
        };
        let sample = batch.push(timestep, &condition).unwrap();
        let values = wave(picture + 50, sample.len());
        sample
            .iter_mut()
            .zip(values)
            .for_each(|(place, value)| *place = value);
    }
    engine.denoise(&mut batch).unwrap();
    (0..rows.len()).map(|row| batch.output(row).to_vec()).collect()
}

/// Two rows of a picture, one of another, two that are not beside each other, and the same prompt twice.
const ROWS: [(usize, usize); 8] = [(1, 0), (1, 1), (2, 0), (3, 0), (4, 2), (3, 3), (5, 4), (5, 4)];

fn folders() -> Vec<(String, PathBuf)> {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo");
    let tiny = [
        "sd15",
        "sd21",
        "sd15-fp16",
        "sd15-legacy",
        "sd15-extdata",
        "sd15-inpaint",
        "sdxl",
        "lcm",
    ]
    .map(|name| (name.to_owned(), tiny(name)));
    tiny.into_iter().chain([("demo".to_owned(), demo)]).collect()
}

#[test]
fn a_rewritten_network_gives_what_the_original_gives() {
    for (name, folder) in folders() {
        let mut plain = load_with(&folder, false, 1);
        let mut rewritten = load_with(&folder, true, 1);
        assert!(rewritten.unet.as_ref().unwrap().is_rewritten(), "{name}");
        assert!(!plain.unet.as_ref().unwrap().is_rewritten(), "{name}");
        conformance::check(&mut rewritten).unwrap_or_else(|violation| panic!("{name}: {violation}"));
        let pairs = drawn(&mut plain, &ROWS)
            .into_iter()
            .zip(drawn(&mut rewritten, &ROWS));
        for (row, (expected, got)) in pairs.enumerate() {
            assert!(got.iter().all(|value| value.is_finite()), "{name}, row {row}");
            let largest = expected
                .iter()
                .fold(1.0, |most: f32, value| most.max(value.abs()));
            let off = expected
                .iter()
                .zip(&got)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            // float16 has 11 bits.
            let most = if name.contains("fp16") { 1e-2 } else { 1e-5 };
            assert!(
                off < most * largest,
                "{name}, row {row} differs by {off} of {largest}"
            );
        }
    }
}

#[test]
fn a_row_has_the_same_bytes_beside_its_picture_alone_and_in_lanes() {
    for (name, folder) in folders() {
        let mut alone = load_with(&folder, true, 1);
        let each: Vec<Vec<f32>> = ROWS.iter().flat_map(|row| drawn(&mut alone, &[*row])).collect();
        assert!(drawn(&mut alone, &ROWS) == each, "{name}, in the pool");
        let mut lanes = load_with(&folder, true, 2);
        for turn in 0..3 {
            assert!(drawn(&mut lanes, &ROWS) == each, "{name}, call {turn} in lanes");
            assert!(drawn(&mut lanes, &ROWS[1..6]) == each[1..6], "{name}, other rows");
        }
    }
}

#[test]
fn networks_that_are_to_stay_are_not_rewritten() {
    let bound = Setup {
        io_binding: true,
        ..Setup::default()
    };
    let model = Model::open(&tiny("sd15")).unwrap();
    let engine = Onnx::load(&model, &runtime(), &bound).unwrap();
    assert!(!engine.unet.unwrap().is_rewritten());
}
