//! OpenAI's fields to a [`GenerateRequest`], or every problem at once. Pure.
//!
//! Fields that are not known are refused, because a misspelt option that is silently dropped draws the wrong picture.

use mobula_proto::{
    control::v1::ModelInfo,
    image::v1::{GenerateRequest, MaskChannel},
};

use super::{fields::Fields, path::Endpoint, policy};
use crate::{
    header,
    problem::{Problem, Rule},
};

/// Pictures that OpenAI draws at once.
const PICTURES_MAX: u64 = 10;
/// Partial pictures of OpenAI's streams.
const PARTIAL_MAX: u64 = 3;
/// What sides are multiples of while nothing is known of the model: the VAE's scale factor of every Stable Diffusion.
const MULTIPLE: u32 = 8;
/// Guidance that is none.
const UNGUIDED: f32 = 1.0;

const GENERATIONS: &[&str] = &[
    "prompt",
    "model",
    "n",
    "size",
    "response_format",
    "stream",
    "partial_images",
    "negative_prompt",
    "num_inference_steps",
    "guidance_scale",
    "seed",
    "scheduler",
    "quality",
    "style",
    "background",
    "moderation",
    "output_format",
    "output_compression",
    "user",
    "safety_identifier",
    "complexity",
    "frame_count",
    "frame_duration_ms",
    "svg",
];
const EDITS: &[&str] = &[
    "image",
    "image[]",
    "mask",
    "prompt",
    "model",
    "n",
    "size",
    "response_format",
    "stream",
    "partial_images",
    "strength",
    "negative_prompt",
    "num_inference_steps",
    "guidance_scale",
    "seed",
    "scheduler",
    "quality",
    "background",
    "moderation",
    "output_format",
    "output_compression",
    "input_fidelity",
    "markup",
    "user",
    "safety_identifier",
    "complexity",
    "frame_count",
    "frame_duration_ms",
    "svg",
];
const VARIATIONS: &[&str] = &[
    "image",
    "prompt",
    "model",
    "n",
    "size",
    "response_format",
    "strength",
    "negative_prompt",
    "num_inference_steps",
    "guidance_scale",
    "seed",
    "scheduler",
    "user",
];

/// How the answer is to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reply {
    /// Links to the pictures instead of the pictures.
    pub(super) links: bool,
    /// Events as they come.
    pub(super) stream: bool,
    /// How many pictures on the way, of each picture.
    pub(super) partial: u32,
}

/// What is asked for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// `model` is as the caller names it.
    pub(super) request: GenerateRequest,
    pub(super) problems: Vec<Problem>,
    pub(super) reply: Reply,
}

/// Reads what an endpoint that draws was given.
pub(super) fn translate(endpoint: &Endpoint, mut fields: Fields) -> Asked {
    let mut asked = Asked::default();
    match endpoint {
        Endpoint::Edits => {
            fields.only(EDITS);
            asked.picture(&mut fields);
            asked.mask(&mut fields);
            asked.prompt(&mut fields);
        }
        Endpoint::Variations => {
            fields.only(VARIATIONS);
            asked.picture(&mut fields);
            asked.request.prompt = fields.text("prompt").unwrap_or_default();
        }
        Endpoint::Generations | Endpoint::Models | Endpoint::Model(_) | Endpoint::File(_) => {
            fields.only(GENERATIONS);
            asked.prompt(&mut fields);
        }
    }
    asked.rest(&mut fields);
    let (format, quality) = policy::read(&mut fields);
    asked.request.format = format.into();
    asked.request.quality = quality;
    asked.problems = fields.problems;
    asked
}

impl Asked {
    fn prompt(&mut self, fields: &mut Fields) {
        match fields.text("prompt") {
            Some(prompt) if prompt.is_empty() => fields.complain("prompt", Rule::TooShort { min: 1 }),
            Some(prompt) => self.request.prompt = prompt,
            None => fields.complain("prompt", Rule::Missing),
        }
    }

    fn picture(&mut self, fields: &mut Fields) {
        let mut files = fields.files(&["image", "image[]"]);
        match files.len() {
            0 => fields.complain("image", Rule::Missing),
            1 => self.request.init_image = files.swap_remove(0),
            several => fields.wrong(
                "image",
                format!("is given {several} times; these models draw from one"),
            ),
        }
        self.request.strength = fields.number("strength");
    }

    fn mask(&mut self, fields: &mut Fields) {
        let Some(mask) = fields.files(&["mask", "mask"]).pop() else {
            return;
        };
        let sizes = (header::size(&self.request.init_image), header::size(&mask));
        if let (Some(image), Some(mask)) = sizes
            && image != mask
        {
            let why = format!(
                "is {} x {} and must be as large as the image, {} x {}",
                mask.width, mask.height, image.width, image.height
            );
            fields.wrong("mask", why);
        }
        self.request.mask_image = mask;
        self.request.mask_channel = MaskChannel::Transparency.into();
    }

    fn rest(&mut self, fields: &mut Fields) {
        let request = &mut self.request;
        request.model = fields.text("model").unwrap_or_default();
        let pictures = fields.integer("n", 1..=PICTURES_MAX).unwrap_or(1);
        request.image_count = small(pictures);
        if let Some((width, height)) = size(fields) {
            (request.width, request.height) = (Some(width), Some(height));
        }
        request.negative_prompt = fields.text("negative_prompt").unwrap_or_default();
        request.steps = fields.integer("num_inference_steps", 0..=u64::MAX).map(small);
        request.guidance_scale = fields.number("guidance_scale");
        request.scheduler = fields.text("scheduler").unwrap_or_default();
        request.seeds = fields.integer("seed", 0..=u64::MAX).into_iter().collect();
        if request.prompt.is_empty() && request.negative_prompt.is_empty() {
            // Nothing to guide to: the same picture at half the work.
            request.guidance_scale.get_or_insert(UNGUIDED);
        }
        let format = fields.word("response_format", &["url", "b64_json"]);
        let stream = fields.flag("stream");
        let partial = fields.integer("partial_images", 0..=PARTIAL_MAX).unwrap_or(0);
        if stream && format == Some("url") {
            fields.wrong("response_format", "is url; the events of a stream hold b64_json");
        }
        if partial > 0 && !stream {
            fields.wrong("partial_images", "needs stream");
        }
        self.reply = Reply {
            links: format == Some("url"),
            stream,
            partial: small(partial),
        };
    }

    /// Chooses what depends on the model, as far as that is known.
    pub(super) fn fit(&mut self, model: Option<&ModelInfo>) {
        let request = &mut self.request;
        if request.width.is_none() && !request.mask_image.is_empty() {
            // A picture that is drawn into keeps its shape.
            let known = model.map(|model| model.size_multiple).filter(|known| *known > 0);
            let multiple = known.unwrap_or(MULTIPLE);
            if let Some(size) = header::size(&request.init_image) {
                request.width = Some(size.width - size.width % multiple);
                request.height = Some(size.height - size.height % multiple);
            }
        }
        if self.reply.partial > 0 {
            // From a picture fewer steps are taken, how many is not known here: all are shown, and those chosen that fit.
            let steps = request.steps.or_else(|| model.map(|model| model.default_steps));
            let steps = steps.filter(|_| request.init_image.is_empty());
            request.preview_interval = steps.map_or(1, |steps| interval(steps, self.reply.partial));
        }
    }
}

/// Steps from one partial picture to the next.
pub(super) fn interval(steps: u32, partial: u32) -> u32 {
    (steps / (partial + 1)).max(1)
}

/// Width and height, where they are given.
fn size(fields: &mut Fields) -> Option<(u32, u32)> {
    let given = fields.text("size").filter(|given| given != "auto")?;
    let side = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().unwrap_or(u32::MAX))
    };
    let sides = given
        .split_once('x')
        .and_then(|(width, height)| side(width).zip(side(height)));
    if sides.is_none() {
        fields.wrong("size", "must be auto or WIDTHxHEIGHT, as 512x512");
    }
    sides
}

/// What is too large for any model stays so.
fn small(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// The name by which OpenAI's API has what a [`GenerateRequest`] calls `field`.
pub(super) fn name(field: &str) -> &str {
    match field {
        "width" | "height" => "size",
        "steps" => "num_inference_steps",
        "image_count" => "n",
        "seeds" => "seed",
        "init_image" => "image",
        "mask_image" => "mask",
        "model_id" => "model",
        other => other,
    }
}

#[cfg(test)]
mod tests;
