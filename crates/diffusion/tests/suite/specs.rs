//! What a trajectory is made from: what it does with it, and what it refuses.

use std::sync::Arc;

use crate::common::starts::{PIXELS, VALUES, image, mask, posterior, spec, try_sampler};
use mobula_diffusion::random::{Random, Source};
use mobula_diffusion::{Code, Guidance, Kind, Mask, Posterior, Sampler, Span, Spec, Start, Trajectory};

fn assert_send<T: Send + 'static>(value: T) -> T {
    value
}

fn sampler(kind: Kind, steps: usize) -> Arc<Sampler> {
    try_sampler(kind, steps, Span::Whole).unwrap()
}

fn plain(seed: u64, scale: f32) -> Spec {
    spec(seed, Start::Noise, Guidance::new(scale))
}

#[test]
fn a_trajectory_moves_between_threads_with_its_noise_scaled() {
    for source in [Source::Cpu, Source::Cuda] {
        let spec = Spec {
            source,
            ..plain(7, 1.0)
        };
        let trajectory = assert_send(Trajectory::new(spec, sampler(Kind::Euler, 5)).unwrap());
        let deviation = trajectory.sampler().initial_deviation();
        assert!(deviation > 14.0);
        let noise = Random::new(source, 7).randn(VALUES);
        let scaled: Vec<f32> = noise.iter().map(|n| n * deviation).collect();
        assert_eq!(trajectory.latents(), scaled);
    }
}

#[test]
fn a_model_with_extra_channels_gets_the_mask_and_the_masked_picture_unscaled() {
    let start = image(true, Some(mask(true, true)));
    let trajectory = Trajectory::new(spec(7, start, Guidance::new(1.0)), sampler(Kind::Euler, 5)).unwrap();
    assert_eq!(trajectory.input_values(), VALUES + PIXELS + VALUES);
    let mut input = vec![0.0; trajectory.input_values()];
    trajectory.write_input(&mut input).unwrap();
    assert_eq!(input[VALUES..VALUES + PIXELS], [0.0, 1.0, 1.0, 0.0, 0.0, 1.0]);
    let masked = posterior(2.0, true);
    let scaled: Vec<f32> = masked.mean.iter().map(|x| x * masked.scaling).collect();
    assert_eq!(input[VALUES + PIXELS..], scaled);
    assert!(trajectory.write_input(&mut [0.0; VALUES]).is_err());
}

#[test]
fn a_vae_with_a_shift_has_it_taken_off_before_the_scaling() {
    let image = Posterior {
        mean: [1.5; VALUES].into(),
        deviation: None,
        scaling: 2.0,
        shift: 0.5,
    };
    let start = Start::Image { image, mask: None };
    let span = Span::Part {
        start: Some(0.5),
        end: None,
    };
    let sampler = try_sampler(Kind::Euler, 10, span).unwrap();
    let trajectory = Trajectory::new(spec(7, start, Guidance::new(1.0)), sampler).unwrap();
    assert_eq!(trajectory.latents(), [2.0; VALUES]);
}

#[test]
fn a_spec_out_of_range_is_refused_by_field() {
    let good = plain(7, 7.5);
    let guided = |scale, rescale, interval| {
        let guidance = Guidance {
            scale,
            rescale,
            interval,
            embedded: false,
        };
        spec(7, Start::Noise, guidance)
    };
    let picture = |mean: Arc<[f32]>, scaling| {
        let image = Posterior {
            mean,
            deviation: None,
            scaling,
            shift: 0.0,
        };
        spec(7, Start::Image { image, mask: None }, Guidance::new(1.0))
    };
    let masked = |weights: Arc<[f32]>, masked: Posterior| {
        let mask = Mask {
            weights,
            masked,
            concatenated: false,
        };
        spec(7, image(true, Some(mask)), Guidance::new(1.0))
    };
    let with_size = |height, width| Spec {
        height,
        width,
        ..good.clone()
    };
    for (bad, field) in [
        (with_size(2, 0), "size"),
        (with_size(usize::MAX, 2), "size"),
        (with_size(1 << 12, 1 << 12), "size"),
        (guided(f32::NAN, 0.0, None), "guidance_scale"),
        (guided(-1.0, 0.0, None), "guidance_scale"),
        (guided(f32::INFINITY, 0.0, None), "guidance_scale"),
        (guided(7.5, 1.5, None), "guidance_rescale"),
        (guided(7.5, f32::NAN, None), "guidance_rescale"),
        (guided(7.5, 0.0, Some((0.5, 0.5))), "guidance_interval"),
        (guided(7.5, 0.0, Some((-0.1, 0.5))), "guidance_interval"),
        (guided(7.5, 0.0, Some((0.1, 1.1))), "guidance_interval"),
        (guided(7.5, 0.0, Some((0.1, f32::NAN))), "guidance_interval"),
        (picture([f32::NAN; VALUES].into(), 1.0), "init_image"),
        (picture([0.0; VALUES].into(), 0.0), "scaling_factor"),
        (picture([0.0; VALUES].into(), f32::NAN), "scaling_factor"),
        (masked([1.5; PIXELS].into(), posterior(2.0, true)), "mask_image"),
        (
            masked([f32::NAN; PIXELS].into(), posterior(2.0, true)),
            "mask_image",
        ),
        (
            masked(
                [1.0; PIXELS].into(),
                Posterior::sampled([f32::INFINITY; VALUES].into()),
            ),
            "mask_image",
        ),
        (
            spec(7, Start::Latents([f32::NAN; VALUES].into()), Guidance::new(1.0)),
            "init_latents",
        ),
    ] {
        let error = Trajectory::new(bad, sampler(Kind::Euler, 5)).unwrap_err();
        assert_eq!((error.field(), error.code()), (field, Code::InvalidArgument));
    }
    for wrong in [
        picture([0.0; 5].into(), 1.0),
        masked([1.0; VALUES].into(), posterior(2.0, true)),
        masked([1.0; PIXELS].into(), Posterior::sampled([1.0; 3].into())),
        spec(7, Start::Latents([1.0; 3].into()), Guidance::new(1.0)),
    ] {
        let error = Trajectory::new(wrong, sampler(Kind::Euler, 5)).unwrap_err();
        assert_eq!(error.code(), Code::Internal, "{error}");
    }
}

#[test]
fn noise_alone_cannot_begin_within_a_schedule() {
    for (span, field) in [
        (Span::Strength(0.5), "strength"),
        (
            Span::Part {
                start: Some(0.5),
                end: None,
            },
            "denoising_start",
        ),
    ] {
        let sampler = try_sampler(Kind::Euler, 10, span).unwrap();
        let error = Trajectory::new(plain(7, 1.0), sampler).unwrap_err();
        assert_eq!((error.field(), error.code()), (field, Code::InvalidArgument));
    }
    let end = Span::Part {
        start: None,
        end: Some(0.5),
    };
    let sampler = try_sampler(Kind::Euler, 10, end).unwrap();
    assert_eq!(Trajectory::new(plain(7, 1.0), sampler).unwrap().steps(), 5);
}
