//! How many chunks a PNG file has, told before anything is decoded.
//!
//! A chunk costs the decoder time whatever is in it, so a file of a million empty ones would cost more than any picture.

use super::Refused;

/// Chunks of a file at most. Encoders write 8 KiB of pixels into one, which is 2048 of them in the largest file.
const MAX_CHUNKS: usize = 1 << 15;
/// The signature before the first chunk.
const SIGNATURE: usize = 8;
/// Length, type and checksum of a chunk.
const FRAME: usize = 12;

/// Refuses a file of more chunks; what is wrong with them otherwise is the decoder's to say.
pub(super) fn check(data: &[u8]) -> Result<(), Refused> {
    let mut rest = data.get(SIGNATURE..).unwrap_or_default();
    for _ in 0..MAX_CHUNKS {
        let Some(&[a, b, c, d]) = rest.first_chunk() else {
            return Ok(());
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        rest = rest.get(length.saturating_add(FRAME)..).unwrap_or_default();
    }
    if rest.is_empty() {
        return Ok(());
    }
    Err(Refused::data(format!(
        "has more than {MAX_CHUNKS} chunks, which no encoder writes"
    )))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{ImageFormat, RgbImage};

    use super::super::{Limits, decode};
    use super::*;

    /// An empty IDAT chunk with its checksum.
    const EMPTY: [u8; FRAME] = *b"\0\0\0\0IDAT\x35\xaf\x06\x1e";

    /// A good file with so many empty chunks before its pixels.
    fn file(empty: usize) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        RgbImage::new(3, 2).write_to(&mut file, ImageFormat::Png).unwrap();
        let mut file = file.into_inner();
        let pixels = file.windows(4).position(|name| name == b"IDAT").unwrap() - 4;
        file.splice(pixels..pixels, EMPTY.repeat(empty));
        file
    }

    #[test]
    fn a_file_of_a_million_empty_chunks_is_refused_before_it_is_decoded() {
        for good in [0, 1000] {
            let seen = decode(&file(good), &Limits::default()).unwrap();
            assert_eq!((seen.width, seen.height), (3, 2));
        }
        let refused = decode(&file(900_000), &Limits::default()).unwrap_err();
        assert!(refused.why.contains("more than 32768 chunks"), "{refused}");
    }

    #[test]
    fn chunks_are_counted_to_the_last_and_lengths_beyond_the_file_end_it() {
        // A header, the pixels, an end.
        assert!(check(&file(MAX_CHUNKS - 3)).is_ok());
        assert!(check(&file(MAX_CHUNKS - 2)).is_err());
        let mut long = EMPTY.repeat(MAX_CHUNKS + 5);
        long.splice(0..0, [0; SIGNATURE]);
        long[SIGNATURE..SIGNATURE + 4].fill(0xff);
        assert!(check(&long).is_ok());
        assert!(check(b"\x89PNG").is_ok());
    }
}
