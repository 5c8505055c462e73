//! Cutting a normalized word into the pieces that byte pairs are merged within.
//!
//! The same as `re.findall` of CLIPTokenizer's pattern, with its IGNORECASE:
//! `<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+`. After lower-casing the
//! flag still matters twice: `ſ` counts as `s` in the literals, and U+0345 is matched by nothing. Refuses nothing; every
//! piece is a non-empty slice of the word, in order.

use super::unicode::{Class, Kind};

/// The two literal special tokens of the pattern.
pub(super) const LITERALS: [&str; 2] = ["<|startoftext|>", "<|endoftext|>"];
const CONTRACTIONS: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];

/// Iterates over the pieces of a word.
#[derive(Debug)]
pub(super) struct Pieces<'a>(&'a str);

/// The pieces of a word that has no white space in it.
pub(super) fn pieces(word: &str) -> Pieces<'_> {
    Pieces(word)
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        loop {
            let first = self.0.chars().next()?;
            let literal = match first {
                '<' => longest(self.0, &LITERALS),
                '\'' => longest(self.0, &CONTRACTIONS),
                _ => None,
            };
            let kind = Class::of(first).kind();
            let length = literal.unwrap_or_else(|| match kind {
                Kind::Letter | Kind::Other => run(self.0, kind),
                Kind::Number | Kind::Unmatched | Kind::Space | Kind::Removed => first.len_utf8(),
            });
            let (piece, rest) = self.0.split_at(length);
            self.0 = rest;
            if matches!(kind, Kind::Letter | Kind::Number | Kind::Other) {
                return Some(piece);
            }
        }
    }
}

/// Bytes of the run of one kind that the text starts with.
fn run(text: &str, kind: Kind) -> usize {
    text.char_indices()
        .find(|(_, char)| Class::of(*char).kind() != kind)
        .map_or(text.len(), |(at, _)| at)
}

/// Bytes of the literal that the text starts with; no literal is the start of another.
fn longest(text: &str, literals: &[&str]) -> Option<usize> {
    literals.iter().find_map(|literal| {
        let mut rest = text.chars();
        let mut length = 0;
        for wanted in literal.chars() {
            let char = rest.next()?;
            if char != wanted && !(char == 'ſ' && wanted == 's') {
                return None;
            }
            length += char.len_utf8();
        }
        Some(length)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(word: &str) -> Vec<&str> {
        pieces(word).collect()
    }

    #[test]
    fn letters_and_the_rest_run_while_numbers_stand_alone() {
        assert_eq!(cut("photo,4k!!½"), ["photo", ",", "4", "k", "!!", "½"]);
    }

    #[test]
    fn contractions_are_pieces_unless_a_run_has_swallowed_the_apostrophe() {
        assert_eq!(cut("it's"), ["it", "'s"]);
        assert_eq!(cut("'sun"), ["'s", "un"]);
        assert_eq!(cut("!'s"), ["!'", "s"]);
        assert_eq!(cut("they'll've"), ["they", "'ll", "'ve"]);
    }

    #[test]
    fn special_tokens_in_the_text_are_one_piece() {
        assert_eq!(cut("a<|endoftext|>b"), ["a", "<|endoftext|>", "b"]);
        assert_eq!(cut("!<|endoftext|>"), ["!<|", "endoftext", "|>"]);
    }

    #[test]
    fn a_long_s_counts_as_s_where_case_is_ignored() {
        assert_eq!(cut("'ſ<|ſtartoftext|>"), ["'ſ", "<|ſtartoftext|>"]);
    }

    #[test]
    fn the_character_that_no_part_matches_vanishes_and_cuts() {
        assert_eq!(cut("a\u{345}b\u{345}"), ["a", "b"]);
    }
}
