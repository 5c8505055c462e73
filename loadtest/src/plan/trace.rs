//! A recorded schedule: when each request is due, and where it says so which class it is. Pure.

use std::time::Duration;

use crate::Error;

/// Lines of a trace at most: 24 bytes each in memory, so 120 MB.
const MAX_LINES: usize = 5_000_000;

/// One request of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Since the trace's first request.
    pub due: Duration,
    /// Index of its class, where the trace names one.
    pub class: Option<usize>,
}

/// A recorded schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    entries: Vec<Entry>,
}

impl Trace {
    /// Reads one request a line, `seconds` or `seconds,class`, in order of time; empty lines and `#` comments are skipped.
    /// The first request is due at once; `speed` 2 replays in half the time.
    ///
    /// # Errors
    /// [`Error::Trace`] with the line that cannot be read, goes back in time, or names no class of `classes`.
    pub fn parse(text: &str, speed: f64, classes: &[&str]) -> Result<Self, Error> {
        let mut entries: Vec<Entry> = Vec::new();
        let (mut first, mut previous) = (None, f64::NEG_INFINITY);
        for (index, line) in text.lines().enumerate() {
            let refused = |why: String| Error::Trace { line: index + 1, why };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if entries.len() == MAX_LINES {
                return Err(refused(format!("more than {MAX_LINES} requests")));
            }
            let (seconds, class) = line.split_once(',').unwrap_or((line, ""));
            let at = seconds.trim().parse::<f64>().ok().filter(|at| at.is_finite());
            let at = at.ok_or_else(|| refused(format!("`{}` is no number of seconds", seconds.trim())))?;
            if at < previous {
                return Err(refused(format!("{at} comes after {previous}")));
            }
            previous = at;
            let since = (at - *first.get_or_insert(at)) / speed;
            entries.push(Entry {
                due: Duration::try_from_secs_f64(since).map_err(|error| refused(error.to_string()))?,
                class: match class.trim() {
                    "" => None,
                    name => Some(classes.iter().position(|class| *class == name).ok_or_else(|| {
                        refused(format!("no class `{name}`, there are {}", classes.join(", ")))
                    })?),
                },
            });
        }
        if entries.is_empty() {
            return Err(Error::Trace {
                line: 1,
                why: "no request in the whole file".into(),
            });
        }
        Ok(Self { entries })
    }

    /// Its requests in order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// When its last request is due.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.entries.last().map_or(Duration::ZERO, |entry| entry.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_replayed_from_its_first_request_and_as_fast_as_asked() {
        let trace = Trace::parse(
            "# recorded\n100.0\n\n101, big\n104,small\n",
            2.0,
            &["small", "big"],
        )
        .unwrap();
        let entry = |ms, class| Entry {
            due: Duration::from_millis(ms),
            class,
        };
        assert_eq!(
            trace.entries(),
            [entry(0, None), entry(500, Some(1)), entry(2000, Some(0))]
        );
        assert_eq!(trace.length(), Duration::from_secs(2));
    }

    #[test]
    fn a_line_that_is_wrong_is_named() {
        for (text, names) in [
            ("1\n2\n1.5", "line 3: 1.5 comes after 2"),
            ("1\nsoon", "line 2: `soon`"),
            ("1\nnan", "line 2: `nan`"),
            ("1,huge", "line 1: no class `huge`"),
            ("# nothing", "no request"),
            ("0\n1e300", "line 2"),
        ] {
            let error = Trace::parse(text, 1.0, &["small"]).unwrap_err().to_string();
            assert!(error.contains(names), "{text:?}: {error}");
        }
    }
}
