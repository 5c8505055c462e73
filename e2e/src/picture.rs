//! What is in a PNG file.

use anyhow::Context;
use std::collections::BTreeMap;
use std::io::Cursor;

/// A decoded picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Png {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// 8-bit RGB, row by row.
    pub rgb: Vec<u8>,
    /// Text chunks by keyword.
    pub texts: BTreeMap<String, String>,
}

/// Decodes an 8-bit RGB PNG and its text chunks.
///
/// # Errors
/// When it is something else.
pub fn decode(file: &[u8]) -> anyhow::Result<Png> {
    let mut reader = png::Decoder::new(Cursor::new(file))
        .read_info()
        .context("no PNG")?;
    let size = reader.output_buffer_size().context("a PNG too large")?;
    let mut rgb = vec![0; size];
    let frame = reader.next_frame(&mut rgb)?;
    anyhow::ensure!(
        (frame.color_type, frame.bit_depth) == (png::ColorType::Rgb, png::BitDepth::Eight),
        "not 8-bit RGB but {:?} {:?}",
        frame.color_type,
        frame.bit_depth
    );
    rgb.truncate(frame.buffer_size());
    // Text may stand behind the pixels.
    reader.finish()?;
    let info = reader.info();
    let mut texts = BTreeMap::new();
    for chunk in &info.uncompressed_latin1_text {
        texts.insert(chunk.keyword.clone(), chunk.text.clone());
    }
    for chunk in &info.compressed_latin1_text {
        texts.insert(chunk.keyword.clone(), chunk.get_text()?);
    }
    for chunk in &info.utf8_text {
        texts.insert(chunk.keyword.clone(), chunk.get_text()?);
    }
    Ok(Png {
        width: frame.width,
        height: frame.height,
        rgb,
        texts,
    })
}
