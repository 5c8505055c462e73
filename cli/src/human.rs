//! What people read: numbers that are rounded but never lie about the unit, and a way to tell that fails nobody.

use std::fmt::Display;
use std::io::Write;
use std::time::Duration;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// Writes a line to standard error. `eprintln!` panics when nobody reads any more; a mesh must not end for that.
pub(crate) fn tell(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A duration with about two significant digits: `850 us`, `12 ms`, `1.4 s`, `3 min 5 s`, `2 h 3 min`, `4 d 2 h`.
pub(crate) fn duration(duration: Duration) -> String {
    let (us, seconds) = (duration.as_micros(), duration.as_secs());
    match seconds {
        0 if us == 0 => "0 ms".into(),
        0 if us < 1_000 => format!("{us} us"),
        0 if us < 10_000 => format!("{:.1} ms", us as f64 / 1e3),
        0 => format!("{} ms", us / 1_000),
        1..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// A size in binary units: `512 B`, `3.1 MiB`, `1.5 GiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    match bytes {
        0..KIB => format!("{bytes} B"),
        KIB..MIB => format!("{} KiB", bytes / KIB),
        MIB..GIB => format!("{:.0} MiB", bytes as f64 / MIB as f64),
        _ => format!("{:.1} GiB", bytes as f64 / GIB as f64),
    }
}

/// An amount of a resource without a trailing `.0`: `2`, `0.5`.
pub(crate) fn amount(amount: f64) -> String {
    let text = format!("{amount:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `1 picture`, `2 pictures`.
pub(crate) fn count(n: usize, what: &str) -> String {
    if n == 1 {
        format!("1 {what}")
    } else {
        format!("{n} {what}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well_at_every_scale() {
        for (us, text) in [
            (0, "0 ms"),
            (850, "850 us"),
            (1_250, "1.2 ms"),
            (12_900, "12 ms"),
            (1_440_000, "1.4 s"),
            (185_000_000, "3 min 5 s"),
            (7_380_000_000, "2 h 3 min"),
            (356_400_000_000, "4 d 3 h"),
        ] {
            assert_eq!(duration(Duration::from_micros(us)), text);
        }
    }

    #[test]
    fn sizes_use_binary_units() {
        for (size, text) in [
            (512, "512 B"),
            (2_048, "2 KiB"),
            (210 * MIB, "210 MiB"),
            (3 * GIB / 2, "1.5 GiB"),
        ] {
            assert_eq!(bytes(size), text);
        }
    }

    #[test]
    fn amounts_drop_zeros_that_say_nothing() {
        assert_eq!(
            (amount(2.0), amount(0.5), amount(0.25)),
            ("2".into(), "0.5".into(), "0.25".into())
        );
        assert_eq!(amount(10.0), "10");
    }

    #[test]
    fn one_is_singular() {
        assert_eq!(
            (count(1, "picture"), count(3, "picture")),
            ("1 picture".into(), "3 pictures".into())
        );
    }
}
