//! Formats of picture files by OpenAI's words, and which of them are made here. Pure.

use mobula_proto::image::v1::ImageFormat;

/// All that OpenAI has.
pub(super) const WORDS: &[&str] = &["png", "jpeg", "webp", "gif", "svg"];
/// Those that are made here.
pub(super) const MADE: &[ImageFormat] = &[ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Webp];

/// OpenAI's word for a format, which is also the end of a file's name.
pub(super) fn word(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Unspecified | ImageFormat::Png => "png",
        ImageFormat::Jpeg => "jpeg",
        ImageFormat::Webp => "webp",
    }
}

/// The format of a word, where it is made here.
pub(super) fn read(given: &str) -> Option<ImageFormat> {
    MADE.iter().copied().find(|format| word(*format) == given)
}
