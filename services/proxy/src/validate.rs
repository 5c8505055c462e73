//! A caller's request against the model it is for: every problem at once, or a plan with all defaults filled in.
//!
//! Pure: what the models are and how seeds are drawn are arguments. It refuses to repair: a value that is wrong is named,
//! never bent into one that is right.
//!
//! Invariant: a [`Plan`] needs nothing decided any more; two workers given the same plan draw the same pictures.

mod picture;
mod problems;
mod refine;
mod sampling;
mod work;

use mobula_proto::{
    common::v1::{Determinism, Priority, RandomSource, SamplerOptions, SizeConditions},
    control::v1::ModelInfo,
    image::v1::{self as image, GuidanceInterval, ImageFormat, PromptSyntax, Provenance},
};
use mobula_serving::route::Cost;

#[cfg(test)]
pub(crate) use self::work::Calls;
pub(crate) use self::{picture::Source, refine::Refine, sampling::Chosen};
use self::{
    problems::Problems,
    refine::{Drawn, First},
};
use crate::problem::{Problem, Rule};

/// Smallest multiple that sizes can have when the model does not say: the VAE's scale factor of every Stable Diffusion.
const SIZE_MULTIPLE: u32 = 8;
/// Best quality of a JPEG.
const MAX_QUALITY: u32 = 100;
/// Longest request id, characters.
const REQUEST_ID_MAX: usize = 128;

/// Bounds that are the server's, not the model's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Pictures per request.
    pub(crate) max_images: u32,
    /// UTF-8 bytes of a prompt.
    pub(crate) max_prompt_bytes: usize,
    /// Bytes of a file that is given.
    pub(crate) max_image_bytes: usize,
    /// What files say of themselves where a request does not choose.
    pub(crate) provenance: Provenance,
}

/// The models that a request is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Models<'a> {
    /// The one that draws.
    pub(crate) first: &'a ModelInfo,
    /// The one that refines, where it was asked for and is there.
    pub(crate) refiner: Option<&'a ModelInfo>,
}

/// What is to be drawn, everything decided.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    /// What the picture shows.
    pub(crate) prompt: String,
    /// What it does not show.
    pub(crate) negative_prompt: String,
    /// How the two are written.
    pub(crate) syntax: PromptSyntax,
    /// Pixels.
    pub(crate) width: u32,
    /// Pixels.
    pub(crate) height: u32,
    /// Denoising steps, before `strength` shortens them.
    pub(crate) steps: u32,
    /// Classifier-free guidance.
    pub(crate) guidance_scale: f32,
    /// True when guidance makes two rows of every picture.
    pub(crate) is_guided: bool,
    /// Brings the contrast back.
    pub(crate) guidance_rescale: f32,
    /// Where it is guided; absent is everywhere.
    pub(crate) guidance_interval: Option<GuidanceInterval>,
    /// Scheduler and schedule.
    pub(crate) chosen: Chosen,
    /// The scheduler's options.
    pub(crate) options: Option<SamplerOptions>,
    /// Layers of the text encoder that are left out.
    pub(crate) clip_skip: u32,
    /// What it starts from; absent is noise.
    pub(crate) source: Option<Source>,
    /// Where random numbers come from.
    pub(crate) random: RandomSource,
    /// Who goes first.
    pub(crate) priority: Priority,
    /// Whether company may change it.
    pub(crate) determinism: Determinism,
    /// What the model is told of the size.
    pub(crate) conditions: Option<SizeConditions>,
    /// The same for the negative prompt.
    pub(crate) negative_conditions: Option<SizeConditions>,
    /// The second model, for the last steps.
    pub(crate) refine: Option<Refine>,
    /// One per picture.
    pub(crate) seeds: Vec<u64>,
    /// Steps between previews; 0 for none.
    pub(crate) preview_interval: u32,
    /// How pictures are encoded.
    pub(crate) output: Output,
    /// What it costs a replica of the first model.
    pub(crate) cost: Cost,
}

/// How pictures are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Output {
    /// Never unspecified.
    pub(crate) format: ImageFormat,
    /// Of a JPEG, 1 to 100; 0 is the worker's default.
    pub(crate) quality: u32,
    /// What the files say of themselves; never unspecified.
    pub(crate) provenance: Provenance,
}

impl Plan {
    /// Steps that are taken: all of them, or what `strength` leaves.
    pub(crate) fn taken(&self) -> u32 {
        let source = self.source.as_ref();
        source.map_or(self.steps, |source| work::strength(self.steps, source.strength))
    }

    /// Pixels of all its pictures.
    pub(crate) fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height) * self.seeds.len() as u64
    }

    /// Bytes that the request holds on its way: prompts, files, their pixels, and latents for a refiner.
    pub(crate) fn held_bytes(&self) -> u64 {
        let pixels = u64::from(self.width) * u64::from(self.height);
        let source = self.source.as_ref().map_or(0, |source| {
            let mask = source.mask.as_ref().map_or(0, bytes::Bytes::len);
            let files = (source.image.len() + mask) as u64;
            pixels.saturating_mul(picture::PIXEL_BYTES).saturating_add(files)
        });
        let latents = self.refine.as_ref().map_or(0, |_| {
            pixels.saturating_mul(self.seeds.len() as u64) / refine::PIXELS_PER_LATENT_BYTE
        });
        let prompts = (self.prompt.len() + self.negative_prompt.len()) as u64;
        source.saturating_add(latents).saturating_add(prompts)
    }

    /// The guidance's interval in the part `from` to `to` of the steps; `None` when that part is not guided.
    pub(crate) fn interval(&self, from: f32, to: f32) -> Option<Option<GuidanceInterval>> {
        match self.guidance_interval {
            None => Some(None),
            Some(interval) => work::within(interval, from, to).map(Some),
        }
    }
}

/// Checks a request id, which may be empty.
///
/// # Errors
/// A problem with the field `request_id`.
pub(crate) fn request_id(id: &str) -> Result<(), Problem> {
    let rule = if id.len() > REQUEST_ID_MAX {
        Rule::TooLong {
            has: id.len(),
            max: REQUEST_ID_MAX,
        }
    } else if !id.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        Rule::NotPrintable
    } else {
        return Ok(());
    };
    Err(Problem::new("request_id", rule))
}

/// Checks `request` against its models and fills in the defaults; `draw` makes the seeds that are absent.
///
/// # Errors
/// Every problem of the request, in the order of its fields.
pub(crate) fn plan(
    mut request: image::GenerateRequest,
    models: Models<'_>,
    limits: Limits,
    mut draw: impl FnMut() -> u64,
) -> Result<Plan, Vec<Problem>> {
    let mut found = Problems::default();
    let problems = &mut found;
    let model = models.first;
    prompts(problems, &request, limits);
    let from = picture::source(problems, &mut request, model, limits);
    let (width, height) = picture::size(problems, &request, model, from.as_ref());
    let steps = sampling::steps(problems, request.steps, model);
    let guidance_scale = sampling::guidance(problems, &request, model);
    let chosen = sampling::scheduler(problems, &request, model);
    sampling::options(problems, request.sampler_options.as_ref());
    sampling::clip_skip(problems, request.clip_skip, model);
    sampling::conditions(problems, "size_conditions", request.size_conditions.as_ref());
    sampling::conditions(
        problems,
        "negative_size_conditions",
        request.negative_size_conditions.as_ref(),
    );
    let images = images(problems, &request, limits);
    let (syntax, random, priority, determinism) = choices(problems, &request);
    let output = output(problems, &request, limits);
    let source = from.map(|(source, _)| source);
    let taken = source
        .as_ref()
        .map_or(steps, |s| work::strength(steps, s.strength));
    if taken == 0 && problems.0.is_empty() {
        problems.wrong(
            "strength",
            format!("leaves none of {steps} steps to draw; strength x steps must be 1 at least"),
        );
    }
    let first = First {
        width,
        height,
        images,
        steps: taken,
        has_source: source.is_some(),
        chosen: &chosen,
    };
    refine::refiner(problems, &request, models.refiner, first);
    if !found.0.is_empty() {
        return Err(found.0);
    }
    let drawn = Drawn {
        images,
        pixels: u64::from(width) * u64::from(height),
        steps: taken,
        calls: chosen.calls,
        guidance_scale,
    };
    let (cost, refine) = refine::divide(&request, models, drawn);
    Ok(Plan {
        is_guided: drawn.is_guided(model),
        prompt: request.prompt,
        negative_prompt: request.negative_prompt,
        syntax,
        width,
        height,
        steps,
        guidance_scale,
        guidance_rescale: request.guidance_rescale,
        guidance_interval: request.guidance_interval,
        chosen,
        options: request.sampler_options,
        clip_skip: request.clip_skip,
        source,
        random,
        priority,
        determinism,
        conditions: request.size_conditions,
        negative_conditions: request.negative_size_conditions,
        refine,
        seeds: complete(request.seeds, images, &mut draw),
        preview_interval: request.preview_interval,
        output,
        cost,
    })
}

fn prompts(problems: &mut Problems, request: &image::GenerateRequest, limits: Limits) {
    if request.prompt.is_empty() && request.init_image.is_empty() {
        problems.add("prompt", Rule::TooShort { min: 1 });
    }
    for (field, text) in [
        ("prompt", &request.prompt),
        ("negative_prompt", &request.negative_prompt),
    ] {
        if text.len() > limits.max_prompt_bytes {
            let (has, max) = (text.len(), limits.max_prompt_bytes);
            problems.add(field, Rule::TooLong { has, max });
        }
    }
}

/// Checks how many pictures are asked for.
fn images(problems: &mut Problems, request: &image::GenerateRequest, limits: Limits) -> u32 {
    let given = u32::try_from(request.seeds.len()).unwrap_or(u32::MAX);
    let (field, images) = match request.image_count {
        0 => ("seeds", given.max(1)),
        count => ("image_count", count),
    };
    if images > limits.max_images && field == "seeds" {
        let max = limits.max_images;
        problems.wrong(field, format!("has {given} values and may have at most {max}"));
    } else if images > limits.max_images {
        problems.add(field, Rule::at_most(images, limits.max_images));
    } else if given > images {
        problems.wrong("seeds", format!("has {given} values for {images} pictures"));
    }
    images
}

/// Checks the fields that have names for values.
fn choices(
    problems: &mut Problems,
    request: &image::GenerateRequest,
) -> (PromptSyntax, RandomSource, Priority, Determinism) {
    let syntax = [
        "PROMPT_SYNTAX_PLAIN",
        "PROMPT_SYNTAX_A1111",
        "PROMPT_SYNTAX_COMPEL",
    ];
    let random = ["RANDOM_SOURCE_CPU", "RANDOM_SOURCE_CUDA"];
    let priority = ["PRIORITY_LOW", "PRIORITY_NORMAL", "PRIORITY_HIGH"];
    let determinism = ["DETERMINISM_STRICT", "DETERMINISM_FAST"];
    (
        problems.choice("prompt_syntax", request.prompt_syntax, &syntax),
        problems.choice("random_source", request.random_source, &random),
        problems.choice("priority", request.priority, &priority),
        problems.choice("determinism", request.determinism, &determinism),
    )
}

/// How the pictures are to be encoded.
fn output(problems: &mut Problems, request: &image::GenerateRequest, limits: Limits) -> Output {
    let formats = ["IMAGE_FORMAT_PNG", "IMAGE_FORMAT_JPEG", "IMAGE_FORMAT_WEBP"];
    let kinds = ["PROVENANCE_FULL", "PROVENANCE_MARKER", "PROVENANCE_NONE"];
    let format = match problems.choice("format", request.format, &formats) {
        ImageFormat::Unspecified => ImageFormat::Png,
        chosen @ (ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::Webp) => chosen,
    };
    if request.quality > MAX_QUALITY {
        problems.add("quality", Rule::at_most(request.quality, MAX_QUALITY));
    } else if request.quality > 0 && format != ImageFormat::Jpeg {
        problems.wrong("quality", "is a JPEG's alone: PNG and WebP lose nothing");
    }
    Output {
        format,
        quality: request.quality,
        provenance: match problems.choice("provenance", request.provenance, &kinds) {
            Provenance::Unspecified => limits.provenance,
            chosen @ (Provenance::Full | Provenance::Marker | Provenance::None) => chosen,
        },
    }
}

/// Continues the given seeds with the last one plus 1, 2, ...; without any, draws one for every picture.
fn complete(mut seeds: Vec<u64>, images: u32, draw: &mut impl FnMut() -> u64) -> Vec<u64> {
    while seeds.len() < images as usize {
        seeds.push(seeds.last().map_or_else(&mut *draw, |last| last.wrapping_add(1)));
    }
    seeds
}

#[cfg(test)]
mod tests;
