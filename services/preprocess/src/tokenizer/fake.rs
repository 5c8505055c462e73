//! A tokenizer without a model, for demonstrations and load tests of the mesh with the fake engine.
//!
//! A performance model: it has CLIP's window and special ids and touches every word, but an id is only a hash of its word
//! and means nothing to any text encoder. Refuses nothing.

use super::window::Frame;

/// CLIP's start and end token; words get the ids below.
const BOS: u32 = 49_406;
const EOS: u32 = 49_407;

/// How its ids become a window: as Stable Diffusion 1.
pub(super) const FRAME: Frame = Frame {
    window: 77,
    bos: BOS,
    eos: EOS,
    pad: EOS,
    pads_left: false,
    truncates_left: false,
};

/// One id per word.
pub(super) fn encode(text: &str) -> Vec<u32> {
    text.split_whitespace().map(|word| hash(word) % BOS).collect()
}

/// The words behind those whose ids fit.
pub(super) fn cut_off(text: &str) -> String {
    text.split_whitespace()
        .skip(FRAME.window - 2)
        .collect::<Vec<_>>()
        .join(" ")
}

/// FNV-1a, 32 bits: the same id for a word in every process.
fn hash(word: &str) -> u32 {
    word.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}
