//! Amounts of memory and of Kubernetes' resources, from numbers and from text such as `10GiB`, `8G` and `500m`.
//!
//! Refuses what is negative, is no number or has an unknown unit.

use crate::{reader::Node, tree::Value};

/// More memory than any machine has, 1 PiB.
const MAX_MEMORY: f64 = 1_125_899_906_842_624.0;

/// More CPUs, GPUs or custom units than any machine has.
pub(crate) const MAX_AMOUNT: f64 = 1_000_000.0;

/// Kubernetes' units; `B` behind them changes nothing.
const UNITS: [(&str, f64); 11] = [
    ("", 1.0),
    ("k", 1e3),
    ("K", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("m", 1e-3),
];

/// Bytes, rounded up.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // From 0 to 1 PiB.
pub(crate) fn bytes(node: &Node<'_>) -> Option<u64> {
    let found = match &node.tree.value {
        Value::Number(number) => number.as_f64(),
        Value::Text(text) => quantity(text),
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => None,
    };
    let found = found.filter(|n| (0.0..=MAX_MEMORY).contains(n));
    if found.is_none() {
        node.refuse(format!(
            "must be a number of bytes up to 1 PiB, or text such as \"10GiB\", not {}",
            crate::reader::shown(node.tree)
        ));
    }
    found.map(|bytes| bytes.ceil() as u64)
}

/// An amount as Kubernetes writes it: 2, "2" or "500m".
pub(crate) fn amount(node: &Node<'_>) -> Option<f64> {
    let found = match &node.tree.value {
        Value::Number(number) => number.as_f64(),
        Value::Text(text) => quantity(text),
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => None,
    };
    let found = found.filter(|n| (0.0..=MAX_AMOUNT).contains(n));
    if found.is_none() {
        node.refuse(format!(
            "must be an amount such as 2 or \"500m\", not {}",
            crate::reader::shown(node.tree)
        ));
    }
    found
}

/// A number and its unit.
fn quantity(text: &str) -> Option<f64> {
    let text = text.trim();
    // "1e3" is a number, "1Ei" is not one that anybody has.
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let unit = unit.trim();
    let unit = unit.strip_suffix('B').unwrap_or(unit);
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
    Some(number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_of_kubernetes_with_or_without_b() {
        for (text, bytes) in [
            ("10", Some(10.0)),
            ("10B", Some(10.0)),
            ("8G", Some(8e9)),
            ("8GB", Some(8e9)),
            ("16Gi", Some(17_179_869_184.0)),
            ("10 GiB", Some(10_737_418_240.0)),
            ("1.5Ki", Some(1536.0)),
            ("500m", Some(0.5)),
            ("-1", None),
            ("", None),
            ("Gi", None),
            ("1Zi", None),
            ("1.2.3", None),
            ("inf", None),
        ] {
            assert_eq!(quantity(text), bytes, "{text}");
        }
    }
}
