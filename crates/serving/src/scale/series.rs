//! What one source said: its samples over the look-back window.
//!
//! Refuses to aggregate. Invariants: points are in order of time, one per time; none is older than the window before the newest
//! one; there are at most [`MAX_POINTS`], and at most [`MAX_WAITING`] that no tick has taken in.

use std::{collections::VecDeque, time::Duration};

use super::{Aggregation, Sample};

/// Points of one source, 40 bytes each. A window of 30 s sampled at every tick has 300 points; who samples more often than
/// 256 times in a window loses resolution, not load.
pub(super) const MAX_POINTS: usize = 256;
/// Samples that wait for the next tick. A tick is short, so that one is the rule; if there are more, the caller is not ticking,
/// and the oldest is taken in before its tick.
const MAX_WAITING: usize = 64;

/// A sample and when it was taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    pub(super) at: Duration,
    pub(super) sample: Sample,
}

/// The points of one source.
#[derive(Debug, Clone, Default)]
pub(super) struct Series {
    points: VecDeque<Point>,
    waiting: VecDeque<Point>,
}

impl Series {
    /// Keeps a sample for the tick that comes at its time or after it.
    pub(super) fn wait(&mut self, point: Point, look_back: Duration, aggregation: Aggregation) {
        insert(&mut self.waiting, point);
        if self.waiting.len() > MAX_WAITING
            && let Some(oldest) = self.waiting.pop_front()
        {
            self.push(oldest, look_back, aggregation);
        }
    }

    /// Takes in what waits for a tick at `now`; true if anything did.
    pub(super) fn take(&mut self, now: Duration, look_back: Duration, aggregation: Aggregation) -> bool {
        let mut any = false;
        while let Some(point) = self.waiting.pop_front_if(|point| point.at <= now) {
            self.push(point, look_back, aggregation);
            any = true;
        }
        any
    }

    /// When the first sample that waits was taken.
    pub(super) fn waiting(&self) -> Option<Duration> {
        self.waiting.front().map(|point| point.at)
    }

    /// When the newest sample was taken that a tick has taken in; before the first tick, the first that waits.
    pub(super) fn heard(&self) -> Option<Duration> {
        let newest = self.points.back().or_else(|| self.waiting.front());
        newest.map(|point| point.at)
    }

    /// Drops what was said, but for what waits; true if the source has nothing more to say.
    pub(super) fn drop_said(&mut self) -> bool {
        self.points.clear();
        self.waiting.is_empty()
    }

    /// What counts at the last tick.
    pub(super) fn points(&self) -> &VecDeque<Point> {
        &self.points
    }

    /// The newest sample that a tick has taken in.
    pub(super) fn last(&self) -> Option<Sample> {
        self.points.back().map(|point| point.sample)
    }

    fn push(&mut self, point: Point, look_back: Duration, aggregation: Aggregation) {
        insert(&mut self.points, point);
        let newest = self.points.back().map_or(point.at, |last| last.at);
        if let Some(start) = newest.checked_sub(look_back) {
            while self.points.pop_front_if(|first| first.at <= start).is_some() {}
        }
        if self.points.len() > MAX_POINTS {
            self.halve(aggregation);
        }
    }

    /// Makes one point of every two but for the newest ones, so that the window keeps its length.
    fn halve(&mut self, aggregation: Aggregation) {
        let old: Vec<Point> = self.points.drain(..).collect();
        for three in old.windows(3).step_by(2) {
            if let [one, two, end] = three {
                let (first, second) = (seconds(one.at, two.at), seconds(two.at, end.at));
                let both = |a: f64, b: f64| match aggregation {
                    Aggregation::Mean => (a * first + b * second) / (first + second),
                    Aggregation::Max => a.max(b),
                    Aggregation::Min => a.min(b),
                };
                let (a, b) = (one.sample, two.sample);
                self.points.push_back(Point {
                    at: one.at,
                    sample: Sample {
                        queued: both(a.queued, b.queued),
                        running: both(a.running, b.running),
                        // The work policy looks for the most there was, whatever the requests are aggregated by.
                        work_s: a.work_s.max(b.work_s),
                    },
                });
            }
        }
        let kept = (old.len() - 1) / 2 * 2;
        self.points.extend(old.into_iter().skip(kept));
    }
}

fn seconds(from: Duration, to: Duration) -> f64 {
    to.saturating_sub(from).as_secs_f64()
}

/// Puts a point where its time is; a second one for the same time replaces the first.
fn insert(points: &mut VecDeque<Point>, point: Point) {
    let at = points.partition_point(|other| other.at < point.at);
    match points.get_mut(at) {
        Some(same) if same.at == point.at => *same = point,
        Some(_) | None => points.insert(at, point),
    }
}
