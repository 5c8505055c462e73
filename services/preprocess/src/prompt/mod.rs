//! What people write into prompts, and how it becomes windows of tokens.
//!
//! Three syntaxes: plain text as diffusers takes it, AUTOMATIC1111's, and compel's. [`attention`], [`schedule`] and
//! [`compel`] read a text and know no tokenizer; `chunk` and `window` make windows of what they read. Nothing here does
//! input or output. Refuses texts beyond [`Limits`] and what is not served, each by its name. Invariant: all windows of one
//! call have their tokenizer's length, all texts, spans and variants as many windows, and all weights are finite.

pub mod attention;
mod chunk;
pub mod compel;
pub mod schedule;
mod script;
mod window;

pub use self::{
    script::{Part, Script, Version},
    window::tokenize,
};

/// How texts are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Syntax {
    /// Every character is itself; one window.
    #[default]
    Plain,
    /// AUTOMATIC1111's.
    A1111,
    /// compel's.
    Compel,
}

/// What a text may have.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Windows of one text: 16 are 1,200 tokens of CLIP.
    pub windows: usize,
    /// Windows of all spans and variants of all texts of a call: what is sent stays below 4 MB, also with two encoders.
    pub total: usize,
    /// Denoising steps, and therefore spans.
    pub steps: u32,
    /// Bytes of the texts of all spans of a text: 1,000 steps of a long prompt.
    pub bytes: usize,
    /// Texts in a mixture: one, and one more for every part that compel weakens.
    pub variants: usize,
    /// Brackets within brackets.
    pub depth: usize,
    /// The largest weight, with either sign; pictures are noise long before.
    pub weight: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            windows: 16,
            total: 2048,
            steps: 1000,
            bytes: 4 << 20,
            variants: 16,
            depth: 32,
            weight: 1000.0,
        }
    }
}

/// Texts that belong to one request.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// What people wrote.
    pub texts: &'a [String],
    /// How.
    pub syntax: Syntax,
    /// Denoising steps; 0 counts as 1.
    pub steps: u32,
    /// What they may have.
    pub limits: Limits,
}

/// Why a text is not served, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

impl Refused {
    /// A bracket is nested deeper than the limit; reading ends with the first one.
    fn depth(limits: &Limits) -> Self {
        Self(format!(
            "has a bracket nested {} deep, more than {}",
            limits.depth + 1,
            limits.depth
        ))
    }

    /// A weight that is not served; the number as it was written.
    fn weight(written: &str, limits: &Limits) -> Self {
        let written: String = written.chars().take(40).collect();
        Self(format!(
            "has the weight {written}, which is no number from -{} to {}",
            limits.weight, limits.weight
        ))
    }
}
