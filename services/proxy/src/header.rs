//! The first bytes of picture files: what they are and how large. Pure.
//!
//! A request with a picture is costed and checked before anything decodes it, and only its size is needed for that. It
//! refuses to look at pixels: the preprocess service decodes, and finds what is broken further inside.
//!
//! Invariant: no input panics, and reading takes time in proportion to the file at most.

mod exif;

/// What stands before EXIF data in a JPEG.
const EXIF: &[u8] = b"Exif\0\0";

/// Pixels of a picture, as it is to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// Reads the size of a PNG, JPEG or WebP file; `None` when it is none of them, or broken where the size stands.
pub(crate) fn size(file: &[u8]) -> Option<Size> {
    let size = match file {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', rest @ ..] => png(rest)?,
        [0xff, 0xd8, rest @ ..] => jpeg(rest)?,
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            rest @ ..,
        ] => webp(rest)?,
        _ => return None,
    };
    (size.width > 0 && size.height > 0).then_some(size)
}

impl Size {
    fn turned(self, is_sideways: bool) -> Self {
        if is_sideways {
            Self {
                width: self.height,
                height: self.width,
            }
        } else {
            self
        }
    }
}

/// A PNG's first chunk is its header; EXIF data stand before the pixels.
fn png(rest: &[u8]) -> Option<Size> {
    let header = rest.get(4..)?.strip_prefix(b"IHDR")?;
    let size = Size {
        width: u32::from_be_bytes(*header.first_chunk()?),
        height: u32::from_be_bytes(*header.get(4..)?.first_chunk()?),
    };
    let is_sideways = chunks(rest, u32::from_be_bytes, |length| length.checked_add(12))
        .take_while(|chunk| chunk.get(4..8) != Some(b"IDAT"))
        .find_map(|chunk| chunk.get(4..)?.strip_prefix(b"eXIf").map(exif::is_sideways));
    Some(size.turned(is_sideways.unwrap_or_default()))
}

/// Chunks from each one's length to the end of the file; `whole` gives a chunk's length with its frame.
fn chunks<'a>(
    file: &'a [u8],
    number: fn([u8; 4]) -> u32,
    whole: fn(usize) -> Option<usize>,
) -> impl Iterator<Item = &'a [u8]> {
    let next = move |chunk: &&'a [u8]| -> Option<&'a [u8]> {
        let length = usize::try_from(number(*chunk.first_chunk()?)).ok()?;
        chunk.get(whole(length)?..)
    };
    std::iter::successors(Some(file), next)
}

/// A JPEG's size stands in its frame header, behind any number of other segments.
fn jpeg(mut rest: &[u8]) -> Option<Size> {
    let mut is_sideways = None;
    loop {
        let [0xff, after @ ..] = rest else {
            return None;
        };
        // Any number of fill bytes may stand before a marker.
        let fill = after.iter().take_while(|byte| **byte == 0xff).count();
        let (marker, segment) = after.get(fill..)?.split_first()?;
        match marker {
            // Markers without a segment.
            0x01 | 0xd0..=0xd7 => rest = segment,
            // Frame headers; the three left out are tables and an extension.
            0xc0..=0xcf if ![0xc4, 0xc8, 0xcc].contains(marker) => {
                let frame: &[u8; 7] = segment.first_chunk()?;
                let number = |high, low| u32::from(u16::from_be_bytes([high, low]));
                let size = Size {
                    height: number(frame[3], frame[4]),
                    width: number(frame[5], frame[6]),
                };
                return Some(size.turned(is_sideways.unwrap_or_default()));
            }
            // Pixels before any frame, or the end.
            0x00 | 0xd8..=0xda => return None,
            _ => {
                let length = usize::from(u16::from_be_bytes(*segment.first_chunk()?).max(2));
                let (segment, behind) = segment.split_at_checked(length)?;
                if *marker == 0xe1 && is_sideways.is_none() {
                    is_sideways = segment[2..].strip_prefix(EXIF).map(exif::is_sideways);
                }
                rest = behind;
            }
        }
    }
}

/// A WebP's first chunk says the size in one of three ways (RFC 9649).
fn webp(rest: &[u8]) -> Option<Size> {
    let chunk = rest.get(8..)?;
    match rest.first_chunk()? {
        b"VP8X" => {
            let fields: &[u8; 10] = chunk.first_chunk()?;
            let number = |at: usize| u32::from_le_bytes([fields[at], fields[at + 1], fields[at + 2], 0]) + 1;
            let size = Size {
                width: number(4),
                height: number(7),
            };
            // The name, then the length; chunks are of even length.
            let behind = rest.get(4..)?;
            let padded = |length: usize| length.checked_add(length % 2)?.checked_add(8);
            let is_sideways = chunks(behind, u32::from_le_bytes, padded).find_map(|chunk| {
                // Seen from a length, the next chunk's name is in front of its own length.
                let length = usize::try_from(u32::from_le_bytes(*chunk.first_chunk()?)).ok()?;
                let next = chunk.get(4usize.checked_add(length)?.checked_add(length % 2)?..)?;
                let data = next.strip_prefix(b"EXIF")?.get(4..)?;
                Some(exif::is_sideways(data.strip_prefix(EXIF).unwrap_or(data)))
            });
            Some(size.turned(is_sideways.unwrap_or_default()))
        }
        b"VP8L" => {
            let bits = u32::from_le_bytes(*chunk.strip_prefix(&[0x2f])?.first_chunk()?);
            Some(Size {
                width: (bits & 0x3fff) + 1,
                height: (bits >> 14 & 0x3fff) + 1,
            })
        }
        b"VP8 " => {
            let sides = chunk.get(3..)?.strip_prefix(&[0x9d, 0x01, 0x2a])?;
            let sides: &[u8; 4] = sides.first_chunk()?;
            // The two highest bits of each are a scale for showing it.
            let number = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
            Some(Size {
                width: number(sides[0], sides[1]),
                height: number(sides[2], sides[3]),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
