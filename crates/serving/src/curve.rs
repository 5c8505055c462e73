//! How long a call takes, by the rows in it: measured when a model is loaded, refined while it works.
//!
//! A [`Curve`] belongs to one model, one latent shape and one device. It says what the next call will take, and how many rows
//! a call needs before more of them bring nothing. It refuses to measure: the caller brings the times.
//!
//! Invariant: a prediction never falls as rows grow, and is never zero for one row or more.

use std::time::Duration;

/// Batch sizes that a curve keeps: the powers of two up to 64 with room for those between.
pub const MAX_POINTS: usize = 32;
/// Rows of one point, far above what a device holds; it bounds what a manifest may claim.
pub const MAX_ROWS: u32 = 1 << 16;
/// The longest call that is believed, in microseconds: one hour.
const MAX_MICROS: f64 = 3.6e9;
/// The shortest, in microseconds: one nanosecond, the resolution of the clock.
const MIN_MICROS: f64 = 1e-3;
/// How far one observation may stand from the prediction before it is cut (natural logarithm): a quarter slower, a fifth
/// faster. What stands further away is a hiccup of the machine, or the first sign of a change that further ones confirm.
const CUT: f64 = 0.223;
/// What the observed batch size takes over of an observation beyond [`SHARED`].
const LOCAL: f64 = 1.0 / 8.0;
/// What all batch sizes take over: a device that gets slower gets slower for all, and most are seen rarely.
const SHARED: f64 = 1.0 / 16.0;
/// Part of a row's time that goes into self-attention at the measured shape. Of the about 0.8 TFLOP of a Stable Diffusion 1.5
/// call at 512x512, five layers of 4096 positions x 320 channels and five of 1024 x 640, at 4 n^2 d operations each, are 0.12.
const ATTENTION: f64 = 0.15;

/// Points that make no curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There are none.
    #[error("latency curve has no points: measure at least one call")]
    Empty,
    /// There are too many.
    #[error("latency curve has {points} batch sizes: give at most {MAX_POINTS}")]
    TooMany {
        /// Distinct numbers of rows.
        points: usize,
    },
    /// Rows are out of range.
    #[error("latency curve has a point of {rows} rows: rows must be 1 to {MAX_ROWS}")]
    Rows {
        /// The rows.
        rows: u32,
    },
    /// A call that takes no time, or for ever.
    #[error("latency curve has {micros} us for {rows} rows: it must be more than 0 and at most one hour")]
    Time {
        /// Its rows.
        rows: u32,
        /// Its microseconds.
        micros: u64,
    },
}

/// One batch size.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Point {
    rows: f64,
    /// Microseconds, as measured and observed.
    seen: f64,
    /// The same made monotone: what is predicted.
    fitted: f64,
}

/// Latency by rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// By rows, 1 to [`MAX_POINTS`] of them.
    points: Vec<Point>,
}

impl Curve {
    /// Makes a curve of measured calls; of several for one number of rows the median counts.
    ///
    /// # Errors
    /// Without points, with too many batch sizes, with rows or times out of range.
    pub fn new(points: impl IntoIterator<Item = (u32, Duration)>) -> Result<Self, Error> {
        let mut sorted: Vec<(u32, Duration)> = Vec::new();
        for (rows, took) in points {
            let micros = took.as_secs_f64() * 1e6;
            if rows == 0 || rows > MAX_ROWS {
                return Err(Error::Rows { rows });
            }
            if took.is_zero() || micros > MAX_MICROS {
                let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                return Err(Error::Time { rows, micros });
            }
            sorted.push((rows, took));
        }
        sorted.sort_unstable();
        let points: Vec<Point> = sorted
            .chunk_by(|left, right| left.0 == right.0)
            .map(|same| {
                let (rows, took) = same[same.len() / 2];
                Point::new(f64::from(rows), took.as_secs_f64() * 1e6)
            })
            .collect();
        match points.len() {
            0 => Err(Error::Empty),
            1..=MAX_POINTS => Ok(Self::fit(points)),
            points => Err(Error::TooMany { points }),
        }
    }

    /// Makes a curve of what [`Curve::pairs`] gave.
    ///
    /// # Errors
    /// As [`Curve::new`].
    pub fn from_pairs(pairs: impl IntoIterator<Item = (u32, u64)>) -> Result<Self, Error> {
        Self::new(
            pairs
                .into_iter()
                .map(|(rows, micros)| (rows, Duration::from_micros(micros))),
        )
    }

    /// The curve as (rows, microseconds), to be kept in a manifest.
    pub fn pairs(&self) -> impl ExactSizeIterator<Item = (u32, u64)> + '_ {
        self.points
            .iter()
            .map(|point| (point.rows as u32, (point.fitted.round() as u64).max(1)))
    }

    /// What a call of so many rows takes: on a straight line between two measured ones and beyond them. Nothing for no rows.
    #[must_use]
    pub fn predict(&self, rows: usize) -> Duration {
        if rows == 0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64(self.at(rows as f64) / 1e6)
    }

    /// Rows per second at so many rows.
    #[must_use]
    pub fn rate(&self, rows: usize) -> f64 {
        rows as f64 / self.at(rows.max(1) as f64) * 1e6
    }

    /// The fewest rows that bring as many rows per second, less `slack` (0.03: three in a hundred), as the best measured
    /// number of rows up to `max_rows`. Beyond it a call only gets longer, and everybody in it waits for that.
    #[must_use]
    pub fn cap(&self, max_rows: usize, slack: f64) -> usize {
        let most = max_rows.max(1);
        let (Some(first), Some(last)) = (self.points.first(), self.points.last()) else {
            return most;
        };
        // Between two measured sizes the most that is allowed is good, though not measured itself.
        let between = (first.rows..=last.rows).contains(&(most as f64)).then_some(most);
        let sizes = || {
            let measured = self.points.iter().map(|point| point.rows as usize);
            measured.filter(|rows| *rows <= most).chain(between)
        };
        let best = sizes().map(|rows| self.rate(rows)).fold(0.0, f64::max);
        let enough = best * (1.0 - slack.clamp(0.0, 1.0));
        sizes().find(|rows| self.rate(*rows) >= enough).unwrap_or(most)
    }

    /// Takes in what a call really took. One observation moves a point by 4 % at the most, so that a hiccup is forgotten, and
    /// a device that became twice as slow is known after about twenty. Nothing is allocated.
    pub fn observe(&mut self, rows: usize, took: Duration) {
        if rows == 0 || took.is_zero() {
            return;
        }
        let rows = rows as f64;
        let error = (took.as_secs_f64() * 1e6 / self.at(rows)).ln().clamp(-CUT, CUT);
        let above = self.points.partition_point(|point| point.rows < rows);
        let last = self.points.len() - 1;
        for index in 0..=last {
            let near = if above > last {
                f64::from(u8::from(index == last))
            } else if above == 0 {
                f64::from(u8::from(index == 0))
            } else {
                let (low, high) = (self.points[above - 1].rows, self.points[above].rows);
                let part = (rows - low) / (high - low);
                match index {
                    _ if index == above => part,
                    _ if index + 1 == above => 1.0 - part,
                    _ => 0.0,
                }
            };
            let point = &mut self.points[index];
            point.seen = (point.seen * (error * (SHARED + LOCAL * near)).exp()).clamp(MIN_MICROS, MAX_MICROS);
        }
        self.refit();
    }

    /// A guess for a shape that was not measured, with `factor` times as many latent positions.
    ///
    /// Convolutions and projections work on rows x positions, and so does the device's load: r rows of f times the positions
    /// take what r x f rows take, launch costs included. Self-attention grows with the square of a row's positions; with
    /// its share a of the measured shape, t_f(r) = t(r f) (1 - a + a f).
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        // Further away than a picture of 32 times the side nothing can be guessed.
        let factor = if factor.is_nan() {
            1.0
        } else {
            factor.clamp(1.0 / 1024.0, 1024.0)
        };
        let attention = 1.0 - ATTENTION + ATTENTION * factor;
        let same = self.points.iter().map(|point| point.rows);
        // The sizes that load the device as much as the measured ones did: among them is the new cap.
        let alike = self.points.iter().map(|point| (point.rows / factor).round());
        let mut sizes: Vec<f64> = same
            .chain(alike)
            .map(|rows| rows.clamp(1.0, f64::from(MAX_ROWS)))
            .collect();
        sizes.sort_unstable_by(f64::total_cmp);
        sizes.dedup();
        while sizes.len() > MAX_POINTS {
            let last = sizes.len() - 1;
            let mut index = 0;
            sizes.retain(|_| {
                index += 1;
                index % 2 == 1 || index > last
            });
        }
        let point = |rows: f64| {
            let micros = self.at(rows * factor) * attention;
            Point::new(rows, micros.clamp(MIN_MICROS, MAX_MICROS))
        };
        Self::fit(sizes.into_iter().map(point).collect())
    }

    /// Microseconds of so many rows, which need not be whole.
    fn at(&self, rows: f64) -> f64 {
        let above = self.points.partition_point(|point| point.rows < rows);
        match (
            above.checked_sub(1).map(|below| self.points[below]),
            self.points.get(above),
        ) {
            (Some(low), Some(high)) => {
                let micros = low.fitted + slope(&low, high) * (rows - low.rows);
                // Rounding must not put it above the next point.
                micros.min(high.fitted)
            }
            (None, Some(first)) => {
                let slope = self.points.get(1).map_or(0.0, |next| slope(first, next));
                // Fewer rows never take longer, and a single one no less than its part.
                let micros = first.fitted + slope * (rows - first.rows);
                micros.max(first.fitted / first.rows * rows).min(first.fitted)
            }
            (Some(last), None) => last.fitted + self.beyond(&last) * (rows - last.rows),
            (None, None) => MIN_MICROS,
        }
        .max(MIN_MICROS)
    }

    /// Microseconds of a row beyond the last point: those of the rows in the upper half of what was measured, and at least half
    /// of the mean row there, because a device that is not full yet will be.
    fn beyond(&self, last: &Point) -> f64 {
        let mean = last.fitted / last.rows;
        let lower = &self.points[..self.points.len() - 1];
        let half = lower.iter().rev().find(|point| point.rows <= last.rows / 2.0);
        half.or_else(|| lower.last())
            .map_or(mean, |from| slope(from, last).max(mean / 2.0))
    }

    fn fit(points: Vec<Point>) -> Self {
        let mut curve = Self { points };
        curve.refit();
        curve
    }

    /// Isotonic regression by pooling adjacent violators: where more rows were seen to take less, all of them take the mean.
    fn refit(&mut self) {
        // (sum, points) of each pool.
        let mut pools = [(0.0, 0_usize); MAX_POINTS];
        let mut used = 0;
        for point in &self.points {
            let mut pool = (point.seen, 1);
            while used > 0 && pools[used - 1].0 / pools[used - 1].1 as f64 > pool.0 / pool.1 as f64 {
                used -= 1;
                pool = (pool.0 + pools[used].0, pool.1 + pools[used].1);
            }
            pools[used] = pool;
            used += 1;
        }
        let mut points = self.points.iter_mut();
        for (sum, count) in &pools[..used] {
            for point in points.by_ref().take(*count) {
                point.fitted = sum / *count as f64;
            }
        }
    }
}

impl Point {
    fn new(rows: f64, micros: f64) -> Self {
        Self {
            rows,
            seen: micros,
            fitted: micros,
        }
    }
}

/// Microseconds per row between two points.
fn slope(low: &Point, high: &Point) -> f64 {
    (high.fitted - low.fitted) / (high.rows - low.rows)
}

#[cfg(test)]
mod tests;
