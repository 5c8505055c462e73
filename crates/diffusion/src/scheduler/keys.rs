//! Reading of one class's keys from a configuration, with that class's defaults.
//!
//! It remembers which keys were asked for, so that what nobody read can be reported. A value of the wrong type is refused by name;
//! `null` means the same as in Python: false for a flag, absent for a number that may be absent.

use serde_json::{Map, Value};

use crate::Error;

/// Reads keys of a configuration object.
#[derive(Debug)]
pub(super) struct Keys<'a> {
    map: &'a Map<String, Value>,
    read: Vec<&'static str>,
}

impl<'a> Keys<'a> {
    pub(super) fn new(map: &'a Map<String, Value>) -> Self {
        Self {
            map,
            read: Vec::new(),
        }
    }

    fn get(&mut self, key: &'static str) -> Option<&'a Value> {
        self.read.push(key);
        self.map.get(key)
    }

    /// A flag; also the numbers 0 and 1, which Python takes for flags.
    pub(super) fn flag(&mut self, key: &'static str, default: bool) -> Result<bool, Error> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Null) => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(other) => Err(wrong(key, other, "true or false")),
        }
    }

    /// A number between `low` and `high`, both included.
    pub(super) fn number(
        &mut self,
        key: &'static str,
        default: f64,
        (low, high): (f64, f64),
    ) -> Result<f64, Error> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => to_number(value)
                .filter(|number| (low..=high).contains(number))
                .ok_or_else(|| wrong(key, value, &between(low, high))),
        }
    }

    /// A number that may be absent or `null`.
    pub(super) fn maybe_number(&mut self, key: &'static str) -> Result<Option<f64>, Error> {
        match self.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match to_number(value) {
                Some(number) if number.is_finite() && number > 0.0 => Ok(Some(number)),
                Some(_) | None => Err(wrong(key, value, "a positive number or null")),
            },
        }
    }

    /// A whole number between `low` and `high`, both included.
    pub(super) fn whole(
        &mut self,
        key: &'static str,
        default: usize,
        (low, high): (usize, usize),
    ) -> Result<usize, Error> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value
                .as_u64()
                .and_then(|number| usize::try_from(number).ok())
                .filter(|number| (low..=high).contains(number))
                .ok_or_else(|| wrong(key, value, &format!("a whole number from {low} to {high}"))),
        }
    }

    /// A whole number from 0 that may be absent or `null`.
    pub(super) fn maybe_whole(&mut self, key: &'static str) -> Result<Option<u64>, Error> {
        match self.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value
                .as_u64()
                .map(Some)
                .ok_or_else(|| wrong(key, value, "a whole number from 0 to 2^64 - 1, or null")),
        }
    }

    /// A list of whole numbers from 0; empty where it is absent.
    pub(super) fn wholes(&mut self, key: &'static str) -> Result<Vec<usize>, Error> {
        const EXPECTED: &str = "a list of whole numbers";
        let whole = |value: &Value| value.as_u64().and_then(|number| usize::try_from(number).ok());
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(values)) => values
                .iter()
                .map(whole)
                .collect::<Option<Vec<_>>>()
                .ok_or_else(|| wrong(key, &"a list with another value".into(), EXPECTED)),
            Some(other) => Err(wrong(key, other, EXPECTED)),
        }
    }

    /// One of the words of `accepted`.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        default: T,
        accepted: &[(&str, T)],
    ) -> Result<T, Error> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        accepted
            .iter()
            .find(|(word, _)| value.as_str() == Some(word))
            .map(|(_, choice)| *choice)
            .ok_or_else(|| {
                let words: Vec<_> = accepted.iter().map(|(word, _)| *word).collect();
                wrong(key, value, &words.join(", "))
            })
    }

    /// One of the words of `accepted`, absent or `null`.
    pub(super) fn choice_or_null(
        &mut self,
        key: &'static str,
        accepted: &[&'static str],
    ) -> Result<Option<&'static str>, Error> {
        match self.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => accepted
                .iter()
                .find(|word| value.as_str() == Some(word))
                .map(|word| Some(*word))
                .ok_or_else(|| wrong(key, value, &format!("{} or null", accepted.join(", ")))),
        }
    }

    /// A list of finite numbers, absent or `null`.
    pub(super) fn numbers(&mut self, key: &'static str) -> Result<Option<Vec<f64>>, Error> {
        const EXPECTED: &str = "a list of numbers above 0 and below 1, or null";
        match self.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(values)) => values
                .iter()
                .map(|value| to_number(value).filter(|n| *n > 0.0 && *n < 1.0))
                .collect::<Option<Vec<_>>>()
                .map(Some)
                .ok_or_else(|| wrong(key, &"a list with another value".into(), EXPECTED)),
            Some(other) => Err(wrong(key, other, EXPECTED)),
        }
    }

    /// Refuses any value but `null`, with the reason.
    pub(super) fn refuse_value(&mut self, key: &'static str, reason: &'static str) -> Result<(), Error> {
        match self.get(key) {
            None | Some(Value::Null) => Ok(()),
            Some(value) => Err(Error::Unsupported {
                key,
                value: brief(value),
                reason,
            }),
        }
    }

    /// Whether a key is this word.
    pub(super) fn is_word(&mut self, key: &'static str, word: &str) -> bool {
        self.get(key).and_then(Value::as_str) == Some(word)
    }

    /// The keys that were present and never asked for; diffusers ignores these for this class too.
    pub(super) fn unread(&self) -> Vec<String> {
        // Keys with an underscore are bookkeeping of diffusers (`_class_name`, `_diffusers_version`).
        self.map
            .keys()
            .filter(|key| !key.starts_with('_') && !self.read.contains(&key.as_str()))
            .cloned()
            .collect()
    }
}

/// A JSON number, or one of the three that Python writes outside JSON (quoted by [`quote_infinities`]).
fn to_number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(word) if word == "-Infinity" => Some(f64::NEG_INFINITY),
        Value::String(word) if word == "Infinity" => Some(f64::INFINITY),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Puts quotes around the bare `Infinity`, `-Infinity` and `NaN` that Python's json module writes (a saved
/// DPMSolverMultistepScheduler has `"lambda_min_clipped": -Infinity`), which are not JSON.
pub(super) fn quote_infinities(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    let mut quoted = false;
    while let Some(c) = rest.chars().next() {
        let word = ["-Infinity", "Infinity", "NaN"]
            .into_iter()
            .find(|word| !quoted && rest.starts_with(word));
        if let Some(word) = word {
            out.extend(["\"", word, "\""]);
            rest = &rest[word.len()..];
            continue;
        }
        // An escaped character inside a string is copied with its backslash, so that \" does not end the string.
        let taken = if quoted && c == '\\' {
            rest.char_indices().nth(2).map_or(rest.len(), |(at, _)| at)
        } else {
            c.len_utf8()
        };
        quoted ^= c == '"';
        out.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    out
}

/// A range in words: ends that stand for "above 0" and "no end" are not to be read as numbers.
fn between(low: f64, high: f64) -> String {
    let least = match low {
        f64::NEG_INFINITY => None,
        f64::MIN_POSITIVE => Some("above 0".to_owned()),
        low => Some(format!("from {low}")),
    };
    match (least, high) {
        (None, f64::MAX) => "a number, or minus infinity".to_owned(),
        (None, high) => format!("a number up to {high}"),
        (Some(least), f64::MAX) => format!("a number {least}"),
        (Some(least), high) => format!("a number {least} to {high}"),
    }
}

fn wrong(key: &'static str, value: &Value, expected: &str) -> Error {
    Error::Value {
        key,
        value: brief(value),
        expected: expected.to_owned(),
    }
}

/// A value as JSON, cut at 80 characters.
fn brief(value: &Value) -> String {
    value.to_string().chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_infinities_are_quoted_and_strings_are_left_alone() {
        let text = r#"{"a": -Infinity, "Infinity \" NaN": [Infinity,NaN], "b\\": "-Infinity"}"#;
        let quoted = quote_infinities(text);
        assert_eq!(
            quoted,
            r#"{"a": "-Infinity", "Infinity \" NaN": ["Infinity","NaN"], "b\\": "-Infinity"}"#
        );
        assert!(serde_json::from_str::<Value>(&quoted).is_ok());
    }
}
