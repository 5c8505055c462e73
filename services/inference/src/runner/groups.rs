//! What fits one UNet call of this model, how many rows of it, and how long it takes: a group for every latent shape and text
//! length that is drawn now.
//!
//! Curves come from the profile that was measured at load, or are scaled from it for other shapes; what ticks really take
//! refines them. Invariant: there is a group for every trajectory that has calls left, and for no other.

use std::time::Duration;

use mobula_serving::curve::Curve;
use mobula_serving::tick::Group;

use crate::engine::{Info, Shape};

/// Throughput that a call may fall short of the best one for being shorter: short ticks are short waits.
const SLACK: f64 = 0.03;
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
        let curve = match known {
            Some(at) => self.known.remove(at).1,
            None => self.curve(key),
        };
        let mut cap = curve.cap(self.max_rows, SLACK).min(self.most(key.shape));
        if let (Some(bucket), false) = (info.bucket, key.fast) {
            cap = bucket;
        }
        self.active.push(Group {
            key: number,
            cap,
            weight: 1,
            curve,
        });
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
}
