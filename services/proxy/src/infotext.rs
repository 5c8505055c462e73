//! What is written into a picture file: how it was made, for people, for other tools, and for machines.
//!
//! - `parameters`: the infotext of Stable Diffusion web UI (A1111), which most galleries and tools read.
//! - `mobula-*`: one chunk per parameter, named as the HTTP headers are.
//! - `Software`, a keyword of the PNG specification and a field of Exif, and `AI-Generated`, so that a picture says what it is.
//! - XMP, which every format holds: IPTC's digital source type of what a model made, the tool, and the same parameters.
//!
//! Invariant: with what is written anybody with the same model, and the same picture where it starts from one, draws the
//! same picture again.

mod seldom;
mod xmp;

use std::{
    borrow::Cow,
    fmt::{Display, Write as _},
};

use mobula_proto::{image::v1::Provenance, inference::v1::TextChunk};

use crate::{
    names::{self, Named},
    validate::Plan,
};

/// Who made it.
const SOFTWARE: &str = concat!("Mobula ", env!("CARGO_PKG_VERSION"));
/// Characters of the digest in the infotext; A1111 shows ten.
const SHORT_DIGEST: usize = 10;
/// Bytes of an infotext beside its prompts, where nothing seldom is in it.
const PARTS_BYTES: usize = 256;

/// The model that draws.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Model<'a> {
    /// Name by which it was asked for.
    pub(crate) name: &'a str,
    /// SHA-256 over its files, hexadecimal.
    pub(crate) digest: &'a str,
}

/// All chunks of all pictures of a request; `refiner` draws the last steps where the plan says so.
pub(crate) fn chunks(plan: &Plan, model: Model<'_>, refiner: Option<Model<'_>>) -> Vec<TextChunk> {
    match plan.output.provenance {
        Provenance::Unspecified | Provenance::Full => {}
        Provenance::Marker => return marker(),
        Provenance::None => return Vec::new(),
    }
    let mut shared = vec![
        chunk("mobula-scheduler", plan.chosen.scheduler.clone()),
        chunk("mobula-steps", plan.steps.to_string()),
        chunk("mobula-guidance-scale", plan.guidance_scale.to_string()),
        chunk("mobula-model", model.name.to_owned()),
        chunk("mobula-model-digest", model.digest.to_owned()),
    ];
    shared.extend(
        seldom::chunks(plan, refiner)
            .into_iter()
            .map(|(name, text)| chunk(name, text)),
    );
    let mut chunks = Vec::with_capacity(3 + shared.len() + 3 * plan.seeds.len());
    for (index, &seed) in (0u32..).zip(&plan.seeds) {
        let image_index = (plan.seeds.len() > 1).then_some(index);
        chunks.push(TextChunk {
            image_index,
            ..chunk("parameters", infotext(plan, model, seed))
        });
        let seed = chunk("mobula-seed", seed.to_string());
        let told: Vec<&TextChunk> = std::iter::once(&seed).chain(&shared).collect();
        chunks.push(TextChunk {
            image_index,
            ..chunk(xmp::KEYWORD, xmp::packet(&told))
        });
        chunks.push(TextChunk { image_index, ..seed });
    }
    chunks.extend(shared);
    chunks.push(chunk("Software", SOFTWARE.to_owned()));
    chunks.push(made());
    chunks
}

/// Chunks that say that a machine made a file, and nothing else.
pub(crate) fn marker() -> Vec<TextChunk> {
    vec![made(), chunk(xmp::KEYWORD, xmp::packet(&[]))]
}

/// What says that a machine made it.
fn made() -> TextChunk {
    chunk("AI-Generated", "true".to_owned())
}

fn chunk(keyword: &'static str, text: String) -> TextChunk {
    TextChunk {
        keyword: keyword.to_owned(),
        text,
        image_index: None,
    }
}

/// The infotext as A1111's `create_infotext` writes it.
fn infotext(plan: &Plan, model: Model<'_>, seed: u64) -> String {
    let mut text = String::with_capacity(plan.prompt.len() + plan.negative_prompt.len() + PARTS_BYTES);
    text.push_str(&plan.prompt);
    if !plan.negative_prompt.is_empty() {
        text.push_str("\nNegative prompt: ");
        text.push_str(&plan.negative_prompt);
    }
    let mut before = "\n";
    let mut add = |name: &str, value: &dyn Display| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{before}{name}: {value}");
        before = ", ";
    };
    let (sampler, schedule) = sampler(plan);
    add("Steps", &plan.steps);
    add("Sampler", &sampler);
    if let Some(schedule) = schedule {
        add("Schedule type", &schedule);
    }
    add("CFG scale", &plan.guidance_scale);
    add("Seed", &seed);
    add("Size", &format_args!("{}x{}", plan.width, plan.height));
    add(
        "Model hash",
        &model.digest.get(..SHORT_DIGEST).unwrap_or(model.digest),
    );
    add("Model", &quoted(model.name));
    seldom::parts(plan, &mut add);
    add("Version", &concat!("mobula ", env!("CARGO_PKG_VERSION")));
    text
}

/// The names that A1111 gives a scheduler and its schedule; those it does not have keep theirs.
fn sampler(plan: &Plan) -> (Cow<'_, str>, Option<&str>) {
    let asked = Some(&*plan.chosen.schedule).filter(|schedule| !schedule.is_empty());
    let (label, schedule) = match Named::read(&plan.chosen.scheduler) {
        Some(named) => (named.base.label.into(), named.schedule.or(asked)),
        None => (quoted(&plan.chosen.scheduler), asked),
    };
    (label, schedule.map(names::schedule_label))
}

/// A value with a comma, colon or line break is a JSON string, as A1111's `quote` makes it.
fn quoted(value: &str) -> Cow<'_, str> {
    if value.contains([',', ':', '\n']) {
        serde_json::Value::from(value).to_string().into()
    } else {
        value.into()
    }
}

#[cfg(test)]
mod tests;
