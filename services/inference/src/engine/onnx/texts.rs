//! What a model's text encoders are to its other networks: as they are, or where they are loaded elsewhere, as they are configured.

use super::super::{Encoder as Described, Error};
use super::text::{Added, TextEncoders};
use crate::model::Model;

/// Layers of CLIP's text encoder, where a configuration does not say.
const USUAL_LAYERS: usize = 12;

/// What the text encoders are, whether they are loaded or not.
#[derive(Default)]
pub(super) struct Texts {
    pub(super) window: usize,
    pub(super) encoders: Vec<Described>,
    pub(super) pooled: usize,
}

impl Texts {
    /// As they are.
    pub(super) fn of(text: &TextEncoders) -> Self {
        Self {
            window: text.window(),
            encoders: text.describe(),
            pooled: text.pooled(),
        }
    }

    /// As their configurations say, for who takes their states without having them.
    pub(super) fn configured(model: &Model, added: &[Added]) -> Result<Self, Error> {
        let lacks = |part: &'static str, key: &str| Error::Model {
            part,
            why: format!(
                "config.json says no {key}, without which the denoiser of a split application does not know its states"
            ),
        };
        let mut encoders = Vec::with_capacity(model.encoders.len());
        for (index, text) in model.encoders.iter().enumerate() {
            let alone = model.cross_attention.filter(|_| model.encoders.len() == 1);
            let vectors = added
                .get(index)
                .map_or(0, |added| added.values.len() / added.width.max(1));
            encoders.push(Described {
                vocabulary: text.vocabulary.saturating_add(vectors as u32),
                width: text
                    .width
                    .or(alone)
                    .ok_or_else(|| lacks(text.part, "hidden_size"))?,
                // Stable Diffusion XL counts from the penultimate layer.
                layers: text
                    .layers
                    .unwrap_or(USUAL_LAYERS)
                    .saturating_sub(usize::from(model.is_xl)),
            });
        }
        let last = model.encoders.last();
        let pooled = match last {
            Some(last) if model.is_xl => last
                .projection
                .ok_or_else(|| lacks(last.part, "projection_dim"))?,
            Some(_) | None => 0,
        };
        Ok(Self {
            window: model.window(),
            encoders,
            pooled,
        })
    }
}
