//! Whether a request waits where no replica can be reached, as callers say it in metadata and headers. Pure.

use crate::problem::Rule;

/// The header, and the key of gRPC metadata.
pub(crate) const NAME: &str = "x-mobula-failfast";

/// Reads what it says.
pub(crate) fn read(given: &str) -> Result<bool, Rule> {
    match given.trim() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Rule::OneOf(vec!["true".to_owned(), "false".to_owned()])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_by_true_or_false() {
        for (given, said) in [("true", true), (" 1", true), ("false", false), ("0", false)] {
            assert_eq!(read(given).unwrap(), said, "{given}");
        }
        for given in ["", "yes", "TRUE", "2"] {
            assert!(read(given).is_err(), "{given}");
        }
    }
}
