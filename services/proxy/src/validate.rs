//! A caller's request against the model it is for: every problem at once, or a plan with all defaults filled in.
//!
//! Pure: what the model is and how seeds are drawn are arguments. It refuses to repair: a value that is wrong is named,
//! never bent into one that is right.
//!
//! Invariant: a [`Plan`] needs nothing decided any more; two workers given the same plan draw the same pictures.

use mobula_proto::{control::v1::ModelInfo, image::v1 as image};
use mobula_serving::route::{Cost, Work};

use crate::problem::{Problem, Rule};

/// Smallest multiple that sizes can have when the model does not say: the VAE's scale factor of every Stable Diffusion.
const SIZE_MULTIPLE: u32 = 8;
/// Longest request id, characters.
const REQUEST_ID_MAX: usize = 128;
/// Largest guidance: far beyond it a picture is noise in every model, and workers refuse it.
const GUIDANCE_MAX: u16 = 1000;

/// Bounds that are the server's, not the model's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Pictures per request.
    pub(crate) max_images: u32,
    /// UTF-8 bytes of a prompt.
    pub(crate) max_prompt_bytes: usize,
}

/// What is to be drawn, everything decided.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    /// What the picture shows.
    pub(crate) prompt: String,
    /// What it does not show.
    pub(crate) negative_prompt: String,
    /// Pixels.
    pub(crate) width: u32,
    /// Pixels.
    pub(crate) height: u32,
    /// Denoising steps.
    pub(crate) steps: u32,
    /// Classifier-free guidance.
    pub(crate) guidance_scale: f32,
    /// Scheduler in snake case.
    pub(crate) scheduler: String,
    /// One per picture.
    pub(crate) seeds: Vec<u64>,
    /// Steps between previews; 0 for none.
    pub(crate) preview_interval: u32,
    /// What it costs a replica.
    pub(crate) cost: Cost,
}

impl Plan {
    /// True when guidance makes two rows of every picture.
    pub(crate) fn is_guided(&self) -> bool {
        self.guidance_scale > 1.0
    }
}

/// Checks a request id, which may be empty.
///
/// # Errors
/// A problem with the field `request_id`.
pub(crate) fn request_id(id: &str) -> Result<(), Problem> {
    let rule = if id.len() > REQUEST_ID_MAX {
        Rule::TooLong { max: REQUEST_ID_MAX }
    } else if !id.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        Rule::NotPrintable
    } else {
        return Ok(());
    };
    Err(Problem::new("request_id", rule))
}

/// Checks `request` against `model` and fills in the defaults; `draw` makes the seeds that are absent.
///
/// # Errors
/// Every problem of the request, in the order of its fields.
pub(crate) fn plan(
    request: image::GenerateRequest,
    model: &ModelInfo,
    limits: Limits,
    mut draw: impl FnMut() -> u64,
) -> Result<Plan, Vec<Problem>> {
    let mut problems = Problems(Vec::new());
    if request.prompt.is_empty() {
        problems.add("prompt", Rule::TooShort { min: 1 });
    }
    for (field, text) in [
        ("prompt", &request.prompt),
        ("negative_prompt", &request.negative_prompt),
    ] {
        if text.len() > limits.max_prompt_bytes {
            problems.add(
                field,
                Rule::TooLong {
                    max: limits.max_prompt_bytes,
                },
            );
        }
    }
    let width = problems.size("width", request.width, model.default_width, model);
    let height = problems.size("height", request.height, model.default_height, model);
    let steps = request.steps.unwrap_or(model.default_steps);
    if steps == 0 {
        problems.add("steps", Rule::AtLeast(1));
    } else if model.max_steps > 0 && steps > model.max_steps {
        problems.add("steps", Rule::AtMost(model.max_steps.into()));
    }
    let guidance_scale = request.guidance_scale.unwrap_or(model.default_guidance_scale);
    if !guidance_scale.is_finite() {
        problems.add("guidance_scale", Rule::NotFinite);
    } else if guidance_scale < 0.0 {
        problems.add("guidance_scale", Rule::AtLeast(0));
    } else if guidance_scale > GUIDANCE_MAX.into() {
        problems.add("guidance_scale", Rule::AtMost(GUIDANCE_MAX.into()));
    }
    let scheduler = if request.scheduler.is_empty() {
        model.default_scheduler.clone()
    } else {
        request.scheduler
    };
    if !model.schedulers.is_empty() && !model.schedulers.contains(&scheduler) {
        problems.add("scheduler", Rule::OneOf(model.schedulers.clone()));
    }
    let given = u32::try_from(request.seeds.len()).unwrap_or(u32::MAX);
    let images = if request.image_count == 0 {
        given.max(1)
    } else {
        request.image_count
    };
    if images > limits.max_images {
        let field = if request.image_count == 0 {
            "seeds"
        } else {
            "image_count"
        };
        problems.add(field, Rule::AtMost(limits.max_images.into()));
    } else if given > images {
        problems.add(
            "seeds",
            Rule::Wrong(format!("has {given} values for {images} pictures")),
        );
    }
    if image::ImageFormat::try_from(request.format).is_err() {
        problems.add("format", Rule::OneOf(vec!["IMAGE_FORMAT_PNG".to_owned()]));
    }
    if !problems.0.is_empty() {
        return Err(problems.0);
    }
    let cost = Cost::of(Work {
        images,
        guided: guidance_scale > 1.0,
        steps,
        pixels: u64::from(width) * u64::from(height),
        native_pixels: u64::from(model.default_width) * u64::from(model.default_height),
    });
    Ok(Plan {
        prompt: request.prompt,
        negative_prompt: request.negative_prompt,
        width,
        height,
        steps,
        guidance_scale,
        scheduler,
        seeds: complete(request.seeds, images, &mut draw),
        preview_interval: request.preview_interval,
        cost,
    })
}

/// Continues the given seeds with the last one plus 1, 2, ...; without any, draws one for every picture.
fn complete(mut seeds: Vec<u64>, images: u32, draw: &mut impl FnMut() -> u64) -> Vec<u64> {
    while seeds.len() < images as usize {
        seeds.push(seeds.last().map_or_else(&mut *draw, |last| last.wrapping_add(1)));
    }
    seeds
}

struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, field: &'static str, rule: Rule) {
        self.0.push(Problem::new(field, rule));
    }

    fn size(&mut self, field: &'static str, asked: Option<u32>, native: u32, model: &ModelInfo) -> u32 {
        let size = asked.unwrap_or(native);
        let multiple = if model.size_multiple == 0 {
            SIZE_MULTIPLE
        } else {
            model.size_multiple
        };
        if size < multiple {
            self.add(field, Rule::AtLeast(multiple.into()));
        } else if model.max_size > 0 && size > model.max_size {
            self.add(field, Rule::AtMost(model.max_size.into()));
        } else if !size.is_multiple_of(multiple) {
            self.add(field, Rule::MultipleOf(multiple));
        }
        size
    }
}

#[cfg(test)]
mod tests;
