//! The stages of a picture's way as models of their own, with the tensors that they hand over: prompts to tokens, tokens to
//! states, states to latents, latents to pictures, pictures to latents.
//!
//! `model.stage` is a stage's name. What they give one after the other is the picture that the whole pipeline draws, to the
//! bit. A prompt that changes on the way, or mixes texts, is the whole pipeline's alone, and refused here.

mod call;
mod denoise;
mod prompt;
mod run;
mod text;
mod tokenize;
mod vae;

use super::{
    datatype::Datatype::{Bool, Bytes as Text, Fp32, Int64, Uint8, Uint32, Uint64},
    spec::{IMAGE, MASK, PIXELS, SEED, Spec, names, needed, optional},
};

/// A stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Prompts to token windows.
    Tokenize,
    /// Token windows to states.
    TextEncoder,
    /// States to latents.
    Denoiser,
    /// Latents to pictures.
    VaeDecoder,
    /// Pictures to what latents are drawn from.
    VaeEncoder,
}

/// Between a model and one of its stages.
const SEPARATOR: char = '.';

impl Stage {
    /// All of them, in a picture's order.
    pub(crate) const ALL: [Self; 5] = [
        Self::Tokenize,
        Self::TextEncoder,
        Self::Denoiser,
        Self::VaeDecoder,
        Self::VaeEncoder,
    ];

    /// Its name behind the model's.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tokenize => "tokenize",
            Self::TextEncoder => "text_encoder",
            Self::Denoiser => "denoiser",
            Self::VaeDecoder => "vae_decoder",
            Self::VaeEncoder => "vae_encoder",
        }
    }

    /// Its name with the model's.
    pub(crate) fn of(self, model: &str) -> String {
        format!("{model}{SEPARATOR}{}", self.name())
    }

    /// Splits a name into a model's and a stage's.
    pub(crate) fn split(name: &str) -> Option<(&str, Self)> {
        let (model, stage) = name.rsplit_once(SEPARATOR)?;
        let stage = Self::ALL.into_iter().find(|known| known.name() == stage)?;
        (!model.is_empty()).then_some((model, stage))
    }

    /// The names of what it takes.
    pub(crate) fn names(self) -> &'static [&'static str] {
        const TOKENIZE_NAMES: &[&str] = &names::<{ TOKENIZE.0.len() }>(TOKENIZE.0);
        const TEXT_ENCODER_NAMES: &[&str] = &names::<{ TEXT_ENCODER.0.len() }>(TEXT_ENCODER.0);
        const DENOISER_NAMES: &[&str] = &names::<{ DENOISER.0.len() }>(DENOISER.0);
        const VAE_DECODER_NAMES: &[&str] = &names::<{ VAE_DECODER.0.len() }>(VAE_DECODER.0);
        const VAE_ENCODER_NAMES: &[&str] = &names::<{ VAE_ENCODER.0.len() }>(VAE_ENCODER.0);
        match self {
            Self::Tokenize => TOKENIZE_NAMES,
            Self::TextEncoder => TEXT_ENCODER_NAMES,
            Self::Denoiser => DENOISER_NAMES,
            Self::VaeDecoder => VAE_DECODER_NAMES,
            Self::VaeEncoder => VAE_ENCODER_NAMES,
        }
    }

    /// What it takes.
    pub(crate) fn inputs(self) -> &'static [Spec] {
        match self {
            Self::Tokenize => TOKENIZE.0,
            Self::TextEncoder => TEXT_ENCODER.0,
            Self::Denoiser => DENOISER.0,
            Self::VaeDecoder => VAE_DECODER.0,
            Self::VaeEncoder => VAE_ENCODER.0,
        }
    }

    /// What it gives.
    pub(crate) fn outputs(self) -> &'static [Spec] {
        match self {
            Self::Tokenize => TOKENIZE.1,
            Self::TextEncoder => TEXT_ENCODER.1,
            Self::Denoiser => DENOISER.1,
            Self::VaeDecoder => VAE_DECODER.1,
            Self::VaeEncoder => VAE_ENCODER.1,
        }
    }
}

/// A row of any length, and one value.
const ROW: &[i64] = &[-1];
const ONE: &[i64] = &[1];
/// Texts, windows, tokens; and windows, tokens.
const TEXTS: &[i64] = &[-1, -1, -1];
const WINDOWS: &[i64] = &[-1, -1];
/// Windows, tokens, width of states.
const STATES: &[i64] = &[-1, -1, -1];
/// Pictures, channels, rows, columns.
const LATENTS: &[i64] = &[-1, -1, -1, -1];

const TOKENIZE: (&[Spec], &[Spec]) = (
    &[needed("prompt", Text, ROW), optional("prompt_syntax", Text, ONE)],
    &[
        needed("input_ids", Int64, TEXTS),
        needed("weights", Fp32, TEXTS),
        needed("input_ids_2", Int64, TEXTS),
        needed("weights_2", Fp32, TEXTS),
        needed("empty_input_ids", Int64, WINDOWS),
        needed("empty_input_ids_2", Int64, WINDOWS),
        needed("is_empty", Bool, ROW),
        needed("truncated_count", Uint32, ROW),
    ],
);

const TEXT_ENCODER: (&[Spec], &[Spec]) = (
    &[
        needed("input_ids", Int64, WINDOWS),
        optional("input_ids_2", Int64, WINDOWS),
        optional("clip_skip", Uint32, ONE),
    ],
    &[
        needed("hidden_states", Fp32, STATES),
        needed("pooled", Fp32, WINDOWS),
    ],
);

const DENOISER: (&[Spec], &[Spec]) = (
    &[
        needed("input_ids", Int64, WINDOWS),
        needed("hidden_states", Fp32, STATES),
        optional("weights", Fp32, WINDOWS),
        optional("input_ids_2", Int64, WINDOWS),
        optional("weights_2", Fp32, WINDOWS),
        optional("pooled", Fp32, WINDOWS),
        optional("is_empty", Bool, ONE),
        optional("empty_input_ids", Int64, WINDOWS),
        optional("empty_input_ids_2", Int64, WINDOWS),
        optional("empty_hidden_states", Fp32, STATES),
        optional("empty_pooled", Fp32, WINDOWS),
        optional("negative_input_ids", Int64, WINDOWS),
        optional("negative_hidden_states", Fp32, STATES),
        optional("negative_weights", Fp32, WINDOWS),
        optional("negative_input_ids_2", Int64, WINDOWS),
        optional("negative_weights_2", Fp32, WINDOWS),
        optional("negative_pooled", Fp32, WINDOWS),
        optional("negative_is_empty", Bool, ONE),
        optional("negative_empty_input_ids", Int64, WINDOWS),
        optional("negative_empty_input_ids_2", Int64, WINDOWS),
        optional("negative_empty_hidden_states", Fp32, STATES),
        optional("negative_empty_pooled", Fp32, WINDOWS),
        optional("emphasis", Text, ONE),
        optional("prompt_syntax", Text, ONE),
        optional("clip_skip", Uint32, ONE),
        optional("seed", Uint64, ROW),
        optional("image_count", Uint32, ONE),
        optional("width", Uint32, ONE),
        optional("height", Uint32, ONE),
        optional("steps", Uint32, ONE),
        optional("guidance_scale", Fp32, ONE),
        optional("guidance_rescale", Fp32, ONE),
        optional("guidance_start", Fp32, ONE),
        optional("guidance_end", Fp32, ONE),
        optional("scheduler", Text, ONE),
        optional("sigma_schedule", Text, ONE),
        optional("eta", Fp32, ONE),
        optional("s_churn", Fp32, ONE),
        optional("s_tmin", Fp32, ONE),
        optional("s_tmax", Fp32, ONE),
        optional("s_noise", Fp32, ONE),
        optional("random_source", Text, ONE),
        optional("determinism", Text, ONE),
        optional("mean", Fp32, LATENTS),
        optional("deviation", Fp32, LATENTS),
        optional(MASK, Uint8, &[-1, -1]),
        optional("strength", Fp32, ONE),
    ],
    &[needed("latents", Fp32, LATENTS), needed(SEED, Uint64, ROW)],
);

const VAE_DECODER: (&[Spec], &[Spec]) = (
    &[
        needed("latents", Fp32, LATENTS),
        optional("width", Uint32, ONE),
        optional("height", Uint32, ONE),
        optional("format", Text, ONE),
        optional("quality", Uint32, ONE),
        optional("provenance", Text, ONE),
        optional("determinism", Text, ONE),
    ],
    &[needed(IMAGE, Text, ROW), needed(PIXELS, Uint8, &[-1, -1, -1, 3])],
);

const VAE_ENCODER: (&[Spec], &[Spec]) = (
    &[
        needed(PIXELS, Uint8, &[-1, -1, 3]),
        optional(MASK, Uint8, &[-1, -1]),
    ],
    &[needed("mean", Fp32, LATENTS), needed("deviation", Fp32, LATENTS)],
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_found_behind_its_models_name() {
        for stage in Stage::ALL {
            assert_eq!(Stage::split(&stage.of("a.b:v1.5")), Some(("a.b:v1.5", stage)));
        }
        for name in ["demo", "demo.unet", ".denoiser", "denoiser", "demo.denoiser."] {
            assert_eq!(Stage::split(name), None, "{name}");
        }
    }

    #[test]
    fn no_stage_has_a_name_twice() {
        for stage in Stage::ALL {
            for specs in [stage.inputs(), stage.outputs()] {
                let mut names: Vec<_> = specs.iter().map(|spec| spec.name).collect();
                names.sort_unstable();
                names.dedup();
                assert_eq!(names.len(), specs.len(), "{stage:?}");
            }
        }
    }
}
