//! AUTOMATIC1111's weights: `(word)` is 1.1 times as strong, `[word]` 1.1 times weaker, `(word:1.2)` 1.2 times as strong.
//!
//! Does what its `parse_prompt_attention` does (stable-diffusion-webui, modules/prompt_parser.py, version 1.10), odd cases
//! with it: brackets within brackets multiply, a bracket that is never closed reaches to the end, one that was never opened
//! is text, `\(` `\)` `\[` `\]` and `\\` are the character itself, any other backslash vanishes, `BREAK` inside brackets is
//! a word. Refuses weights that are no numbers and nesting beyond the limits. Invariant: neighbours have different weights.

use super::{Limits, Part, Refused};
use crate::tokenizer::is_python_space;

const ROUND: f64 = 1.1;
const SQUARE: f64 = 1.0 / 1.1;
/// The weight that marks a BREAK while weights are multiplied, as there: inside brackets it changes, and the mark is lost.
const MARK: f64 = -1.0;
const BREAK: &str = "BREAK";

/// One step of the scan.
#[derive(Debug, PartialEq)]
enum Token<'a> {
    /// A backslash and what it keeps from being a bracket.
    Escaped(&'a str),
    Open(char),
    /// `:1.2)` with the number and all of it.
    Weight(&'a str, &'a str),
    Close(char),
    Text(&'a str),
}

/// The parts of a text with their weights.
///
/// # Errors
///
/// [`Refused`] names a weight that is no number, and nesting deeper than the limit.
pub fn read(text: &str, limits: &Limits) -> Result<Vec<Part>, Refused> {
    let mut parts = Parts::default();
    let (mut round, mut square): (Vec<usize>, Vec<usize>) = Default::default();
    let mut rest = text;
    while let Some(token) = next(&mut rest) {
        match token {
            Token::Escaped(text) => parts.push(text, 1.0),
            Token::Open(bracket) => {
                if round.len() + square.len() >= limits.depth {
                    return Err(Refused::depth(limits));
                }
                if bracket == '(' { &mut round } else { &mut square }.push(parts.0.len());
            }
            Token::Weight(number, all) => match round.pop() {
                Some(from) => {
                    let factor = number.parse().map_err(|_| Refused::weight(number, limits))?;
                    parts.multiply(from, factor);
                }
                None => parts.text(all),
            },
            Token::Close(bracket) => {
                let (open, factor) = match bracket {
                    ')' => (&mut round, ROUND),
                    _ => (&mut square, SQUARE),
                };
                match open.pop() {
                    Some(from) => parts.multiply(from, factor),
                    None => parts.text(if bracket == ')' { ")" } else { "]" }),
                }
            }
            Token::Text(text) => parts.text(text),
        }
    }
    round.into_iter().for_each(|from| parts.multiply(from, ROUND));
    square.into_iter().for_each(|from| parts.multiply(from, SQUARE));
    parts.merged(limits)
}

/// Texts and weights on the way.
#[derive(Default)]
struct Parts(Vec<(String, f64)>);

impl Parts {
    fn push(&mut self, text: &str, weight: f64) {
        self.0.push((text.into(), weight));
    }

    /// Text in which BREAK means something.
    fn text(&mut self, text: &str) {
        let mut rest = text;
        while let Some((before, after)) = cut(rest) {
            self.push(before, 1.0);
            self.push(BREAK, MARK);
            rest = after;
        }
        self.push(rest, 1.0);
    }

    fn multiply(&mut self, from: usize, factor: f64) {
        // Nesting is bounded, so this is a few times the length of the text at most.
        self.0[from..]
            .iter_mut()
            .for_each(|(_, weight)| *weight *= factor);
    }

    /// Neighbours of one weight as one part.
    fn merged(self, limits: &Limits) -> Result<Vec<Part>, Refused> {
        let mut merged: Vec<(String, f64)> = Vec::new();
        for (text, weight) in self.0 {
            if weight.is_nan() || weight.abs() > limits.weight {
                return Err(Refused::weight(&weight.to_string(), limits));
            }
            match merged.last_mut() {
                Some((known, last)) if *last == weight => known.push_str(&text),
                Some(_) | None => merged.push((text, weight)),
            }
        }
        let part = |(text, weight)| match weight == MARK && text == BREAK {
            true => Part::Break,
            false => Part::Text(text, weight),
        };
        Ok(merged.into_iter().map(part).collect())
    }
}

/// Takes the next token off the text.
fn next<'a>(rest: &mut &'a str) -> Option<Token<'a>> {
    let text = *rest;
    let first = text.chars().next()?;
    let (token, length) = match first {
        '\\' => {
            let kept = text[1..].starts_with(['(', ')', '[', ']', '\\']);
            let length = if kept { 2 } else { 1 };
            (Token::Escaped(&text[1..length]), length)
        }
        '(' | '[' => (Token::Open(first), 1),
        ')' | ']' => (Token::Close(first), 1),
        ':' => match weight(text) {
            Some((number, length)) => (Token::Weight(number, &text[..length]), length),
            None => (Token::Text(&text[..1]), 1),
        },
        _ => {
            let special = ['\\', '(', ')', '[', ']', ':'];
            let length = text.find(special).unwrap_or(text.len());
            (Token::Text(&text[..length]), length)
        }
    };
    *rest = &text[length..];
    Some(token)
}

/// `:1.2)` at the start of a text: its number, and its length. Digits are ASCII.
fn weight(text: &str) -> Option<(&str, usize)> {
    let number = text[1..].trim_start_matches(is_python_space);
    let unsigned = number.strip_prefix(['+', '-']).unwrap_or(number);
    let after = unsigned.trim_start_matches(|char: char| char.is_ascii_digit() || char == '.');
    if after.len() == unsigned.len() {
        return None;
    }
    let rest = after.trim_start_matches(is_python_space).strip_prefix(')')?;
    Some((&number[..number.len() - after.len()], text.len() - rest.len()))
}

/// Cuts a text at its first BREAK that is a word of its own, white space around it included.
fn cut(text: &str) -> Option<(&str, &str)> {
    let (before, after) = find_word(text, BREAK)?;
    Some((
        before.trim_end_matches(is_python_space),
        after.trim_start_matches(is_python_space),
    ))
}

/// What is before and behind a word, if the text has it as a word of its own.
pub(super) fn find_word<'a>(text: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    let is_word = |char: Option<char>| char.is_some_and(|char| char.is_alphanumeric() || char == '_');
    text.match_indices(word)
        .map(|(at, _)| (&text[..at], &text[at + word.len()..]))
        .find(|(before, after)| !is_word(before.chars().next_back()) && !is_word(after.chars().next()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<(String, f64)> {
        let parts = read(text, &Limits::default()).unwrap();
        let pair = |part| match part {
            Part::Text(text, weight) => (text, weight),
            Part::Break => (BREAK.to_owned(), MARK),
        };
        parts.into_iter().map(pair).collect()
    }

    fn refused(text: &str) -> String {
        read(text, &Limits::default()).unwrap_err().to_string()
    }

    #[test]
    fn a_break_outside_brackets_cuts_and_one_inside_is_a_word() {
        assert_eq!(read("a BREAK b", &Limits::default()).unwrap()[1], Part::Break);
        assert_eq!(parts("BREAKS"), [("BREAKS".to_owned(), 1.0)]);
        let inside = parts("(a BREAK b)");
        assert_eq!(inside[1], ("BREAK".to_owned(), -1.1));
    }

    #[test]
    fn a_weight_that_is_no_number_is_named() {
        assert!(refused("(a:1.2.3)").contains("weight 1.2.3"));
        assert!(refused("(a:9999)").contains("weight 9999"));
        let huge = format!("(a:{})", "9".repeat(400));
        assert!(refused(&huge).len() < 120);
    }

    #[test]
    fn deep_nesting_is_refused() {
        assert!(refused(&"(".repeat(33)).contains("33 deep, more than 32"));
        assert_eq!(parts(&"(".repeat(32)), []);
    }
}
