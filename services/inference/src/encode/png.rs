//! RGB bytes to a PNG file.
//!
//! The same pixels and texts give the same file. It compresses fast rather than well: a picture is written once, on a machine
//! whose cores have other work.

use png::text_metadata::{ITXtChunk, TEXtChunk};
use png::{BitDepth, ColorType, Compression, Encoder};

use super::{Text, XMP};

/// Longest keyword that PNG allows.
const MAX_KEYWORD: usize = 79;

/// Whether PNG takes this keyword: 1 to 79 printable Latin-1 characters, no space at the ends and no two in a row.
pub(crate) fn is_keyword(keyword: &str) -> bool {
    let printable = |c: char| matches!(c, ' '..='~' | '\u{A1}'..='\u{FF}');
    (1..=MAX_KEYWORD).contains(&keyword.chars().count())
        && keyword.chars().all(printable)
        && keyword.trim() == keyword
        && !keyword.contains("  ")
}

/// Writes `[height, width, 3]` bytes as a PNG with text chunks before the picture, in their order.
pub(super) fn encode(
    rgb: &[u8],
    width: usize,
    height: usize,
    texts: &[&Text],
) -> Result<Vec<u8>, png::EncodingError> {
    let mut file = Vec::with_capacity(rgb.len() / 2 + 1024);
    let mut encoder = Encoder::new(&mut file, width as u32, height as u32);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Fast);
    let mut writer = encoder.write_header()?;
    for Text { keyword, text, .. } in texts {
        // NUL ends a text in the file, so one inside would cut it off.
        let text = text.replace('\0', "");
        // XMP is always in an iTXt chunk.
        if keyword != XMP
            && text
                .chars()
                .all(|c| matches!(c, '\n' | ' '..='~' | '\u{A1}'..='\u{FF}'))
        {
            writer.write_text_chunk(&TEXtChunk::new(keyword, text))?;
        } else {
            writer.write_text_chunk(&ITXtChunk::new(keyword, text))?;
        }
    }
    writer.write_image_data(rgb)?;
    writer.finish()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::super::texts_of;
    use super::*;

    fn text(keyword: &str, text: &str) -> Text {
        Text {
            keyword: keyword.into(),
            text: text.into(),
            only: None,
        }
    }

    #[test]
    fn pixels_and_texts_come_back() {
        let rgb: Vec<u8> = (0..3 * 6).map(|i| i * 14).collect();
        let texts = [
            text("prompt", "ein Bär"),
            text("original", "\u{1F40B} 鯨\0!"),
            text("seed", "7"),
        ];
        let other = Text {
            only: Some(1),
            ..text("seed", "8")
        };
        let texts: Vec<Text> = texts.into_iter().chain([other]).collect();
        let file = encode(&rgb, 3, 2, &texts_of(&texts, 0)).unwrap();
        assert_eq!(file, encode(&rgb, 3, 2, &texts_of(&texts, 0)).unwrap());
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels, rgb);
        let info = reader.info();
        let latin: Vec<_> = info
            .uncompressed_latin1_text
            .iter()
            .map(|t| (t.keyword.as_str(), t.text.as_str()))
            .collect();
        assert_eq!(latin, [("prompt", "ein Bär"), ("seed", "7")]);
        assert_eq!(info.utf8_text[0].get_text().unwrap(), "\u{1F40B} 鯨!");
    }

    #[test]
    fn keywords_are_those_of_png() {
        assert!(is_keyword("Software") && is_keyword("a b") && is_keyword("\u{E9}"));
        for wrong in ["", " a", "a ", "a  b", "\u{4E00}", "a\nb", &"x".repeat(80)] {
            assert!(!is_keyword(wrong), "{wrong:?}");
        }
    }
}
