//! The query of `GET /imagine`: names and values to a request, or every problem at once.
//!
//! Pure. Values are read as pydantic reads them (the Ray sample's door is FastAPI): `512`, ` 512 `, `+512`, `512.0` and
//! `1_024` are integers. It refuses fields it does not know, because a misspelt option that is silently dropped draws the
//! wrong picture.
//!
//! Invariant: no input panics, and a field with a problem leaves the others readable.

use std::collections::BTreeSet;

use mobula_proto::image::v1 as image;

use crate::problem::{Problem, Rule};

/// Names that are accepted, in the order in which they are documented.
pub(super) const FIELDS: &[&str] = &[
    "prompt",
    "img_size",
    "width",
    "height",
    "negative_prompt",
    "steps",
    "guidance_scale",
    "seed",
    "scheduler",
];

/// So many unknown names are told of; an address has room for ten thousands, and each answer takes a line.
const UNKNOWN_TOLD: usize = 16;

/// A query as it was read.
#[derive(Debug, Default)]
pub(super) struct Query {
    /// What was asked for; fields with problems are absent.
    pub request: image::GenerateRequest,
    /// What could not be read.
    pub problems: Vec<Problem>,
    /// Every field as it came, decoded; the last one of a name counts.
    raw: Vec<(String, String)>,
}

impl Query {
    /// Reads a query string, without its question mark.
    pub(super) fn parse(query: &str) -> Self {
        let mut read = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = String::from_utf8_lossy(&decode(name)).into_owned();
            match String::from_utf8(decode(value)) {
                Ok(value) => read.raw.push((name, value)),
                Err(error) => {
                    let value = String::from_utf8_lossy(error.as_bytes()).into_owned();
                    read.raw.push((name.clone(), value));
                    // What is unknown is told so below, whatever its value.
                    if let Some(field) = FIELDS.iter().find(|field| **field == name) {
                        read.complain(field, Rule::NotUnicode);
                    }
                }
            }
        }
        read.fill();
        read
    }

    /// A field's value as it came.
    pub(super) fn raw(&self, field: &str) -> Option<&str> {
        self.raw
            .iter()
            .rev()
            .find(|(name, _)| name == field)
            .map(|(_, value)| value.as_str())
    }

    /// The name under which the caller gave what the request calls `field`.
    pub(super) fn given_as<'a>(&self, field: &'a str) -> &'a str {
        match field {
            "width" | "height" if self.raw(field).is_none() && self.raw("img_size").is_some() => "img_size",
            "seeds" => "seed",
            other => other,
        }
    }

    fn fill(&mut self) {
        let mut unknown = BTreeSet::new();
        for (name, _) in &self.raw {
            if !FIELDS.contains(&name.as_str()) {
                unknown.insert(name.clone());
            }
            if unknown.len() == UNKNOWN_TOLD {
                break;
            }
        }
        self.problems.extend(
            unknown
                .into_iter()
                .map(|name| Problem::new(name, Rule::Unexpected(FIELDS))),
        );
        match self.raw("prompt") {
            Some(prompt) => self.request.prompt = prompt.to_owned(),
            None => self.complain("prompt", Rule::Missing),
        }
        self.request.negative_prompt = self.raw("negative_prompt").unwrap_or_default().to_owned();
        self.request.scheduler = self.raw("scheduler").unwrap_or_default().to_owned();
        let size = self.small("img_size");
        self.request.width = self.small("width").or(size);
        self.request.height = self.small("height").or(size);
        self.request.steps = self.small("steps");
        self.request.guidance_scale = self.number("guidance_scale");
        match self.integer("seed") {
            None => {}
            Some(Integer::Fits(seed)) => self.request.seeds = vec![seed],
            Some(Integer::Negative) => self.complain("seed", Rule::AtLeast(0)),
            Some(Integer::Huge) => self.complain("seed", Rule::AtMost(u64::MAX)),
        }
    }

    /// Notes what is wrong with a field; one complaint about each is enough.
    fn complain(&mut self, field: &'static str, rule: Rule) {
        if !self.problems.iter().any(|known| known.field == field) {
            self.problems.push(Problem::new(field, rule));
        }
    }

    /// An integer that the model's limits are small against: what is out of range stays out of range as 0 or as the
    /// largest value, so that the check against the model names the limit.
    fn small(&mut self, field: &'static str) -> Option<u32> {
        Some(match self.integer(field)? {
            Integer::Fits(value) => u32::try_from(value).unwrap_or(u32::MAX),
            Integer::Negative => 0,
            Integer::Huge => u32::MAX,
        })
    }

    fn integer(&mut self, field: &'static str) -> Option<Integer> {
        let value = integer(self.raw(field)?);
        if value.is_none() {
            self.complain(field, Rule::NotInteger);
        }
        value
    }

    fn number(&mut self, field: &'static str) -> Option<f32> {
        let value = self.raw(field)?.trim().parse();
        if value.is_err() {
            self.complain(field, Rule::NotNumber);
        }
        value.ok()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Integer {
    Fits(u64),
    Negative,
    Huge,
}

/// Reads an integer as pydantic does in its lax mode.
fn integer(text: &str) -> Option<Integer> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits = match digits.split_once('.') {
        Some((whole, rest)) if rest.bytes().all(|b| b == b'0') => whole,
        Some(_) => return None,
        None => digits,
    };
    // An underscore may stand between two digits.
    if digits.is_empty()
        || digits
            .split('_')
            .any(|group| group.is_empty() || !group.bytes().all(|b| b.is_ascii_digit()))
    {
        return None;
    }
    let digits: String = digits.chars().filter(|c| *c != '_').collect();
    Some(match digits.parse::<u64>() {
        Ok(0) => Integer::Fits(0),
        _ if negative => Integer::Negative,
        Ok(value) => Integer::Fits(value),
        Err(_) => Integer::Huge,
    })
}

/// Undoes form encoding; a percent sign without two hexadecimal digits stands for itself, as in Python.
fn decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
        match (bytes[i], hex(i + 1), hex(i + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                i += 2;
            }
            (b'+', _, _) => out.push(b' '),
            (byte, _, _) => out.push(byte),
        }
        i += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn problems(query: &str) -> Vec<(String, Rule)> {
        Query::parse(query)
            .problems
            .into_iter()
            .map(|p| (p.field.into_owned(), p.rule))
            .collect()
    }

    #[test]
    fn the_ray_client_is_understood() {
        let query = Query::parse("prompt=a%20cute%20cat+is%20dancing.&img_size=512");
        assert_eq!(query.problems, []);
        assert_eq!(query.request.prompt, "a cute cat is dancing.");
        assert_eq!(
            (query.request.width, query.request.height),
            (Some(512), Some(512))
        );
    }

    #[test]
    fn every_field_is_read() {
        let query = Query::parse(
            "prompt=%E7%8C%AB&negative_prompt=b%26c&width=64&height=128&steps=5&guidance_scale=%207.5&seed=18446744073709551615&scheduler=euler_a",
        );
        assert_eq!(query.problems, []);
        let expected = image::GenerateRequest {
            prompt: "猫".into(),
            negative_prompt: "b&c".into(),
            width: Some(64),
            height: Some(128),
            steps: Some(5),
            guidance_scale: Some(7.5),
            seeds: vec![u64::MAX],
            scheduler: "euler_a".into(),
            ..Default::default()
        };
        assert_eq!(query.request, expected);
    }

    #[test]
    fn every_problem_is_told_at_once() {
        assert_eq!(
            problems("img_size=abc&steps=1.5&guidance_scale=x&seed=-1&sampler=foo"),
            [
                ("sampler".to_owned(), Rule::Unexpected(FIELDS)),
                ("prompt".to_owned(), Rule::Missing),
                ("img_size".to_owned(), Rule::NotInteger),
                ("steps".to_owned(), Rule::NotInteger),
                ("guidance_scale".to_owned(), Rule::NotNumber),
                ("seed".to_owned(), Rule::AtLeast(0)),
            ]
        );
        assert_eq!(
            problems("prompt=%ff%fe"),
            [("prompt".to_owned(), Rule::NotUnicode)]
        );
        assert_eq!(
            problems("prompt=a&seed=18446744073709551616"),
            [("seed".to_owned(), Rule::AtMost(u64::MAX))]
        );
    }

    #[test]
    fn a_field_is_complained_of_once_and_strangers_up_to_a_bound() {
        assert_eq!(
            problems("prompt=a&steps=%ff&steps=x"),
            [("steps".to_owned(), Rule::NotUnicode)]
        );
        assert_eq!(
            problems("prompt=a&b=1&c=2&b=%ff&c=4"),
            ["b", "c"].map(|name| (name.to_owned(), Rule::Unexpected(FIELDS)))
        );
        let many: String = (0..10_000).map(|i| format!("&x{i}=1")).collect();
        assert_eq!(problems(&format!("prompt=a{many}")).len(), UNKNOWN_TOLD);
    }

    #[test]
    fn integers_are_read_as_pydantic_reads_them() {
        for text in ["512", " 512 ", "+512", "512.0", "512.", "5_12", "0512"] {
            assert_eq!(integer(text), Some(Integer::Fits(512)), "{text}");
        }
        for text in ["", " ", "-", "5.1", "5__1", "_5", "5_", "0x10", "1e3", "five"] {
            assert_eq!(integer(text), None, "{text}");
        }
        assert_eq!(integer("-0"), Some(Integer::Fits(0)));
        assert_eq!(integer("-8"), Some(Integer::Negative));
    }

    #[test]
    fn the_last_value_of_a_name_counts() {
        assert_eq!(Query::parse("prompt=a&prompt=b").request.prompt, "b");
    }

    #[test]
    fn a_problem_with_a_side_is_told_of_img_size_when_that_was_given() {
        assert_eq!(Query::parse("img_size=3").given_as("width"), "img_size");
        assert_eq!(Query::parse("img_size=3&width=4").given_as("width"), "width");
        assert_eq!(Query::parse("prompt=a").given_as("width"), "width");
    }

    proptest! {
        #[test]
        fn no_query_panics(query in ".{0,80}") {
            let _ = Query::parse(&query);
        }

        #[test]
        fn any_prompt_survives_encoding(prompt in "\\PC{1,40}") {
            let encoded: String = prompt.bytes().map(|b| format!("%{b:02X}")).collect();
            let query = Query::parse(&format!("prompt={encoded}"));
            prop_assert_eq!(query.problems, []);
            prop_assert_eq!(query.request.prompt, prompt);
        }
    }
}
