//! JPEG files against Pillow, which has libjpeg-turbo: the golden values of tools/reference/jpegs.py, byte for byte.

use mobula_preprocess::image::{Limits, Raster, Refused, decode};
use serde::Deserialize;

use crate::support::{self, Span};

type Files = support::Files<Case>;

#[derive(Deserialize)]
struct Case {
    name: String,
    size: (u32, u32),
    /// Where in jpegs.bin, and how long.
    file: Span,
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

fn decoded(data: &[u8]) -> Result<Raster, Refused> {
    decode(data, &Limits::default())
}

/// Where the first marker is.
fn place(data: &[u8], marker: u8) -> usize {
    data.windows(2).position(|pair| pair == [0xff, marker]).unwrap()
}

#[test]
fn every_file_is_pillows_to_the_bit() {
    let files = Files::read("jpegs");
    assert!(files.cases.len() > 150);
    let mut wrong = Vec::new();
    for case in &files.cases {
        match decoded(files.part(case.file)) {
            Err(refused) => wrong.push(format!("{}: {refused}", case.name)),
            Ok(seen) => {
                assert_eq!((seen.width, seen.height), case.size, "{}", case.name);
                let wanted = files.part(case.pixels);
                assert_eq!(seen.data.len(), wanted.len(), "{}", case.name);
                let off = seen
                    .data
                    .iter()
                    .zip(wanted)
                    .map(|(one, other)| one.abs_diff(*other));
                let (count, largest) = off.fold((0, 0), |(count, largest), off| {
                    (count + u32::from(off > 0), largest.max(off))
                });
                if count > 0 {
                    wrong.push(format!("{}: {count} values are up to {largest} off", case.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_refused() {
    let files = Files::read("jpegs");
    // Small ones, because every length of each is tried.
    for case in files
        .cases
        .iter()
        .filter(|case| case.file.1 < 900 && case.pixels.1 < 2_500)
    {
        let data = files.part(case.file);
        // Two bytes are too few to be any file's.
        for length in 3..data.len() {
            let refused = decoded(&data[..length]).err().unwrap();
            assert!(
                refused.why.contains("cannot be decoded"),
                "{} cut to {length}: {refused}",
                case.name
            );
        }
    }
}

#[test]
fn what_stands_behind_the_end_is_no_matter() {
    let files = Files::read("jpegs");
    for name in ["420_37x29", "420_apart", "restarts_progressive_rows"] {
        let data = files.file(name);
        let more = [&data[..], &data, b"and more"].concat();
        assert_eq!(decoded(&more).unwrap(), decoded(&data).unwrap());
    }
}

#[test]
fn kinds_of_files_that_are_not_supported_are_told_by_name() {
    let files = Files::read("jpegs");
    let data = files.file("420_37x29");
    let (frame, scan, end) = (place(&data, 0xc0), place(&data, 0xda), data.len() - 2);
    let with = |at: usize, byte: u8| {
        let mut data = data.clone();
        data[frame + at] = byte;
        data
    };
    let mut uneven = with(11, 0x32);
    uneven[frame + 14] = 0x21;
    for (data, part) in [
        (with(1, 0xc9), "arithmetic coding"),
        (with(1, 0xc3), "lossless"),
        (with(1, 0xc5), "lossless and hierarchical"),
        (with(4, 12), "12 bits a sample"),
        (with(9, 2), "2 components"),
        // Two for every three.
        (uneven, "no whole multiples"),
        (with(11, 0x51), "sampling factor"),
        (with(11, 0x20), "sampling factor"),
        (with(11, 0x44), "more than 10 blocks"),
        (with(12, 7), "no quantization table"),
        (data[..frame].to_vec(), "cut off"),
        ([&data[..frame], b"\xff\xd9"].concat(), "no picture"),
        ([&data[..frame], &data[frame + 19..]].concat(), "before any frame"),
        ([&data[..end], &data[scan..]].concat(), "a scan behind"),
        ([&data[..end], b"\xff\xf0"].concat(), "unknown marker 0xf0"),
    ] {
        let refused = decoded(&data).err().unwrap();
        assert!(refused.why.contains(part), "{part}: {refused}");
    }
}

#[test]
fn coefficients_take_no_more_memory_than_allowed() {
    let files = Files::read("jpegs");
    let data = files.file("progressive_420_58x43_75");
    // Of 64 x 48 pixels with two bytes a coefficient, and three bytes a pixel.
    let limits = |memory| Limits {
        memory,
        ..Limits::default()
    };
    let refused = decode(&data, &limits(58 * 43 * 3 - 1)).err().unwrap();
    assert!(refused.why.contains("takes 7482 bytes"), "{refused}");
    assert!(decode(&data, &limits(58 * 43 * 3)).is_ok());
    let flat = files.file("420_two_scans");
    let refused = decode(&flat, &limits(48 * 32 * 2 - 1)).err().unwrap();
    assert!(refused.why.contains("takes 3072 bytes"), "{refused}");
}

#[test]
fn scans_without_end_are_refused() {
    let files = Files::read("jpegs");
    let data = files.file("progressive_444_16x16_60");
    let end = data.len() - 2;
    let from = end
        - data[..end]
            .windows(2)
            .rev()
            .position(|pair| pair == [0xff, 0xda])
            .unwrap()
        - 2;
    let last = data[from..end].to_vec();
    let many = |count| [&data[..end], &last.repeat(count), b"\xff\xd9"].concat();
    assert!(decoded(&many(50)).is_ok());
    let refused = decoded(&many(100)).err().unwrap();
    assert!(refused.why.contains("more than 100 scans"), "{refused}");
}

mod properties {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    static FILES: LazyLock<Files> = LazyLock::new(|| Files::read("jpegs"));

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(600))]
        #[test]
        fn damaged_files_are_pixels_or_errors(
            which in any::<prop::sample::Index>(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        ) {
            let mut data = FILES.part(which.get(&FILES.cases).file).to_vec();
            for (at, byte) in damage {
                let at = at.index(data.len());
                data[at] = byte;
            }
            let limits = Limits { pixels: 1 << 16, ..Limits::default() };
            if let Ok(raster) = decode(&data, &limits) {
                prop_assert_eq!(raster.data.len(), raster.width as usize * raster.height as usize * 3);
            }
        }
    }
}
