//! What single stages are asked for, checked field by field as whole requests are.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use mobula_proto::common::v1::PromptWindow;
use mobula_proto::inference::v1::{
    DecodeRequest, DenoiseRequest, EncodeRequest, EncodeTextRequest, EncodedText, TextWindow,
};

use super::{Checked, MAX_SEEDS, Model, Violations, pictures, sampling, text};
use crate::encode::{Format, Text};
use crate::engine::{Encoded, Info, Shape};
use crate::runner::{self, windows};

/// Bytes of states in one answer: a message has 32 MiB at most, and ids and frames need some of them.
const MAX_TEXT_BYTES: usize = 24 << 20;

type Wrong = Vec<(String, String)>;

/// Windows that a request may have.
const MAX_WINDOWS: usize = text::MAX_WINDOWS;

/// A picture that is to be encoded.
#[derive(Debug)]
pub(crate) struct Picture {
    pub(crate) shape: Shape,
    pub(crate) rgb: Bytes,
    pub(crate) mask: Option<Bytes>,
}

/// Latents that are to be decoded.
#[derive(Debug)]
pub(crate) struct Decode {
    pub(crate) shape: Shape,
    /// Indices of the pictures, and a seed that says nothing.
    pub(crate) pictures: Vec<(u32, u64)>,
    pub(crate) latents: Vec<Arc<[f32]>>,
    pub(crate) format: Format,
    pub(crate) text: Vec<Text>,
    pub(crate) fast: bool,
}

/// Checks what is to be drawn of encoded texts.
///
/// # Errors
/// All wrong fields, each with the reason.
pub(crate) fn denoise(asked: DenoiseRequest, model: &Model<'_>) -> Result<Checked, Wrong> {
    let mut wrong = Violations::default();
    let mut request = asked.request.unwrap_or_default();
    request.init_image = None;
    let given = encoded_texts(&mut wrong, &asked.texts, model.info);
    let mut checked = super::check_all(wrong, request, asked.init_moments.as_ref(), model)?;
    let Checked {
        prompt,
        negative,
        clip_skip,
        ..
    } = &checked;
    let missing = windows(prompt, negative.as_ref(), *clip_skip).find(|text| !given.contains_key(text));
    if let Some((ids, skip)) = missing {
        let start: Vec<_> = ids.iter().take(8).collect();
        let why = format!(
            "lack what was made of the window that begins with {start:?}, with {skip} layers left out; EncodeText gives it"
        );
        return Err(vec![("texts".to_owned(), why)]);
    }
    checked.texts = given;
    checked.latents = true;
    Ok(checked)
}

fn encoded_texts(
    wrong: &mut Violations,
    texts: &[EncodedText],
    info: &Info,
) -> HashMap<runner::Text, Arc<Encoded>> {
    wrong.expect(texts.len() <= MAX_WINDOWS, "texts", || {
        format!("{} windows, expected at most {MAX_WINDOWS}", texts.len())
    });
    let mut known = HashMap::with_capacity(texts.len().min(MAX_WINDOWS));
    for text in texts.iter().take(MAX_WINDOWS) {
        let key = window(wrong, "texts", &text.window.clone().unwrap_or_default(), info);
        let states = text.states.clone().unwrap_or_default();
        let states = pictures::tensor(wrong, "texts.states", &states, &[info.window, info.width]);
        let pooled = match &text.pooled {
            None if info.pooled == 0 => Vec::new(),
            pooled => {
                let pooled = pooled.clone().unwrap_or_default();
                pictures::tensor(wrong, "texts.pooled", &pooled, &[info.pooled])
            }
        };
        known.insert(key, Arc::new(Encoded { states, pooled }));
    }
    known
}

/// A window's ids and the layers to leave out.
fn window(wrong: &mut Violations, field: &str, given: &TextWindow, info: &Info) -> runner::Text {
    let ids = PromptWindow {
        ids: given.ids.clone(),
        ids_2: given.ids_2.clone(),
        ..PromptWindow::default()
    };
    let (skip, most) = (given.clip_skip as usize, info.max_clip_skip());
    wrong.expect(skip <= most, "clip_skip", || {
        format!("{skip} is above {most}, the most that this model's export allows")
    });
    (text::window(wrong, field, &ids, info).ids, skip)
}

/// Checks windows of text.
///
/// # Errors
/// All wrong fields, each with the reason.
pub(crate) fn encode_text(asked: &EncodeTextRequest, model: &Model<'_>) -> Result<Vec<runner::Text>, Wrong> {
    let mut wrong = Violations::default();
    super::request_id(&mut wrong, &asked.request_id);
    let count = asked.windows.len();
    wrong.expect((1..=MAX_WINDOWS).contains(&count), "windows", || {
        format!("{count} windows, expected 1 to {MAX_WINDOWS}")
    });
    let info = model.info;
    let bytes = count.saturating_mul(size_of::<f32>() * (info.states() + info.pooled));
    wrong.expect(bytes <= MAX_TEXT_BYTES, "windows", || {
        format!("{count} windows have {bytes} bytes of states, expected at most {MAX_TEXT_BYTES}; ask in several calls")
    });
    let given = asked.windows.iter().take(MAX_WINDOWS);
    let texts = given
        .map(|given| window(&mut wrong, "windows", given, model.info))
        .collect();
    if wrong.0.is_empty() {
        Ok(texts)
    } else {
        Err(wrong.0)
    }
}

/// Checks latents that are to be decoded.
///
/// # Errors
/// All wrong fields, each with the reason.
pub(crate) fn decode(asked: DecodeRequest, model: &Model<'_>) -> Result<Decode, Wrong> {
    let mut wrong = Violations::default();
    super::request_id(&mut wrong, &asked.request_id);
    super::size(&mut wrong, "", (asked.width, asked.height), model);
    let count = asked.latents.len();
    wrong.expect((1..=MAX_SEEDS).contains(&count), "latents", || {
        format!("{count} latents, expected 1 to {MAX_SEEDS}")
    });
    super::check_chunks(&mut wrong, &asked.text_chunks);
    let format = super::format(&mut wrong, (asked.format, asked.quality));
    let fast = sampling::is_fast(&mut wrong, asked.determinism);
    if !wrong.0.is_empty() {
        return Err(wrong.0);
    }
    let shape = model.info.latents(asked.width as usize, asked.height as usize);
    let mut latents = Vec::with_capacity(count);
    for one in &asked.latents {
        let given = one.latents.clone().unwrap_or_default();
        latents.push(pictures::finished(&mut wrong, "latents", &given, shape));
    }
    if !wrong.0.is_empty() {
        return Err(wrong.0);
    }
    Ok(Decode {
        shape,
        pictures: asked.latents.iter().map(|latents| (latents.index, 0)).collect(),
        latents,
        format: if asked.as_pixels { Format::Pixels } else { format },
        text: super::texts(asked.text_chunks),
        fast,
    })
}

/// Checks a picture that is to be encoded.
///
/// # Errors
/// All wrong fields, each with the reason.
pub(crate) fn encode(asked: &EncodeRequest, model: &Model<'_>) -> Result<Picture, Wrong> {
    let mut wrong = Violations::default();
    super::request_id(&mut wrong, &asked.request_id);
    wrong.expect(model.info.encodes_images, "image", || {
        "this model was exported without vae_encoder, so it cannot start from a picture".into()
    });
    let image = asked.image.clone().unwrap_or_default();
    let size = (image.width, image.height);
    super::size(&mut wrong, "image.", size, model);
    pictures::sized(&mut wrong, "image", &image, size, 3);
    if let Some(mask) = &asked.mask {
        pictures::sized(&mut wrong, "mask", mask, size, 1);
    }
    if !wrong.0.is_empty() {
        return Err(wrong.0);
    }
    Ok(Picture {
        shape: model.info.latents(size.0 as usize, size.1 as usize),
        rgb: image.data,
        mask: asked.mask.as_ref().map(|mask| mask.data.clone()),
    })
}
