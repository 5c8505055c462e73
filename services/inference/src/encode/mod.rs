//! RGB bytes to a picture file with what is said about it: PNG, JPEG or WebP.
//!
//! Invariant: the same pixels, texts, format and quality give the same file.

mod exif;
mod jpeg;
mod png;
mod webp;

pub(crate) use png::is_keyword;

/// The texts that have a place of their own in Exif and XMP; the others are a PNG's alone.
const PARAMETERS: &str = "parameters";
const SOFTWARE: &str = "Software";
/// The keyword under which a PNG holds XMP (XMP specification, part 3).
const XMP: &str = "XML:com.adobe.xmp";

/// Quality of a JPEG when a request gives none: what is lost is not seen.
pub(crate) const QUALITY: u8 = 95;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// 8-bit RGB PNG.
    Png,
    /// Baseline JPEG of this quality, 1 to 100.
    Jpeg(u8),
    /// Lossless WebP.
    Webp,
    /// No file: the pixels as they are, `[height, width, 3]` bytes.
    Pixels,
}

/// One text about a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text {
    /// 1 to 79 characters of Latin-1.
    pub(crate) keyword: String,
    /// Anything.
    pub(crate) text: String,
    /// The picture that it belongs to, counted from 0 as in the request; none is all.
    pub(crate) only: Option<u32>,
}

/// Why a picture has no file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The PNG encoder's reason.
    #[error(transparent)]
    Png(#[from] ::png::EncodingError),
    /// The JPEG encoder's reason.
    #[error(transparent)]
    Jpeg(#[from] jpeg_encoder::EncodingError),
    /// The WebP encoder's reason.
    #[error(transparent)]
    Webp(#[from] image_webp::EncodingError),
    /// A side that the format cannot have.
    #[error("{format} has sides of 1 to {most} pixels, the picture is {width}x{height}; ask for PNG")]
    TooLarge {
        /// The format.
        format: &'static str,
        /// Its longest side.
        most: usize,
        /// The picture's.
        width: usize,
        /// The picture's.
        height: usize,
    },
}

impl From<Error> for crate::Error {
    fn from(error: Error) -> Self {
        Self::Encode(error.to_string())
    }
}

/// A file, and what is missing in it.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) bytes: Vec<u8>,
    /// What the format had no room for, in words.
    pub(crate) notes: Vec<String>,
}

/// The texts of one picture.
pub(crate) fn texts_of(texts: &[Text], index: u32) -> Vec<&Text> {
    texts
        .iter()
        .filter(|text| text.only.is_none_or(|only| only == index))
        .collect()
}

/// Writes `[height, width, 3]` bytes with their texts.
pub(crate) fn encode(
    format: Format,
    rgb: &[u8],
    width: usize,
    height: usize,
    texts: &[&Text],
) -> Result<File, Error> {
    match format {
        Format::Png => Ok(File {
            bytes: png::encode(rgb, width, height, texts)?,
            notes: Vec::new(),
        }),
        Format::Jpeg(quality) => jpeg::encode(rgb, width, height, quality, texts),
        Format::Webp => webp::encode(rgb, width, height, texts),
        Format::Pixels => Ok(File {
            bytes: rgb.to_vec(),
            notes: Vec::new(),
        }),
    }
}

/// A small picture without a word about it.
pub(crate) fn preview(rgb: &[u8], width: usize, height: usize) -> Result<Vec<u8>, Error> {
    Ok(png::encode(rgb, width, height, &[])?)
}

/// The text under a keyword.
fn text<'a>(texts: &[&'a Text], keyword: &str) -> Option<&'a str> {
    let found = texts.iter().find(|text| text.keyword == keyword);
    found.map(|text| text.text.as_str())
}

/// Refuses a picture that a format cannot hold.
fn check(format: &'static str, most: usize, width: usize, height: usize) -> Result<(), Error> {
    if [width, height].iter().all(|side| (1..=most).contains(side)) {
        return Ok(());
    }
    Err(Error::TooLarge {
        format,
        most,
        width,
        height,
    })
}

#[cfg(test)]
mod tests;
