//! Cleaning a text as CLIPTokenizer does without ftfy: transformers' `BasicTokenizer(strip_accents=False,
//! do_split_on_punc=False)`.
//!
//! Control characters go, ideographs stand alone, NFC, words at white space, each word lower-cased as `str.lower()` does.
//! It refuses nothing. The result has no white space but single spaces between words.

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use super::unicode::{Class, Kind, is_ideograph};

/// The text's words, lower-cased, with one space between two.
pub(super) fn normalize(text: &str) -> String {
    let mut clean = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        match Class::of(char).kind() {
            Kind::Removed => {}
            Kind::Space => clean.push(' '),
            Kind::Letter | Kind::Number | Kind::Other | Kind::Unmatched => {
                // Before NFC: a compatibility ideograph gets its spaces although NFC turns it into another character.
                if is_ideograph(char) {
                    clean.extend([' ', char, ' ']);
                } else {
                    clean.push(char);
                }
            }
        }
    }
    if !clean.is_ascii() && is_nfc_quick(clean.chars()) != IsNormalized::Yes {
        clean = clean.nfc().collect();
    }
    let mut words = String::with_capacity(clean.len());
    for word in clean.split(' ').filter(|word| !word.is_empty()) {
        if !words.is_empty() {
            words.push(' ');
        }
        lower(word, &mut words);
    }
    words
}

/// Appends the word as Python's `str.lower()` writes it.
fn lower(word: &str, out: &mut String) {
    if word.is_ascii() {
        let start = out.len();
        out.push_str(word);
        out[start..].make_ascii_lowercase();
        return;
    }
    for (at, char) in word.char_indices() {
        match char {
            'Σ' if ends_word(&word[..at], &word[at + char.len_utf8()..]) => out.push('ς'),
            'Σ' => out.push('σ'),
            _ => out.extend(char.to_lowercase()),
        }
    }
}

/// Unicode's Final_Sigma: a cased letter before, none after, what is case-ignorable looked through.
fn ends_word(before: &str, after: &str) -> bool {
    let is_cased = |char: Option<char>| char.is_some_and(|char| Class::of(char).is_cased());
    let seen = |char: &char| !Class::of(*char).is_case_ignorable();
    is_cased(before.chars().rev().find(seen)) && !is_cased(after.chars().find(seen))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_separated_by_single_spaces() {
        assert_eq!(normalize("  A\tred\u{a0}\u{2003}Circle \r\n"), "a red circle");
        assert_eq!(normalize(" \t\u{200b}"), "");
    }

    #[test]
    fn control_characters_vanish_without_ending_a_word() {
        assert_eq!(normalize("re\u{0}d\u{200d}\u{fffd}s"), "reds");
    }

    #[test]
    fn ideographs_stand_alone_but_kana_and_hangul_do_not() {
        assert_eq!(normalize("猫と犬고양이"), "猫 と 犬 고양이");
    }

    #[test]
    fn accents_are_composed_and_kept() {
        assert_eq!(normalize("CAFE\u{301}"), "caf\u{e9}");
    }

    #[test]
    fn a_sigma_is_final_only_at_the_end_of_a_word() {
        assert_eq!(normalize("ΟΔΟΣ ΣΑΣ Σ 1Σ ΑΣ' ΑΣ'Α"), "οδος σας σ 1σ ας' ασ'α");
        assert_eq!(normalize("ʕΣ"), "ʕς", "cased in Unicode 14");
    }

    #[test]
    fn a_dotted_capital_i_becomes_two_characters() {
        assert_eq!(normalize("İ"), "i\u{307}");
    }
}
