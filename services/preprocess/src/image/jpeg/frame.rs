//! What a picture is made of, and what a scan brings of it (T.81, annexes A and B).
//!
//! Refuses sizes, sampling factors and scans that libjpeg does not take either. Invariant: a [`Frame`] has a width, a height
//! and one, three or four components with factors of 1 to 4.

use crate::image::Refused;

use super::broken;

/// Where the coefficients go in their order in a file; behind the last, what a broken file names beyond it.
pub(super) const ZIGZAG: [u8; 80] = {
    let mut order = [63; 80];
    let (mut at, mut row, mut column) = (0, 0_usize, 0_usize);
    while at < 64 {
        order[at] = (row * 8 + column) as u8;
        // Up and to the right on even diagonals, down and to the left on odd ones.
        (row, column) = match (row + column) % 2 {
            0 if column == 7 => (row + 1, column),
            0 if row == 0 => (row, column + 1),
            0 => (row - 1, column + 1),
            _ if row == 7 => (row, column + 1),
            _ if column == 0 => (row + 1, column),
            _ => (row + 1, column - 1),
        };
        at += 1;
    }
    order
};

/// One of the planes that a picture is made of.
#[derive(Clone, Debug)]
pub(super) struct Component {
    pub(super) id: u8,
    /// Blocks side by side, and one below the other, in a unit of the picture.
    pub(super) across: usize,
    pub(super) down: usize,
    /// Where its quantization table is.
    pub(super) slot: usize,
    /// Samples in a row, and rows.
    pub(super) width: usize,
    pub(super) height: usize,
    /// What one of each coefficient is worth, as of the first scan; row by row.
    pub(super) worth: Option<[i16; 64]>,
}

impl Component {
    /// Blocks that hold samples, in a row and in a column.
    pub(super) fn blocks(&self) -> (usize, usize) {
        (self.width.div_ceil(8), self.height.div_ceil(8))
    }
}

/// What the whole picture is.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) is_progressive: bool,
    /// The most blocks side by side, and one below the other, in a unit.
    pub(super) across: usize,
    pub(super) down: usize,
    pub(super) components: Vec<Component>,
}

impl Frame {
    /// Reads a frame header.
    pub(super) fn read(segment: &[u8], is_progressive: bool) -> Result<Self, Refused> {
        let Some((&[bits, high, low, wide, narrow, count], components)) = segment.split_first_chunk() else {
            return Err(broken("a frame header that is too short"));
        };
        let height = usize::from(u16::from_be_bytes([high, low]));
        let width = usize::from(u16::from_be_bytes([wide, narrow]));
        if bits != 8 {
            return Err(broken(&format!("{bits} bits a sample; 8 are supported")));
        }
        if width == 0 || height == 0 {
            return Err(broken(&format!("a size of {width} x {height}")));
        }
        if ![1, 3, 4].contains(&count) {
            return Err(broken(&format!("{count} components; 1, 3 and 4 are supported")));
        }
        let (components, rest) = components.as_chunks::<3>();
        if components.len() != usize::from(count) || !rest.is_empty() {
            return Err(broken(
                "a frame header of another length than its components take",
            ));
        }
        let factor = |factors: u8| (usize::from(factors >> 4), usize::from(factors & 15));
        if components.iter().any(|[_, factors, _]| {
            let (across, down) = factor(*factors);
            !(1..=4).contains(&across) || !(1..=4).contains(&down)
        }) {
            return Err(broken("a sampling factor that is not of 1 to 4"));
        }
        let most = |one: fn((usize, usize)) -> usize| {
            let all = components.iter().map(|[_, factors, _]| one(factor(*factors)));
            all.max().unwrap_or(1)
        };
        let (across, down) = (most(|both| both.0), most(|both| both.1));
        let component = |[id, factors, slot]: &[u8; 3]| {
            let own = factor(*factors);
            Component {
                id: *id,
                across: own.0,
                down: own.1,
                slot: usize::from(*slot),
                width: (width * own.0).div_ceil(across),
                height: (height * own.1).div_ceil(down),
                worth: None,
            }
        };
        Ok(Self {
            width,
            height,
            is_progressive,
            across,
            down,
            components: components.iter().map(component).collect(),
        })
    }

    /// Units side by side, and one below the other.
    pub(super) fn units(&self) -> (usize, usize) {
        (
            self.width.div_ceil(self.across * 8),
            self.height.div_ceil(self.down * 8),
        )
    }
}

/// A component's part in a scan.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Which component.
    pub(super) component: usize,
    /// Slots of its tables.
    pub(super) dc: usize,
    pub(super) ac: usize,
}

/// One pass over the picture, of one or more components.
#[derive(Clone, Debug)]
pub(super) struct Scan {
    pub(super) parts: Vec<Part>,
    /// First and last coefficient, in the order of [`ZIGZAG`]; of progressive files alone.
    pub(super) first: usize,
    pub(super) last: usize,
    /// Bits below those that were there before, and below those of this scan; of progressive files alone.
    pub(super) before: u32,
    pub(super) low: u32,
}

impl Scan {
    /// Refuses bands and steps that are none, as libjpeg does (src/jdphuff.c, `start_pass_phuff_decoder`).
    pub(super) fn check_progress(&self) -> Result<(), Refused> {
        let is_band = match self.first {
            0 => self.last == 0,
            first => first <= self.last && self.last < 64 && self.parts.len() == 1,
        };
        let is_step = self.before == 0 || self.low + 1 == self.before;
        if is_band && is_step && self.low <= 13 {
            return Ok(());
        }
        Err(broken(&format!(
            "a scan of coefficients {} to {}, bits {} to {}",
            self.first, self.last, self.before, self.low
        )))
    }
}
