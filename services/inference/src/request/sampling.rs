//! The fields about sampling: guidance, scheduler, its options, the part of the schedule.

use mobula_diffusion::random::Source;
use mobula_diffusion::scheduler::{self, Ask, Choice, Options, Schedule, Span};
use mobula_diffusion::trajectory::Guidance;
use mobula_proto::common::v1::{Determinism, RandomSource};
use mobula_proto::inference::v1::GenerateRequest;

use super::{MAX_GUIDANCE, Model, Violations};
use crate::engine::Info;

/// Largest noise level that options may name; schedules end far below it.
const MAX_SIGMA: f32 = 1e6;

pub(super) fn guidance(wrong: &mut Violations, request: &GenerateRequest, info: &Info) -> Guidance {
    wrong.number("guidance_scale", request.guidance_scale, (0.0, MAX_GUIDANCE));
    wrong.number("guidance_rescale", request.guidance_rescale, (0.0, 1.0));
    let interval = request.guidance_interval.map(|interval| {
        let right = interval.start >= 0.0 && interval.start < interval.end && interval.end <= 1.0;
        wrong.expect(right, "guidance_interval", || {
            format!(
                "{} to {} is no part of 0 to 1, from its begin to its end",
                interval.start, interval.end
            )
        });
        (interval.start, interval.end)
    });
    Guidance {
        scale: request.guidance_scale,
        rescale: request.guidance_rescale,
        interval,
        embedded: info.guidance > 0,
    }
}

/// Scheduler, steps and what part of them, which a picture to start from shortens; `None` when something is wrong.
pub(super) fn ask(
    wrong: &mut Violations,
    request: &GenerateRequest,
    from_picture: bool,
    model: &Model<'_>,
) -> Option<Ask> {
    let max = scheduler::MAX_STEPS as u32;
    let steps = request.steps;
    wrong.expect((1..=max).contains(&steps), "steps", || {
        format!("{steps} is not from 1 to {max}")
    });
    let choice = Choice::parse(&request.scheduler, &request.sigma_schedule)
        .map_err(|error| {
            let field = error.field();
            let why = error.to_string();
            let why = why.strip_prefix(&format!("{field}: ")).unwrap_or(&why).to_owned();
            wrong.expect(false, field, || why);
        })
        .ok();
    let options = options(wrong, request);
    let span = span(wrong, request, from_picture, model.info);
    let mut choice = choice?;
    // A scheduler's configuration does not tell which of the two tables is meant; the model does.
    if model.is_xl && choice.schedule == Some(Schedule::Ays) {
        choice.schedule = Some(Schedule::AysXl);
    }
    Some(Ask {
        choice,
        steps: steps as usize,
        span,
        options,
    })
}

fn options(wrong: &mut Violations, request: &GenerateRequest) -> Options {
    let given = request.sampler_options.unwrap_or_default();
    let default = Options::default();
    for (field, value, range) in [
        ("sampler_options.eta", given.eta, (0.0, 1.0)),
        ("sampler_options.s_churn", given.s_churn, (0.0, 1000.0)),
        ("sampler_options.s_tmin", given.s_tmin, (0.0, MAX_SIGMA)),
        ("sampler_options.s_tmax", given.s_tmax, (0.0, f32::INFINITY)),
        ("sampler_options.s_noise", given.s_noise, (0.0, 10.0)),
    ] {
        if let Some(value) = value {
            wrong.number(field, value, range);
        }
    }
    Options {
        // Pipelines give 0 where nothing is asked for, whatever the scheduler's own default.
        eta: Some(given.eta.unwrap_or(0.0)),
        s_churn: given.s_churn.unwrap_or(default.s_churn),
        s_tmin: given.s_tmin.unwrap_or(default.s_tmin),
        s_tmax: given.s_tmax.unwrap_or(default.s_tmax),
        s_noise: given.s_noise.unwrap_or(default.s_noise),
        mu: None,
    }
}

fn span(wrong: &mut Violations, request: &GenerateRequest, from_picture: bool, info: &Info) -> Span {
    for (field, value) in [
        ("denoising_start", request.denoising_start),
        ("denoising_end", request.denoising_end),
    ] {
        if let Some(value) = value {
            wrong.expect(value > 0.0 && value < 1.0, field, || {
                format!("{value} is not above 0 and below 1")
            });
        }
    }
    if let (Some(start), Some(end)) = (request.denoising_start, request.denoising_end) {
        wrong.expect(start < end, "denoising_end", || {
            format!("{end} is not above denoising_start, {start}")
        });
    }
    if request.denoising_start.is_some() || request.denoising_end.is_some() {
        return Span::Part {
            start: request.denoising_start,
            end: request.denoising_end,
        };
    }
    if !from_picture {
        return Span::Whole;
    }
    let strength = request.strength;
    wrong.expect(strength > 0.0 && strength <= 1.0, "strength", || {
        format!("{strength} is not above 0 and at most 1")
    });
    // diffusers has a pipeline of its own for pictures to pictures with these models, and none for inpainting.
    if info.guidance > 0 && request.mask_image.is_none() {
        return Span::Consistency(strength);
    }
    Span::Strength(strength)
}

pub(super) fn source(wrong: &mut Violations, request: &GenerateRequest) -> Source {
    const NAMES: &[&str] = &["RANDOM_SOURCE_CPU", "RANDOM_SOURCE_CUDA"];
    match wrong.choice("random_source", request.random_source, NAMES) {
        RandomSource::Unspecified | RandomSource::Cpu => Source::Cpu,
        RandomSource::Cuda => Source::Cuda,
    }
}

pub(super) fn is_fast(wrong: &mut Violations, determinism: i32) -> bool {
    const NAMES: &[&str] = &["DETERMINISM_STRICT", "DETERMINISM_FAST"];
    match wrong.choice("determinism", determinism, NAMES) {
        Determinism::Unspecified | Determinism::Strict => false,
        Determinism::Fast => true,
    }
}
