//! The words by which queries, headers and tensors name fields of a request, and values of enums.

use mobula_proto::{
    common::v1::{Determinism, Priority, RandomSource},
    image::v1::{ImageFormat, MaskChannel, PromptSyntax, Provenance},
};

/// `prompt_syntax`.
pub(crate) const SYNTAXES: &[(&str, i32)] = &[
    ("plain", PromptSyntax::Plain as i32),
    ("a1111", PromptSyntax::A1111 as i32),
    ("compel", PromptSyntax::Compel as i32),
];
/// `random_source`.
pub(crate) const SOURCES: &[(&str, i32)] = &[
    ("cpu", RandomSource::Cpu as i32),
    ("cuda", RandomSource::Cuda as i32),
];
/// `priority`.
pub(crate) const PRIORITIES: &[(&str, i32)] = &[
    ("low", Priority::Low as i32),
    ("normal", Priority::Normal as i32),
    ("high", Priority::High as i32),
];
/// `determinism`.
pub(crate) const DETERMINISMS: &[(&str, i32)] = &[
    ("strict", Determinism::Strict as i32),
    ("fast", Determinism::Fast as i32),
];
/// `format`.
pub(crate) const FORMATS: &[(&str, i32)] = &[
    ("png", ImageFormat::Png as i32),
    ("jpeg", ImageFormat::Jpeg as i32),
    ("webp", ImageFormat::Webp as i32),
];
/// `provenance`.
pub(crate) const PROVENANCES: &[(&str, i32)] = &[
    ("full", Provenance::Full as i32),
    ("marker", Provenance::Marker as i32),
    ("none", Provenance::None as i32),
];

/// `mask_channel`.
pub(crate) const MASK_CHANNELS: &[(&str, i32)] = &[
    ("luminance", MaskChannel::Luminance as i32),
    ("transparency", MaskChannel::Transparency as i32),
];

/// The name under which queries and tensors have a field of a request: without the message that it stands in.
pub(crate) fn flat(field: &str) -> &str {
    match field {
        "seeds" => "seed",
        "guidance_interval.start" => "guidance_start",
        "guidance_interval.end" => "guidance_end",
        "refiner.model" => "refiner",
        "refiner.model_id" => "refiner_model_id",
        other => other
            .strip_prefix("sampler_options.")
            .or_else(|| other.strip_prefix("refiner."))
            .unwrap_or(other),
    }
}

/// The value of a word, whatever its case.
pub(crate) fn read(given: &str, words: &[(&str, i32)]) -> Option<i32> {
    let found = words.iter().find(|(word, _)| given.eq_ignore_ascii_case(word));
    found.map(|(_, value)| *value)
}
