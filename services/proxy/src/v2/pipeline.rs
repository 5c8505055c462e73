//! An application's whole pipeline as a model: which tensors it takes and gives, and how they become requests that draw. Pure.
//!
//! Fields are those of mobula.image.v1.GenerateRequest, by the names that `GET /imagine` has for them. Several prompts are as
//! many requests, answered as one; what has one value holds for all of them.

use std::time::Duration;

use bytes::Bytes;
use mobula_proto::{
    common::v1::{Priority, SamplerOptions},
    image::v1::{GenerateRequest, GuidanceInterval, Provenance, Refiner},
};

use super::{
    ask::{Ask, Parameters, Value},
    given::Given,
    spec::{IMAGE, INPUTS, PIXELS, SEED, names},
};
use crate::{
    problem::{Problem, Rule},
    words,
};

/// The names of [`INPUTS`].
const NAMES: &[&str] = &names::<{ INPUTS.len() }>(INPUTS);

/// Parameters of every model.
pub(crate) const EVERY: &[&str] = &[
    "priority",
    "timeout",
    "binary_data_output",
    "sequence_id",
    "sequence_start",
    "sequence_end",
    FINAL,
];
/// Parameters of a pipeline that are no fields.
const ALSO: &[&str] = &["preview_interval", "progress", "decoupled"];
/// That a stream's last answer is to be an empty one.
const FINAL: &str = "triton_enable_empty_final_response";
/// The lowest of Triton's priorities that there are here: 1 is high, 2 normal, 3 low.
pub(crate) const PRIORITIES: u64 = 3;

/// What is said of any request, whatever its model.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Common {
    pub(crate) priority: Priority,
    /// How long the caller waits.
    pub(crate) timeout: Option<Duration>,
}

/// One of the outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    Image,
    Seed,
    Pixels,
}

/// How the answer is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reply {
    /// Never empty.
    pub(crate) outputs: Vec<Output>,
    /// The parameter that asks for answers as pictures come, instead of one.
    pub(crate) decoupled_by: Option<&'static str>,
    /// Answers that tell how far it is.
    pub(crate) progress: bool,
    /// The last answer is an empty one.
    pub(crate) empty_final: bool,
}

impl Reply {
    /// True when it is asked for.
    pub(crate) fn has(&self, output: Output) -> bool {
        self.outputs.contains(&output)
    }
}

/// What is to be drawn.
#[derive(Debug, Default)]
pub(crate) struct Drawing {
    /// One per prompt, without the model's name; at least one.
    pub(crate) requests: Vec<GenerateRequest>,
    pub(crate) reply: Reply,
    pub(crate) common: Common,
    pub(crate) problems: Vec<Problem>,
}

/// Reads what a request of a pipeline asks for; `max_prompts` of them at most.
pub(crate) fn read(ask: Ask, max_prompts: u32) -> Drawing {
    let mut given = Given::new(ask.inputs, ask.parameters);
    given.only(NAMES, &[EVERY, ALSO]);
    let common = common(&mut given);
    let mut reply = Reply {
        outputs: outputs(&mut given, &ask.outputs),
        decoupled_by: given.flag("decoupled").then_some("decoupled"),
        progress: given.flag("progress"),
        empty_final: given.flag(FINAL),
    };
    let mut all = single(&mut given);
    all.priority = common.priority.into();
    let previews = (all.preview_interval > 0).then_some("preview_interval");
    let progress = reply.progress.then_some("progress");
    reply.decoupled_by = previews.or(progress).or(reply.decoupled_by);
    if !reply.has(Output::Image) {
        // What is to be turned to pixels must have lost none, and nobody reads what a file says of itself.
        let given_format = given.has("format") || given.has("quality");
        if given_format && reply.has(Output::Pixels) {
            given.wrong("format", "is of output image, which is not asked for");
        }
        all.provenance = Provenance::None.into();
    }
    all.format = given.word("format", words::FORMATS);
    all.quality = given.small("quality").unwrap_or_default();
    let requests = batch(&mut given, &all, max_prompts);
    Drawing {
        requests,
        reply,
        common,
        problems: given.problems,
    }
}

/// Reads what is said of any request.
pub(crate) fn common(given: &mut Given) -> Common {
    let priority = match given.integer_or_text("priority") {
        None => 0,
        Some(Value::Integer(level)) => match level {
            0 | 2 => Priority::Normal.into(),
            1 => Priority::High.into(),
            3 => Priority::Low.into(),
            _ if level < 0 => {
                given.complain("priority", Rule::at_least(level, 0_u8));
                0
            }
            _ => {
                given.complain("priority", Rule::at_most(level, PRIORITIES));
                0
            }
        },
        Some(Value::Text(word)) => words::read(word.trim(), words::PRIORITIES).unwrap_or_else(|| {
            let names = words::PRIORITIES.iter().map(|(word, _)| (*word).to_owned());
            given.complain("priority", Rule::OneOf(names.collect()));
            0
        }),
        Some(Value::Bool(_) | Value::Number(_)) => 0,
    };
    let micros = given.integers("timeout");
    let timeout = given
        .one("timeout", micros)
        .and_then(|micros| match u64::try_from(micros) {
            // As in Triton: 0 is the model's default, which is none.
            Ok(0) => None,
            Ok(micros) => Some(Duration::from_micros(micros.min(LONGEST_MICROS))),
            Err(_) if micros < 0 => {
                given.complain("timeout", Rule::at_least(micros, 0_u8));
                None
            }
            Err(_) => Some(Duration::from_micros(LONGEST_MICROS)),
        });
    if given.is_in_sequence() {
        given.wrong(
            "sequence_id",
            "is given; there are no sequences here, every request stands alone",
        );
    }
    // Heeded by the door that it is for.
    given.flag("binary_data_output");
    Common {
        priority: Priority::try_from(priority).unwrap_or_default(),
        timeout,
    }
}

/// A year: longer than any request takes, shorter than clocks are long.
const LONGEST_MICROS: u64 = 366 * 86_400 * 1_000_000;

/// Which outputs are asked for; without any, files and seeds.
fn outputs(given: &mut Given, names: &[String]) -> Vec<Output> {
    let mut outputs = Vec::new();
    for name in names {
        let output = match name.as_str() {
            IMAGE => Output::Image,
            SEED => Output::Seed,
            PIXELS => Output::Pixels,
            other => {
                let why = format!("is no output; there are {IMAGE}, {SEED}, {PIXELS}");
                given.wrong(super::tensor::shown(other.to_owned()), why);
                continue;
            }
        };
        if !outputs.contains(&output) {
            outputs.push(output);
        }
    }
    if outputs.is_empty() {
        outputs.extend([Output::Image, Output::Seed]);
    }
    outputs
}

/// Reads the fields that hold for all prompts.
pub(crate) fn single(given: &mut Given) -> GenerateRequest {
    let options = SamplerOptions {
        eta: given.number("eta"),
        s_churn: given.number("s_churn"),
        s_tmin: given.number("s_tmin"),
        s_tmax: given.number("s_tmax"),
        s_noise: given.number("s_noise"),
    };
    let (start, end) = (given.number("guidance_start"), given.number("guidance_end"));
    let is_interval = start.is_some() || end.is_some();
    GenerateRequest {
        image_count: given.small("image_count").unwrap_or_default(),
        width: given.small("width"),
        height: given.small("height"),
        steps: given.small("steps"),
        guidance_scale: given.number("guidance_scale"),
        scheduler: given.text("scheduler").unwrap_or_default(),
        sigma_schedule: given.text("sigma_schedule").unwrap_or_default(),
        sampler_options: (options != SamplerOptions::default()).then_some(options),
        prompt_syntax: given.word("prompt_syntax", words::SYNTAXES),
        clip_skip: given.small("clip_skip").unwrap_or_default(),
        guidance_rescale: given.number("guidance_rescale").unwrap_or_default(),
        guidance_interval: is_interval.then(|| GuidanceInterval {
            start: start.unwrap_or(0.0),
            end: end.unwrap_or(1.0),
        }),
        strength: given.number("strength"),
        mask_channel: given.word("mask_channel", words::MASK_CHANNELS),
        random_source: given.word("random_source", words::SOURCES),
        determinism: given.word("determinism", words::DETERMINISMS),
        provenance: given.word("provenance", words::PROVENANCES),
        refiner: refiner(given),
        preview_interval: given.small("preview_interval").unwrap_or_default(),
        ..GenerateRequest::default()
    }
}

fn refiner(given: &mut Given) -> Option<Refiner> {
    let is_said = given.has("refiner_model_id") || given.has("switch_at");
    let model_id = given.text("refiner_model_id").unwrap_or_default();
    // Refused when it is absent, with the limits.
    let switch_at = given.number("switch_at").unwrap_or_default();
    match given.text("refiner") {
        Some(model) => Some(Refiner {
            model,
            switch_at,
            model_id,
        }),
        None => {
            if is_said {
                given.complain("refiner", Rule::Missing);
            }
            None
        }
    }
}

/// One request per prompt.
fn batch(given: &mut Given, all: &GenerateRequest, max_prompts: u32) -> Vec<GenerateRequest> {
    let has_prompt = given.has("prompt");
    let prompts = given.texts("prompt");
    let images = given.files("init_image");
    if !has_prompt && images.is_empty() {
        given.complain("prompt", Rule::Missing);
    } else if has_prompt && prompts.is_empty() {
        given.wrong("prompt", "has no element");
    }
    let count = if prompts.is_empty() {
        images.len().max(1)
    } else {
        prompts.len()
    };
    if count > max_prompts as usize {
        let field = if prompts.is_empty() {
            "init_image"
        } else {
            "prompt"
        };
        given.wrong(
            field,
            format!("has {count} elements and may have at most {max_prompts}"),
        );
        return Vec::new();
    }
    let negatives = given.texts("negative_prompt");
    let masks = given.files("mask_image");
    for (field, has) in [
        ("negative_prompt", negatives.len()),
        ("init_image", images.len()),
        ("mask_image", masks.len()),
    ] {
        if has > 1 && has != count {
            given.wrong(
                field,
                format!("has {has} elements for {count} prompts; one, or one for each"),
            );
        }
    }
    let seeds = seeds(given, count);
    (0..count)
        .map(|nth| GenerateRequest {
            prompt: of(&prompts, nth),
            negative_prompt: of(&negatives, nth),
            init_image: of::<Bytes>(&images, nth),
            mask_image: of::<Bytes>(&masks, nth),
            seeds: of(&seeds, nth),
            ..all.clone()
        })
        .collect()
}

/// The value for a prompt: its own, or the one for all.
fn of<T: Clone + Default>(values: &[T], nth: usize) -> T {
    let own = if values.len() == 1 { 0 } else { nth };
    values.get(own).cloned().unwrap_or_default()
}

/// Seeds for each of so many prompts: one for all of them, or as many for each.
pub(crate) fn seeds(given: &mut Given, count: usize) -> Vec<Vec<u64>> {
    let values = given.integers("seed");
    let mut seeds = Vec::with_capacity(values.len());
    for value in values {
        match u64::try_from(value) {
            Ok(seed) => seeds.push(seed),
            Err(_) if value < 0 => {
                given.complain("seed", Rule::at_least(value, 0_u8));
                return Vec::new();
            }
            Err(_) => {
                given.complain("seed", Rule::at_most(value, u64::MAX));
                return Vec::new();
            }
        }
    }
    if seeds.len() <= 1 {
        return vec![seeds];
    }
    if !seeds.len().is_multiple_of(count) {
        let has = seeds.len();
        given.wrong(
            "seed",
            format!("has {has} values for {count} prompts; one, or as many for each"),
        );
        return Vec::new();
    }
    seeds.chunks(seeds.len() / count).map(<[u64]>::to_vec).collect()
}

/// What pictures were made with, as parameters of their answer.
pub(crate) fn about(parameters: &mobula_proto::image::v1::Parameters) -> Parameters {
    let texts = [
        ("model_digest", &parameters.model_digest),
        ("scheduler", &parameters.scheduler),
        ("sigma_schedule", &parameters.sigma_schedule),
        ("truncated_prompt", &parameters.truncated_prompt),
        ("truncated_negative_prompt", &parameters.truncated_negative_prompt),
    ];
    let texts = texts.into_iter().filter(|(_, text)| !text.is_empty());
    let texts = texts.map(|(name, text)| (name.to_owned(), Value::Text(text.clone())));
    let numbers = [
        ("width", parameters.width.into()),
        ("height", parameters.height.into()),
        ("steps", parameters.steps.into()),
        ("guidance_scale", parameters.guidance_scale.into()),
    ];
    texts
        .chain(numbers.map(|(name, value)| (name.to_owned(), value)))
        .collect()
}

#[cfg(test)]
mod tests;
