//! What the tokenizer asks about a character: its class and how it counts for lower-casing.
//!
//! Answers are those of Python 3.11 (Unicode 14.0), which transformers runs on, frozen in `unicode_table.rs`: with another
//! Unicode version a character that was assigned in between would be tokenized instead of dropped. It refuses nothing:
//! every `char` has a class.

use super::unicode_table::RUNS;

/// Bits of a run below its first code point.
const SHIFT: u32 = 5;
const CASED: u8 = 1 << 3;
const CASE_IGNORABLE: u8 = 1 << 4;

/// What CLIPTokenizer does with a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Dropped before anything else: control, format, private use and unassigned characters, NUL, U+FFFD.
    Removed,
    /// Ends a word.
    Space,
    /// `\p{L}`: runs of letters make one piece.
    Letter,
    /// `\p{N}`: each is a piece of its own.
    Number,
    /// Runs of all the rest make one piece.
    Other,
    /// No part of the pattern matches it, so it ends a piece and vanishes (U+0345 only).
    Unmatched,
}

/// A character's kind and its part in the rule of the final sigma.
#[derive(Clone, Copy, Debug)]
pub(super) struct Class(u8);

impl Class {
    /// Looks a character up.
    #[inline]
    pub(super) fn of(char: char) -> Self {
        let point = char as u32;
        if point < 128 {
            Self(ASCII[point as usize])
        } else {
            Self(lookup(point))
        }
    }

    /// What happens to the character.
    #[inline]
    pub(super) fn kind(self) -> Kind {
        match self.0 & 7 {
            0 => Kind::Removed,
            1 => Kind::Space,
            2 => Kind::Letter,
            3 => Kind::Number,
            4 => Kind::Other,
            _ => Kind::Unmatched,
        }
    }

    /// Unicode's Cased, for characters that are not [`Self::is_case_ignorable`].
    pub(super) fn is_cased(self) -> bool {
        self.0 & CASED != 0
    }

    /// Unicode's Case_Ignorable: looked through when the neighbours of a sigma are sought.
    pub(super) fn is_case_ignorable(self) -> bool {
        self.0 & CASE_IGNORABLE != 0
    }
}

/// The ideographs that BasicTokenizer puts spaces around (`_is_chinese_char`).
pub(super) fn is_ideograph(char: char) -> bool {
    matches!(char as u32,
        0x4E00..=0x9FFF | 0x3400..=0x4DBF | 0x20000..=0x2A6DF | 0x2A700..=0x2B73F | 0x2B740..=0x2B81F
        | 0x2B820..=0x2CEAF | 0xF900..=0xFAFF | 0x2F800..=0x2FA1F)
}

/// Python's `str.isspace`, which `strip`, `lstrip`, `rstrip` and `split` go by.
pub(crate) fn is_python_space(char: char) -> bool {
    char.is_whitespace() || matches!(char, '\x1c'..='\x1f')
}

const ASCII: [u8; 128] = {
    let mut classes = [0; 128];
    let (mut run, mut point) = (0, 0);
    while point < 128 {
        if (RUNS[run + 1] >> SHIFT) as usize == point {
            run += 1;
        }
        classes[point] = RUNS[run] as u8 & ((1 << SHIFT) - 1);
        point += 1;
    }
    classes
};

fn lookup(point: u32) -> u8 {
    let run = RUNS.partition_point(|run| run >> SHIFT <= point) - 1;
    RUNS[run] as u8 & ((1 << SHIFT) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_follow_python() {
        for (char, kind) in [
            ('a', Kind::Letter),
            ('7', Kind::Number),
            ('\t', Kind::Space),
            ('\u{a0}', Kind::Space),
            ('\u{2028}', Kind::Space),
            ('\0', Kind::Removed),
            ('\u{200d}', Kind::Removed),
            ('\u{e000}', Kind::Removed),
            ('\u{fffd}', Kind::Removed),
            ('\u{10ffff}', Kind::Removed),
            ('\u{345}', Kind::Unmatched),
            ('é', Kind::Letter),
            ('½', Kind::Number),
            ('😀', Kind::Other),
            // Assigned by Unicode 15.0, one version too late.
            ('\u{1fae8}', Kind::Removed),
        ] {
            assert_eq!(Class::of(char).kind(), kind, "{char:?}");
        }
    }

    #[test]
    fn the_ascii_table_is_the_start_of_the_long_one() {
        for point in 0..128 {
            assert_eq!(ASCII[point as usize], lookup(point));
        }
    }
}
