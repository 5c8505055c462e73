//! Picture files against Pillow and diffusers: the golden values of tools/reference/images.py, and hostile files.

use mobula_preprocess::image::{Ask, Kind, Limits, Refused, prepare};
use serde::Deserialize;

use crate::support::{self, Span};

type Files = support::Files<Case>;

#[derive(Deserialize)]
struct Case {
    name: String,
    /// Where in images.bin, and how long.
    file: Span,
    results: Vec<Wanted>,
}

#[derive(Deserialize)]
struct Wanted {
    size: (u32, u32),
    kind: String,
    pixels: Span,
}

impl support::Case for Case {
    fn name(&self) -> &str {
        &self.name
    }
    fn file(&self) -> Span {
        self.file
    }
}

fn ask(data: &[u8], width: u32, height: u32) -> Ask<'_> {
    Ask {
        data,
        width,
        height,
        kind: Kind::Picture,
        limits: Limits::default(),
    }
}

/// How far pixels are from Pillow's, over some files.
#[derive(Default)]
struct Off {
    largest: u8,
    name: String,
    compared: usize,
}

/// Compares the files of which `is_meant` says so, in their own size or in others.
fn compare(files: &Files, own_size: bool, is_meant: impl Fn(&str) -> bool) -> Off {
    let mut all = Off::default();
    for case in files.cases.iter().filter(|case| is_meant(&case.name)) {
        let own = case.results[0].size;
        for wanted in case
            .results
            .iter()
            .filter(|wanted| (wanted.size == own) == own_size)
        {
            let kind = if wanted.kind == "mask" {
                Kind::Mask
            } else {
                Kind::Picture
            };
            let (width, height) = wanted.size;
            let asked = Ask {
                kind,
                ..ask(files.part(case.file), width, height)
            };
            let seen = prepare(asked).unwrap();
            let pixels = files.part(wanted.pixels);
            assert_eq!(
                (seen.width, seen.height, seen.data.len()),
                (width, height, pixels.len()),
                "{}",
                case.name
            );
            all.compared += 1;
            for (one, other) in seen.data.iter().zip(pixels) {
                let off = one.abs_diff(*other);
                if off > all.largest {
                    all.largest = off;
                    all.name = format!("{} {width}x{height} {}", case.name, wanted.kind);
                }
            }
        }
    }
    all
}

/// Asserts that files with this ending, more than so many, are Pillow's to the bit in their own size and in others.
fn are_pillows(ending: &str, more_than: usize) {
    let files = Files::read("images");
    for own_size in [true, false] {
        let off = compare(&files, own_size, |name| name.ends_with(ending));
        assert!(
            off.largest == 0 && off.compared > more_than,
            "{} is {} off",
            off.name,
            off.largest
        );
    }
}

#[test]
fn png_files_are_pillows_to_the_bit_in_every_size() {
    are_pillows(".png", 10);
}

#[test]
fn jpeg_files_are_pillows_to_the_bit_in_every_size() {
    are_pillows(".jpg", 10);
}

#[test]
fn webp_files_are_pillows_to_the_bit_in_every_size() {
    are_pillows(".webp", 4);
}

#[test]
fn no_size_keeps_the_files_own() {
    let files = Files::read("images");
    let seen = prepare(ask(&files.file("turned.png"), 0, 0)).unwrap();
    assert_eq!((seen.width, seen.height), (31, 45));
}

fn refused(data: &[u8], width: u32, height: u32) -> Refused {
    prepare(ask(data, width, height)).unwrap_err()
}

/// A PNG chunk.
fn chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut crc = u32::MAX;
    for byte in name.iter().chain(data) {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 };
        }
    }
    let length = (data.len() as u32).to_be_bytes();
    [&length, &name[..], data, &(!crc).to_be_bytes()].concat()
}

/// A PNG that says to have this size, with no pixels in it.
fn png(width: u32, height: u32, bits: u8, colour: u8) -> Vec<u8> {
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    header.extend([bits, colour, 0, 0, 0]);
    let parts = [
        b"\x89PNG\r\n\x1a\n".to_vec(),
        chunk(b"IHDR", &header),
        chunk(b"IDAT", &[]),
        chunk(b"IEND", &[]),
    ];
    parts.concat()
}

/// A JPEG file with another size written in its frame header.
fn resized_jpeg(mut data: Vec<u8>, width: u16, height: u16) -> Vec<u8> {
    let at = data
        .windows(2)
        .position(|marker| matches!(marker, [0xff, 0xc0 | 0xc2]))
        .unwrap();
    data[at + 5..at + 7].copy_from_slice(&height.to_be_bytes());
    data[at + 7..at + 9].copy_from_slice(&width.to_be_bytes());
    data
}

#[test]
fn absurd_sizes_are_refused_by_the_header() {
    let files = Files::read("images");
    let jpeg = |width, height| resized_jpeg(files.file("full.jpg"), width, height);
    // A lossless WebP header with the largest size that it can name.
    let webp = [
        &b"RIFF\x1e\0\0\0WEBPVP8L\x12\0\0\0\x2f\xfe\xbf\xff\x0f"[..],
        &[0; 13],
    ]
    .concat();
    for (data, part) in [
        (png(100_000, 100_000, 8, 2), "100000 x 100000"),
        (png(u32::MAX, 1, 8, 2), "4294967295 x 1"),
        (png(16_000, 16_000, 8, 2), "more than 33554432 pixels"),
        (png(5_700, 5_700, 16, 6), "259920000 bytes decoded"),
        (jpeg(65_535, 65_535), "65535 x 65535"),
        (jpeg(16_000, 16_000), "more than 33554432 pixels"),
        (webp, "16383 x 16383"),
    ] {
        let refused = refused(&data, 64, 64);
        assert!(refused.field == "data" && refused.why.contains(part), "{refused}");
    }
}

#[test]
fn broken_files_are_errors() {
    let files = Files::read("images");
    let mut half = files.file("rgb.png");
    half.truncate(half.len() / 2);
    for (data, part) in [
        (Vec::new(), "no PNG, JPEG or WebP"),
        (b"GIF89a".to_vec(), "no PNG, JPEG or WebP"),
        (b"\x89PNG".to_vec(), "cannot be decoded"),
        (vec![0xff, 0xd8, 0xff], "cannot be decoded"),
        (b"RIFF\0\0\0\0WEBP".to_vec(), "cannot be decoded"),
        (half, "cannot be decoded"),
        (png(0, 5, 8, 2), "cannot be decoded"),
        (png(4, 4, 8, 2), "cannot be decoded"),
        (png(4, 4, 7, 2), "cannot be decoded"),
        (vec![0xff; (16 << 20) + 1], "16777217 bytes long"),
    ] {
        let refused = refused(&data, 64, 64);
        assert!(refused.field == "data" && refused.why.contains(part), "{refused}");
    }
}

#[test]
fn a_chunk_that_unpacks_to_more_than_memory_is_no_trouble() {
    // A row of zeros packs well: 4 MiB of compressed text would be 4 GiB. The decoder has no use for it and leaves it.
    let files = Files::read("images");
    let good = files.file("rgb.png");
    let zeros = chunk(b"zTXt", &[&b"Comment\0\0"[..], &vec![0; 4 << 20]].concat());
    let data = [&good[..33], &zeros, &good[33..]].concat();
    let seen = prepare(ask(&data, 0, 0));
    assert!(seen.is_ok() || seen.unwrap_err().why.contains("cannot be decoded"));
}

#[test]
fn sizes_that_are_asked_for_are_bounded_too() {
    let files = Files::read("images");
    let data = files.file("rgb.png");
    for (width, height, field, part) in [
        (0, 64, "width", "is 0"),
        (64, 0, "height", "is 0"),
        (16_385, 8, "width", "16385, more than 16384"),
        (8_000, 8_000, "width", "more than 10485760 pixels"),
    ] {
        let refused = refused(&data, width, height);
        assert!(refused.field == field && refused.why.contains(part), "{refused}");
    }
}

mod properties {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    static FILES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
        let files = Files::read("images");
        files
            .cases
            .iter()
            .map(|case| files.part(case.file).to_vec())
            .collect()
    });

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn damaged_files_are_pixels_of_the_right_size_or_errors(
            which in any::<prop::sample::Index>(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            end in any::<prop::sample::Index>(),
            cuts in any::<bool>(),
        ) {
            let mut data = which.get(&FILES).clone();
            for (at, byte) in damage {
                let at = at.index(data.len());
                data[at] = byte;
            }
            if cuts {
                data.truncate(end.index(data.len()));
            }
            if let Ok(raster) = prepare(ask(&data, 24, 16)) {
                prop_assert_eq!(raster.data.len(), 24 * 16 * 3);
            }
        }
    }
}
