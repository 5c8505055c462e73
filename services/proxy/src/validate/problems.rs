//! The problems of one request as they are found, and the checks that most fields share.

use std::{borrow::Cow, ops::RangeInclusive};

use mobula_proto::control::v1::ModelInfo;

use super::SIZE_MULTIPLE;
use crate::problem::{Problem, Rule};

/// What was found so far, in the order in which it was found.
#[derive(Debug, Default)]
pub(super) struct Problems(pub(super) Vec<Problem>);

impl Problems {
    /// `field` breaks `rule`.
    pub(super) fn add(&mut self, field: impl Into<Cow<'static, str>>, rule: Rule) {
        self.0.push(Problem::new(field, rule));
    }

    /// `field` is wrong in a way that only words can say.
    pub(super) fn wrong(&mut self, field: impl Into<Cow<'static, str>>, why: impl Into<String>) {
        self.add(field, Rule::Wrong(why.into()));
    }

    /// A number that is finite and within limits.
    pub(super) fn number(
        &mut self,
        field: impl Into<Cow<'static, str>>,
        value: f32,
        range: RangeInclusive<u16>,
    ) {
        if !value.is_finite() {
            self.add(field, Rule::NotFinite);
        } else if value < f32::from(*range.start()) {
            self.add(field, Rule::at_least(value, *range.start()));
        } else if value > f32::from(*range.end()) {
            self.add(field, Rule::at_most(value, *range.end()));
        }
    }

    /// A side of the picture that fits the model.
    pub(super) fn side(&mut self, field: &'static str, side: u32, model: &ModelInfo) {
        let multiple = multiple(model);
        if side < multiple {
            self.add(field, Rule::at_least(side, multiple));
        } else if model.max_size > 0 && side > model.max_size {
            self.add(field, Rule::at_most(side, model.max_size));
        } else if !side.is_multiple_of(multiple) {
            self.add(
                field,
                Rule::MultipleOf {
                    is: side,
                    of: multiple,
                },
            );
        }
    }

    /// One of an enum's values; what is unspecified is one of them.
    pub(super) fn choice<T: TryFrom<i32> + Default>(
        &mut self,
        field: &'static str,
        value: i32,
        names: &[&str],
    ) -> T {
        T::try_from(value).unwrap_or_else(|_| {
            self.add(
                field,
                Rule::OneOf(names.iter().map(|name| (*name).to_owned()).collect()),
            );
            T::default()
        })
    }
}

/// What the sides of a model's pictures are multiples of.
pub(super) fn multiple(model: &ModelInfo) -> u32 {
    if model.size_multiple == 0 {
        SIZE_MULTIPLE
    } else {
        model.size_multiple
    }
}
