//! What the tests of trajectories start from.

use std::sync::Arc;

use mobula_diffusion::random::Source;
use mobula_diffusion::{
    Ask, Choice, Config, Error, Guidance, Kind, Mask, Posterior, Sampler, Span, Spec, Start,
};

/// Channels of the latents.
pub(crate) const CHANNELS: usize = 4;
/// Their height.
pub(crate) const HEIGHT: usize = 2;
/// Their width.
pub(crate) const WIDTH: usize = 3;
/// Their positions.
pub(crate) const PIXELS: usize = HEIGHT * WIDTH;
/// Their values.
pub(crate) const VALUES: usize = CHANNELS * PIXELS;

/// A sampler of a usual model.
pub(crate) fn try_sampler(kind: Kind, steps: usize, span: Span) -> Result<Arc<Sampler>, Error> {
    let text = r#"{"_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "clip_sample": false, "skip_prk_steps": true, "steps_offset": 1}"#;
    let choice = Choice {
        kind: Some(kind),
        schedule: None,
    };
    let ask = Ask {
        choice,
        span,
        ..Ask::steps(steps)
    };
    Sampler::new(&Config::from_json(text)?, &ask).map(Arc::new)
}

/// Numbers that are all different.
pub(crate) fn wave(n: usize, phase: f32) -> Arc<[f32]> {
    (0..n).map(|i| (i as f32 * 0.7 + phase).sin()).collect()
}

/// An encoded picture, sampled already or not.
pub(crate) fn posterior(phase: f32, sampled: bool) -> Posterior {
    let deviation = wave(VALUES, phase + 1.0).iter().map(|x| x.abs() * 0.1).collect();
    Posterior {
        mean: wave(VALUES, phase),
        deviation: (!sampled).then_some(deviation),
        scaling: 0.18215,
        shift: 0.0,
    }
}

/// A picture to start from, with or without a mask.
pub(crate) fn image(sampled: bool, mask: Option<Mask>) -> Start {
    Start::Image {
        image: posterior(0.0, sampled),
        mask,
    }
}

/// A mask that keeps three of six positions.
pub(crate) fn mask(sampled: bool, concatenated: bool) -> Mask {
    Mask {
        weights: [0.0, 1.0, 1.0, 0.0, 0.0, 1.0].into(),
        masked: posterior(2.0, sampled),
        concatenated,
    }
}

/// A spec of these latents on the CPU's noise.
pub(crate) fn spec(seed: u64, start: Start, guidance: Guidance) -> Spec {
    Spec {
        channels: CHANNELS,
        height: HEIGHT,
        width: WIDTH,
        guidance,
        seed,
        source: Source::Cpu,
        start,
    }
}
