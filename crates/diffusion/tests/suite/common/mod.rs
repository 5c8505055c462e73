//! What the golden tests of this folder read their values with.

pub(crate) mod starts;

use serde_json::Value;

/// A number of a golden file.
pub(crate) fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

/// A list of a golden file.
pub(crate) fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

/// A list of numbers of a golden file.
pub(crate) fn floats(value: &Value) -> Vec<f32> {
    list(value).iter().map(|x| number(x) as f32).collect()
}

/// A count of a golden file.
pub(crate) fn size(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

/// Largest difference of two lists relative to max(1, |expected|); infinite where a value is not a number.
pub(crate) fn difference(got: &[f32], expected: &Value) -> f64 {
    let expected = list(expected);
    assert_eq!(got.len(), expected.len());
    let each = got.iter().zip(expected).map(|(got, expected)| {
        let expected = number(expected);
        let difference = (f64::from(*got) - expected).abs() / expected.abs().max(1.0);
        if difference.is_nan() {
            f64::INFINITY
        } else {
            difference
        }
    });
    each.fold(0.0, f64::max)
}
