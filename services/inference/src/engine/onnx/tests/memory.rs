//! What a call leaves behind: interruptions and memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::memory::resident;

#[test]
fn an_interrupted_call_ends_early_and_the_next_one_runs() {
    let mut engine = load(&tiny("sd15")).unwrap();
    let stop = engine.interrupter().unwrap();
    // An interruption of nothing ends nothing.
    stop.interrupt();
    let expected = denoise(&mut engine, 32, 501.0);
    let info = engine.info().clone();
    let shape = info.latents(768, 768);
    let latents = vec![0.1; shape.values()];
    let mut planes = Vec::new();
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
    let ended = engine.decode(&latents, shape, &mut planes);
    done.store(true, Ordering::Release);
    thread.join().unwrap();
    assert!(matches!(ended, Err(Error::Interrupted)), "{ended:?}");
    assert_eq!(denoise(&mut engine, 32, 501.0), expected);
}

#[test]
fn an_idle_engine_gives_the_memory_of_large_calls_back() {
    let mut engine = load(&tiny("sd15")).unwrap();
    let expected = denoise(&mut engine, 32, 501.0);
    let before = resident();
    let info = engine.info().clone();
    let shape = info.latents(1024, 1024);
    let mut planes = Vec::new();
    engine
        .decode(&vec![0.1; shape.values()], shape, &mut planes)
        .unwrap();
    planes = Vec::new();
    let after = resident();
    engine.trim();
    let trimmed = resident();
    assert!(planes.is_empty());
    let (kept, left) = (
        after.saturating_sub(before) >> 20,
        trimmed.saturating_sub(before) >> 20,
    );
    println!("a large decode keeps {kept} MiB, of which {left} MiB are left after trim");
    assert!(kept >= 100, "a large decode keeps {kept} MiB");
    assert!(left * 4 < kept, "of {kept} MiB {left} MiB are left");
    assert_eq!(denoise(&mut engine, 32, 501.0), expected);
}
