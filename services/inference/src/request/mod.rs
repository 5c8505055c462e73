//! A request as it comes from the wire, checked field by field before it costs anything.
//!
//! Every wrong field is named, all of them at once. It changes nothing about a request and takes no default.

mod conditions;
mod pictures;
mod sampling;
mod stages;
mod text;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use mobula_diffusion::random::Source;
use mobula_diffusion::scheduler::Ask;
use mobula_diffusion::trajectory::Guidance;
use mobula_proto::common::v1::Priority;
use mobula_proto::image::v1::ImageFormat;
use mobula_proto::inference::v1::{GenerateRequest, Moments, TextChunk};
use mobula_serving::tick::Class;

use crate::encode::{self, Format, Text};
use crate::engine::{Encoded, Info};
use crate::runner::{self, Origin, Prompt};
pub(crate) use stages::{Picture, decode, denoise, encode, encode_text};

/// Pictures in one request at most; more are as well asked for by several.
const MAX_SEEDS: usize = 64;
/// Text chunks in a picture, and characters in them: a prompt and what it was drawn with, with room.
const MAX_CHUNKS: usize = 64;
const MAX_TEXT: usize = 1 << 20;
/// Above it a picture is noise in every model.
pub(crate) const MAX_GUIDANCE: f32 = 1000.0;
/// Longest request id that is taken into logs.
const MAX_REQUEST_ID: usize = 256;

/// What a request is checked against.
#[derive(Debug)]
pub(crate) struct Model<'a> {
    pub(crate) info: &'a Info,
    /// Largest width and height, pixels.
    pub(crate) max_size: u32,
    /// Whether it is of Stable Diffusion XL.
    pub(crate) is_xl: bool,
    /// Most windows of text in a prompt.
    pub(crate) max_windows: usize,
}

/// What a checked request asks for.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) prompt: Prompt,
    /// Present exactly when there are two rows.
    pub(crate) negative: Option<Prompt>,
    /// Layers to leave out, for the prompt and for the negative one.
    pub(crate) clip_skip: [usize; 2],
    pub(crate) guidance: Guidance,
    pub(crate) ask: Ask,
    pub(crate) source: Source,
    pub(crate) class: Class,
    /// Whether company may change the picture a little.
    pub(crate) fast: bool,
    /// Index and seed of each picture that is wanted.
    pub(crate) pictures: Vec<(u32, u64)>,
    pub(crate) origin: Origin,
    /// Latents are wanted instead of pictures.
    pub(crate) latents: bool,
    /// Numbers about the size: for the prompt and for the negative one.
    pub(crate) time_ids: [Arc<[f32]>; 2],
    /// How pictures are encoded.
    pub(crate) format: Format,
    pub(crate) text: Vec<Text>,
    /// Windows that were encoded elsewhere.
    pub(crate) texts: HashMap<runner::Text, Arc<Encoded>>,
}

/// Wrong fields and why.
#[derive(Debug, Default)]
struct Violations(Vec<(String, String)>);

impl Violations {
    fn expect(&mut self, right: bool, field: &str, why: impl FnOnce() -> String) {
        // One reason per field is enough.
        if !right && !self.has(field) {
            self.0.push((field.to_owned(), why()));
        }
    }

    /// Whether something is wrong with a field.
    fn has(&self, field: &str) -> bool {
        self.0.iter().any(|(known, _)| known == field)
    }

    /// One of an enum's values; what is unspecified is one of them.
    fn choice<T: TryFrom<i32> + Default>(&mut self, field: &str, number: i32, names: &[&str]) -> T {
        T::try_from(number).unwrap_or_else(|_| {
            self.expect(false, field, || {
                format!("{number} is none of its values, which are {}", names.join(", "))
            });
            T::default()
        })
    }

    /// A number of a range, both ends included.
    fn number(&mut self, field: &str, value: f32, (low, high): (f32, f32)) {
        self.expect((low..=high).contains(&value), field, || {
            if high == f32::INFINITY {
                format!("{value} is not {low} or above")
            } else {
                format!("{value} is not from {low} to {high}")
            }
        });
    }
}

/// Checks a request for a model.
///
/// # Errors
/// All wrong fields, each with the reason.
pub(crate) fn check(request: GenerateRequest, model: &Model<'_>) -> Result<Checked, Vec<(String, String)>> {
    check_all(Violations::default(), request, None, model)
}

/// Checks a request that starts from a picture which was encoded already, or from none.
fn check_all(
    mut wrong: Violations,
    request: GenerateRequest,
    encoded: Option<&Moments>,
    model: &Model<'_>,
) -> Result<Checked, Vec<(String, String)>> {
    let Model { info, .. } = *model;
    let guidance = sampling::guidance(&mut wrong, &request, info);
    let prompts = text::check(
        &mut wrong,
        &request,
        model,
        guidance.scale > 1.0 && !guidance.embedded,
    );
    size(&mut wrong, "", (request.width, request.height), model);
    let from_picture = encoded.is_some() || request.init_image.is_some();
    let ask = sampling::ask(&mut wrong, &request, from_picture, model);
    let seeds = request.seeds.len();
    wrong.expect((1..=MAX_SEEDS).contains(&seeds), "seeds", || {
        format!("{seeds} seeds, expected 1 to {MAX_SEEDS}")
    });
    let skipped = request.skip_images.len();
    wrong.expect(skipped <= seeds, "skip_images", || {
        format!("{skipped} pictures to skip of {seeds}")
    });
    for index in request.skip_images.iter().take(MAX_SEEDS) {
        wrong.expect((*index as usize) < seeds, "skip_images", || {
            format!("{index} is none of {seeds} pictures")
        });
    }
    request_id(&mut wrong, &request.request_id);
    let most = info.max_clip_skip();
    let skips = [request.clip_skip as usize, request.negative_clip_skip as usize];
    for (field, skip) in ["clip_skip", "negative_clip_skip"].into_iter().zip(skips) {
        wrong.expect(skip <= most, field, || {
            format!("{skip} is above {most}, the most that this model's export allows")
        });
    }
    let class = class(&mut wrong, &request);
    let (source, fast) = (
        sampling::source(&mut wrong, &request),
        sampling::is_fast(&mut wrong, request.determinism),
    );
    let origin = pictures::check(&mut wrong, &request, encoded, info);
    let time_ids = conditions::time_ids(&mut wrong, &request, info);
    check_chunks(&mut wrong, &request.text_chunks);
    let format = format(&mut wrong, (request.format, request.quality));
    let (Some((prompt, negative)), Some(ask), Some(origin)) = (prompts, ask, origin) else {
        return Err(wrong.0);
    };
    if !wrong.0.is_empty() {
        return Err(wrong.0);
    }
    Ok(Checked {
        prompt,
        negative,
        clip_skip: skips,
        guidance,
        ask,
        source,
        class,
        fast,
        pictures: (0..)
            .zip(request.seeds)
            .filter(|(index, _)| !request.skip_images.contains(index))
            .collect(),
        origin,
        latents: request.denoising_end.is_some(),
        time_ids,
        format,
        text: texts(request.text_chunks),
        texts: HashMap::new(),
    })
}

/// Refuses sides that the model cannot draw; `of` is what has them, with a point behind it.
fn size(wrong: &mut Violations, of: &str, (width, height): (u32, u32), model: &Model<'_>) {
    let (multiple, max_size) = (model.info.multiple as u32, model.max_size);
    for (side, pixels) in [("width", width), ("height", height)] {
        wrong.expect(
            pixels > 0 && pixels.is_multiple_of(multiple) && pixels <= max_size,
            &format!("{of}{side}"),
            || format!("{pixels} is no multiple of {multiple} from {multiple} to {max_size}"),
        );
    }
}

fn request_id(wrong: &mut Violations, id: &str) {
    wrong.expect(id.len() <= MAX_REQUEST_ID, "request_id", || {
        format!("{} bytes, expected at most {MAX_REQUEST_ID}", id.len())
    });
}

fn texts(chunks: Vec<TextChunk>) -> Vec<Text> {
    let text = |chunk: TextChunk| Text {
        keyword: chunk.keyword,
        text: chunk.text,
        only: chunk.image_index,
    };
    chunks.into_iter().map(text).collect()
}

fn class(wrong: &mut Violations, request: &GenerateRequest) -> Class {
    const NAMES: &[&str] = &["PRIORITY_LOW", "PRIORITY_NORMAL", "PRIORITY_HIGH"];
    match wrong.choice("priority", request.priority, NAMES) {
        Priority::Low => Class::Low,
        Priority::Unspecified | Priority::Normal => Class::Normal,
        Priority::High => Class::High,
    }
}

fn format(wrong: &mut Violations, (format, given): (i32, u32)) -> Format {
    const NAMES: &[&str] = &["IMAGE_FORMAT_PNG", "IMAGE_FORMAT_JPEG", "IMAGE_FORMAT_WEBP"];
    let quality = u8::try_from(given).ok().filter(|quality| *quality <= 100);
    wrong.expect(quality.is_some(), "quality", || {
        format!("{given} is not from 1 to 100")
    });
    match wrong.choice("format", format, NAMES) {
        ImageFormat::Unspecified | ImageFormat::Png => Format::Png,
        ImageFormat::Jpeg => Format::Jpeg(quality.filter(|quality| *quality > 0).unwrap_or(encode::QUALITY)),
        ImageFormat::Webp => Format::Webp,
    }
}

fn check_chunks(wrong: &mut Violations, chunks: &[TextChunk]) {
    let length: usize = chunks.iter().map(|chunk| chunk.text.len()).sum();
    wrong.expect(
        chunks.len() <= MAX_CHUNKS && length <= MAX_TEXT,
        "text_chunks",
        || {
            format!(
                "{} chunks of {length} bytes, expected at most {MAX_CHUNKS} and {MAX_TEXT}",
                chunks.len()
            )
        },
    );
    let keyword = chunks.iter().find(|chunk| !encode::is_keyword(&chunk.keyword));
    wrong.expect(keyword.is_none(), "text_chunks", || {
        let keyword: String = keyword
            .iter()
            .flat_map(|chunk| chunk.keyword.chars())
            .take(80)
            .collect();
        format!("{keyword:?} is no PNG keyword")
    });
}
