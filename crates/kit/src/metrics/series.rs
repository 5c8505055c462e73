//! Series that end with what they tell of: a replica's, a deployment's. The recorder behind `metrics` keeps whatever it was
//! ever told, so that a gauge of a replica that is gone would be shown for ever; these are gone with their last handle.
//!
//! Used for the metrics that Ray Serve has too, whose names, types, labels and buckets a [`Family`] states, and for ours
//! that have an application's name. Invariants: two
//! handles with the same values are the same series; a family without series is not on the page.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use super::shown;

/// What the series of a family count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// What only grows.
    Counter,
    /// What goes up and down.
    Gauge,
    /// A distribution, divided at these upper bounds.
    Histogram(&'static [f64]),
}

/// A metric with its labels.
#[derive(Debug, PartialEq)]
pub struct Family {
    /// Ours, or as Ray's source names it; a counter's with `_total`.
    pub name: &'static str,
    /// What its series count.
    pub kind: Kind,
    /// Names of the labels, in the order of the values of [`Family::series`].
    pub labels: &'static [&'static str],
    /// For people.
    pub help: &'static str,
}

/// One series; it ends with its last handle.
#[derive(Clone, Debug)]
pub struct Series(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    family: &'static Family,
    values: Vec<String>,
    cell: Cell,
}

#[derive(Debug)]
enum Cell {
    Counter(AtomicU64),
    /// Bits of the number.
    Gauge(AtomicU64),
    Histogram(Mutex<Distribution>),
}

#[derive(Clone, Debug)]
struct Distribution {
    /// Samples in each bucket, and at last those beyond.
    counts: Vec<u64>,
    sum: f64,
}

type Live = BTreeMap<&'static str, BTreeMap<Vec<String>, Weak<Inner>>>;

/// All series of the process.
static LIVE: Mutex<Live> = Mutex::new(BTreeMap::new());

impl Family {
    /// The series with these values of the labels: a new one, or the one that somebody has.
    pub fn series(&'static self, values: &[&str]) -> Series {
        debug_assert_eq!(values.len(), self.labels.len(), "{}", self.name);
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        let mut live = lock(&LIVE);
        let family = live.entry(self.name).or_default();
        if let Some(inner) = family.get(&values).and_then(Weak::upgrade) {
            return Series(inner);
        }
        let cell = match self.kind {
            Kind::Counter => Cell::Counter(AtomicU64::new(0)),
            Kind::Gauge => Cell::Gauge(AtomicU64::new(0.0_f64.to_bits())),
            Kind::Histogram(bounds) => Cell::Histogram(Mutex::new(Distribution {
                counts: vec![0; bounds.len() + 1],
                sum: 0.0,
            })),
        };
        let inner = Arc::new(Inner {
            family: self,
            values: values.clone(),
            cell,
        });
        family.insert(values, Arc::downgrade(&inner));
        Series(inner)
    }

    /// The family as the list of Ray's metrics has it (`tests/golden/ray_metrics.tsv`): name, type, labels, buckets.
    pub fn line(&self) -> String {
        let mut labels = self.labels.to_vec();
        labels.sort_unstable();
        let bounds: Vec<String> = self.kind.bounds().iter().map(f64::to_string).collect();
        let (kind, labels, bounds) = (self.kind.word(), labels.join(" "), bounds.join(" "));
        format!("{}\t{kind}\t{labels}\t{bounds}", self.name)
    }
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }

    fn bounds(self) -> &'static [f64] {
        match self {
            Self::Counter | Self::Gauge => &[],
            Self::Histogram(bounds) => bounds,
        }
    }
}

impl Series {
    /// Counts so many more; for counters.
    pub fn add(&self, more: u64) {
        if let Cell::Counter(count) = &self.0.cell {
            count.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// Shows this number; for gauges.
    pub fn set(&self, value: f64) {
        if let Cell::Gauge(bits) = &self.0.cell {
            bits.store(value.to_bits(), Ordering::Relaxed);
        }
    }

    /// Shows so much more, or less; for gauges.
    pub fn change(&self, by: f64) {
        if let Cell::Gauge(bits) = &self.0.cell {
            let more = |bits| Some((f64::from_bits(bits) + by).to_bits());
            // It takes every number.
            let _ = bits.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        }
    }

    /// Takes a sample; for histograms.
    pub fn record(&self, value: f64) {
        if let Cell::Histogram(distribution) = &self.0.cell {
            let bounds = self.0.family.kind.bounds();
            let mut distribution = lock(distribution);
            distribution.counts[bounds.partition_point(|bound| *bound < value)] += 1;
            distribution.sum += value;
        }
    }

    /// A sample of time, as Ray's names want it: milliseconds.
    pub fn record_ms(&self, time: std::time::Duration) {
        self.record(time.as_secs_f64() * 1e3);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let mut live = lock(&LIVE);
        let Some(family) = live.get_mut(self.family.name) else {
            return;
        };
        // Somebody may have made it anew between the last handle's end and here.
        if family
            .get(&self.values)
            .is_some_and(|series| series.strong_count() == 0)
        {
            family.remove(&self.values);
        }
        if family.is_empty() {
            live.remove(self.family.name);
        }
    }
}

/// Writes all series in Prometheus' text format.
pub(super) fn render(page: &mut String) {
    // Handles are collected first: the last one of a series may end here, which takes the lock.
    let series: Vec<Arc<Inner>> = {
        let live = lock(&LIVE);
        live.values()
            .flat_map(|family| family.values().filter_map(Weak::upgrade))
            .collect()
    };
    let mut last = "";
    for inner in &series {
        let family = inner.family;
        let name = shown(family.name);
        if last != family.name {
            let (help, kind) = (family.help, family.kind.word());
            let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
            last = family.name;
        }
        inner.write(page, &name);
    }
}

impl Inner {
    fn write(&self, page: &mut String, name: &str) {
        let mut labels = String::new();
        for (label, value) in self.family.labels.iter().zip(&self.values) {
            let comma = if labels.is_empty() { "" } else { "," };
            let _ = write!(labels, "{comma}{label}=\"{}\"", escaped(value));
        }
        let braced = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{labels}}}"),
        };
        let _ = match &self.cell {
            Cell::Counter(count) => writeln!(page, "{name}{braced} {}", count.load(Ordering::Relaxed)),
            Cell::Gauge(bits) => {
                let value = f64::from_bits(bits.load(Ordering::Relaxed));
                writeln!(page, "{name}{braced} {value}")
            }
            Cell::Histogram(distribution) => {
                let Distribution { counts, sum } = lock(distribution).clone();
                let comma = if labels.is_empty() { "" } else { "," };
                let bounds = self.family.kind.bounds().iter().map(f64::to_string);
                let mut below = 0;
                for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(counts) {
                    below += count;
                    let _ = writeln!(page, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {below}");
                }
                writeln!(page, "{name}_sum{braced} {sum}\n{name}_count{braced} {below}")
            }
        };
    }
}

/// A label's value as the format wants it.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// Nothing under these locks can panic half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: &[&str] = &["application", "replica"];
    static COUNTER: Family = Family {
        name: "serve_test_series_total",
        kind: Kind::Counter,
        labels: LABELS,
        help: "For a test.",
    };
    static GAUGE: Family = Family {
        name: "serve_test_series_level",
        kind: Kind::Gauge,
        labels: &[],
        help: "For a test.",
    };
    static HISTOGRAM: Family = Family {
        name: "serve_test_series_ms",
        kind: Kind::Histogram(&[1.0, 2.5]),
        labels: &["application"],
        help: "For a test.",
    };

    fn page() -> String {
        let mut page = String::new();
        render(&mut page);
        page
    }

    #[test]
    fn a_series_is_on_the_page_for_as_long_as_somebody_has_it() {
        let (one, same) = (COUNTER.series(&["a", "r1"]), COUNTER.series(&["a", "r1"]));
        let other = COUNTER.series(&["a", "r2"]);
        one.add(2);
        same.add(3);
        drop(one);
        let shown = page();
        let head = "# HELP serve_test_series_total For a test.\n# TYPE serve_test_series_total counter\n";
        let lines = "serve_test_series_total{application=\"a\",replica=\"r1\"} 5\nserve_test_series_total{application=\"a\",replica=\"r2\"} 0\n";
        assert!(shown.contains(&format!("{head}{lines}")), "{shown}");
        drop(same);
        assert!(!page().contains("r1"), "{}", page());
        drop(other);
        assert!(!page().contains("serve_test_series_total"), "{}", page());
        assert_eq!(COUNTER.series(&["a", "r1"]).0.values, ["a", "r1"]);
        assert!(!page().contains("serve_test_series_total"), "{}", page());
    }

    #[test]
    fn gauges_and_distributions_are_written_as_prometheus_reads_them() {
        let (level, time) = (GAUGE.series(&[]), HISTOGRAM.series(&["a\"\\\n"]));
        level.set(3.0);
        level.change(-1.5);
        for sample in [1.0, 1.5, 2.5, 3.0] {
            time.record(sample);
        }
        let shown = page();
        assert!(shown.contains("serve_test_series_level 1.5\n"), "{shown}");
        let label = r#"application="a\"\\\n""#;
        for line in [
            format!("serve_test_series_ms_bucket{{{label},le=\"1\"}} 1\n"),
            format!("serve_test_series_ms_bucket{{{label},le=\"2.5\"}} 3\n"),
            format!("serve_test_series_ms_bucket{{{label},le=\"+Inf\"}} 4\n"),
            format!("serve_test_series_ms_sum{{{label}}} 8\n"),
            format!("serve_test_series_ms_count{{{label}}} 4\n"),
        ] {
            assert!(shown.contains(&line), "{line} in {shown}");
        }
    }
}
