//! Whether an answer is what was asked for: it decodes, has the right size, and has the same bytes as every other answer to the
//! same request. Pure but for the memory of what was proven.
//!
//! An answer is decoded once; another one with the same hash is the same file and needs no second look, which keeps this cheap.

use std::hash::{DefaultHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

/// What is asked of every answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Verify {
    /// It decodes, has the right size, and the same request brings the same bytes.
    Bytes,
    /// It decodes and has the right size; for targets that do not promise the same bytes. Every new picture is decoded.
    Picture,
    /// It begins as a PNG.
    Signature,
}

/// What has to be done with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// It is right.
    Right,
    /// It must be decoded, by [`Book::prove`].
    Prove,
    /// It differs from another answer to the same request.
    Differs,
    /// It is no PNG.
    NoPicture,
}

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// A decoded picture larger than this is not what anybody asked for: 8192 x 8192 pixels of 4 bytes.
const MAX_DECODED_BYTES: usize = 8192 * 8192 * 4;
const UNKNOWN: u64 = 0;

/// Which bytes are right for which request.
#[derive(Debug)]
pub struct Book {
    mode: Verify,
    /// The hash of the proven answer for each card.
    proven: Vec<AtomicU64>,
}

impl Book {
    /// An empty book for so many cards.
    #[must_use]
    pub fn new(mode: Verify, cards: usize) -> Self {
        Self {
            mode,
            proven: (0..cards).map(|_| AtomicU64::new(UNKNOWN)).collect(),
        }
    }

    /// What has to be done with this answer to the card.
    #[must_use]
    pub fn check(&self, card: usize, bytes: &[u8]) -> Check {
        if !bytes.starts_with(SIGNATURE) {
            return Check::NoPicture;
        }
        if self.mode == Verify::Signature {
            return Check::Right;
        }
        let known = self.proven[card].load(Ordering::Relaxed);
        if known == hash(bytes) {
            Check::Right
        } else if known == UNKNOWN || self.mode == Verify::Picture {
            Check::Prove
        } else {
            Check::Differs
        }
    }

    /// Decodes an answer; `size` is what was asked for, `claimed` the digest that the server gave.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn prove(
        &self,
        card: usize,
        bytes: &[u8],
        size: Option<u32>,
        claimed: &str,
    ) -> Result<(), &'static str> {
        let (width, height) = decode(bytes)?;
        if size.is_some_and(|size| (width, height) != (size, size)) {
            return Err("another size");
        }
        if !claimed.is_empty() && !claimed.eq_ignore_ascii_case(&sha256(bytes)) {
            return Err("not the digest it claims");
        }
        let own = hash(bytes);
        let before = self.proven[card].compare_exchange(UNKNOWN, own, Ordering::Relaxed, Ordering::Relaxed);
        match before {
            Err(other) if other != own && self.mode == Verify::Bytes => Err("differs"),
            _ => Ok(()),
        }
    }
}

fn decode(bytes: &[u8]) -> Result<(u32, u32), &'static str> {
    let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes));
    decoder.set_limits(png::Limits {
        bytes: MAX_DECODED_BYTES,
    });
    let mut reader = decoder.read_info().map_err(|_| "does not decode")?;
    let size = reader
        .output_buffer_size()
        .filter(|size| *size <= MAX_DECODED_BYTES);
    let mut pixels = vec![0; size.ok_or("too large")?];
    reader.next_frame(&mut pixels).map_err(|_| "does not decode")?;
    // Reads to the end: a file that is cut behind its pixels is cut too.
    reader.finish().map_err(|_| "does not decode")?;
    Ok(reader.info().size())
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    // Never the mark for unknown.
    hasher.finish().max(UNKNOWN + 1)
}

fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::null::picture;

    #[test]
    fn the_first_answer_is_decoded_and_the_same_bytes_again_are_right() {
        let book = Book::new(Verify::Bytes, 2);
        let (one, other) = (picture(16, 1), picture(16, 2));
        assert_eq!(book.check(0, &one), Check::Prove);
        book.prove(0, &one, Some(16), &sha256(&one)).unwrap();
        assert_eq!(book.check(0, &one), Check::Right);
        assert_eq!(book.check(0, &other), Check::Differs);
        assert_eq!(book.check(1, &other), Check::Prove);
        assert_eq!(book.prove(0, &other, Some(16), ""), Err("differs"));
    }

    #[test]
    fn what_is_no_whole_picture_of_the_right_size_is_wrong() {
        let book = Book::new(Verify::Bytes, 1);
        let file = picture(16, 1);
        assert_eq!(book.check(0, b"<html>"), Check::NoPicture);
        assert_eq!(book.prove(0, &file, Some(32), ""), Err("another size"));
        assert_eq!(book.prove(0, &file, None, "00"), Err("not the digest it claims"));
        for cut in [10, 40, file.len() - 20, file.len() - 1] {
            assert_eq!(
                book.prove(0, &file[..cut], None, ""),
                Err("does not decode"),
                "{cut} of {}",
                file.len()
            );
        }
        assert_eq!(book.check(0, &file), Check::Prove, "nothing was proven");
    }

    #[test]
    fn a_target_that_promises_no_bytes_may_answer_differently_but_not_wrongly() {
        let book = Book::new(Verify::Picture, 1);
        book.prove(0, &picture(16, 1), None, "").unwrap();
        assert_eq!(book.check(0, &picture(16, 2)), Check::Prove);
        book.prove(0, &picture(16, 2), Some(16), "").unwrap();
        assert!(book.prove(0, &picture(16, 2)[..50], None, "").is_err());
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        // A header of 100,000 x 100,000 pixels in front of a small file's data.
        let mut bomb = picture(16, 1).to_vec();
        let mut header = b"IHDR".to_vec();
        header.extend(100_000u32.to_be_bytes());
        header.extend(100_000u32.to_be_bytes());
        header.extend([8, 2, 0, 0, 0]);
        bomb[12..29].copy_from_slice(&header);
        let crc = crc32(&header);
        bomb[29..33].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(
            Book::new(Verify::Bytes, 1).prove(0, &bomb, None, ""),
            Err("too large")
        );
    }

    /// As in the PNG specification, annex D.
    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |c, _| {
                if c & 1 == 1 {
                    0xedb8_8320 ^ (c >> 1)
                } else {
                    c >> 1
                }
            })
        })
    }
}
