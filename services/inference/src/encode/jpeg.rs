//! RGB bytes to a baseline JPEG file.

use jpeg_encoder::{ColorType, Encoder};

use super::{Error, File, PARAMETERS, SOFTWARE, Text, XMP, check, exif, text};

/// Longest side.
const MOST: usize = 65_535;
/// Bytes of a segment's data.
const SEGMENT: usize = 65_533;
/// The segment of Exif and of XMP, and how the two begin.
const APP1: u8 = 1;
const EXIF_BEGIN: &[u8] = b"Exif\0\0";
const XMP_BEGIN: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

/// Writes it; what does not fit into a segment is left out and noted.
pub(super) fn encode(
    rgb: &[u8],
    width: usize,
    height: usize,
    quality: u8,
    texts: &[&Text],
) -> Result<File, Error> {
    check("JPEG", MOST, width, height)?;
    let mut bytes = Vec::with_capacity(rgb.len() / 8 + 1024);
    let mut encoder = Encoder::new(&mut bytes, quality);
    let mut notes = Vec::new();
    let (software, parameters) = (text(texts, SOFTWARE), text(texts, PARAMETERS));
    let fits = |block: &Vec<u8>| EXIF_BEGIN.len() + block.len() <= SEGMENT;
    let mut block = exif::block(software, parameters);
    if block.as_ref().is_some_and(|block| !fits(block)) {
        notes.push(
            "the parameters do not fit into a JPEG and are left out; PNG and WebP hold them".to_owned(),
        );
        block = exif::block(software, None);
    }
    if let Some(block) = block.filter(fits) {
        encoder.add_exif_metadata(&block)?;
    }
    if let Some(xmp) = text(texts, XMP) {
        let segment = [XMP_BEGIN, xmp.as_bytes()].concat();
        if segment.len() <= SEGMENT {
            encoder.add_app_segment(APP1, segment)?;
        } else {
            notes.push("the XMP does not fit into a JPEG and is left out".to_owned());
        }
    }
    encoder.encode(rgb, width as u16, height as u16, ColorType::Rgb)?;
    Ok(File { bytes, notes })
}
