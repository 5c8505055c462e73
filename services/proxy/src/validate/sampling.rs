//! How a picture is sampled: steps, guidance, scheduler and its options.

use mobula_proto::{
    common::v1::{SamplerOptions, SizeConditions},
    control::v1::ModelInfo,
    image::v1::{self as image, GuidanceInterval},
};

use super::{problems::Problems, work::Calls};
use crate::{
    names::{self, Named},
    problem::Rule,
};

/// Largest guidance: far beyond it a picture is noise in every model, and workers refuse it.
const GUIDANCE_MAX: u16 = 1000;
/// Largest churn: Karras et al. 2022 search up to 100.
const CHURN_MAX: u16 = 1000;
/// Largest noise level of an option: the highest of Stable Diffusion is about 15, of a zero terminal SNR 4096.
const SIGMA_MAX: u16 = 10_000;
/// Largest deviation of added noise: 1 keeps what the solver expects, and 2 is noise already.
const NOISE_MAX: u16 = 10;
/// Pixels that a size condition may name: the models were trained with a few thousand.
const CONDITION_MAX: u32 = 65_536;
/// Largest aesthetic score: the models were trained with 0 to 10.
const SCORE_MAX: u16 = 100;

/// A scheduler that was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// As the caller is told.
    pub(crate) scheduler: String,
    /// As the caller is told; empty when the scheduler's name says it, or nobody asked.
    pub(crate) schedule: String,
    /// As the replica is told; empty is the model's own.
    pub(crate) asked: String,
    /// Calls of the model.
    pub(crate) calls: Calls,
}

/// Checks the scheduler and the schedule that were asked for, under their names in the mesh.
pub(super) fn scheduler(
    problems: &mut Problems,
    request: &image::GenerateRequest,
    model: &ModelInfo,
) -> Chosen {
    let is_own = names::is_own(&request.scheduler);
    let name = if is_own {
        &model.default_scheduler
    } else {
        &request.scheduler
    };
    let asked = schedule(problems, request, model);
    let Some(mut named) = Named::read(name) else {
        if !is_own && !model.schedulers.contains(name) {
            unknown(problems, name, model);
        }
        return Chosen {
            scheduler: name.clone(),
            schedule: asked.unwrap_or_default().to_owned(),
            asked: if is_own { String::new() } else { name.clone() },
            calls: Calls::ONE,
        };
    };
    if is_own && asked.is_some() {
        // A schedule that is asked for alone takes the place of the model's own.
        named.schedule = None;
    }
    match (named.schedule, asked) {
        (Some(says), Some(asked)) if says != asked => {
            let why = format!("is {asked}, while scheduler says {says}");
            problems.wrong("sigma_schedule", why);
        }
        _ if is_own && asked.is_none() => {}
        _ => listed(problems, named, asked, model),
    }
    let canonical = named.canonical();
    Chosen {
        asked: if is_own { String::new() } else { canonical.clone() },
        scheduler: canonical,
        schedule: match asked {
            Some(asked) if named.schedule.is_none() => asked.to_owned(),
            Some(_) | None => String::new(),
        },
        calls: Calls {
            each: named.base.calls,
            extra: model.extra_calls.get(named.base.name).copied().unwrap_or(0),
        },
    }
}

fn unknown(problems: &mut Problems, name: &str, model: &ModelInfo) {
    match names::lacking(name) {
        Some(why) => {
            let (some, more) = names::some(&model.schedulers);
            let there = some.join(", ");
            let others = if more > 0 {
                ", and more that GetModel lists"
            } else {
                ""
            };
            problems.wrong("scheduler", format!("{why}; there are {there}{others}"));
        }
        None => problems.add("scheduler", one_of(name, &model.schedulers)),
    }
}

/// What a name of a scheduler is to be. A model that does not list its own has those of the mesh.
fn one_of(name: &str, known: &[String]) -> Rule {
    if known.is_empty() {
        return one_of(name, &names::schedulers());
    }
    let (some, more) = names::some(known);
    Rule::OneOfMany {
        meant: names::nearest(name, known).map(str::to_owned),
        some,
        more,
    }
}

/// Checks that the model has a scheduler with a schedule. It lists all that go together, or only schedulers, or nothing
/// when it does not say.
fn listed(problems: &mut Problems, named: Named, asked: Option<&'static str>, model: &ModelInfo) {
    let lists = |name: &str| model.schedulers.iter().any(|known| known == name);
    let together = Named {
        schedule: named.schedule.or(asked),
        ..named
    };
    if model.schedulers.is_empty() || lists(&together.canonical()) {
        return;
    }
    let read = || model.schedulers.iter().filter_map(|known| Named::read(known));
    let only_schedulers = read().all(|known| known.schedule.is_none());
    let base = lists(named.base.name);
    if base && only_schedulers && named.schedule.is_none_or(|says| knows(model, says)) {
        return;
    }
    if base && asked.is_some() {
        let of = read().filter(|known| known.base == named.base);
        let schedules: Vec<_> = of.filter_map(|known| known.schedule.map(str::to_owned)).collect();
        if schedules.is_empty() {
            let name = named.base.name;
            problems.wrong(
                "sigma_schedule",
                format!("must be empty with scheduler {name}, which has its own only"),
            );
        } else {
            problems.add("sigma_schedule", Rule::OneOf(schedules));
        }
    } else {
        problems.add("scheduler", one_of(named.base.name, &model.schedulers));
    }
}

fn knows(model: &ModelInfo, schedule: &str) -> bool {
    model.sigma_schedules.is_empty() || model.sigma_schedules.iter().any(|known| known == schedule)
}

fn schedule(
    problems: &mut Problems,
    request: &image::GenerateRequest,
    model: &ModelInfo,
) -> Option<&'static str> {
    if names::is_own(&request.sigma_schedule) {
        return None;
    }
    let known = names::schedule(&request.sigma_schedule).filter(|schedule| knows(model, schedule));
    if known.is_none() {
        let there = match &model.sigma_schedules[..] {
            [] => names::schedules(),
            listed => listed.to_vec(),
        };
        problems.add("sigma_schedule", Rule::OneOf(there));
    }
    known
}

/// Checks the steps.
pub(super) fn steps(problems: &mut Problems, asked: Option<u32>, model: &ModelInfo) -> u32 {
    let steps = asked.unwrap_or(model.default_steps);
    if steps == 0 {
        problems.add("steps", Rule::at_least(0, 1_u8));
    } else if model.max_steps > 0 && steps > model.max_steps {
        problems.add("steps", Rule::at_most(steps, model.max_steps));
    }
    steps
}

/// Checks guidance and what changes it; gives the scale.
pub(super) fn guidance(problems: &mut Problems, request: &image::GenerateRequest, model: &ModelInfo) -> f32 {
    let scale = request.guidance_scale.unwrap_or(model.default_guidance_scale);
    problems.number("guidance_scale", scale, 0..=GUIDANCE_MAX);
    problems.number("guidance_rescale", request.guidance_rescale, 0..=1);
    if let Some(GuidanceInterval { start, end }) = request.guidance_interval {
        let before = problems.0.len();
        problems.number("guidance_interval.start", start, 0..=1);
        problems.number("guidance_interval.end", end, 0..=1);
        if problems.0.len() == before && start >= end {
            problems.wrong(
                "guidance_interval.end",
                format!("is {end} and must be above start, which is {start}"),
            );
        }
    }
    scale
}

/// Checks how many layers of the text encoder are left out.
pub(super) fn clip_skip(problems: &mut Problems, asked: u32, model: &ModelInfo) {
    if asked > model.max_clip_skip {
        problems.add("clip_skip", Rule::at_most(asked, model.max_clip_skip));
    }
}

/// Checks the scheduler's options.
pub(super) fn options(problems: &mut Problems, options: Option<&SamplerOptions>) {
    let Some(options) = options else { return };
    for (field, value, max) in [
        ("sampler_options.eta", options.eta, 1),
        ("sampler_options.s_churn", options.s_churn, CHURN_MAX),
        ("sampler_options.s_tmin", options.s_tmin, SIGMA_MAX),
        // No upper end is what diffusers has.
        (
            "sampler_options.s_tmax",
            options.s_tmax.filter(|max| *max != f32::INFINITY),
            SIGMA_MAX,
        ),
        ("sampler_options.s_noise", options.s_noise, NOISE_MAX),
    ] {
        if let Some(value) = value {
            problems.number(field, value, 0..=max);
        }
    }
    if let (Some(min), Some(max)) = (options.s_tmin, options.s_tmax)
        && min > max
    {
        problems.wrong(
            "sampler_options.s_tmax",
            format!("is {max} and must not be below s_tmin, which is {min}"),
        );
    }
}

/// Checks what the model is told of the size.
pub(super) fn conditions(problems: &mut Problems, field: &'static str, conditions: Option<&SizeConditions>) {
    let Some(told) = conditions else { return };
    for (name, pixels) in [
        ("original_width", told.original_width),
        ("original_height", told.original_height),
        ("crop_left", told.crop_left),
        ("crop_top", told.crop_top),
        ("target_width", told.target_width),
        ("target_height", told.target_height),
    ] {
        if pixels > CONDITION_MAX {
            problems.add(format!("{field}.{name}"), Rule::at_most(pixels, CONDITION_MAX));
        }
    }
    for (name, score) in [
        ("aesthetic_score", told.aesthetic_score),
        ("negative_aesthetic_score", told.negative_aesthetic_score),
    ] {
        if let Some(score) = score {
            problems.number(format!("{field}.{name}"), score, 0..=SCORE_MAX);
        }
    }
}
