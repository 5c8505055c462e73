//! A prompt as the text encoders see it: what holds for which steps, as windows of tokens with weights.
//!
//! It encodes nothing; [`super::compose`] makes conditions of it and of encoded windows.

use std::sync::Arc;

/// As many tokens as the encoders take at once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Window {
    /// `[encoders, window]`.
    pub(crate) ids: Arc<[u32]>,
    /// The same shape; none is 1 for all.
    pub(crate) weights: Option<Arc<[f32]>>,
}

/// One text of a mixture.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Variant {
    pub(crate) share: f32,
    pub(crate) windows: Vec<Window>,
}

/// What a prompt is for some steps.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stretch {
    /// The last step it holds for, counted from 1; none is to the end.
    pub(crate) until: Option<u32>,
    pub(crate) variants: Vec<Variant>,
}

/// What weights do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Emphasis {
    None,
    /// Multiplied, and the mean brought back (A1111).
    Mean,
    /// Away from the empty prompt's states (compel).
    Empty(Arc<[u32]>),
}

/// A prompt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Prompt {
    pub(crate) stretches: Vec<Stretch>,
    pub(crate) emphasis: Emphasis,
    pub(crate) is_empty: bool,
}

impl Prompt {
    /// Windows of every text in it; all have as many.
    pub(crate) fn windows(&self) -> usize {
        self.stretches
            .first()
            .and_then(|stretch| stretch.variants.first())
            .map_or(0, |variant| variant.windows.len())
    }

    /// The ids of every window that must be encoded.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &Arc<[u32]>> {
        let empty = match &self.emphasis {
            Emphasis::Empty(ids) => Some(ids),
            Emphasis::None | Emphasis::Mean => None,
        };
        let variants = self.stretches.iter().flat_map(|stretch| &stretch.variants);
        variants
            .flat_map(|variant| &variant.windows)
            .map(|window| &window.ids)
            .chain(empty)
    }
}
