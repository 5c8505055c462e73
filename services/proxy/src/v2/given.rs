//! What a request gives by name, in tensors or in parameters, read by its types. Pure.
//!
//! A field with one value may be either; both at once are refused, and so is a name that the model does not have, because an
//! option that is silently dropped draws the wrong picture. Invariant: no input panics, a field with a problem leaves the
//! others readable, and each is complained of once.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;

use super::{
    ask::{Parameters, Value},
    tensor::{Elements, Tensor, shown},
};
use crate::problem::{Problem, Rule};

/// So many unknown names are told of.
const UNKNOWN_TOLD: usize = 16;

/// What was given, and what of it could not be read.
#[derive(Debug, Default)]
pub(crate) struct Given {
    tensors: BTreeMap<String, Tensor>,
    parameters: Parameters,
    pub(crate) problems: Vec<Problem>,
}

/// A field's value.
enum Source {
    Tensor(Tensor),
    Value(Value),
}

impl Given {
    /// Takes in a request.
    pub(crate) fn new(inputs: Vec<Tensor>, parameters: Parameters) -> Self {
        let mut given = Self {
            parameters,
            ..Self::default()
        };
        for tensor in inputs {
            let name = tensor.name.clone();
            if given.parameters.contains_key(&name) {
                given.wrong(
                    name.clone(),
                    "is given as a tensor and as a parameter; one of the two",
                );
            }
            if given.tensors.insert(name.clone(), tensor).is_some() {
                given.wrong(name, "is given twice");
            }
        }
        given
    }

    /// Complains about everything that is given and is none of the names that are known.
    pub(crate) fn only(&mut self, known: &'static [&'static str], also: &[&[&str]]) {
        let is_known = |name: &&String| also.iter().any(|some| some.contains(&name.as_str()));
        let parameters = self.parameters.keys().filter(|name| !is_known(name));
        let mut unknown: Vec<_> = self.tensors.keys().chain(parameters).collect();
        unknown.retain(|name| !known.contains(&name.as_str()));
        unknown.truncate(UNKNOWN_TOLD);
        let problem = |name: &String| Problem::new(shown(name.clone()), Rule::Unexpected(known));
        let problems: Vec<_> = unknown.into_iter().map(problem).collect();
        self.problems.extend(problems);
    }

    /// Notes what is wrong with a field.
    pub(crate) fn complain(&mut self, field: impl Into<std::borrow::Cow<'static, str>>, rule: Rule) {
        let problem = Problem::new(field, rule);
        if !self.problems.iter().any(|known| known.field == problem.field) {
            self.problems.push(problem);
        }
    }

    /// Notes it in words.
    pub(crate) fn wrong(&mut self, field: impl Into<std::borrow::Cow<'static, str>>, why: impl Into<String>) {
        self.complain(field, Rule::Wrong(why.into()));
    }

    /// True when the field has a value, whatever it is.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.tensors.contains_key(field) || self.parameters.contains_key(field)
    }

    /// Takes a tensor as it is; what has only one value may be a parameter, and this is none of that.
    pub(crate) fn tensor(&mut self, field: &'static str) -> Option<Tensor> {
        if self.parameters.remove(field).is_some() {
            self.wrong(field, "is given as a parameter, and must be a tensor");
        }
        self.tensors.remove(field)
    }

    fn take(&mut self, field: &str) -> Option<Source> {
        let value = self.parameters.remove(field).map(Source::Value);
        self.tensors.remove(field).map(Source::Tensor).or(value)
    }

    /// Complains of values that do not lie in a row.
    fn row(&mut self, field: &'static str, tensor: &Tensor) {
        if tensor.shape.iter().filter(|side| **side != 1).count() > 1 {
            let why = format!(
                "has the shape {:?}; its values go in a row, as [n] or [n, 1]",
                tensor.shape
            );
            self.wrong(field, why);
        }
    }

    /// Complains of a tensor of another type than is read here.
    fn type_of<T>(&mut self, field: &'static str, tensor: &Tensor, wanted: &str) -> Vec<T> {
        let why = format!("is {}, and must be {wanted}", tensor.datatype.name());
        self.wrong(field, why);
        Vec::new()
    }

    /// Bytes, with whether they came as text.
    fn bytes(&mut self, field: &'static str) -> (Vec<Bytes>, bool) {
        match self.take(field) {
            None => (Vec::new(), false),
            Some(Source::Value(Value::Text(text))) => (vec![text.into()], true),
            Some(Source::Value(Value::Bool(_) | Value::Integer(_) | Value::Number(_))) => {
                self.wrong(field, "must be a string");
                (Vec::new(), false)
            }
            Some(Source::Tensor(tensor)) => {
                self.row(field, &tensor);
                let is_text = tensor.is_text;
                match tensor.elements {
                    Elements::Each(each) => (each, is_text),
                    Elements::Raw(_) => (self.type_of(field, &tensor, "BYTES"), false),
                }
            }
        }
    }

    /// Texts.
    pub(crate) fn texts(&mut self, field: &'static str) -> Vec<String> {
        let (each, _) = self.bytes(field);
        let texts: Result<Vec<_>, _> = each
            .into_iter()
            .map(|one| String::from_utf8(one.into()))
            .collect();
        texts.unwrap_or_else(|_| {
            self.complain(field, Rule::NotUnicode);
            Vec::new()
        })
    }

    /// Files; base64 where they came as text.
    pub(crate) fn files(&mut self, field: &'static str) -> Vec<Bytes> {
        let (each, is_text) = self.bytes(field);
        if !is_text {
            return each;
        }
        let files: Result<Vec<_>, _> = each.iter().map(|one| STANDARD.decode(one)).collect();
        match files {
            Ok(files) => files.into_iter().map(Bytes::from).collect(),
            Err(_) => {
                self.wrong(field, "is no base64, which a file is as text");
                Vec::new()
            }
        }
    }

    /// Whole numbers, in rows or not.
    pub(crate) fn integers(&mut self, field: &'static str) -> Vec<i128> {
        match self.take(field) {
            None => Vec::new(),
            Some(Source::Value(Value::Integer(value))) => vec![value],
            // JSON and some clients have no whole numbers.
            Some(Source::Value(Value::Number(value)))
                if value.fract() == 0.0 && value.abs() < 2f64.powi(64) =>
            {
                vec![value as i128]
            }
            Some(Source::Value(_)) => {
                self.complain(field, Rule::NotInteger);
                Vec::new()
            }
            Some(Source::Tensor(tensor)) => match tensor.integers() {
                Some(values) => values,
                None => self.type_of(field, &tensor, "UINT64, INT64 or another type of whole numbers"),
            },
        }
    }

    /// A parameter that is a whole number or a word.
    pub(crate) fn integer_or_text(&mut self, field: &'static str) -> Option<Value> {
        match self.parameters.remove(field)? {
            value @ (Value::Integer(_) | Value::Text(_)) => Some(value),
            Value::Number(value) if value.fract() == 0.0 => Some(Value::Integer(value as i128)),
            Value::Number(_) | Value::Bool(_) => {
                self.complain(field, Rule::NotInteger);
                None
            }
        }
    }

    /// Takes what is said of a sequence; true when there is one.
    pub(crate) fn is_in_sequence(&mut self) -> bool {
        self.parameters.remove("sequence_start");
        self.parameters.remove("sequence_end");
        match self.parameters.remove("sequence_id") {
            None | Some(Value::Integer(0)) => false,
            Some(Value::Text(id)) => !id.is_empty(),
            Some(Value::Integer(_) | Value::Bool(_) | Value::Number(_)) => true,
        }
    }

    /// Numbers.
    fn numbers(&mut self, field: &'static str) -> Vec<f64> {
        match self.take(field) {
            None => Vec::new(),
            Some(Source::Value(Value::Number(value))) => vec![value],
            Some(Source::Value(Value::Integer(value))) => vec![value as f64],
            Some(Source::Value(Value::Bool(_) | Value::Text(_))) => {
                self.complain(field, Rule::NotNumber);
                Vec::new()
            }
            Some(Source::Tensor(tensor)) => match tensor.numbers() {
                Some(values) => values,
                None => self.type_of(field, &tensor, "FP32, or another type of numbers but FP16"),
            },
        }
    }

    /// Of a field with one value, that.
    pub(crate) fn one<T>(&mut self, field: &'static str, mut values: Vec<T>) -> Option<T> {
        if values.len() > 1 {
            let why = format!("has {} values and must have one", values.len());
            self.wrong(field, why);
        }
        values.pop()
    }

    /// A text.
    pub(crate) fn text(&mut self, field: &'static str) -> Option<String> {
        let values = self.texts(field);
        self.one(field, values)
    }

    /// A number.
    pub(crate) fn number(&mut self, field: &'static str) -> Option<f32> {
        let values = self.numbers(field);
        self.one(field, values).map(|value| value as f32)
    }

    /// A whole number that the model's limits are small against: what is beyond stays beyond, so that the check against the
    /// model names the limit.
    pub(crate) fn small(&mut self, field: &'static str) -> Option<u32> {
        let values = self.integers(field);
        let value = self.one(field, values)?;
        if value < 0 {
            self.complain(field, Rule::at_least(value, 0_u8));
            return None;
        }
        Some(u32::try_from(value).unwrap_or(u32::MAX))
    }

    /// Yes or no; absent is no.
    pub(crate) fn flag(&mut self, field: &'static str) -> bool {
        let found = match self.take(field) {
            None => return false,
            Some(Source::Value(Value::Bool(value))) => Some(value),
            Some(Source::Value(_)) => None,
            Some(Source::Tensor(tensor)) => match tensor.flags().as_deref() {
                Some([value]) => Some(*value),
                Some(_) | None => None,
            },
        };
        if found.is_none() {
            self.wrong(field, "must be one value, true or false");
        }
        found.unwrap_or_default()
    }

    /// One of a few words, whatever its case; 0 where it is absent.
    pub(crate) fn word(&mut self, field: &'static str, words: &[(&str, i32)]) -> i32 {
        let Some(given) = self.text(field) else {
            return 0;
        };
        crate::words::read(given.trim(), words).unwrap_or_else(|| {
            let names = words.iter().map(|(word, _)| (*word).to_owned());
            self.complain(field, Rule::OneOf(names.collect()));
            0
        })
    }
}

#[cfg(test)]
mod tests;
