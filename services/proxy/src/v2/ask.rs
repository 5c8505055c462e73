//! A request and an answer of the protocol, whichever door they go through. Pure.

use std::collections::BTreeMap;

use super::tensor::Tensor;

/// The only version that models have: what a name means is its application's to say.
pub(crate) const VERSION: &str = "1";

/// A parameter's value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Integer(i128),
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
}

/// What is said by name.
pub(crate) type Parameters = BTreeMap<String, Value>;

/// What a model is to answer.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Ask {
    /// The caller's name for it.
    pub(crate) id: String,
    pub(crate) parameters: Parameters,
    pub(crate) inputs: Vec<Tensor>,
    /// Names of the outputs that are wanted; none is what the model gives by itself.
    pub(crate) outputs: Vec<String>,
}

/// What a model answers.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) parameters: Parameters,
    pub(crate) outputs: Vec<Tensor>,
}

/// What an answer is to: the request's names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct To {
    /// The model, as the caller named it.
    pub(crate) model: String,
    /// The request.
    pub(crate) id: String,
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Integer(value.into())
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Integer(value.into())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<f32> for Value {
    /// As people write it, not with the digits that a double shows of it.
    fn from(value: f32) -> Self {
        Self::Number(value.to_string().parse().unwrap_or_else(|_| value.into()))
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}
