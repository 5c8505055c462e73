//! Components of fewer samples to as many as there are pixels, bit by bit as libjpeg-turbo does by default.
//!
//! Where there are half as many, a pixel takes three parts of the nearer sample and one of the next, rounded up and down in
//! turns; other ratios repeat samples (src/jdsample.c, "fancy upsampling"). Refuses ratios that are no whole numbers.

use crate::image::Refused;

use super::{
    broken,
    frame::{Component, Frame},
    plane::Plane,
};

/// How a component's rows become rows of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filter {
    /// There is a sample for every pixel.
    Same,
    /// Half as many in a row.
    Across,
    /// Half as many rows.
    Down,
    /// Half as many of both.
    Both,
    /// Every sample so many times in a row, every row so many times.
    Repeat { across: usize, down: usize },
}

/// Makes rows of pixels of a component.
#[derive(Debug)]
pub(super) struct Upsampler {
    filter: Filter,
    /// Two rows in one, four times as large.
    sums: Vec<u16>,
    row: Vec<u8>,
}

impl Upsampler {
    pub(super) fn new(component: &Component, frame: &Frame) -> Result<Self, Refused> {
        let ratio = |whole: usize, part: usize| whole.is_multiple_of(part).then_some(whole / part);
        let across = ratio(frame.across, component.across);
        let down = ratio(frame.down, component.down);
        // Of one or two columns there is no middle.
        let is_wide = component.width > 2;
        let filter = match (across, down) {
            (Some(1), Some(1)) => Filter::Same,
            (Some(2), Some(1)) if is_wide => Filter::Across,
            (Some(1), Some(2)) => Filter::Down,
            (Some(2), Some(2)) if is_wide => Filter::Both,
            (Some(across), Some(down)) => Filter::Repeat { across, down },
            _ => return Err(broken("sampling factors that are no whole multiples")),
        };
        Ok(Self {
            filter,
            sums: Vec::new(),
            row: Vec::new(),
        })
    }

    /// One row of pixels, or more of them than there are.
    pub(super) fn row<'a>(&'a mut self, plane: &'a Plane, at: usize) -> &'a [u8] {
        let half = at / 2;
        let (above, below) = (half.saturating_sub(1), half + 1);
        let next = if at.is_multiple_of(2) { above } else { below };
        match self.filter {
            Filter::Same => return plane.row(at),
            Filter::Across => across(plane.row(at), &mut self.row),
            Filter::Down => {
                let bias = if at.is_multiple_of(2) { 1 } else { 2 };
                self.row.clear();
                let both = plane.row(half).iter().zip(plane.row(next));
                self.row
                    .extend(both.map(|(near, far)| ((sum(*near, *far) + bias) >> 2) as u8));
            }
            Filter::Both => {
                self.sums.clear();
                let both = plane.row(half).iter().zip(plane.row(next));
                self.sums.extend(both.map(|(near, far)| sum(*near, *far)));
                both_ways(&self.sums, &mut self.row);
            }
            Filter::Repeat { across, down } => {
                self.row.clear();
                let samples = plane.row(at / down).iter();
                self.row
                    .extend(samples.flat_map(|sample| std::iter::repeat_n(*sample, across)));
            }
        }
        &self.row
    }
}

fn sum(near: u8, far: u8) -> u16 {
    3 * u16::from(near) + u16::from(far)
}

/// Between two samples are two pixels.
fn across(samples: &[u8], pixels: &mut Vec<u8>) {
    pixels.resize(samples.len() * 2, 0);
    let last = pixels.len() - 1;
    let pairs = pixels[1..last].as_chunks_mut::<2>().0;
    for (pixels, samples) in pairs.iter_mut().zip(samples.windows(2)) {
        pixels[0] = ((sum(samples[0], samples[1]) + 2) >> 2) as u8;
        pixels[1] = ((sum(samples[1], samples[0]) + 1) >> 2) as u8;
    }
    pixels[0] = samples[0];
    pixels[last] = samples[samples.len() - 1];
}

/// The same of sums, which are four times as large.
fn both_ways(sums: &[u16], pixels: &mut Vec<u8>) {
    pixels.resize(sums.len() * 2, 0);
    let last = pixels.len() - 1;
    let pairs = pixels[1..last].as_chunks_mut::<2>().0;
    for (pixels, sums) in pairs.iter_mut().zip(sums.windows(2)) {
        pixels[0] = ((3 * sums[0] + sums[1] + 7) >> 4) as u8;
        pixels[1] = ((3 * sums[1] + sums[0] + 8) >> 4) as u8;
    }
    pixels[0] = ((4 * sums[0] + 8) >> 4) as u8;
    pixels[last] = ((4 * sums[sums.len() - 1] + 7) >> 4) as u8;
}
