//! The query of `GET /imagine`: names and values to a request, or every problem at once.
//!
//! Pure. Values are read as pydantic reads them (the Ray sample's door is FastAPI): `512`, ` 512 `, `+512`, `512.0` and
//! `1_024` are integers. It refuses fields it does not know, because a misspelt option that is silently dropped draws the
//! wrong picture.
//!
//! Invariant: no input panics, and a field with a problem leaves the others readable.

use std::collections::BTreeSet;

use mobula_proto::{common::v1::SamplerOptions, image::v1 as image};

use super::read::{Integer, decode, integer};
use crate::{
    problem::{Problem, Rule},
    words,
};

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
    "sigma_schedule",
    "eta",
    "s_churn",
    "s_tmin",
    "s_tmax",
    "s_noise",
    "prompt_syntax",
    "clip_skip",
    "guidance_rescale",
    "guidance_start",
    "guidance_end",
    "random_source",
    "priority",
    "determinism",
    "format",
    "quality",
    "provenance",
    "refiner",
    "refiner_model_id",
    "switch_at",
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

    /// A number as it was written.
    fn written(&self, field: &str) -> &str {
        self.raw(field).unwrap_or_default().trim()
    }

    /// The name under which the caller gave what the request calls `field`.
    pub(super) fn given_as<'a>(&self, field: &'a str) -> &'a str {
        match field {
            "width" | "height" if self.raw(field).is_none() && self.raw("img_size").is_some() => "img_size",
            // Not in the query: it is Ray Serve's header.
            "model_id" => "serve_multiplexed_model_id",
            other => words::flat(other),
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
            Some(Integer::Negative) => {
                let rule = Rule::at_least(self.written("seed"), 0_u8);
                self.complain("seed", rule);
            }
            Some(Integer::Huge) => {
                let rule = Rule::at_most(self.written("seed"), u64::MAX);
                self.complain("seed", rule);
            }
        }
        self.fill_seldom();
    }

    /// What most requests leave alone.
    fn fill_seldom(&mut self) {
        self.request.sigma_schedule = self.raw("sigma_schedule").unwrap_or_default().to_owned();
        let options = SamplerOptions {
            eta: self.number("eta"),
            s_churn: self.number("s_churn"),
            s_tmin: self.number("s_tmin"),
            s_tmax: self.number("s_tmax"),
            s_noise: self.number("s_noise"),
        };
        self.request.sampler_options = (options != SamplerOptions::default()).then_some(options);
        self.request.prompt_syntax = self.word("prompt_syntax", words::SYNTAXES);
        // No upper limit here: the check against the model names it.
        match self.integer("clip_skip") {
            None => {}
            Some(Integer::Fits(layers)) => self.request.clip_skip = u32::try_from(layers).unwrap_or(u32::MAX),
            Some(Integer::Negative) => {
                let rule = Rule::at_least(self.written("clip_skip"), 0_u8);
                self.complain("clip_skip", rule);
            }
            Some(Integer::Huge) => self.request.clip_skip = u32::MAX,
        }
        self.request.guidance_rescale = self.number("guidance_rescale").unwrap_or_default();
        let (start, end) = (self.number("guidance_start"), self.number("guidance_end"));
        self.request.guidance_interval =
            (start.is_some() || end.is_some()).then(|| image::GuidanceInterval {
                start: start.unwrap_or(0.0),
                end: end.unwrap_or(1.0),
            });
        self.request.random_source = self.word("random_source", words::SOURCES);
        self.request.priority = self.word("priority", words::PRIORITIES);
        self.request.determinism = self.word("determinism", words::DETERMINISMS);
        self.request.format = self.word("format", words::FORMATS);
        self.request.quality = self.small("quality").unwrap_or_default();
        self.request.provenance = self.word("provenance", words::PROVENANCES);
        let switch_at = self.number("switch_at");
        let model_id = self.raw("refiner_model_id").map(str::to_owned);
        match self.raw("refiner").map(str::to_owned) {
            Some(model) => {
                self.request.refiner = Some(image::Refiner {
                    model,
                    model_id: model_id.unwrap_or_default(),
                    // Refused when it is absent, with the limits.
                    switch_at: switch_at.unwrap_or_default(),
                });
            }
            None if model_id.is_some() || self.raw("switch_at").is_some() => {
                self.complain("refiner", Rule::Missing)
            }
            None => {}
        }
    }

    /// One of a few words, whatever its case.
    fn word(&mut self, field: &'static str, words: &[(&str, i32)]) -> i32 {
        let Some(given) = self.raw(field).map(str::trim) else {
            return 0;
        };
        match words::read(given, words) {
            Some(value) => value,
            None => {
                let names = words.iter().map(|(word, _)| (*word).to_owned());
                self.complain(field, Rule::OneOf(names.collect()));
                0
            }
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

/// Reads a priority that came in a header.
pub(super) fn priority(given: &str) -> Result<i32, Rule> {
    words::read(given.trim(), words::PRIORITIES).ok_or_else(|| {
        let names = words::PRIORITIES.iter().map(|(word, _)| (*word).to_owned());
        Rule::OneOf(names.collect())
    })
}

#[cfg(test)]
mod tests;
