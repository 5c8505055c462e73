//! The outcome of one run.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::point::{Point, points};
use crate::record::{Kind, Recorder, Tally};

/// Points of the latency curve: nines are where it bends.
const CURVE: [f64; 22] = [
    0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 75.0, 80.0, 85.0, 90.0, 92.5, 95.0, 97.5, 99.0, 99.5,
    99.9, 99.95, 99.99, 99.999, 100.0,
];

/// What a report says of the run itself.
#[derive(Debug, Clone, Default)]
pub struct Meta {
    /// What was called.
    pub target: String,
    /// What load, in words.
    pub load: String,
    /// Seconds of processor time that this program took.
    pub cpu: Duration,
    /// Threads that sent.
    pub threads: usize,
    /// Whether somebody stopped it before its end.
    pub interrupted: bool,
}

/// How requests ended.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Counts {
    /// Were due.
    pub due: u64,
    /// Were answered rightly.
    pub right: u64,
    /// Of those, within the objective.
    pub good: u64,
    /// Refused because of load, with when to come back.
    pub refused: u64,
    /// Refused because of load, without.
    pub refused_without_delay: u64,
    /// Took longer than their deadline.
    pub deadline: u64,
    /// Answered with an error.
    pub failed: u64,
    /// Lost with their connection.
    pub transport: u64,
    /// Answered with something else than was asked for.
    pub wrong: u64,
    /// Not sent, because too many were in flight.
    pub unsent: u64,
    /// Had no end when the run was over.
    pub unfinished: u64,
}

impl Counts {
    fn new(tally: &Tally) -> Self {
        Self {
            due: tally.due,
            right: tally.count(Kind::Right),
            good: tally.good,
            refused: tally.count(Kind::Refused),
            refused_without_delay: tally.count(Kind::RefusedBare),
            deadline: tally.count(Kind::Deadline),
            failed: tally.count(Kind::Failed),
            transport: tally.count(Kind::Transport),
            wrong: tally.count(Kind::Wrong),
            unsent: tally.unsent,
            unfinished: tally.unfinished(),
        }
    }

    /// Good answers per hundred due.
    #[must_use]
    pub fn good_percent(&self) -> f64 {
        100.0 * self.good as f64 / self.due.max(1) as f64
    }
}

/// Quantiles in milliseconds; all 0 where nothing was counted.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Latency {
    /// How many were counted.
    pub count: u64,
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// Longest.
    pub max: f64,
}

impl Latency {
    fn new(histogram: &Histogram<u64>) -> Self {
        let at = |percentile| histogram.value_at_percentile(percentile) as f64 / 1000.0;
        Self {
            count: histogram.len(),
            mean: histogram.mean() / 1000.0,
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            p999: at(99.9),
            max: histogram.max() as f64 / 1000.0,
        }
    }
}

/// Requests per second.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Rates {
    /// Were due.
    pub due: f64,
    /// Right answers that came within the window.
    pub answered: f64,
    /// Right answers within the objective to requests due in the window: goodput.
    pub good: f64,
}

/// One class of requests.
#[derive(Debug, Clone, Serialize)]
pub struct ClassReport {
    /// Its name.
    pub name: String,
    /// How its requests ended.
    pub counts: Counts,
    /// Of its right answers.
    pub latency_ms: Latency,
}

/// What the load itself cost.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Generator {
    /// Threads that sent.
    pub threads: usize,
    /// Seconds of processor time, warm-up included.
    pub cpu_seconds: f64,
    /// Microseconds of it for each request, warm-up included.
    pub cpu_us_per_request: f64,
    /// From due to sent: what the generator added to latencies, milliseconds.
    pub lag_ms: Latency,
}

/// Everything that a run measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// What was called.
    pub target: String,
    /// What load, in words.
    pub load: String,
    /// Whether somebody stopped it before its end.
    pub interrupted: bool,
    /// Seconds that counted.
    pub seconds: f64,
    /// How requests ended.
    pub counts: Counts,
    /// Good answers per hundred due.
    pub good_percent: f64,
    /// Requests per second.
    pub rates: Rates,
    /// Bytes of a right answer.
    pub mean_bytes: f64,
    /// From due to the end, of right answers.
    pub latency_ms: Latency,
    /// From due to the end, of refusals.
    pub refusal_ms: Latency,
    /// Ends other than right answers: kind, reason, count.
    pub reasons: BTreeMap<String, u64>,
    /// Each class, where there are several.
    pub classes: Vec<ClassReport>,
    /// The warm-up, which none of the above counts.
    pub warm_up: Counts,
    /// What the load itself cost.
    pub generator: Generator,
    /// Percentile and milliseconds, of right answers.
    pub curve: Vec<(f64, f64)>,
    /// The same over time.
    pub series: Vec<Point>,
}

/// Whether a run was as it should be, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Empty when it was.
    pub complaints: Vec<String>,
}

impl Report {
    /// Sums up what was recorded; `names` are the classes'.
    #[must_use]
    pub fn new(meta: Meta, names: &[&str], recorder: &Recorder) -> Self {
        let total = recorder.total();
        let window = recorder.window();
        let seconds = window.length().as_secs_f64().max(f64::EPSILON);
        let counts = Counts::new(&total);
        let requests = total.due + recorder.warm_up.due;
        let class = |(name, tally): (&&str, &Tally)| ClassReport {
            name: (*name).to_owned(),
            counts: Counts::new(tally),
            latency_ms: Latency::new(&tally.latency),
        };
        let classes = if names.len() > 1 {
            names.iter().zip(&recorder.classes).map(class).collect()
        } else {
            Vec::new()
        };
        let curve = if total.latency.is_empty() {
            Vec::new()
        } else {
            CURVE
                .map(|percentile| {
                    (
                        percentile,
                        total.latency.value_at_percentile(percentile) as f64 / 1000.0,
                    )
                })
                .to_vec()
        };
        Self {
            target: meta.target,
            load: meta.load,
            interrupted: meta.interrupted,
            seconds,
            good_percent: counts.good_percent(),
            rates: Rates {
                due: counts.due as f64 / seconds,
                answered: recorder.answered as f64 / seconds,
                good: counts.good as f64 / seconds,
            },
            mean_bytes: total.bytes as f64 / counts.right.max(1) as f64,
            counts,
            latency_ms: Latency::new(&total.latency),
            refusal_ms: Latency::new(&total.refusal),
            reasons: total
                .reasons
                .iter()
                .map(|((kind, label), count)| (format!("{}: {label}", kind.name()), *count))
                .collect(),
            classes,
            warm_up: Counts::new(&recorder.warm_up),
            generator: Generator {
                threads: meta.threads,
                cpu_seconds: meta.cpu.as_secs_f64(),
                cpu_us_per_request: meta.cpu.as_secs_f64() * 1e6 / requests.max(1) as f64,
                lag_ms: Latency::new(&recorder.lag),
            },
            curve,
            series: points(&recorder.series, seconds),
        }
    }

    /// Judges it: `require` of a hundred requests that were due must have brought a good answer, and none a wrong one, not even
    /// in the warm-up.
    #[must_use]
    pub fn verdict(&self, require: f64) -> Verdict {
        let mut complaints = Vec::new();
        let wrong = self.counts.wrong + self.warm_up.wrong;
        if wrong > 0 {
            complaints.push(format!("{wrong} answers were wrong"));
        }
        if self.counts.due == 0 {
            complaints.push("nothing was due".to_owned());
        } else if self.good_percent < require {
            complaints.push(format!(
                "{:.2} % were good, {require} % are required",
                self.good_percent
            ));
        }
        Verdict { complaints }
    }
}

impl Verdict {
    /// Whether nothing is to complain about.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.complaints.is_empty()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::record::{Ending, Sample, Window};

    /// Ten seconds with 20 good answers of 5 ms, one late one, one refusal and one that was not sent.
    pub(in crate::report) fn recorded() -> Recorder {
        let window = Window {
            start: Duration::from_secs(1),
            end: Duration::from_secs(11),
        };
        let mut recorder = Recorder::new(window, vec![Some(Duration::from_millis(100))]);
        let mut end = |due_ms: u64, took_ms: u64, ending: Ending| {
            let due = Duration::from_millis(due_ms);
            recorder.due(due, 0);
            let done = due + Duration::from_millis(took_ms);
            let sample = Sample {
                class: 0,
                due,
                sent: due,
                done,
            };
            recorder.end(&sample, &ending);
        };
        for i in 0..20 {
            end(1000 + i * 500, 5, Ending::right(1000));
        }
        end(2000, 200, Ending::right(1000));
        end(3000, 1, Ending::other(Kind::Refused, "503"));
        recorder.due(Duration::from_secs(4), 0);
        recorder.unsent(Duration::from_secs(4), 0);
        recorder
    }

    pub(in crate::report) fn report() -> Report {
        let meta = Meta {
            target: "there <&> here".into(),
            load: "some".into(),
            cpu: Duration::from_millis(23),
            threads: 1,
            interrupted: false,
        };
        Report::new(meta, &["all"], &recorded())
    }

    #[test]
    fn goodput_counts_what_was_good_against_all_that_was_due() {
        let report = report();
        assert_eq!(
            (report.counts.due, report.counts.right, report.counts.good),
            (23, 21, 20)
        );
        assert!((report.good_percent - 2000.0 / 23.0).abs() < 1e-9);
        assert!((report.rates.good - 2.0).abs() < 1e-9 && (report.rates.answered - 2.1).abs() < 1e-9);
        assert!((report.generator.cpu_us_per_request - 1000.0).abs() < 1e-6);
        assert_eq!(report.reasons["refused: 503"], 1);
    }

    #[test]
    fn a_run_is_judged_by_its_share_of_good_answers_and_by_any_wrong_one() {
        let mut report = report();
        assert!(report.verdict(86.0).passed());
        assert_eq!(
            report.verdict(99.0).complaints,
            ["86.96 % were good, 99 % are required"]
        );
        report.warm_up.wrong = 1;
        assert_eq!(report.verdict(0.0).complaints, ["1 answers were wrong"]);
        report.warm_up.wrong = 0;
        report.counts.due = 0;
        assert!(!report.verdict(0.0).passed());
    }

    #[test]
    fn the_series_adds_up_to_the_counts() {
        let report = report();
        let width = 2.0 * report.series[0].at;
        let sum = |value: fn(&Point) -> f64| (report.series.iter().map(value).sum::<f64>() * width).round();
        assert_eq!(
            (
                sum(|p| p.due),
                sum(|p| p.good),
                sum(|p| p.refused),
                sum(|p| p.bad)
            ),
            (23.0, 20.0, 1.0, 1.0)
        );
    }
}
