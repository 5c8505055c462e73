//! Collects the ends of requests; one per thread, merged when the run is over.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::{Ending, Kind, Series, Tally, add, histogram};

/// The part of a run that counts, as offsets from the start of the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Before it is the warm-up.
    pub start: Duration,
    /// After it nothing is due.
    pub end: Duration,
}

impl Window {
    fn holds(&self, at: Duration) -> bool {
        (self.start..self.end).contains(&at)
    }

    /// How long it is.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.end.saturating_sub(self.start)
    }
}

/// When one request was due, sent and over.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Index of its class.
    pub class: usize,
    /// When it should have been sent.
    pub due: Duration,
    /// When it was.
    pub sent: Duration,
    /// When its end came.
    pub done: Duration,
}

/// Collects what happened in a [`Window`], and what was wrong before it.
#[derive(Debug, Clone)]
pub struct Recorder {
    window: Window,
    /// The objective of each class.
    slos: Vec<Option<Duration>>,
    /// Each class's counts.
    pub(crate) classes: Vec<Tally>,
    /// The warm-up's counts.
    pub(crate) warm_up: Tally,
    /// Counts over time.
    pub(crate) series: Series,
    /// From due to sent: what this program added itself, microseconds.
    pub(crate) lag: Histogram<u64>,
    /// Right answers that came within the window, whenever they were due.
    pub(crate) answered: u64,
}

impl Recorder {
    /// An empty recorder; `slos` has the objective of every class.
    #[must_use]
    pub fn new(window: Window, slos: Vec<Option<Duration>>) -> Self {
        Self {
            window,
            classes: vec![Tally::default(); slos.len()],
            slos,
            warm_up: Tally::default(),
            series: Series::default(),
            lag: histogram(3),
            answered: 0,
        }
    }

    /// A request of this class is due.
    pub fn due(&mut self, due: Duration, class: usize) {
        if self.window.holds(due) {
            self.classes[class].due += 1;
            self.series.at(due - self.window.start).due += 1;
        } else {
            self.warm_up.due += 1;
        }
    }

    /// It was not sent, because too many were in flight.
    pub fn unsent(&mut self, due: Duration, class: usize) {
        if self.window.holds(due) {
            self.classes[class].unsent += 1;
            self.series.at(due - self.window.start).bad += 1;
        } else {
            self.warm_up.unsent += 1;
        }
    }

    /// A request ended.
    pub fn end(&mut self, sample: &Sample, ending: &Ending) {
        let latency = sample.done.saturating_sub(sample.due);
        if ending.kind == Kind::Right && self.window.holds(sample.done) {
            self.answered += 1;
            self.series.at(sample.done - self.window.start).answered += 1;
        }
        let slo = self.slos[sample.class];
        if !self.window.holds(sample.due) {
            self.warm_up.end(ending, latency, slo);
            return;
        }
        self.classes[sample.class].end(ending, latency, slo);
        let good = slo.is_none_or(|slo| latency <= slo);
        self.series
            .end(sample.due - self.window.start, ending.kind, good, latency);
        let lag = sample.sent.saturating_sub(sample.due);
        self.lag.saturating_record(lag.as_micros() as u64);
    }

    /// The run was stopped before its end: what counts ends here.
    pub fn cut(&mut self, end: Duration) {
        self.window.end = self.window.end.min(end).max(self.window.start);
    }

    /// Adds what another recorder of the same run collected.
    pub fn merge(&mut self, other: &Self) {
        for (own, others) in self.classes.iter_mut().zip(&other.classes) {
            own.merge(others);
        }
        self.warm_up.merge(&other.warm_up);
        self.series.merge(&other.series);
        add(&mut self.lag, &other.lag);
        self.answered += other.answered;
    }

    /// The part of the run that counts.
    #[must_use]
    pub fn window(&self) -> Window {
        self.window
    }

    /// All classes together.
    #[must_use]
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        for class in &self.classes {
            total.merge(class);
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Window = Window {
        start: Duration::from_secs(1),
        end: Duration::from_secs(11),
    };

    fn sample(due_ms: u64, took_ms: u64) -> Sample {
        let due = Duration::from_millis(due_ms);
        Sample {
            class: 0,
            due,
            sent: due,
            done: due + Duration::from_millis(took_ms),
        }
    }

    fn recorder() -> Recorder {
        Recorder::new(WINDOW, vec![Some(Duration::from_millis(500))])
    }

    #[test]
    fn the_warm_up_is_kept_apart() {
        let mut recorder = recorder();
        recorder.due(Duration::from_millis(999), 0);
        recorder.end(&sample(999, 5), &Ending::right(1));
        assert_eq!((recorder.total().due, recorder.warm_up.due), (0, 1));
        // It was due in the warm-up and came in the window.
        assert_eq!((recorder.total().count(Kind::Right), recorder.answered), (0, 1));
    }

    #[test]
    fn an_answer_after_the_window_has_a_latency_and_is_no_throughput() {
        let mut recorder = recorder();
        recorder.due(Duration::from_secs(10), 0);
        recorder.end(&sample(10_000, 9000), &Ending::right(1));
        let total = recorder.total();
        assert_eq!(
            (recorder.answered, total.count(Kind::Right), total.good),
            (0, 1, 0)
        );
        assert_eq!(total.latency.max() / 1_000_000, 9);
    }

    #[test]
    fn what_was_not_sent_is_bad_where_it_was_due() {
        let mut recorder = recorder();
        recorder.due(Duration::from_secs(2), 0);
        recorder.unsent(Duration::from_secs(2), 0);
        let bad: Vec<_> = recorder
            .series
            .buckets()
            .iter()
            .map(|bucket| bucket.bad)
            .collect();
        assert_eq!((bad[10], bad.iter().sum::<u64>()), (1, 1));
        assert_eq!((recorder.total().unsent, recorder.total().unfinished()), (1, 0));
    }

    /// All that a tally says, with every latency that it keeps.
    fn told(tally: &Tally) -> String {
        let kept = [&tally.latency, &tally.refusal].map(|histogram| {
            let counted = histogram.iter_recorded();
            counted
                .map(|at| (at.value_iterated_to(), at.count_at_value()))
                .collect::<Vec<_>>()
        });
        let Tally {
            due,
            unsent,
            good,
            bytes,
            ended,
            reasons,
            ..
        } = tally;
        format!("{due} {unsent} {good} {bytes} {ended:?} {reasons:?} {kept:?}")
    }

    proptest! {
        #[test]
        fn recorders_merge_into_what_one_would_have_recorded(
            requests in proptest::collection::vec((0u64..60_000, 0u64..3000, 0usize..Kind::ALL.len(), 0usize..3), 0..200),
        ) {
            // Long enough for parts of different coarseness.
            let window = Window { start: WINDOW.start, end: Duration::from_secs(61) };
            let empty = Recorder::new(window, vec![Some(Duration::from_millis(500))]);
            let mut parts = vec![empty.clone(); 3];
            let mut one = empty.clone();
            for (due, took, kind, part) in requests {
                let sample = sample(due, took);
                let kind = Kind::ALL[kind];
                let ending = if kind == Kind::Right { Ending::right(7) } else { Ending::other(kind, "why") };
                for recorder in [&mut parts[part], &mut one] {
                    recorder.due(sample.due, 0);
                    recorder.end(&sample, &ending);
                }
            }
            let mut merged = empty;
            for part in &parts {
                merged.merge(part);
            }
            prop_assert_eq!(told(&merged.total()), told(&one.total()));
            prop_assert_eq!(told(&merged.warm_up), told(&one.warm_up));
            prop_assert_eq!(merged.answered, one.answered);
            let due = |recorder: &Recorder| recorder.series.buckets().iter().map(|bucket| bucket.due).collect::<Vec<_>>();
            prop_assert_eq!(due(&merged), due(&one));
            prop_assert_eq!(one.total().unfinished(), 0);
        }
    }
}
