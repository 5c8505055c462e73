//! The sum of several series as one step function, and its mean, maximum and minimum.
//!
//! A series holds its value until its next point (right-continuous, last observation carried forward). The sum is that of Ray's
//! `merge_instantaneous_total` and `_merge_and_aggregate_timeseries` (2.60):
//! - a point counts only where it changes its series' value, and its time is rounded to 10 ms;
//! - the window opens when the last series to start has started, or at the first change of the sum if that is later; if no
//!   change comes after the last start, at the first change;
//! - it closes now, and at least 1 ms after the last change;
//! - one series alone is taken as it is: each point, at its exact time, from its first one.
//!
//! Refuses to keep the points: a [`Steps`] is what remains of them, so a mean at any time costs the same few operations. Times
//! are whole nanoseconds, so that whole numbers of requests add up exactly and a constant load has exactly its own mean.

use super::Aggregation;

/// Ray rounds times to 10 ms; in nanoseconds.
const ROUND: u64 = 10_000_000;
/// How long the last value counts at least, in nanoseconds: Ray's 1 ms.
const SHORTEST: u64 = 1_000_000;
/// A mean so near to the last value, relative to it, is that value: far below [`super::NEAR`], far above what floats lose.
const STEADY: f64 = 1e-12;
/// What is left when floats are added and taken away again is nothing.
const DUST: f64 = 1e-9;

/// How series become one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Manner {
    /// Whether one series alone is taken as it is.
    pub(super) lone: bool,
    /// What the sum is cut to.
    pub(super) most: Option<f64>,
}

/// A sum over a window that is still open.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Steps {
    /// Nanoseconds of the window's start and of the last change.
    start: u64,
    last: u64,
    /// Value x nanoseconds between the two.
    area: f64,
    /// The value since the last change.
    value: f64,
    /// The most and the least at changes in the window.
    high: f64,
    low: f64,
    /// The most at any change, also before the window.
    peak: f64,
}

impl Steps {
    /// Adds up series of (nanoseconds, value).
    pub(super) fn sum<I, S>(series: I, manner: Manner) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Iterator<Item = (u64, f64)>,
    {
        let mut active: Vec<_> = series.into_iter().map(Iterator::peekable).collect();
        active.retain_mut(|points| points.peek().is_some());
        let mut aligned = 0;
        for points in &mut active {
            aligned = aligned.max(points.peek().map_or(0, |first| first.0));
        }
        let lone = manner.lone && active.len() == 1;
        let mut changes = Vec::new();
        for points in active {
            let mut before = 0.0;
            for (at, value) in points {
                if lone {
                    changes.push((at, value - before));
                } else if value != before {
                    changes.push(((at + ROUND / 2) / ROUND * ROUND, value - before));
                }
                before = value;
            }
        }
        changes.sort_by_key(|change| change.0);
        let mut total = 0.0;
        let mut sums: Vec<(u64, f64)> = Vec::with_capacity(changes.len());
        for (at, change) in changes {
            total += change;
            let cut = manner.most.map_or(total, |most| most.min(total));
            let value = if cut.abs() < DUST { 0.0 } else { cut };
            match sums.last_mut() {
                Some(same) if same.0 == at => same.1 = value,
                Some(_) | None => sums.push((at, value)),
            }
        }
        Self::over(&sums, if lone { 0 } else { aligned })
    }

    /// The window of a sum whose series have all started at `aligned`.
    fn over(sums: &[(u64, f64)], aligned: u64) -> Self {
        let (Some(first), Some(last)) = (sums.first(), sums.last()) else {
            return Self::default();
        };
        let start = if aligned <= last.0 {
            aligned.max(first.0)
        } else {
            first.0
        };
        let mut steps = Self {
            start,
            last: last.0,
            value: last.1,
            high: f64::NEG_INFINITY,
            low: f64::INFINITY,
            ..Self::default()
        };
        for (at, value) in sums {
            steps.peak = steps.peak.max(*value);
            if *at >= start {
                steps.high = steps.high.max(*value);
                steps.low = steps.low.min(*value);
            }
        }
        for two in sums.windows(2) {
            if let [(from, value), (to, _)] = two {
                steps.area += value * to.saturating_sub((*from).max(start)) as f64;
            }
        }
        steps
    }

    /// One number of the window as it is at `now` (nanoseconds).
    pub(super) fn aggregate(&self, now: u64, aggregation: Aggregation) -> f64 {
        match aggregation {
            Aggregation::Mean => self.mean(now),
            Aggregation::Max => self.high,
            Aggregation::Min => self.low,
        }
    }

    /// The mean over time, until `now` (nanoseconds).
    pub(super) fn mean(&self, now: u64) -> f64 {
        if self.is_steady() {
            return self.value;
        }
        let open = match now.saturating_sub(self.last) {
            0 => SHORTEST,
            open => open,
        } as f64;
        (self.area + self.value * open) / ((self.last - self.start) as f64 + open)
    }

    /// True if the mean does not change as time goes by.
    pub(super) fn is_steady(&self) -> bool {
        let flat = self.value * (self.last - self.start) as f64;
        (self.area - flat).abs() <= STEADY * flat.abs()
    }

    /// The value since the last change.
    pub(super) fn value(&self) -> f64 {
        self.value
    }

    /// The most there was.
    pub(super) fn peak(&self) -> f64 {
        self.peak
    }
}

#[cfg(test)]
mod tests;
