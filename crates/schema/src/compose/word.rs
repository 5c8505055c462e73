//! What a word of YAML means: nothing, true or false, a number, or itself.

use granit_parser::Tag;
use serde_json::Number;

use super::short;
use crate::tree::Value;

/// The value of a word; `plain` says that it is written without quotes.
///
/// # Errors
///
/// Its tag says something else, or it is a number that is not finite.
pub(super) fn value(text: &str, plain: bool, tag: Option<&Tag>) -> Result<Value, String> {
    let Some(tag) = tag else {
        return if plain {
            plain_value(text)
        } else {
            Ok(Value::Text(text.to_owned()))
        };
    };
    let wrong = || {
        format!(
            "{:?} does not fit its tag {}",
            short(text),
            short(&tag.original())
        )
    };
    match tag.core_suffix() {
        Some("str") => return Ok(Value::Text(text.to_owned())),
        None if tag.original() == "!" => return Ok(Value::Text(text.to_owned())),
        Some(_) => {}
        None => return Err(format!("the tag {} is not taken", short(&tag.original()))),
    }
    let value = plain_value(text)?;
    match (tag.core_suffix(), &value) {
        (Some("null"), Value::Null) | (Some("bool"), Value::Bool(_)) | (Some("float"), Value::Number(_)) => {
            Ok(value)
        }
        (Some("int"), Value::Number(number)) if !number.is_f64() => Ok(value),
        _ => Err(wrong()),
    }
}

fn plain_value(text: &str) -> Result<Value, String> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Value::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Value::Bool(false),
        _ => match number(text)? {
            Some(number) => Value::Number(number),
            None => Value::Text(text.to_owned()),
        },
    })
}

/// The number that a word is.
fn number(text: &str) -> Result<Option<Number>, String> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Err(format!("{text} is no finite number"));
    }
    // Words are seen far more often than numbers.
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') || unsigned.len() > 400 {
        return Ok(None);
    }
    let digits = unsigned.replace('_', "");
    let negative = text.starts_with('-');
    for (prefix, radix) in [("0x", 16), ("0b", 2), ("0", 8)] {
        if let Some(digits) = digits.strip_prefix(prefix)
            && !digits.is_empty()
            && let Ok(n) = u64::from_str_radix(digits, radix)
            && !digits.starts_with('+')
        {
            return Ok(whole(n, negative));
        }
    }
    let leading = digits.len() > 1 && digits.starts_with('0');
    if digits.bytes().all(|c| c.is_ascii_digit()) {
        if leading {
            return Ok(None);
        }
        if let Some(number) = digits.parse().ok().and_then(|n| whole(n, negative)) {
            return Ok(Some(number));
        }
    } else if !is_real(&digits) {
        return Ok(None);
    }
    let real: f64 = digits.parse().map_err(|_| format!("{text} is no number"))?;
    let real = if negative { -real } else { real };
    let number = Number::from_f64(real).ok_or_else(|| format!("{} is too large a number", short(text)))?;
    Ok(Some(number))
}

fn whole(n: u64, negative: bool) -> Option<Number> {
    if negative {
        // -2^63 is the least.
        return 0_i64.checked_sub_unsigned(n).map(Number::from);
    }
    Some(Number::from(n))
}

/// Digits with a point, or with an exponent as in JSON.
fn is_real(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let all_digits = |text: &str| text.bytes().all(|c| c.is_ascii_digit());
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let power = |text: &str| {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        !digits.is_empty() && all_digits(digits)
    };
    all_digits(before) && all_digits(after) && before.len() + after.len() > 0 && exponent.is_none_or(power)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tree::Tree;

    #[test]
    fn words_mean_what_they_mean_to_pyyaml_and_numbers_of_json_are_numbers() {
        for (text, expected) in [
            ("", json!(null)),
            ("~", json!(null)),
            ("null", json!(null)),
            ("yes", json!(true)),
            ("Off", json!(false)),
            ("y", json!("y")),
            ("1", json!(1)),
            ("+1", json!(1)),
            ("-1", json!(-1)),
            ("1_000", json!(1000)),
            ("010", json!(8)),
            ("09", json!("09")),
            ("0x1F", json!(31)),
            ("0b101", json!(5)),
            ("1.5", json!(1.5)),
            (".5", json!(0.5)),
            ("1.", json!(1.0)),
            ("-.5", json!(-0.5)),
            ("1e5", json!(1e5)),
            ("1.5E-3", json!(0.0015)),
            ("18446744073709551615", json!(u64::MAX)),
            ("-9223372036854775808", json!(i64::MIN)),
            ("1.2.3", json!("1.2.3")),
            ("1e", json!("1e")),
            ("0x", json!("0x")),
            ("0+7", json!("0+7")),
            (".", json!(".")),
            ("-", json!("-")),
            ("12:30", json!("12:30")),
            ("2026-08-19", json!("2026-08-19")),
            ("1 2", json!("1 2")),
        ] {
            let found = Tree::new(value(text, true, None).unwrap()).to_json();
            assert_eq!(found, expected, "{text}");
            let quoted = value(text, false, None).unwrap();
            assert_eq!(quoted, Value::Text(text.to_owned()));
        }
        for text in [".inf", "-.INF", ".nan", "1e999"] {
            assert!(value(text, true, None).is_err(), "{text}");
        }
    }
}
