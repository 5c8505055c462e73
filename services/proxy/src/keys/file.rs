//! A list of keys, as YAML or JSON: what may stand in it, and what is wrong with it. Pure.
//!
//! Invariant: what is told of a list that is wrong holds nothing of a key or digest.

use std::collections::{HashMap, HashSet};

use mobula_proto::common::v1::Priority;
use mobula_serving::quota::{Limits, Rate};
use serde::Deserialize;

use super::ring::Digest;
use crate::caller::WEIGHT;

/// Keys that a list may have: each costs less than a kilobyte.
const KEYS_MAX: usize = 100_000;
/// Characters of a tenant's name, which labels metrics.
const TENANT_MAX: usize = 64;
/// Shares may differ so much: enough for any two, and no rounding error.
const WEIGHTS: std::ops::RangeInclusive<f64> = 0.001..=1000.0;
/// Seconds that a rate saves up where no burst is given.
const BURST_SECONDS: f64 = 1.0;
/// Pixels of a megapixel.
const MEGA: f64 = 1e6;
/// What text in front of a digest is skipped.
const PREFIX: &str = "sha256:";

/// A key, checked.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) tenant: String,
    pub(super) digests: Vec<Digest>,
    pub(super) weight: f64,
    pub(super) limits: Limits,
    pub(super) models: Option<Vec<String>>,
    pub(super) max_priority: Option<Priority>,
}

/// A key, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    tenant: String,
    /// Several, with blanks between them, while one replaces another.
    sha256: String,
    weight: Option<f64>,
    requests_per_second: Option<f64>,
    burst: Option<u32>,
    max_concurrent: Option<u32>,
    megapixels_per_minute: Option<f64>,
    megapixels_per_day: Option<f64>,
    models: Option<Vec<String>>,
    max_priority: Option<Class>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Class {
    Low,
    Normal,
    High,
}

impl From<Class> for Priority {
    fn from(class: Class) -> Self {
        match class {
            Class::Low => Self::Low,
            Class::Normal => Self::Normal,
            Class::High => Self::High,
        }
    }
}

/// Reads a list.
///
/// # Errors
/// What is wrong with it, and where.
pub(super) fn parse(text: &str) -> Result<Vec<Entry>, String> {
    // A list that is cut off to nothing must not lock everybody out; one that is to be empty says `[]`.
    if text.trim().is_empty() {
        return Err("it is empty; a list without keys is []".to_owned());
    }
    // Shown lines would hold digests.
    let options = serde_saphyr::options! { with_snippet: false };
    let written: Vec<Written> = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let text = error.to_string();
        text.lines().next().unwrap_or_default().to_owned()
    })?;
    if written.len() > KEYS_MAX {
        return Err(format!("it has more than {KEYS_MAX} keys"));
    }
    let mut entries = Vec::with_capacity(written.len());
    let (mut taken, mut weights) = (HashSet::new(), HashMap::new());
    for (number, written) in (1..).zip(written) {
        let said = |why: String| format!("key {number}: {why}");
        let entry = check(written).map_err(said)?;
        if !entry.digests.iter().all(|digest| taken.insert(*digest)) {
            return Err(said("its sha256 is there twice".to_owned()));
        }
        let weight = *weights.entry(entry.tenant.clone()).or_insert(entry.weight);
        if weight != entry.weight {
            let (tenant, other) = (&entry.tenant, entry.weight);
            return Err(said(format!(
                "weight: {tenant} has {weight} and {other}; keys of one tenant share one weight"
            )));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn check(written: Written) -> Result<Entry, String> {
    let Written { tenant, weight, .. } = written;
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
    if tenant.is_empty() || tenant.len() > TENANT_MAX || !tenant.chars().all(is_name) {
        return Err(format!(
            "tenant: must have 1 to {TENANT_MAX} letters, digits or any of - _ . @"
        ));
    }
    let digests: Option<Vec<Digest>> = written.sha256.split_whitespace().map(digest).collect();
    let digests = digests.filter(|digests| !digests.is_empty());
    let Some(digests) = digests else {
        return Err(format!(
            "sha256: of {tenant} is not 64 hexadecimal digits (printf %s KEY | sha256sum)"
        ));
    };
    let weight = weight.unwrap_or(WEIGHT);
    if !WEIGHTS.contains(&weight) {
        let (from, to) = WEIGHTS.into_inner();
        return Err(format!("weight: is {weight} and must be {from} to {to}"));
    }
    let positive = |field: &str, value: Option<f64>| match value {
        Some(value) if !(value.is_finite() && value > 0.0) => {
            Err(format!("{field}: is {value} and must be above 0"))
        }
        _ => Ok(value),
    };
    let per_second = positive("requests_per_second", written.requests_per_second)?;
    if written.burst.is_some() && per_second.is_none() {
        return Err("burst: needs requests_per_second".to_owned());
    }
    if written.burst == Some(0) || written.max_concurrent == Some(0) {
        return Err("burst, max_concurrent: must be above 0".to_owned());
    }
    let models = written.models;
    if models.as_ref().is_some_and(|models| models.is_empty()) {
        return Err("models: name one at least, or leave it out to allow all".to_owned());
    }
    let mega = |pixels: f64| pixels * MEGA;
    let limits = Limits {
        requests: per_second.map(|per_second| Rate {
            per_second,
            burst: written
                .burst
                .map_or_else(|| (per_second * BURST_SECONDS).max(1.0), f64::from),
        }),
        running: written.max_concurrent,
        minute: positive("megapixels_per_minute", written.megapixels_per_minute)?.map(mega),
        day: positive("megapixels_per_day", written.megapixels_per_day)?.map(mega),
    };
    Ok(Entry {
        tenant,
        digests,
        weight,
        limits,
        models,
        max_priority: written.max_priority.map(Priority::from),
    })
}

fn digest(text: &str) -> Option<Digest> {
    let text = text.strip_prefix(PREFIX).unwrap_or(text).as_bytes();
    let mut digest = Digest::default();
    if text.len() != 2 * digest.len() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(text.chunks_exact(2)) {
        let nibble = |c: u8| char::from(c).to_digit(16);
        *byte = (nibble(pair[0])? * 16 + nibble(pair[1])?) as u8;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::ring::hex, *};

    #[test]
    fn a_list_says_what_each_key_opens() {
        let (a, b, c) = (hex(b"a"), hex(b"b"), hex(b"c"));
        let text = format!(
            "# comment\n- tenant: acme\n  sha256: sha256:{a} {b}\n  weight: 2.5\n  requests_per_second: 0.5\n  burst: 4\n  \
             max_concurrent: 3\n  megapixels_per_minute: 10\n  megapixels_per_day: 100.5\n  models: [demo, 'art:ink']\n  \
             max_priority: normal\n- {{tenant: other, sha256: {c}, requests_per_second: 0.5}}\n"
        );
        let entries = parse(&text).unwrap();
        let [acme, other] = &entries[..] else {
            panic!("{entries:?}")
        };
        assert_eq!(
            (acme.tenant.as_str(), acme.digests.len(), acme.weight),
            ("acme", 2, 2.5)
        );
        let requests = Rate {
            per_second: 0.5,
            burst: 4.0,
        };
        let limits = Limits {
            requests: Some(requests),
            running: Some(3),
            minute: Some(10e6),
            day: Some(100.5e6),
        };
        assert_eq!((acme.limits, acme.max_priority), (limits, Some(Priority::Normal)));
        assert_eq!(acme.models.as_ref().map(Vec::len), Some(2));
        assert_eq!(other.limits.requests.map(|rate| rate.burst), Some(1.0));
        assert!(parse("[]").unwrap().is_empty());
        let json = format!(r#"[{{"tenant": "acme", "sha256": "{a}"}}]"#);
        assert_eq!(parse(&json).unwrap().len(), 1);
    }

    #[test]
    fn what_is_wrong_is_told_and_nothing_of_a_key_with_it() {
        let good = hex(b"a");
        for (text, why) in [
            ("", "it is empty"),
            ("\n \n", "it is empty"),
            ("tenant: acme", ""),
            ("- {tenant: acme}", "sha256"),
            ("- {tenant: acme, sha256: mob_topsecret}", "64 hexadecimal digits"),
            ("- {tenant: acme, sha256: ''}", "64 hexadecimal digits"),
            ("- {tenant: acme, key: mob_topsecret}", "key"),
            ("- {tenant: 'a b', sha256: GOOD}", "tenant: must"),
            ("- {tenant: '', sha256: GOOD}", "tenant: must"),
            ("- {tenant: acme, sha256: GOOD GOOD}", "twice"),
            ("- {tenant: acme, sha256: GOOD, weight: 0}", "weight: is 0"),
            ("- {tenant: acme, sha256: GOOD, weight: .nan}", "weight"),
            (
                "- {tenant: acme, sha256: GOOD, requests_per_second: -1}",
                "requests_per_second: is -1",
            ),
            (
                "- {tenant: acme, sha256: GOOD, burst: 3}",
                "needs requests_per_second",
            ),
            ("- {tenant: acme, sha256: GOOD, max_concurrent: 0}", "above 0"),
            ("- {tenant: acme, sha256: GOOD, models: []}", "name one at least"),
            ("- {tenant: acme, sha256: GOOD, max_priority: urgent}", ""),
            ("- {tenant: acme, sha256: [GOOD", ""),
        ] {
            let told = parse(&text.replace("GOOD", &good)).unwrap_err();
            assert!(told.contains(why), "{text}: {told}");
            assert!(
                !told.contains("topsecret") && !told.contains(&good),
                "{text}: {told}"
            );
            assert!(!told.contains('\n'), "{told}");
        }
        let two = format!(
            "- {{tenant: acme, sha256: {good}}}\n- {{tenant: acme, sha256: {}, weight: 2}}",
            hex(b"b")
        );
        assert!(
            parse(&two)
                .unwrap_err()
                .starts_with("key 2: weight: acme has 1 and 2")
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[-{}\\[\\]:,&*!|> a-z0-9\n'\"]{0,80}") {
            let _ = parse(&text);
        }
    }
}
