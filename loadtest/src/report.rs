//! The outcome of a run, for people and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::Recorder;

/// Everything that a run measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was called.
    pub target: String,
    /// What load, in words.
    pub load: String,
    /// Seconds that counted.
    pub seconds: f64,
    /// Pictures that came.
    pub pictures: u64,
    /// Pictures per second.
    pub pictures_per_second: f64,
    /// Bytes per picture.
    pub mean_bytes: f64,
    /// Requests that failed, by status code.
    pub failures: BTreeMap<String, u64>,
    /// Requests that were due and not sent, because too many were in flight.
    pub missed: u64,
    /// Pictures whose bytes differ from another one of the same prompt and seed.
    pub differing: u64,
    /// Latency from the due moment, milliseconds, by percentile name.
    pub latency_ms: BTreeMap<&'static str, f64>,
}

const PERCENTILES: [(&str, f64); 5] = [
    ("p50", 50.0),
    ("p90", 90.0),
    ("p99", 99.0),
    ("p999", 99.9),
    ("max", 100.0),
];

impl Report {
    /// Sums up what was recorded over `elapsed`.
    #[must_use]
    pub fn new(target: String, load: String, elapsed: Duration, recorder: &Recorder) -> Self {
        let seconds = elapsed.as_secs_f64().max(f64::EPSILON);
        let histogram = recorder.latencies();
        let ms = |micros: u64| micros as f64 / 1000.0;
        let mut latency_ms: BTreeMap<_, _> = PERCENTILES
            .iter()
            .map(|&(name, p)| (name, ms(histogram.value_at_percentile(p))))
            .collect();
        latency_ms.insert("mean", histogram.mean() / 1000.0);
        Self {
            target,
            load,
            seconds,
            pictures: recorder.pictures(),
            pictures_per_second: recorder.pictures() as f64 / seconds,
            mean_bytes: recorder.bytes() as f64 / recorder.pictures().max(1) as f64,
            failures: recorder.failures().clone(),
            missed: recorder.missed(),
            differing: recorder.differing(),
            latency_ms,
        }
    }

    /// Whether every request that was due brought the right picture.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.failures.is_empty() && self.missed == 0 && self.differing == 0 && self.pictures > 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "target      {}", self.target)?;
        writeln!(f, "load        {} for {:.1} s", self.load, self.seconds)?;
        writeln!(
            f,
            "pictures    {} ({:.1}/s, {:.0} bytes each)",
            self.pictures, self.pictures_per_second, self.mean_bytes
        )?;
        let failed: u64 = self.failures.values().sum();
        let by_code: Vec<_> = self
            .failures
            .iter()
            .map(|(code, count)| format!("{code} {count}"))
            .collect();
        writeln!(
            f,
            "failed      {failed}{}",
            if failed == 0 {
                String::new()
            } else {
                format!(" ({})", by_code.join(", "))
            }
        )?;
        writeln!(f, "missed      {}", self.missed)?;
        writeln!(f, "differing   {}", self.differing)?;
        write!(f, "latency ms ")?;
        for name in ["mean", "p50", "p90", "p99", "p999", "max"] {
            write!(
                f,
                " {name} {:.2}",
                self.latency_ms.get(name).copied().unwrap_or_default()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Outcome, Shot};

    #[test]
    fn a_run_with_a_failure_is_not_clean() {
        let mut recorder = Recorder::new();
        recorder.start();
        let shot = Shot {
            prompt: "p".into(),
            seed: 1,
        };
        recorder.record(
            shot.clone(),
            Duration::from_millis(2),
            Outcome::Picture {
                digest: "d".into(),
                bytes: 100,
            },
            false,
        );
        let report =
            |recorder: &Recorder| Report::new("t".into(), "l".into(), Duration::from_secs(2), recorder);
        assert!(report(&recorder).is_clean());
        assert!((report(&recorder).pictures_per_second - 0.5).abs() < 1e-9);
        recorder.record(shot, Duration::ZERO, Outcome::Failed("unavailable".into()), false);
        assert!(!report(&recorder).is_clean());
        assert!(
            report(&recorder)
                .to_string()
                .contains("failed      1 (unavailable 1)")
        );
    }
}
