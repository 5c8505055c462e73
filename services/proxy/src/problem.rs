//! What is wrong with a request, in a form that both doors can say: gRPC as a field violation, HTTP as FastAPI would.
//!
//! Invariant: a problem names the field as the caller wrote it.

use std::{borrow::Cow, fmt};

/// One thing that is wrong with one field.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// The field.
    pub field: Cow<'static, str>,
    /// The rule that it breaks.
    pub rule: Rule,
}

/// A rule that a field can break.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// It must be there.
    Missing,
    /// It must have at least so many characters.
    TooShort {
        /// Characters.
        min: usize,
    },
    /// It may have at most so many bytes of UTF-8.
    TooLong {
        /// Bytes.
        max: usize,
    },
    /// It must be an integer.
    NotInteger,
    /// It must be a number.
    NotNumber,
    /// It must be neither infinite nor NaN.
    NotFinite,
    /// It must be valid UTF-8.
    NotUnicode,
    /// It must be printable ASCII.
    NotPrintable,
    /// It must not be below this.
    AtLeast(u64),
    /// It must not be above this.
    AtMost(u64),
    /// It must be a multiple of this.
    MultipleOf(u32),
    /// It must be one of these.
    OneOf(Vec<String>),
    /// There is no such field; these there are.
    Unexpected(&'static [&'static str]),
    /// Something else, in words.
    Wrong(String),
}

impl Problem {
    /// `field` breaks `rule`.
    pub fn new(field: impl Into<Cow<'static, str>>, rule: Rule) -> Self {
        Self {
            field: field.into(),
            rule,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is required"),
            Self::TooShort { min: 1 } => f.write_str("must not be empty"),
            Self::TooShort { min } => write!(f, "must have at least {min} characters"),
            Self::TooLong { max } => write!(f, "must have at most {max} bytes"),
            Self::NotInteger => f.write_str("must be an integer"),
            Self::NotNumber => f.write_str("must be a number"),
            Self::NotFinite => f.write_str("must be a finite number"),
            Self::NotUnicode => f.write_str("must be valid UTF-8"),
            Self::NotPrintable => f.write_str("must be printable ASCII"),
            Self::AtLeast(min) => write!(f, "must be at least {min}"),
            Self::AtMost(max) => write!(f, "must be at most {max}"),
            Self::MultipleOf(of) => write!(f, "must be a multiple of {of}"),
            Self::OneOf(names) => write!(f, "must be one of {}", names.join(", ")),
            Self::Unexpected(names) => write!(f, "is not known; known are {}", names.join(", ")),
            Self::Wrong(why) => f.write_str(why),
        }
    }
}
