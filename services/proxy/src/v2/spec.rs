//! What models take and give: the table of a pipeline's tensors, and how tables are made. Pure.

use super::datatype::Datatype::{self, Bytes as Text, Fp32, Uint8, Uint32, Uint64};

/// What a model takes or gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    pub(crate) datatype: Datatype,
    /// Sides; -1 is any.
    pub(crate) shape: &'static [i64],
    pub(crate) is_optional: bool,
}

/// A row of any length.
const ROW: &[i64] = &[-1];
/// One value.
const ONE: &[i64] = &[1];

pub(crate) const fn needed(name: &'static str, datatype: Datatype, shape: &'static [i64]) -> Spec {
    Spec {
        name,
        datatype,
        shape,
        is_optional: false,
    }
}

pub(crate) const fn optional(name: &'static str, datatype: Datatype, shape: &'static [i64]) -> Spec {
    Spec {
        name,
        datatype,
        shape,
        is_optional: true,
    }
}

/// What the pipeline takes.
pub(crate) const INPUTS: &[Spec] = &[
    needed("prompt", Text, ROW),
    optional("negative_prompt", Text, ROW),
    optional("seed", Uint64, ROW),
    optional("image_count", Uint32, ONE),
    optional("width", Uint32, ONE),
    optional("height", Uint32, ONE),
    optional("steps", Uint32, ONE),
    optional("guidance_scale", Fp32, ONE),
    optional("scheduler", Text, ONE),
    optional("sigma_schedule", Text, ONE),
    optional("eta", Fp32, ONE),
    optional("s_churn", Fp32, ONE),
    optional("s_tmin", Fp32, ONE),
    optional("s_tmax", Fp32, ONE),
    optional("s_noise", Fp32, ONE),
    optional("prompt_syntax", Text, ONE),
    optional("clip_skip", Uint32, ONE),
    optional("guidance_rescale", Fp32, ONE),
    optional("guidance_start", Fp32, ONE),
    optional("guidance_end", Fp32, ONE),
    optional("init_image", Text, ROW),
    optional("strength", Fp32, ONE),
    optional("mask_image", Text, ROW),
    optional("mask_channel", Text, ONE),
    optional("random_source", Text, ONE),
    optional("determinism", Text, ONE),
    optional("format", Text, ONE),
    optional("quality", Uint32, ONE),
    optional("provenance", Text, ONE),
    optional("refiner", Text, ONE),
    optional("refiner_model_id", Text, ONE),
    optional("switch_at", Fp32, ONE),
];

/// What it gives; `pixels` only where they are asked for.
pub(crate) const OUTPUTS: &[Spec] = &[
    needed(IMAGE, Text, ROW),
    needed(SEED, Uint64, ROW),
    needed(PIXELS, Uint8, &[-1, -1, -1, 3]),
];

/// Picture files.
pub(crate) const IMAGE: &str = "image";
/// The seeds that draw them again.
pub(crate) const SEED: &str = "seed";
/// Pictures as red, green and blue.
pub(crate) const PIXELS: &str = "pixels";
/// Where a picture is drawn anew, at single stages.
pub(crate) const MASK: &str = "mask";
/// A picture on the way, of a stream that asks for them.
pub(crate) const PREVIEW: &str = "preview";

/// The names of tensors.
pub(crate) const fn names<const N: usize>(specs: &[Spec]) -> [&'static str; N] {
    let mut names = [""; N];
    let mut i = 0;
    while i < N {
        names[i] = specs[i].name;
        i += 1;
    }
    names
}
