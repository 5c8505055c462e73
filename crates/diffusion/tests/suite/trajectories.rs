//! Properties that hold for every trajectory: whatever it starts from, however it is guided, and in whatever company.

use std::sync::Arc;

use crate::common::starts::{CHANNELS, VALUES, image, mask, posterior, spec, try_sampler, wave};
use mobula_diffusion::random::Source;
use mobula_diffusion::{Code, Guidance, Kind, Mask, Sampler, Span, Spec, Start, Trajectory};
use proptest::prelude::*;

fn sampler(kind: Kind, steps: usize) -> Arc<Sampler> {
    try_sampler(kind, steps, Span::Whole).unwrap()
}

/// The kinds that a usual model can be sampled with.
fn kinds() -> Vec<Kind> {
    let usable = |kind: &Kind| try_sampler(*kind, 5, Span::Whole).is_ok();
    Kind::ALL.into_iter().filter(usable).collect()
}

fn plain(seed: u64, scale: f32) -> Spec {
    spec(seed, Start::Noise, Guidance::new(scale))
}

/// A start, and a span that it can have.
fn start() -> impl Strategy<Value = (Start, Span)> {
    let part = Span::Part {
        start: Some(0.4),
        end: None,
    };
    let strength = prop_oneof![Just(1.0_f32), 0.3_f32..1.0].prop_map(Span::Strength);
    (0..5, any::<[bool; 2]>(), strength).prop_map(move |(pick, [sampled, concatenated], strength)| match pick
    {
        0 => (Start::Noise, Span::Whole),
        1 => (Start::Latents(wave(VALUES, 3.0)), part),
        2 => (image(sampled, None), strength),
        3 => (image(sampled, Some(mask(sampled, concatenated))), part),
        _ => (image(sampled, Some(mask(sampled, concatenated))), strength),
    })
}

fn guidance() -> impl Strategy<Value = Guidance> {
    let interval = proptest::option::of((0.0_f32..0.5, 0.5_f32..=1.0));
    let interval = interval.prop_filter("empty", |interval| {
        interval.is_none_or(|(start, end)| start < end)
    });
    (0.0_f32..12.0, 0.0_f32..=1.0, interval, any::<bool>()).prop_map(
        |(scale, rescale, interval, embedded)| Guidance {
            scale,
            rescale,
            interval,
            embedded,
        },
    )
}

fn source() -> impl Strategy<Value = Source> {
    prop_oneof![Just(Source::Cpu), Just(Source::Cuda)]
}

prop_compose! {
    fn fresh()(
        (start, span) in start(),
        guidance in guidance(),
        kind in proptest::sample::select(kinds()),
        steps in 4_usize..9,
        seed in any::<u64>(),
        source in source(),
    ) -> (Spec, Arc<Sampler>) {
        let spec = Spec { source, ..spec(seed, start, guidance) };
        (spec, try_sampler(kind, steps, span).unwrap())
    }
}

/// A model whose answer is bounded and depends on all it is given.
fn answer(trajectory: &Trajectory, row: f32) -> Vec<f32> {
    let mut input = vec![0.0; trajectory.input_values()];
    trajectory.write_input(&mut input).unwrap();
    let extra: f32 = input[VALUES..].iter().sum();
    input[..VALUES]
        .iter()
        .map(|x| (x + 0.1 * extra + trajectory.timestep() * 0.01 + row).sin())
        .collect()
}

fn advance(trajectory: &mut Trajectory) {
    let cond = answer(trajectory, 1.0);
    let uncond = trajectory.is_guided().then(|| answer(trajectory, 0.0));
    trajectory.accept(uncond.as_deref(), &cond).unwrap();
}

proptest! {
    #[test]
    fn company_and_order_do_not_change_a_trajectory(
        fresh in proptest::collection::vec(fresh(), 2..5),
        order in proptest::collection::vec(any::<proptest::sample::Index>(), 60),
    ) {
        let begin = || -> Vec<Trajectory> {
            fresh.iter().map(|(spec, sampler)| Trajectory::new(spec.clone(), Arc::clone(sampler)).unwrap()).collect()
        };
        let mut alone = begin();
        for trajectory in &mut alone {
            while !trajectory.is_done() {
                advance(trajectory);
            }
        }
        let mut together = begin();
        for index in order {
            let trajectory = index.get_mut(&mut together);
            if !trajectory.is_done() {
                advance(trajectory);
            }
        }
        for trajectory in &mut together {
            while !trajectory.is_done() {
                advance(trajectory);
            }
        }
        for (a, b) in alone.iter().zip(&together) {
            prop_assert_eq!(a.latents(), b.latents());
            prop_assert!(a.latents().iter().all(|x| x.is_finite()));
        }
    }

    #[test]
    fn each_call_takes_as_many_rows_as_it_says_and_no_other_number((spec, sampler) in fresh()) {
        let guidance = spec.guidance;
        let mut trajectory = Trajectory::new(spec, sampler).unwrap();
        let mut guided = Vec::new();
        while !trajectory.is_done() {
            prop_assert_eq!(trajectory.rows(), if trajectory.is_guided() { 2 } else { 1 });
            let output = vec![0.5; trajectory.values()];
            let before = trajectory.latents().to_vec();
            let wrong = (!trajectory.is_guided()).then_some(output.as_slice());
            prop_assert_eq!(trajectory.accept(wrong, &output).unwrap_err().code(), Code::Internal);
            prop_assert_eq!(trajectory.latents(), before);
            guided.push(trajectory.is_guided());
            advance(&mut trajectory);
        }
        prop_assert_eq!(trajectory.rows(), 1);
        if guidance.embedded || guidance.scale <= 1.0 {
            prop_assert!(!guided.contains(&true));
        } else if let Some((start, end)) = guidance.interval {
            let calls = guided.len();
            for (call, is_guided) in guided.into_iter().enumerate() {
                // The interval's ends, as they are written, are cut down to whole calls.
                let at = |part: f32| (part.to_string().parse::<f64>().unwrap() * calls as f64) as usize;
                let (first, last) = (at(start), at(end));
                prop_assert_eq!(is_guided, call >= first && call < last);
            }
        } else {
            prop_assert!(!guided.contains(&false));
        }
    }

    #[test]
    fn the_kept_part_of_a_picture_is_the_picture_at_the_end((start, span) in start(), kind in proptest::sample::select(kinds()), seed in any::<u64>()) {
        let Start::Image { mask: Some(mask), .. } = &start else { return Ok(()) };
        prop_assume!(!mask.concatenated);
        let start = image(true, Some(Mask { masked: posterior(2.0, true), ..mask.clone() }));
        let mut trajectory = Trajectory::new(spec(seed, start, Guidance::new(1.0)), try_sampler(kind, 6, span).unwrap()).unwrap();
        while !trajectory.is_done() {
            advance(&mut trajectory);
        }
        let picture = posterior(0.0, true);
        let kept = [0.0, 1.0, 1.0, 0.0, 0.0, 1.0_f32].map(|weight| weight == 0.0).repeat(CHANNELS);
        let mut changed = 0;
        for ((x, mean), kept) in trajectory.latents().iter().zip(&*picture.mean).zip(kept) {
            let same = *x == mean * picture.scaling;
            prop_assert!(same || !kept);
            changed += usize::from(!same);
        }
        prop_assert!(changed > VALUES / 4);
    }
}

#[test]
fn most_kinds_can_sample_a_usual_model() {
    assert!(kinds().len() >= 8, "{:?}", kinds());
}

#[test]
fn guidance_up_to_one_or_by_the_model_needs_one_row_and_above_it_two() {
    for (scale, embedded, rows) in [
        (0.0, false, 1),
        (1.0, false, 1),
        (1.01, false, 2),
        (7.5, false, 2),
        (7.5, true, 1),
    ] {
        let guidance = Guidance {
            embedded,
            ..Guidance::new(scale)
        };
        let trajectory = Trajectory::new(spec(7, Start::Noise, guidance), sampler(Kind::Ddim, 5)).unwrap();
        assert_eq!(trajectory.rows(), rows);
    }
}

#[test]
fn outputs_of_another_length_and_calls_too_many_are_refused_and_change_nothing() {
    let mut trajectory = Trajectory::new(plain(7, 1.0), sampler(Kind::Pndm, 2)).unwrap();
    let before = trajectory.latents().to_vec();
    assert!(trajectory.accept(None, &[0.0; 5]).is_err());
    assert!(trajectory.write_input(&mut [0.0; 5]).is_err());
    assert_eq!(trajectory.latents(), before);
    while !trajectory.is_done() {
        advance(&mut trajectory);
    }
    let output = vec![0.0; trajectory.values()];
    assert!(trajectory.accept(None, &output).is_err());
    assert!(trajectory.write_input(&mut [0.0; VALUES]).is_err());
    assert_eq!((trajectory.step(), trajectory.steps()), (3, 3));
}
