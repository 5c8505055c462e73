//! What fits one UNet call of this model, how many rows of it, and how long it takes: a group for every latent shape and text
//! length that is drawn now.
//!
//! Curves come from the profile that was measured at load, or are scaled from it for other shapes; what ticks really take
//! refines them. How many rows a call may have is decided when a group comes to be, and stays for as long as it is drawn.
//!
//! Where kernels are chosen by the batch, strict calls are filled up: they always have the same rows and take the same time.
//!
//! Invariant: there is a group for every trajectory that has calls left, and for no other.

use std::time::Duration;

use mobula_serving::curve::Curve;
use mobula_serving::tick::Group;

use crate::engine::{Info, Shape};

/// Throughput that a call may fall short of the best one for being shorter: short ticks are short waits.
const SLACK: f64 = 0.03;
/// A call of this length holds nobody up for long: its rows are as many as may be, so that a measurement on a busy machine, which lives
/// as long as the group, does not cost throughput for the sake of shorter waits.
const SHORT: Duration = Duration::from_millis(100);
/// Throughput that a short call may fall short of the best one: more than measurements are off by.
const SHORT_SLACK: f64 = 0.2;
/// Curves that are kept for shapes that nobody draws now.
const MAX_KNOWN: usize = 64;

/// A latent shape and text length, and whether company may change the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) shape: Shape,
    pub(super) tokens: usize,
    pub(super) fast: bool,
}

impl Key {
    /// The key in one number: sides below 2^20, tokens below 2^22.
    pub(super) fn get(self) -> u64 {
        ((self.shape.height as u64) << 43)
            | ((self.shape.width as u64) << 23)
            | ((self.tokens as u64) << 1)
            | u64::from(self.fast)
    }
}

/// Calls of one shape that were measured.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Measured {
    /// Rows of latent positions.
    pub(crate) height: usize,
    /// Columns of latent positions.
    pub(crate) width: usize,
    /// Tokens of the prompts.
    pub(crate) tokens: usize,
    /// Rows in a call, and what it took.
    pub(crate) curve: Curve,
}

/// The groups of a model.
#[derive(Debug)]
pub(super) struct Groups {
    max_rows: usize,
    /// Latent positions of the native size.
    native: usize,
    measured: Vec<Measured>,
    active: Vec<Group>,
    /// Curves of groups that are gone, youngest last.
    known: Vec<(u64, Curve)>,
}

impl Groups {
    pub(super) fn new(max_rows: usize, native: usize, measured: Vec<Measured>) -> Self {
        Self {
            max_rows: max_rows.max(1),
            native,
            measured,
            active: Vec::new(),
            known: Vec::new(),
        }
    }

    /// The groups that are drawn now.
    pub(super) fn active(&self) -> &[Group] {
        &self.active
    }

    /// Sees to it that there is a group.
    pub(super) fn need(&mut self, key: Key, info: &Info) {
        let number = key.get();
        if self.active.iter().any(|group| group.key == number) {
            return;
        }
        let known = self.known.iter().position(|(known, _)| *known == number);
        let filled = self.filled(key, info);
        let curve = match known {
            Some(at) => self.known.remove(at).1,
            None => filled.map_or_else(|| self.curve(key), |rows| flat(self.curve(key), rows)),
        };
        let cap = filled.unwrap_or_else(|| self.cap(&curve).min(self.most(key.shape)));
        self.active.push(Group {
            key: number,
            cap,
            weight: 1,
            curve,
        });
    }

    /// Rows of a call.
    fn cap(&self, curve: &Curve) -> usize {
        let enough = curve.cap(self.max_rows, SLACK);
        let least = curve.rate(enough) * (1.0 - SHORT_SLACK);
        let short = |rows: &usize| curve.predict(*rows) <= SHORT && curve.rate(*rows) >= least;
        // More rows than were measured may be more than memory holds.
        let measured = curve.pairs().last().map_or(0, |(rows, _)| rows as usize);
        (enough..=self.max_rows.min(measured))
            .rev()
            .find(short)
            .unwrap_or(enough)
    }

    /// Lets go of groups that nobody needs any more; their curves are kept for a while.
    pub(super) fn retain(&mut self, needed: impl Fn(u64) -> bool) {
        for gone in self.active.extract_if(.., |group| !needed(group.key)) {
            if self.known.len() == MAX_KNOWN {
                self.known.remove(0);
            }
            self.known.push((gone.key, gone.curve));
        }
    }

    /// Rows that every call of this group is filled up to; none where company changes nothing, or may.
    pub(super) fn filled(&self, key: Key, info: &Info) -> Option<usize> {
        let bucket = info.bucket.filter(|_| !key.fast)?;
        Some(bucket.min(self.most(key.shape)).max(1))
    }

    /// Rows of the native size that are as much work as so many of a shape, by positions: what is told of a replica's speed
    /// must not depend on the sizes that were drawn last, since costs are counted in rows of the native size.
    pub(super) fn native_rows(&self, shape: Shape, rows: usize) -> f64 {
        rows as f64 * shape.positions() as f64 / self.native.max(1) as f64
    }

    /// Takes in what a call really took.
    pub(super) fn observe(&mut self, key: u64, rows: usize, took: Duration) {
        if let Some(group) = self.active.iter_mut().find(|group| group.key == key) {
            group.curve.observe(rows, took);
        }
    }

    /// The curve of a shape: as it was measured, or scaled from the nearest shape that was.
    fn curve(&self, key: Key) -> Curve {
        let positions = key.shape.positions() as f64;
        let factor = |measured: &Measured| positions / (measured.height * measured.width) as f64;
        let distance = |measured: &&Measured| {
            let shape = factor(measured).ln().abs();
            let tokens = (key.tokens as f64 / measured.tokens as f64).ln().abs();
            ((shape + 0.1 * tokens) * 1e6) as u64
        };
        match self.measured.iter().min_by_key(distance) {
            Some(nearest) if nearest.height == key.shape.height && nearest.width == key.shape.width => {
                nearest.curve.clone()
            }
            Some(nearest) => nearest.curve.scaled(factor(nearest)),
            None => unmeasured(),
        }
    }

    /// Rows that a call may have for the memory it takes: attention takes it with the square of the positions, so calls above
    /// the native size have fewer.
    fn most(&self, shape: Shape) -> usize {
        let positions = shape.positions();
        if positions <= self.native {
            return self.max_rows;
        }
        let squares = (self.native as u128).pow(2).max(1);
        (self.max_rows as u128 * squares / (positions as u128).pow(2)).max(1) as usize
    }
}

/// The curve of calls that are filled up to so many rows: fewer of them take as long. A curve of one point is flat below it,
/// and stays so whatever is observed.
fn flat(curve: Curve, rows: usize) -> Curve {
    let point = (rows as u32, curve.predict(rows));
    // A guess of more than an hour is no point; nobody waits for such a call.
    Curve::new([point]).unwrap_or(curve)
}

/// A curve for what was never measured: a millisecond and a millisecond a row, until ticks say better.
fn unmeasured() -> Curve {
    let points = [1, 16].map(|rows| (rows, Duration::from_millis(1 + u64::from(rows))));
    // Two points that rise are a curve.
    Curve::new(points).expect("the two points are in order")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fake;

    fn key(side: usize, tokens: usize) -> Key {
        let shape = Shape {
            channels: 4,
            height: side,
            width: side,
        };
        Key {
            shape,
            tokens,
            fast: false,
        }
    }

    #[test]
    fn calls_that_hold_nobody_up_have_all_rows_unless_fewer_are_clearly_faster() {
        let groups = Groups::new(16, 16 * 16, Vec::new());
        let cap = |micros: [u64; 5]| {
            groups.cap(&Curve::from_pairs([1, 2, 4, 8, 16].into_iter().zip(micros)).unwrap())
        };
        // Measured while others computed: the longer a call, the more came between.
        assert_eq!(cap([9_000, 10_000, 21_000, 44_000, 90_000]), 16);
        // Beyond two rows the device does one after the other.
        assert_eq!(cap([90_000, 100_000, 200_000, 400_000, 800_000]), 2);
        // Four rows are still short, eight are not.
        assert_eq!(cap([20_000, 40_000, 80_000, 160_000, 320_000]), 5);
        // Eight rows failed when it was measured.
        let curve = Curve::from_pairs([(1, 5_000), (2, 9_000), (4, 17_000)]).unwrap();
        assert_eq!(groups.cap(&curve), 4);
        // What no longer fits a cache.
        assert_eq!(cap([4_000, 6_000, 10_000, 30_000, 60_000]), 5);
    }

    #[test]
    fn pictures_above_the_native_size_share_a_call_with_fewer() {
        let groups = Groups::new(16, 16 * 16, Vec::new());
        let caps = [8, 16, 20, 32, 64, 1 << 15].map(|side| groups.most(key(side, 77).shape));
        assert_eq!(caps, [16, 16, 6, 1, 1, 1]);
    }

    #[test]
    fn shapes_that_were_not_measured_are_scaled_from_the_nearest_that_was() {
        let curve = |micros| Curve::from_pairs([(1, micros), (16, 4 * micros)]).unwrap();
        let measured = |side, micros| Measured {
            height: side,
            width: side,
            tokens: 77,
            curve: curve(micros),
        };
        let groups = Groups::new(16, 64 * 64, vec![measured(16, 1000), measured(64, 50_000)]);
        assert_eq!(groups.curve(key(64, 77)).predict(1), Duration::from_millis(50));
        assert_eq!(groups.curve(key(16, 154)).predict(1), Duration::from_millis(1));
        let between = groups.curve(key(32, 77)).predict(1);
        assert!(
            between > Duration::from_millis(2) && between < Duration::from_millis(50),
            "{between:?}"
        );
    }

    #[test]
    fn strict_calls_of_a_filled_batch_take_the_same_time_whatever_is_in_them() {
        let curve = Curve::from_pairs([(1, 1000), (4, 3000), (16, 9000)]).unwrap();
        let measured = Measured {
            height: 16,
            width: 16,
            tokens: 77,
            curve: curve.clone(),
        };
        let mut groups = Groups::new(16, 16 * 16, vec![measured]);
        let info = Info {
            bucket: Some(4),
            ..fake::info()
        };
        let (strict, large) = (key(16, 77), key(24, 77));
        let fast = Key { fast: true, ..strict };
        for key in [strict, fast, large] {
            groups.need(key, &info);
        }
        groups.observe(strict.get(), 4, Duration::from_millis(5));
        let [strict, fast, large] = groups.active() else {
            panic!("{groups:?}")
        };
        let times = |group: &Group| [1, 2, 3, 4].map(|rows| group.curve.predict(rows));
        let seen = times(strict);
        assert!(seen.iter().all(|time| *time == seen[0]), "{seen:?}");
        assert!(
            seen[0] > Duration::from_millis(3) && seen[0] < Duration::from_millis(5),
            "{seen:?}"
        );
        assert_eq!((strict.cap, fast.cap), (4, curve.cap(16, SLACK)));
        assert_eq!(fast.curve, curve);
        // Memory allows three rows of 24 by 24: 16 (256 / 576)^2.
        assert_eq!(large.cap, 3);
        let times = times(large);
        assert_eq!(times[0], times[2]);
        assert!(times[3] > times[2]);
    }

    #[test]
    fn a_group_that_comes_back_knows_what_its_calls_took() {
        let mut groups = Groups::new(16, 256, Vec::new());
        let key = key(16, 77);
        groups.need(key, &fake::info());
        groups.need(key, &fake::info());
        assert_eq!(groups.active().len(), 1);
        for _ in 0..200 {
            groups.observe(key.get(), 4, Duration::from_millis(40));
        }
        let learned = groups.active()[0].curve.predict(4);
        assert!(learned > Duration::from_millis(20), "{learned:?}");
        groups.retain(|_| false);
        assert!(groups.active().is_empty());
        groups.need(key, &fake::info());
        assert_eq!(groups.active()[0].curve.predict(4), learned);
    }

    #[test]
    fn rows_of_a_large_picture_count_as_many_of_the_native_size() {
        let groups = Groups::new(16, 16 * 16, Vec::new());
        assert!((groups.native_rows(key(16, 77).shape, 4) - 4.0).abs() < 1e-9);
        assert!((groups.native_rows(key(64, 77).shape, 2) - 32.0).abs() < 1e-9);
    }
}
