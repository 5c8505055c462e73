//! Files read back by decoders that are not of this folder. That Pillow and exiftool read them is checked end to end.

use super::*;

fn said(keyword: &str, text: &str) -> Text {
    Text {
        keyword: keyword.into(),
        text: text.into(),
        only: None,
    }
}

/// Smooth, as pictures are.
fn picture(width: usize, height: usize) -> Vec<u8> {
    let pixel = |at: usize| {
        let (x, y) = (at % width, at / width);
        [(x * 255 / width) as u8, (y * 255 / height) as u8, 90]
    };
    (0..width * height).flat_map(pixel).collect()
}

fn written(format: Format, texts: &[Text]) -> File {
    let texts: Vec<&Text> = texts.iter().collect();
    let rgb = picture(40, 24);
    let file = encode(format, &rgb, 40, 24, &texts).unwrap();
    let again = encode(format, &rgb, 40, 24, &texts).unwrap();
    assert_eq!(file.bytes, again.bytes);
    file
}

#[test]
fn a_webp_loses_nothing() {
    let file = written(
        Format::Webp,
        &[said(PARAMETERS, "a bear\nSteps: 3"), said(XMP, "<x/>")],
    );
    let mut decoder = image_webp::WebPDecoder::new(std::io::Cursor::new(file.bytes)).unwrap();
    assert_eq!((decoder.dimensions(), decoder.is_lossy()), ((40, 24), false));
    let mut pixels = vec![0; decoder.output_buffer_size().unwrap()];
    decoder.read_image(&mut pixels).unwrap();
    assert_eq!(pixels, picture(40, 24));
    assert_eq!(decoder.xmp_metadata().unwrap().unwrap(), b"<x/>");
    assert!(decoder.exif_metadata().unwrap().unwrap().starts_with(b"MM\0\x2a"));
}

#[test]
fn a_comment_is_found_where_exif_points() {
    let block = exif::block(Some("Mobula 1"), Some("ein Bär 🐻")).unwrap();
    let short = |at: usize| usize::from(u16::from_be_bytes([block[at], block[at + 1]]));
    let long = |at: usize| short(at) << 16 | short(at + 2);
    let main = long(4);
    assert_eq!(short(main), 2);
    let software = main + 2;
    assert_eq!((short(software), long(software + 4)), (0x0131, 9));
    assert_eq!(&block[long(software + 8)..][..9], b"Mobula 1\0");
    let pointer = software + 12;
    assert_eq!(short(pointer), 0x8769);
    let own = long(pointer + 8);
    assert_eq!((short(own), short(own + 2)), (1, 0x9286));
    let comment = &block[long(own + 10)..][..long(own + 6)];
    let (begin, units) = comment.split_at(8);
    assert_eq!(begin, b"UNICODE\0");
    let units: Vec<u16> = units
        .chunks(2)
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
        .collect();
    assert_eq!(String::from_utf16(&units).unwrap(), "ein Bär 🐻");
    assert_eq!(exif::block(None, None), None);
}

#[test]
fn what_does_not_fit_a_jpeg_is_left_out_and_noted() {
    let short = written(Format::Jpeg(95), &[said(PARAMETERS, "a bear"), said(XMP, "<x/>")]);
    assert!(short.notes.is_empty());
    let holds = |file: &File, part: &[u8]| file.bytes.windows(part.len()).any(|window| window == part);
    assert!(holds(&short, b"UNICODE\0\0a\0 \0b") && holds(&short, b"xap/1.0/\0<x/>"));
    let long = written(
        Format::Jpeg(95),
        &[
            said(SOFTWARE, "Mobula"),
            said(PARAMETERS, &"bear ".repeat(7000)),
            said(XMP, &" ".repeat(65_533)),
        ],
    );
    assert_eq!(long.notes.len(), 2);
    assert!(holds(&long, b"Mobula\0") && !holds(&long, b"UNICODE"));
}

#[test]
fn a_better_jpeg_is_larger() {
    let size = |quality| written(Format::Jpeg(quality), &[]).bytes.len();
    assert!(size(20) < size(80) && size(80) < size(100));
}

#[test]
fn what_a_format_cannot_hold_is_refused() {
    for (format, width) in [(Format::Webp, 16_385), (Format::Jpeg(90), 65_536)] {
        let error = encode(format, &vec![0; width * 3], width, 1, &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&width.to_string()) && error.contains("PNG"),
            "{error}"
        );
    }
}
