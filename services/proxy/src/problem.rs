//! What is wrong with a request, in a form that both doors can say: gRPC as a field violation, HTTP as FastAPI would.
//!
//! Invariant: a problem names the field as the caller wrote it.

use std::{borrow::Cow, fmt};

/// Characters of a number that are told: every number of 64 bits, and the start of those that callers make up.
const SHOWN_MAX: usize = 40;

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
        /// Bytes that it has.
        has: usize,
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
    /// It must not be below a number.
    AtLeast {
        /// What it is, as numbers are written.
        is: String,
        /// That number.
        min: u64,
    },
    /// It must not be above a number.
    AtMost {
        /// What it is, as numbers are written.
        is: String,
        /// That number.
        max: u64,
    },
    /// It must be a multiple of a number.
    MultipleOf {
        /// What it is.
        is: u32,
        /// That number.
        of: u32,
    },
    /// It must be one of these.
    OneOf(Vec<String>),
    /// It must be one of more than a person would read.
    OneOfMany {
        /// The nearest of them, if one is near.
        meant: Option<String>,
        /// Some of them.
        some: Vec<String>,
        /// How many others there are.
        more: usize,
    },
    /// There is no such field; these there are.
    Unexpected(&'static [&'static str]),
    /// Something else, in words.
    Wrong(String),
}

impl Rule {
    /// `value` must not be below `min`.
    pub fn at_least(value: impl fmt::Display, min: impl Into<u64>) -> Self {
        Self::AtLeast {
            is: shown(value),
            min: min.into(),
        }
    }

    /// `value` must not be above `max`.
    pub fn at_most(value: impl fmt::Display, max: impl Into<u64>) -> Self {
        Self::AtMost {
            is: shown(value),
            max: max.into(),
        }
    }
}

/// A value as far as it is told.
fn shown(value: impl fmt::Display) -> String {
    let all = value.to_string();
    match all.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &all[..end]),
        None => all,
    }
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
            Self::TooLong { has, max } => write!(f, "has {has} bytes and must have at most {max}"),
            Self::NotInteger => f.write_str("must be an integer"),
            Self::NotNumber => f.write_str("must be a number"),
            Self::NotFinite => f.write_str("must be a finite number"),
            Self::NotUnicode => f.write_str("must be valid UTF-8"),
            Self::NotPrintable => f.write_str("must be printable ASCII"),
            Self::AtLeast { is, min } => write!(f, "is {is} and must be at least {min}"),
            Self::AtMost { is, max } => write!(f, "is {is} and must be at most {max}"),
            Self::MultipleOf { is, of } => write!(f, "is {is} and must be a multiple of {of}"),
            Self::OneOf(names) => write!(f, "must be one of {}", names.join(", ")),
            Self::OneOfMany { meant, some, more } => {
                f.write_str("is not known")?;
                if let Some(meant) = meant {
                    write!(f, "; did you mean {meant}?")?;
                }
                write!(f, " (known are {}", some.join(", "))?;
                match more {
                    0 => f.write_str(")"),
                    more => write!(f, " and {more} more, which GetModel lists)"),
                }
            }
            Self::Unexpected(names) => write!(f, "is not known; known are {}", names.join(", ")),
            Self::Wrong(why) => f.write_str(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_told_with_the_value_that_breaks_it() {
        for (rule, words) in [
            (Rule::at_least(-0.5_f32, 0_u8), "is -0.5 and must be at least 0"),
            (Rule::at_most(1032, 1024_u32), "is 1032 and must be at most 1024"),
            (
                Rule::MultipleOf { is: 100, of: 8 },
                "is 100 and must be a multiple of 8",
            ),
            (
                Rule::TooLong { has: 130, max: 128 },
                "has 130 bytes and must have at most 128",
            ),
        ] {
            assert_eq!(rule.to_string(), words);
        }
    }

    #[test]
    fn a_value_of_any_length_is_told_in_part() {
        let told = Rule::at_most("9".repeat(100_000), 5_u8).to_string();
        assert_eq!(
            told,
            format!("is {}… and must be at most 5", "9".repeat(SHOWN_MAX))
        );
    }
}
