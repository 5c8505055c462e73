//! What a tick allocates once everything has grown: nothing.

use mobula_inference::Error;
use mobula_inference::bench::Bench;
use mobula_inference::engine::fake::{Costs, Fake};
use mobula_proto::common::v1::{Prompt, PromptSpan, PromptVariant, PromptWindow};
use mobula_proto::inference::v1::GenerateRequest;

/// Guided pictures, each a request of its own.
const PICTURES: u64 = 32;
/// More than twice what a reader that is behind has events in its queue: some steps take two ticks.
const WARM: usize = 160;
const TICKS: usize = 40;

fn prompt(id: u32) -> Option<Prompt> {
    let window = PromptWindow {
        ids: vec![id; 77],
        ..PromptWindow::default()
    };
    let variant = PromptVariant {
        weight: 1.0,
        windows: vec![window],
    };
    let span = PromptSpan {
        until_step: 0,
        variants: vec![variant],
    };
    Some(Prompt {
        spans: vec![span],
        ..Prompt::default()
    })
}

/// What the ticks of 32 pictures allocate, after some for the buffers to grow, and the rows of the last.
fn allocated(scheduler: &str, max_rows: usize) -> Result<(u64, usize), Error> {
    let mut bench = Bench::new(Box::new(Fake::new(Costs::default())), max_rows)?;
    for seed in 0..PICTURES {
        let request = GenerateRequest {
            request_id: seed.to_string(),
            prompt: prompt(1 + seed as u32),
            negative_prompt: prompt(0),
            width: 64,
            height: 64,
            steps: 500,
            guidance_scale: 7.5,
            scheduler: scheduler.to_owned(),
            seeds: vec![seed],
            ..GenerateRequest::default()
        };
        bench.submit(request)?;
    }
    let (mut rows, mut failed) = (0, None);
    let mut turns = |count: usize| {
        for _ in 0..count {
            match bench.turn() {
                Ok(last) => rows = last,
                Err(error) => failed = Some(error),
            }
        }
    };
    // Ticks of half of the pictures take twice as many.
    turns(WARM * (2 * PICTURES as usize / max_rows).max(1));
    let counted = allocation_counter::measure(|| turns(TICKS));
    failed.map_or(Ok((counted.count_total, rows)), Err)
}

#[test]
fn a_steady_tick_allocates_nothing_whatever_the_scheduler() {
    for scheduler in [
        "ddim",
        "euler_a",
        "dpmpp_2m",
        "dpmpp_3m_sde",
        "unipc",
        "pndm",
        "heun",
        "lms",
        "deis",
    ] {
        assert_eq!(allocated(scheduler, 64).unwrap(), (0, 64), "{scheduler}");
    }
}

#[test]
fn a_steady_tick_allocates_nothing_when_not_all_pictures_are_in_it() {
    assert_eq!(allocated("ddim", 16).unwrap(), (0, 16));
}

#[test]
fn the_counter_counts() {
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(vec![1_u8; 100])));
    assert_eq!(counted.count_total, 1);
}
