//! The config.json files of a model's parts, checked: what they say, and what Stable Diffusion 1 has where they say nothing.
//!
//! It reads numbers and refuses what no network of the family has, by the part and the key.

use std::path::Path;

use serde::Deserialize;

use super::optional;
use crate::error::Error;

/// A text encoder as its configuration describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextPart {
    /// Its folder: `text_encoder` or `text_encoder_2`.
    pub part: &'static str,
    /// Token ids are below this; embeddings added by textual inversion not counted.
    pub vocabulary: u32,
    /// Token ids in one window.
    pub window: usize,
    /// Layers, when it says.
    pub layers: Option<usize>,
    /// Width of its states, when it says.
    pub width: Option<usize>,
    /// Width of its projection, which is that of the pooled text, when it says.
    pub projection: Option<usize>,
}

/// The VAE's numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Vae {
    /// Latents are the VAE's values times this.
    pub scaling: f32,
    /// What is taken from the VAE's values before.
    pub shift: f32,
    /// Mean and deviation of each channel, for VAEs whose latents are made even by them.
    pub statistics: Option<Vec<(f32, f32)>>,
    /// Latent channels.
    pub channels: usize,
    /// Pixels per latent position, in each direction, as its levels say; the decoder itself knows.
    pub scale: usize,
    /// Side of the tiles in which diffusers decodes and encodes large pictures, pixels.
    pub tile: usize,
    /// Whether it overflows in float16, so that Stable Diffusion XL computes it in float32.
    pub force_upcast: bool,
}

/// The UNet's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unet {
    pub(super) sample_size: (usize, usize),
    pub(super) levels: u32,
    pub(super) input_channels: Option<usize>,
    pub(super) time_ids: Option<usize>,
    pub(super) cross_attention: Option<usize>,
    pub(super) guidance: usize,
    pub(super) text_time: bool,
}

#[derive(Default, Deserialize)]
struct UnetConfig {
    in_channels: Option<usize>,
    sample_size: Option<SampleSize>,
    block_out_channels: Option<Vec<usize>>,
    addition_embed_type: Option<String>,
    addition_time_embed_dim: Option<usize>,
    projection_class_embeddings_input_dim: Option<usize>,
    class_embed_type: Option<String>,
    encoder_hid_dim_type: Option<String>,
    time_cond_proj_dim: Option<usize>,
    /// A number; models that have one for each resolution are left to their network's own words.
    cross_attention_dim: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SampleSize {
    Square(usize),
    Sides([usize; 2]),
}

#[derive(Default, Deserialize)]
struct VaeConfig {
    scaling_factor: Option<f32>,
    shift_factor: Option<f32>,
    latent_channels: Option<usize>,
    block_out_channels: Option<Vec<usize>>,
    latents_mean: Option<Vec<f32>>,
    latents_std: Option<Vec<f32>>,
    sample_size: Option<usize>,
    force_upcast: Option<bool>,
}

#[derive(Default, Deserialize)]
struct TextConfig {
    model_type: Option<String>,
    max_position_embeddings: Option<usize>,
    vocab_size: Option<u32>,
    num_hidden_layers: Option<usize>,
    projection_dim: Option<usize>,
    hidden_size: Option<usize>,
}

/// Positions in a window at most; CLIP has 77.
const MAX_WINDOW: usize = 1024;
/// Values of the embedded guidance scale at most; latent consistency models have 256.
const MAX_GUIDANCE_EMBEDDING: usize = 4096;

/// Reads a text encoder's configuration; also gives the width of its projection.
pub(super) fn text(folder: &Path, part: &'static str) -> Result<(TextPart, Option<usize>), Error> {
    let config: TextConfig = optional(folder, &format!("{part}/config.json"))?;
    if config
        .model_type
        .as_deref()
        .is_some_and(|kind| kind.contains("t5"))
    {
        return Err(refuse(part, "model_type is T5, which is not served"));
    }
    let window = config.max_position_embeddings.unwrap_or(77);
    if !(1..=MAX_WINDOW).contains(&window) {
        let why = format!("max_position_embeddings is {window}, expected 1 to {MAX_WINDOW}");
        return Err(refuse(part, &why));
    }
    let text = TextPart {
        part,
        vocabulary: config.vocab_size.unwrap_or(49_408),
        window,
        layers: config.num_hidden_layers,
        width: config.hidden_size,
        projection: config.projection_dim,
    };
    Ok((text, config.projection_dim))
}

/// Reads the VAE's configuration from the decoder's folder.
pub(super) fn vae(folder: &Path) -> Result<Vae, Error> {
    const PART: &str = "vae_decoder";
    let config: VaeConfig = optional(folder, "vae_decoder/config.json")?;
    let channels = config.latent_channels.unwrap_or(4);
    if channels != 4 {
        return Err(refuse(
            PART,
            &format!("latent_channels is {channels}, expected 4"),
        ));
    }
    let scaling = config.scaling_factor.unwrap_or(0.18215);
    if !(scaling.is_finite() && scaling > 0.0) {
        let why = format!("scaling_factor is {scaling}, expected a positive number");
        return Err(refuse(PART, &why));
    }
    let statistics = match (config.latents_mean, config.latents_std) {
        (Some(mean), Some(deviation)) => {
            let whole = mean.len() == channels && deviation.len() == channels;
            let good = mean.iter().all(|value| value.is_finite())
                && deviation.iter().all(|value| value.is_finite() && *value > 0.0);
            if !(whole && good) {
                return Err(refuse(
                    PART,
                    "latents_mean and latents_std are not one finite number per channel",
                ));
            }
            Some(mean.into_iter().zip(deviation).collect())
        }
        (None, None) => None,
        _ => return Err(refuse(PART, "latents_mean and latents_std do not come together")),
    };
    // Each level but the last halves the picture; `AutoencoderKL` of Stable Diffusion has four.
    let levels = config.block_out_channels.map_or(4, |channels| channels.len());
    if !(1..=8).contains(&levels) {
        return Err(refuse(PART, "block_out_channels does not have 1 to 8 entries"));
    }
    let tile = config.sample_size.unwrap_or(512);
    if !(16..=8192).contains(&tile) {
        return Err(refuse(
            PART,
            &format!("sample_size is {tile}, expected 16 to 8192"),
        ));
    }
    Ok(Vae {
        scaling,
        shift: config
            .shift_factor
            .filter(|shift| shift.is_finite())
            .unwrap_or(0.0),
        statistics,
        channels,
        scale: 1 << (levels - 1),
        tile,
        // `AutoencoderKL`'s default.
        force_upcast: config.force_upcast.unwrap_or(true),
    })
}

/// Reads the UNet's configuration; `pooled` is the width of the pooled text, where there is one.
pub(super) fn unet(folder: &Path, pooled: Option<usize>) -> Result<Unet, Error> {
    const PART: &str = "unet";
    let config: UnetConfig = optional(folder, "unet/config.json")?;
    match config.in_channels {
        None | Some(4 | 9) => {}
        Some(8) => {
            return Err(refuse(
                PART,
                "in_channels is 8: an InstructPix2Pix model, which is not served",
            ));
        }
        Some(other) => return Err(refuse(PART, &format!("in_channels is {other}, expected 4 or 9"))),
    }
    for (key, value) in [
        ("class_embed_type", &config.class_embed_type),
        ("encoder_hid_dim_type", &config.encoder_hid_dim_type),
    ] {
        if let Some(kind) = value {
            return Err(refuse(PART, &format!("{key} is {kind}, which is not served")));
        }
    }
    let text_time = match config.addition_embed_type.as_deref() {
        None => false,
        Some("text_time") => true,
        Some(kind) => {
            let why = format!("addition_embed_type is {kind}, which is not served");
            return Err(refuse(PART, &why));
        }
    };
    let sample_size = match config.sample_size {
        // 512 pixels of Stable Diffusion 1.
        None => (64, 64),
        Some(SampleSize::Square(side)) => (side, side),
        Some(SampleSize::Sides([height, width])) => (height, width),
    };
    if !(1..=1024).contains(&sample_size.0) || !(1..=1024).contains(&sample_size.1) {
        return Err(refuse(PART, "sample_size is not from 1 to 1024"));
    }
    let levels = config
        .block_out_channels
        .map_or(4, |channels| channels.len() as u32);
    if !(1..=8).contains(&levels) {
        return Err(refuse(PART, "block_out_channels does not have 1 to 8 entries"));
    }
    let guidance = config.time_cond_proj_dim.unwrap_or(0);
    if guidance > MAX_GUIDANCE_EMBEDDING {
        let why = format!("time_cond_proj_dim is {guidance}, expected at most {MAX_GUIDANCE_EMBEDDING}");
        return Err(refuse(PART, &why));
    }
    // As `_get_add_time_ids` of diffusers' pipelines: the projection takes the pooled text and so many embedded numbers.
    let time_ids = config
        .projection_class_embeddings_input_dim
        .zip(config.addition_time_embed_dim)
        .zip(pooled)
        .and_then(|((all, each), pooled)| all.checked_sub(pooled)?.checked_div(each));
    Ok(Unet {
        sample_size,
        levels,
        input_channels: config.in_channels,
        time_ids: time_ids.filter(|count| (1..=16).contains(count)),
        cross_attention: config
            .cross_attention_dim
            .and_then(|width| usize::try_from(width.as_u64()?).ok()),
        guidance,
        text_time,
    })
}

fn refuse(part: &'static str, why: &str) -> Error {
    Error::Model {
        part,
        why: format!("config.json: {why}"),
    }
}
