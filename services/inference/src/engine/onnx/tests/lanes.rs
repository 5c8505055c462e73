//! Rows of a call divided among sessions: the same bytes as the pool, whatever the rows, and ended or failed as one call.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::engine::onnx::lanes::Choice;
use crate::memory::resident;
use crate::model::Divisions;

fn setup(lanes: Choice) -> Setup {
    Setup {
        lanes,
        ..Setup::default()
    }
}

fn with_lanes(folder: &Path, lanes: usize) -> Onnx {
    let model = Model::open(folder).unwrap();
    Onnx::load(&model, &runtime(), &setup(Choice::Fixed(lanes))).unwrap()
}

/// A call of rows that all differ.
fn batch(engine: &Onnx, side: usize, rows: usize) -> Batch {
    let info = engine.info();
    let mut batch = Batch::new(info);
    batch.reset(info.latents(side, side), info.window);
    for row in 0..rows {
        let wave = |length: usize| (0..length).map(|i| ((i + 5 * row) as f32 * 0.3).sin()).collect();
        let condition = Arc::new(Condition {
            states: wave(info.states()),
            pooled: wave(info.pooled),
            time_ids: wave(info.time_ids),
            guidance: wave(info.guidance),
        });
        let timestep = if info.mixed_timesteps {
            (37 * row) as f32
        } else {
            501.0
        };
        let sample = batch.push(timestep, &condition).unwrap();
        sample
            .iter_mut()
            .enumerate()
            .for_each(|(i, value)| *value = ((i + 11 * row) as f32 * 0.7).sin());
    }
    batch
}

fn bits(engine: &mut Onnx, side: usize, rows: usize) -> Vec<u32> {
    let mut batch = batch(engine, side, rows);
    engine.denoise(&mut batch).unwrap();
    batch.outputs_mut().iter().map(|value| value.to_bits()).collect()
}

#[test]
fn lanes_keep_every_rule_of_an_engine_and_change_no_byte() {
    for (name, lanes) in [
        ("sd15", 2),
        ("sd15", 3),
        ("sd15-fp16", 2),
        ("sd15-legacy", 3),
        ("sd15-extdata", 2),
        ("sdxl", 3),
        ("lcm", 2),
    ] {
        let mut divided = with_lanes(&tiny(name), lanes);
        assert_eq!(divided.info().lanes, lanes, "{name}");
        // Weights in files of their own are mapped, and so in memory once anyway.
        let in_common = divided.unet.as_ref().unwrap().shares();
        let elsewhere = ["sd15-legacy", "sd15-extdata"].contains(&name);
        assert_eq!(in_common, !elsewhere, "{name}");
        conformance::check(&mut divided)
            .unwrap_or_else(|violation| panic!("{name}, {lanes} lanes: {violation}"));
        let mut whole = with_lanes(&tiny(name), 1);
        assert_eq!(whole.info().lanes, 1, "{name}");
        for side in [32, 48] {
            // The first call of a size is made both ways; every other one is made in lanes.
            for rows in [2, 1, 3, 4, 5, 7, 2] {
                assert!(
                    bits(&mut divided, side, rows) == bits(&mut whole, side, rows),
                    "{name}: {rows} rows of {side} in {lanes} lanes"
                );
            }
        }
        divided.trim();
        assert!(
            bits(&mut divided, 32, 3) == bits(&mut whole, 32, 3),
            "{name} after trim"
        );
    }
}

#[test]
fn a_timestep_that_a_call_shares_is_shared_by_its_lanes() {
    let folder = copy_of("sd15");
    consume_timestep(folder.path());
    let mut divided = with_lanes(folder.path(), 2);
    assert!(!divided.info().mixed_timesteps && divided.info().lanes == 2);
    conformance::check(&mut divided).unwrap();
}

#[test]
fn shapes_whose_bytes_differ_in_lanes_stay_with_the_pool() {
    let mut engine = with_lanes(&tiny("sd15"), 2);
    let mut other = with_lanes(&tiny("sd21"), 2);
    let expected = bits(&mut with_lanes(&tiny("sd15"), 1), 32, 4);
    assert!(bits(&mut engine, 32, 4) == expected);
    assert!(
        bits(&mut other, 32, 4) != expected,
        "the two models give the same"
    );
    // Lanes with the weights of another model stand for kernels that depend on their threads.
    engine
        .unet
        .as_mut()
        .unwrap()
        .swap_lanes(other.unet.as_mut().unwrap());
    for _ in 0..3 {
        assert!(bits(&mut engine, 48, 4) == bits(&mut with_lanes(&tiny("sd15"), 1), 48, 4));
    }
}

#[test]
fn an_interruption_ends_the_calls_of_all_lanes_and_the_next_call_runs() {
    let mut engine = with_lanes(&tiny("sd15"), 2);
    let stop = engine.interrupter().unwrap();
    let expected = bits(&mut engine, 32, 4);
    let mut large = batch(&engine, 512, 6);
    let done = Arc::new(AtomicBool::new(false));
    // Again and again, because one that comes before the call has begun is forgotten.
    let thread = std::thread::spawn({
        let done = Arc::clone(&done);
        move || {
            while !done.load(Ordering::Acquire) {
                stop.interrupt();
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    let ended = engine.denoise(&mut large);
    done.store(true, Ordering::Release);
    thread.join().unwrap();
    assert!(matches!(ended, Err(Error::Interrupted)), "{ended:?}");
    assert!(bits(&mut engine, 32, 4) == expected);
    // What was interrupted was not taken for a difference.
    assert_eq!(engine.info().lanes, 2);
}

#[test]
fn idle_lanes_give_the_memory_of_large_calls_back() {
    let mut engine = with_lanes(&tiny("sd15"), 2);
    let expected = bits(&mut engine, 32, 2);
    engine.trim();
    let before = resident();
    let mut large = batch(&engine, 512, 4);
    for _ in 0..2 {
        engine.denoise(&mut large).unwrap();
    }
    drop(large);
    let after = resident();
    engine.trim();
    let trimmed = resident();
    let (kept, left) = (
        after.saturating_sub(before) >> 20,
        trimmed.saturating_sub(before) >> 20,
    );
    println!("large calls keep {kept} MiB, of which {left} MiB are left after trim");
    assert!(kept >= 50, "large calls keep {kept} MiB");
    assert!(left * 3 < kept, "of {kept} MiB {left} MiB are left");
    assert!(bits(&mut engine, 32, 2) == expected);
}

#[test]
fn what_goes_fastest_is_found_out_once_and_told_by_the_manifest() {
    let mut model = Model::open(&tiny("sd15")).unwrap();
    let auto = setup(Choice::Auto);
    let mut engine = Onnx::load(&model, &runtime(), &auto).unwrap();
    assert_eq!(auto.computes(&model, 2), None);
    engine.settle(&model).unwrap();
    let found = engine.division().unwrap();
    assert_eq!(engine.info().lanes, found.lanes);
    assert!([1, 2].contains(&found.lanes) && found.gain > 0.0, "{found:?}");
    conformance::check(&mut engine).unwrap();
    for lanes in [1, 2] {
        let mut known = Divisions::default();
        known.put(2, Division { lanes, gain: 1.5 });
        model.divisions = known;
        let mut engine = Onnx::load(&model, &runtime(), &auto).unwrap();
        engine.settle(&model).unwrap();
        // It was not measured again.
        assert_eq!((engine.info().lanes, engine.division()), (lanes, None));
        assert_eq!(auto.computes(&model, 2), Some(engine.info().computes()));
        // With another number of threads it is not known.
        assert_eq!(auto.computes(&model, 4), None);
    }
    let other = Info {
        lanes: 2,
        threads: 8,
        ..engine.info().clone()
    };
    assert_eq!(other.computes(), "CPUExecutionProvider, 2 lanes of 4");
}

#[test]
fn there_are_no_lanes_without_memory_for_them_or_threads() {
    let model = Model::open(&tiny("sd15")).unwrap();
    let poor = setup(Choice::Auto).with_lane_memory(100_000);
    let single = Runtime {
        threads: 1,
        ..runtime()
    };
    for (setup, runtime) in [(poor, runtime()), (setup(Choice::Auto), single)] {
        let mut engine = Onnx::load(&model, &runtime, &setup).unwrap();
        engine.settle(&model).unwrap();
        assert_eq!((engine.info().lanes, engine.division()), (1, None));
    }
}
