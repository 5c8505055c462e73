//! Large pictures in tiles, so that a VAE's memory does not grow with the picture: the geometry and the blending of diffusers'
//! `AutoencoderKL.tiled_decode` and `_tiled_encode`, numbers and order of operations included.
//!
//! Tiles overlap by a quarter. Each tile's upper and left borders fade from its neighbours', which were blended before it, so the
//! row above is kept whole, and of the others what becomes of the picture. It computes no tile itself.

use super::super::Error;

/// Planes of one size, one after another.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Planes {
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) values: Vec<f32>,
}

/// Sides of tiles before and after the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tiles {
    /// Side of a tile of the input.
    pub(super) input: usize,
    /// Side of a tile of the output.
    pub(super) output: usize,
}

impl Tiles {
    /// From one tile of the input to the next, `int(side * (1 - 0.25))`.
    fn stride(self) -> usize {
        self.input - self.input / 4 - usize::from(!self.input.is_multiple_of(4))
    }

    /// Output positions over which neighbours fade, `int(side * 0.25)`.
    fn blend(self) -> usize {
        self.output / 4
    }

    /// Computes planes tile by tile: `run` gets a tile of the input and gives that of the output.
    pub(super) fn compute(
        self,
        input: &Planes,
        mut run: impl FnMut(Planes) -> Result<Planes, Error>,
    ) -> Result<Planes, Error> {
        let (blend, keep) = (self.blend(), self.output - self.blend());
        let (mut above, mut rows): (Vec<Planes>, Vec<Vec<Planes>>) = (Vec::new(), Vec::new());
        for top in (0..input.height).step_by(self.stride().max(1)) {
            let mut row: Vec<Planes> = Vec::new();
            for (place, left) in (0..input.width).step_by(self.stride().max(1)).enumerate() {
                let mut tile = run(input.part(top, left, self.input))?;
                if let Some(upper) = above.get(place) {
                    tile.fade_from_above(upper, blend);
                }
                if let Some(before) = row.last() {
                    tile.fade_from_left(before, blend);
                }
                row.push(tile);
            }
            rows.push(row.iter().map(|tile| tile.part(0, 0, keep)).collect());
            above = row;
        }
        Ok(joined(&rows))
    }
}

impl Planes {
    /// One picture's output of a network.
    pub(super) fn of(part: &'static str, shape: &[usize], values: Vec<f32>) -> Result<Self, Error> {
        match *shape {
            [1, channels, height, width] if values.len() == channels * height * width => Ok(Self {
                channels,
                height,
                width,
                values,
            }),
            _ => Err(Error::Run {
                part,
                why: format!("a tile has the shape {shape:?}"),
            }),
        }
    }

    /// The square of a side from a place on, or what there is of it.
    fn part(&self, top: usize, left: usize, side: usize) -> Self {
        let (bottom, right) = ((top + side).min(self.height), (left + side).min(self.width));
        let mut values = Vec::with_capacity(self.channels * (bottom - top) * (right - left));
        for channel in 0..self.channels {
            for row in top..bottom {
                let start = (channel * self.height + row) * self.width;
                values.extend_from_slice(&self.values[start + left..start + right]);
            }
        }
        Self {
            channels: self.channels,
            height: bottom - top,
            width: right - left,
            values,
        }
    }

    /// `blend_v`: the upper border fades from the lower border of `above`.
    fn fade_from_above(&mut self, above: &Self, extent: usize) {
        let extent = extent.min(above.height).min(self.height);
        let width = self.width.min(above.width);
        for channel in 0..self.channels {
            for y in 0..extent {
                let from = (channel * above.height + above.height - extent + y) * above.width;
                let to = (channel * self.height + y) * self.width;
                for x in 0..width {
                    fade(above.values[from + x], &mut self.values[to + x], y, extent);
                }
            }
        }
    }

    /// `blend_h`: the left border fades from the right border of `before`.
    fn fade_from_left(&mut self, before: &Self, extent: usize) {
        let extent = extent.min(before.width).min(self.width);
        for row in 0..self.channels * self.height.min(before.height) {
            // Both have the same height, so rows of all channels count alike.
            let from = (row + 1) * before.width - extent;
            let to = row * self.width;
            for x in 0..extent {
                fade(before.values[from + x], &mut self.values[to + x], x, extent);
            }
        }
    }
}

/// `a * (1 - i / extent) + b * (i / extent)`, the factors in f64 as Python has them.
fn fade(a: f32, b: &mut f32, index: usize, extent: usize) {
    let share = index as f64 / extent as f64;
    *b = a * (1.0 - share) as f32 + *b * share as f32;
}

/// Puts tiles side by side and rows of them below each other.
fn joined(rows: &[Vec<Planes>]) -> Planes {
    let first = rows.first();
    let channels = first.and_then(|row| row.first()).map_or(0, |tile| tile.channels);
    let width = first.map_or(0, |row| row.iter().map(|tile| tile.width).sum());
    let height = rows
        .iter()
        .filter_map(|row| row.first())
        .map(|tile| tile.height)
        .sum();
    let mut values = Vec::with_capacity(channels * height * width);
    for channel in 0..channels {
        for row in rows {
            for y in 0..row.first().map_or(0, |tile| tile.height) {
                for tile in row {
                    values.extend_from_slice(
                        &tile.values[(channel * tile.height + y) * tile.width..][..tile.width],
                    );
                }
            }
        }
    }
    Planes {
        channels,
        height,
        width,
        values,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn tiles_of_a_network_that_only_enlarges_give_the_whole(
            height in 1..60_usize, width in 1..60_usize, side in 4..24_usize, scale in 1..5_usize
        ) {
            // Where all tiles agree, fading changes nothing but the last bits.
            let side = side * 4;
            let values: Vec<f32> = (0..2 * height * width).map(|i| (i as f32 * 0.37).sin()).collect();
            let input = Planes { channels: 2, height, width, values };
            let enlarge = |tile: &Planes| {
                let mut values = Vec::new();
                for row in tile.values.chunks(tile.width) {
                    for _ in 0..scale {
                        values.extend(row.iter().flat_map(|value| std::iter::repeat_n(*value, scale)));
                    }
                }
                Planes { channels: 2, height: scale * tile.height, width: scale * tile.width, values }
            };
            let tiles = Tiles { input: side, output: side * scale };
            let got = tiles.compute(&input, |tile| Ok(enlarge(&tile))).unwrap();
            let whole = enlarge(&input);
            prop_assert_eq!((got.height, got.width), (whole.height, whole.width));
            for (a, b) in got.values.iter().zip(&whole.values) {
                prop_assert!((a - b).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn sides_are_cut_as_python_cuts_them() {
        for (side, stride) in [(64, 48), (128, 96), (6, 4), (5, 3), (7, 5)] {
            let python = (side as f64 * 0.75) as usize;
            assert_eq!(
                (
                    Tiles {
                        input: side,
                        output: 1
                    }
                    .stride(),
                    python
                ),
                (stride, stride)
            );
        }
    }
}
