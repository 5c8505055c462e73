//! Whether a picture lies on its side, by the EXIF data in its file. Pure.
//!
//! The preprocess service turns pictures as EXIF says, as diffusers' `load_image` does: a photograph of a phone held upright
//! is as wide as the file says it is high.

/// Directory entries that are looked at: real ones have some dozens.
const ENTRIES_MAX: usize = 256;
/// The tag of the orientation.
const ORIENTATION: u16 = 0x0112;
/// Orientations that swap the sides.
const SIDEWAYS: std::ops::RangeInclusive<u16> = 5..=8;

/// True when EXIF data (a TIFF header and its first directory) says that the sides are to be swapped.
pub(super) fn is_sideways(tiff: &[u8]) -> bool {
    orientation(tiff).is_some_and(|orientation| SIDEWAYS.contains(&orientation))
}

fn orientation(tiff: &[u8]) -> Option<u16> {
    let is_little = match tiff.get(..4)? {
        [b'I', b'I', 42, 0] => true,
        [b'M', b'M', 0, 42] => false,
        _ => return None,
    };
    let short = |at: usize| -> Option<u16> {
        let bytes = *tiff.get(at..)?.first_chunk()?;
        Some(if is_little {
            u16::from_le_bytes(bytes)
        } else {
            u16::from_be_bytes(bytes)
        })
    };
    let long = |at: usize| -> Option<u32> {
        let bytes = *tiff.get(at..)?.first_chunk()?;
        Some(if is_little {
            u32::from_le_bytes(bytes)
        } else {
            u32::from_be_bytes(bytes)
        })
    };
    let directory = usize::try_from(long(4)?).ok()?;
    let entries = usize::from(short(directory)?).min(ENTRIES_MAX);
    (0..entries).find_map(|entry| {
        let at = directory.checked_add(2 + 12 * entry)?;
        (short(at)? == ORIENTATION)
            .then(|| short(at.checked_add(8)?))
            .flatten()
    })
}
