//! A run over time, in rates: what its charts draw.

use serde::Serialize;

use crate::record::{Bucket, Series};

/// One stretch of time.
#[derive(Debug, Clone, Serialize)]
pub struct Point {
    /// Its middle, seconds since the window's start.
    pub at: f64,
    /// Requests due, per second.
    pub due: f64,
    /// Right answers that came, per second.
    pub answered: f64,
    /// Of those due, good ones per second.
    pub good: f64,
    /// Of those due, refused ones per second.
    pub refused: f64,
    /// Of those due, ones that ended in any other way, per second.
    pub bad: f64,
    /// Median latency of right answers to those due, milliseconds.
    pub p50_ms: f64,
    /// 99 % quantile.
    pub p99_ms: f64,
}

/// The stretches of a window that was so many seconds long.
pub(super) fn points(series: &Series, seconds: f64) -> Vec<Point> {
    let width = series.width().as_secs_f64();
    let point = |(index, bucket): (usize, &Bucket)| {
        let begin = index as f64 * width;
        // The last stretch may be cut by the window's end.
        let length = width.min(seconds - begin);
        let rate = |count: u64| count as f64 / length;
        Point {
            at: begin + length / 2.0,
            due: rate(bucket.due),
            answered: rate(bucket.answered),
            good: rate(bucket.good),
            refused: rate(bucket.refused),
            bad: rate(bucket.bad),
            p50_ms: bucket.latency.value_at_quantile(0.5) as f64 / 1000.0,
            p99_ms: bucket.latency.value_at_quantile(0.99) as f64 / 1000.0,
        }
    };
    let shown = series.buckets().iter().enumerate().map(point);
    shown.take_while(|point| point.at < seconds).collect()
}
