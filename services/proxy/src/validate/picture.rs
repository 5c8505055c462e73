//! What a picture starts from, and how large it is to be.
//!
//! Sizes are chosen as diffusers' pipelines choose them: image to image takes the picture's own, rounded down to what the
//! model can draw; all else takes the model's native size.

use bytes::Bytes;
use mobula_proto::{
    control::v1::ModelInfo,
    image::v1::{self as image, MaskChannel, Task},
};

use super::{
    Limits,
    problems::{Problems, multiple},
};
use crate::{
    header::{self, Size},
    problem::Rule,
};

/// Bytes of a pixel of a picture and its mask, as they travel to a replica.
pub(super) const PIXEL_BYTES: u64 = 4;
/// Bytes of a message to a replica beside its pixels, with room: prompts, text chunks and numbers.
const MESSAGE_REST: u64 = 1 << 20;

/// diffusers' strength of image to image.
const STRENGTH: f32 = 0.8;
/// diffusers' strength of inpainting.
const STRENGTH_MASKED: f32 = 1.0;
/// diffusers' strengths of Stable Diffusion XL's image to image (which is also what refines) and inpainting.
const STRENGTH_XL: f32 = 0.3;
const STRENGTH_XL_MASKED: f32 = 0.9999;

/// What a picture starts from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Source {
    /// The picture's file.
    pub(crate) image: Bytes,
    /// The mask's file.
    pub(crate) mask: Option<Bytes>,
    /// How it says what is drawn anew.
    pub(crate) channel: MaskChannel,
    /// How much is drawn anew.
    pub(crate) strength: f32,
}

/// True when the model says that it can do `task`; one that says nothing draws from prompts.
pub(super) fn can(model: &ModelInfo, task: Task) -> bool {
    if model.tasks.is_empty() {
        task == Task::TextToImage
    } else {
        model.tasks.contains(&task.into())
    }
}

/// True for a model that only goes on with others' pictures.
pub(super) fn refines_only(model: &ModelInfo) -> bool {
    can(model, Task::Refine) && !can(model, Task::TextToImage)
}

/// Checks the files, and what is said of them.
pub(super) fn source(
    problems: &mut Problems,
    request: &mut image::GenerateRequest,
    model: &ModelInfo,
    limits: Limits,
) -> Option<(Source, Option<Size>)> {
    let (init, mask) = (
        std::mem::take(&mut request.init_image),
        std::mem::take(&mut request.mask_image),
    );
    let names = ["MASK_CHANNEL_LUMINANCE", "MASK_CHANNEL_TRANSPARENCY"];
    let channel = problems.choice("mask_channel", request.mask_channel, &names);
    if let Some(strength) = request.strength {
        if init.is_empty() {
            problems.wrong("strength", "needs init_image");
        }
        problems.number("strength", strength, 0..=1);
    }
    if !mask.is_empty() && init.is_empty() {
        problems.wrong("mask_image", "needs init_image");
    }
    if init.is_empty() {
        if !can(model, Task::TextToImage) {
            problems.wrong("init_image", "is required: this model draws from pictures only");
        }
        return None;
    }
    let size = file(problems, "init_image", &init, limits);
    if mask.is_empty() {
        if !can(model, Task::ImageToImage) {
            problems.wrong(
                "init_image",
                "this model cannot draw from pictures (image to image)",
            );
        }
    } else {
        if !can(model, Task::Inpaint) {
            problems.wrong("mask_image", "this model cannot draw into pictures (inpainting)");
        }
        file(problems, "mask_image", &mask, limits);
    }
    let is_xl = refines_only(model) || model.pipeline_class.contains("XL");
    let default = match (mask.is_empty(), is_xl) {
        (false, false) => STRENGTH_MASKED,
        (false, true) => STRENGTH_XL_MASKED,
        (true, false) => STRENGTH,
        (true, true) => STRENGTH_XL,
    };
    let source = Source {
        image: init,
        mask: (!mask.is_empty()).then_some(mask),
        channel,
        strength: request.strength.unwrap_or(default),
    };
    Some((source, size))
}

/// A file that is a picture as far as its first bytes tell.
fn file(problems: &mut Problems, field: &'static str, file: &Bytes, limits: Limits) -> Option<Size> {
    if file.len() > limits.max_image_bytes {
        problems.wrong(
            field,
            format!(
                "has {} bytes and may have at most {}",
                file.len(),
                limits.max_image_bytes
            ),
        );
        return None;
    }
    let size = header::size(file);
    if size.is_none() {
        problems.wrong(field, "is no PNG, JPEG or WebP file, or is broken");
    }
    size
}

/// Chooses and checks the sides of the picture.
pub(super) fn size(
    problems: &mut Problems,
    request: &image::GenerateRequest,
    model: &ModelInfo,
    from: Option<&(Source, Option<Size>)>,
) -> (u32, u32) {
    let own = match from {
        Some((source, Some(size))) if source.mask.is_none() => Some(size),
        Some(_) | None => None,
    };
    let mut side = |field, asked: Option<u32>, own: Option<u32>, native| match (asked, own) {
        (Some(asked), _) => {
            problems.side(field, asked, model);
            asked
        }
        (None, Some(own)) => {
            let multiple = multiple(model);
            let rounded = own - own % multiple;
            if rounded == 0 || model.max_size > 0 && rounded > model.max_size {
                let why = format!(
                    "its {field} is {own} pixels and must be {multiple} to {}; ask for a size to bring it there",
                    model.max_size
                );
                // One complaint about the file is enough.
                if !problems.0.iter().any(|known| known.field == "init_image") {
                    problems.wrong("init_image", why);
                }
            }
            rounded
        }
        (None, None) => {
            problems.side(field, native, model);
            native
        }
    };
    let width = side(
        "width",
        request.width,
        own.map(|size| size.width),
        model.default_width,
    );
    let height = side(
        "height",
        request.height,
        own.map(|size| size.height),
        model.default_height,
    );
    let pixels = u64::from(width) * u64::from(height);
    let bytes = pixels.saturating_mul(PIXEL_BYTES).saturating_add(MESSAGE_REST);
    let room = mobula_kit::grpc::MAX_MESSAGE_BYTES as u64;
    if from.is_some() && bytes > room && problems.0.is_empty() {
        let (asked, most) = (pixels, (room - MESSAGE_REST) / PIXEL_BYTES);
        let why = format!(
            "is {width}, which with height {height} makes {asked} pixels; {most} at most can start from a picture"
        );
        problems.add("width", Rule::Wrong(why));
    }
    (width, height)
}
