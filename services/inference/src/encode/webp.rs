//! RGB bytes to a lossless WebP file.

use image_webp::{ColorType, WebPEncoder};

use super::{Error, File, PARAMETERS, SOFTWARE, Text, XMP, check, exif, text};

/// Longest side.
const MOST: usize = 16_384;

/// Writes it.
pub(super) fn encode(rgb: &[u8], width: usize, height: usize, texts: &[&Text]) -> Result<File, Error> {
    check("WebP", MOST, width, height)?;
    let mut bytes = Vec::with_capacity(rgb.len() / 2 + 1024);
    let mut encoder = WebPEncoder::new(&mut bytes);
    if let Some(block) = exif::block(text(texts, SOFTWARE), text(texts, PARAMETERS)) {
        encoder.set_exif_metadata(block);
    }
    if let Some(xmp) = text(texts, XMP) {
        encoder.set_xmp_metadata(xmp.as_bytes().to_vec());
    }
    encoder.encode(rgb, width as u32, height as u32, ColorType::Rgb8)?;
    Ok(File {
        bytes,
        notes: Vec::new(),
    })
}
