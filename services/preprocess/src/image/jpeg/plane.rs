//! Samples of one component, as many rows of them as are needed at once.
//!
//! A band is what one row of units makes. Three are kept: a band is turned to pixels when the next one is there, and for its
//! first and last row takes a row of those beside it. Refuses nothing; rows outside the picture are the first or last in it.

use super::frame::Component;

/// The band before, the one in work, and the one behind.
const BANDS: usize = 3;

/// Rows of samples, the oldest written over by the newest.
#[derive(Debug)]
pub(super) struct Plane {
    stride: usize,
    /// Rows that are kept.
    kept: usize,
    /// Samples in a row, and rows, of the whole component.
    width: usize,
    height: usize,
    samples: Vec<u8>,
}

impl Plane {
    pub(super) fn new(component: &Component) -> Self {
        let stride = component.blocks().0 * 8;
        let kept = component.down * 8 * BANDS;
        Self {
            stride,
            kept,
            width: component.width,
            height: component.height,
            samples: vec![0; stride * kept],
        }
    }

    /// From the first sample of a block on, and how many samples one row is behind another.
    pub(super) fn block(&mut self, row: usize, column: usize) -> (&mut [u8], usize) {
        let at = (row * 8 % self.kept) * self.stride + column * 8;
        (&mut self.samples[at..], self.stride)
    }

    pub(super) fn row(&self, row: usize) -> &[u8] {
        let at = (row.min(self.height - 1) % self.kept) * self.stride;
        &self.samples[at..at + self.width]
    }
}
