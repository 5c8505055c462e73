//! How lengths of time are written and read.

use std::time::Duration;

/// Longest time that can be asked for: ten years.
const LONGEST_S: f64 = 3650.0 * 86_400.0;

/// Reads `90`, `90s`, `500ms`, `250us`, `10m`, `1h`; without a unit it is seconds.
///
/// # Errors
/// Says what can be written instead.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let refused = || format!("`{text}` is no length of time: write 90, 90s, 500ms, 10m or 1h");
    let text = text.trim();
    let digits = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "" | "s" => 1.0,
        "us" => 1e-6,
        "ms" => 1e-3,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(refused()),
    };
    let seconds = number.trim().parse::<f64>().map_err(|_| refused())? * scale;
    if (0.0..=LONGEST_S).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(refused())
    }
}

/// Milliseconds with as many digits as matter.
#[must_use]
pub fn show_ms(ms: f64) -> String {
    match ms {
        _ if ms >= 1000.0 => format!("{:.2} s", ms / 1000.0),
        _ if ms >= 100.0 => format!("{ms:.0} ms"),
        _ if ms >= 10.0 => format!("{ms:.1} ms"),
        _ => format!("{ms:.2} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_with_and_without_a_unit() {
        for (text, expected) in [
            ("2", 2000),
            ("2s", 2000),
            ("1.5s", 1500),
            ("250ms", 250),
            ("2m", 120_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(expected)),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_length_is_refused() {
        for text in ["", "s", "-1s", "nan", "inf", "1e99h", "5 apples", "1ss"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
