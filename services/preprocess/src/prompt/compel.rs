//! compel's weights: `word++`, `word--`, `(some words)1.2`, `(some words)+`, `"some words"-`, `(words).attend(1.2)`.
//!
//! Does what the parser of the Python package does (compel 2.3, prompt_parser.py), which is a grammar without backtracking
//! over white space: a `+` is 1.1 and a `-` 0.9, each once more multiplies; brackets within brackets multiply; a bracket that is
//! never closed and any word with other syntax in it is text. `\(` `\)` and `\"` are the character itself. Neighbours of one
//! weight are one part. Refuses `.and()`, `.blend()`, `.swap()`, LoRA by name, and what is beyond the limits. Invariant: there
//! is a part, and weights are not negative.

use std::collections::HashSet;

use super::{Limits, Refused};

const PLUS: f64 = 1.1;
const MINUS: f64 = 0.9;
/// The characters that a plain word does not have, but escaped or inside it.
const SYNTAX: [char; 8] = ['(', ')', '"', ',', '.', '+', '-', '='];

/// What a piece of text means.
#[derive(Clone, Debug)]
enum Node {
    Text(String),
    Weighted(f64, Vec<Node>),
}

/// The parts of a text with their weights.
///
/// # Errors
///
/// [`Refused`] names what is not served and the limit that is broken.
pub fn read(text: &str, limits: &Limits) -> Result<Vec<(String, f64)>, Refused> {
    served(text)?;
    // The package fails at these two, which are white space to everybody else.
    let text = spaced(&text.replace(['\u{b}', '\u{c}'], " "));
    if text.trim().is_empty() {
        return Ok(vec![(String::new(), 1.0)]);
    }
    let mut parser = Parser::new(&text, limits, 0);
    let nodes = parser.whole()?;
    let mut parts = Vec::new();
    flatten(nodes, 1.0, &mut parts);
    match parts.iter().find(|part| part.weight > limits.weight) {
        Some(part) => Err(Refused::weight(&part.weight.to_string(), limits)),
        // Brackets with nothing in them; the package fails here.
        None if parts.is_empty() => Ok(vec![(String::new(), 1.0)]),
        None => Ok(parts.into_iter().map(|part| (part.text, part.weight)).collect()),
    }
}

/// Refuses what the package does and this service does not.
fn served(text: &str) -> Result<(), Refused> {
    let called = |name: &str| {
        text.match_indices(name)
            .any(|(at, _)| text[at + name.len()..].trim_start().starts_with('('))
    };
    let why = |name: &str, why: &str| Err(Refused(format!("has {name}(): {why}")));
    for name in [".and", ".add"] {
        if called(name) {
            return why(name, "conjunctions are not served, write one prompt");
        }
    }
    if called(".blend") {
        return why(".blend", "blends are not served, write one prompt");
    }
    if called(".swap") {
        return why(".swap", "cross-attention control is not served");
    }
    for name in ["withLora", "useLora"] {
        if called(name) {
            return why(
                name,
                "networks are not added by prompts, merge them into the model",
            );
        }
    }
    Ok(())
}

/// Puts a space behind every comma that has none, as `re.sub(r",(\S)", r", \1", text)`.
fn spaced(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        out.push(char);
        if char == ','
            && let Some(next) = chars.next_if(|next| !crate::tokenizer::is_python_space(*next))
        {
            out.extend([' ', next]);
        }
    }
    out
}

/// Texts of one weight, put together.
struct Fused {
    text: String,
    weight: f64,
    /// Bytes at the start in which no escape is left, so that they are not looked at again.
    settled: usize,
}

impl Fused {
    fn new(text: String, weight: f64) -> Self {
        let mut fused = Self {
            text,
            weight,
            settled: 0,
        };
        fused.settle();
        fused
    }

    /// Joins a text; every time the package copies one it takes escapes away once more.
    fn join(&mut self, text: String) {
        if self.settled < self.text.len() {
            let tail = unescaped(self.text.split_off(self.settled));
            self.text.push_str(&tail);
        }
        self.text.push(' ');
        self.text.push_str(&unescaped(unescaped(text)));
        self.settle();
    }

    fn settle(&mut self) {
        let tail = &self.text[self.settled..];
        if !ESCAPES.iter().any(|(escape, _)| tail.contains(escape)) {
            self.settled = self.text.len();
        }
    }
}

/// Multiplies weights down to the texts, and joins neighbours of one weight.
fn flatten(nodes: Vec<Node>, scale: f64, parts: &mut Vec<Fused>) {
    for node in nodes {
        match node {
            Node::Text(text) => match parts.last_mut() {
                Some(last) if last.weight == scale => last.join(text),
                Some(_) | None => parts.push(Fused::new(unescaped(text), scale)),
            },
            Node::Weighted(weight, nodes) => flatten(nodes, scale * weight, parts),
        }
    }
}

/// What a text's escapes stand for.
const ESCAPES: [(&str, &str); 3] = [("\\(", "("), ("\\)", ")"), ("\\\"", "\"")];

/// `Fragment.__init__`
fn unescaped(text: String) -> String {
    if !text.contains('\\') {
        return text;
    }
    ESCAPES
        .iter()
        .fold(text, |text, (escape, plain)| text.replace(escape, plain))
}

/// What was found, and where it ends.
type Found = Option<(Vec<Node>, usize)>;

struct Parser<'a> {
    text: &'a str,
    limits: &'a Limits,
    /// Brackets and quotes around this text.
    outer: usize,
    /// Where brackets begin that are none, so that nothing is read again and again.
    broken: HashSet<usize>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, limits: &'a Limits, outer: usize) -> Self {
        Self {
            text,
            limits,
            outer,
            broken: HashSet::new(),
        }
    }

    /// The package's `prompt`: all of the text.
    fn whole(&mut self) -> Result<Vec<Node>, Refused> {
        let mut nodes = Vec::new();
        let mut at = self.skip(0);
        while at < self.text.len() {
            let end = match self.item(at, 0)? {
                Some((found, end)) => {
                    nodes.extend(found);
                    end
                }
                None => {
                    // Anything to the next white space, syntax and all.
                    let rest = &self.text[at..];
                    let length = rest.find(is_white).unwrap_or(rest.len());
                    nodes.push(Node::Text(unescaped(rest[..length].into())));
                    at + length
                }
            };
            at = self.skip(end);
        }
        Ok(nodes)
    }

    /// The package's `fragment_including_commas_or_periods`, as far as it goes.
    fn inner(&mut self, start: usize, depth: usize) -> Result<(Vec<Node>, usize), Refused> {
        let mut nodes = Vec::new();
        let mut end = start;
        loop {
            let at = self.skip(end);
            if let Some((found, next)) = self.item(at, depth)? {
                nodes.extend(found);
                end = next;
            } else if let Some(next) = self.word(at) {
                nodes.push(Node::Text(unescaped(self.text[at..next].into())));
                end = next;
            } else if let Some(mark @ ("," | ".")) = self.text.get(at..at + 1) {
                nodes.push(Node::Text(mark.into()));
                end = at + 1;
            } else {
                return Ok((nodes, end));
            }
        }
    }

    /// Something in brackets or quotes, with or without weight, or a word with one.
    fn item(&mut self, at: usize, depth: usize) -> Result<Found, Refused> {
        let rest = &self.text[at..];
        let (target, end, is_word) = match rest.chars().next() {
            Some('"') => match self.quoted(at, depth)? {
                Some((nodes, end)) => (nodes, end, false),
                None => return Ok(None),
            },
            Some('(') => match self.bracket(at, depth)? {
                Some((nodes, end)) => (nodes, end, false),
                None => return Ok(None),
            },
            _ => match self.word(at) {
                Some(end) => (vec![Node::Text(unescaped(self.text[at..end].into()))], end, true),
                None => return Ok(None),
            },
        };
        let behind = || weight(&self.text[end..], is_word).map(|(weight, length)| (weight, end + length));
        if let Some((weight, end)) = self.attend(end).or_else(behind) {
            return Ok(Some((vec![Node::Weighted(weight, target)], end)));
        }
        Ok((!is_word).then_some((target, end)))
    }

    /// `( ... )`
    fn bracket(&mut self, at: usize, depth: usize) -> Result<Found, Refused> {
        if self.broken.contains(&at) {
            return Ok(None);
        }
        if self.outer + depth >= self.limits.depth {
            return Err(Refused::depth(self.limits));
        }
        let (nodes, end) = self.inner(at + 1, depth + 1)?;
        let end = self.skip(end);
        let found = self.text[end..].starts_with(')').then_some((nodes, end + 1));
        if found.is_none() {
            self.broken.insert(at);
        }
        Ok(found)
    }

    /// `" ... "` on one line, `\"` inside; what is in it has the form of what is in brackets.
    fn quoted(&self, at: usize, depth: usize) -> Result<Found, Refused> {
        let body = &self.text[at + 1..];
        let Some(length) = quote(body) else {
            return Ok(None);
        };
        let (body, end) = (&body[..length], at + 1 + length + 1);
        if self.outer + depth >= self.limits.depth {
            return Err(Refused::depth(self.limits));
        }
        // The package makes white space of these; a form feed, which nothing in its grammar takes, ends the quotation.
        let escapes = [("\\t", "\t"), ("\\n", "\n"), ("\\f", "\u{c}"), ("\\r", "\r")];
        let body = escapes
            .into_iter()
            .fold(body.to_owned(), |body, (escape, white)| {
                body.replace(escape, white)
            });
        if body.trim().is_empty() {
            return Ok(Some((vec![Node::Text(String::new())], end)));
        }
        let mut parser = Parser::new(&body, self.limits, self.outer + depth + 1);
        let (nodes, read) = parser.inner(0, 0)?;
        Ok((parser.skip(read) == body.len()).then_some((nodes, end)))
    }

    /// The end of a word without syntax that begins here.
    fn word(&self, at: usize) -> Option<usize> {
        let mut end = at;
        let rest = &self.text[at..];
        let mut chars = rest.char_indices().peekable();
        while let Some((_, char)) = chars.next() {
            let next = chars.peek().map(|(_, char)| *char);
            let plain = |char: &char| !is_white(*char) && *char != '\u{c}' && !SYNTAX.contains(char);
            let known = match char {
                '\\' if next.is_some_and(|next| SYNTAX.contains(&next)) => chars.next().is_some(),
                // A sign counts as a letter when a letter follows.
                '+' | '-' => next.as_ref().is_some_and(plain),
                char => plain(&char),
            };
            if !known {
                break;
            }
            end = at + chars.peek().map_or(rest.len(), |(next, _)| *next);
        }
        (end > at).then_some(end)
    }

    /// `.attend(1.2)` behind a target, and where it ends.
    fn attend(&self, at: usize) -> Option<(f64, usize)> {
        let open = |at: usize, text: &str| {
            let at = self.skip(at);
            self.text[at..].starts_with(text).then_some(at + text.len())
        };
        let at = self.skip(open(open(at, ".attend")?, "(")?);
        let (weight, length) = weight(&self.text[at..], false)?;
        Some((weight, open(at + length, ")")?))
    }

    /// Where white space ends.
    fn skip(&self, at: usize) -> usize {
        let rest = &self.text[at..];
        at + rest.len() - rest.trim_start_matches(is_white).len()
    }
}

fn is_white(char: char) -> bool {
    matches!(char, ' ' | '\t' | '\n' | '\r')
}

/// Bytes up to the quote that closes; none if the line ends before.
///
/// As the regular expression `(?:\\"|[^"\n\r])*"`, which takes a last `\"` apart where nothing else closes.
fn quote(body: &str) -> Option<usize> {
    let mut last = None;
    let mut before = 0;
    // No further than to the first bare one, so that a text of many quotations is read once.
    for (at, byte) in body.bytes().enumerate() {
        match byte {
            b'\n' | b'\r' => break,
            b'"' if before != b'\\' => return Some(at),
            b'"' => last = Some(at),
            _ => {}
        }
        before = byte;
    }
    // All are escaped; the last of these closes.
    last
}

/// The weight that a text begins with, and its bytes: signs, and for brackets also a number.
fn weight(text: &str, signs_only: bool) -> Option<(f64, usize)> {
    for (sign, base) in [('+', PLUS), ('-', MINUS)] {
        let count = text.len() - text.trim_start_matches(sign).len();
        if count > 0 {
            return Some((base.powf(count as f64), count));
        }
    }
    if signs_only {
        return None;
    }
    let digits = |text: &str| text.len() - text.trim_start_matches(|char: char| char.is_ascii_digit()).len();
    let whole = digits(text);
    let length = match text[whole..].strip_prefix('.') {
        Some(part) if whole > 0 || digits(part) > 0 => whole + 1 + digits(part),
        Some(_) | None => whole,
    };
    Some((text[..length].parse().ok()?, length))
}
