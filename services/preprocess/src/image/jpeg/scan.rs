//! A scan's data to coefficients (T.81, annexes F and G).
//!
//! Of broken data it makes what libjpeg does (src/jdhuff.c, src/jdphuff.c): behind a marker that comes too early there are
//! zeros to the end of the unit, and then nothing up to the next restart. Refuses a file that ends within its data.
//! Invariant: the blocks of a scan are come by in the file's order, each once.

use std::ops::Range;

use crate::image::Refused;

use super::{
    bits::Bits,
    frame::{Frame, Scan, ZIGZAG},
    header::{File, cut, marker},
    huffman::Table,
    idct::Block,
};

/// Where a block is: its part of the scan, and its place in the component.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) part: usize,
    pub(super) component: usize,
    pub(super) row: usize,
    pub(super) column: usize,
    /// Whether the picture has it; units at the edges have blocks that it has not.
    pub(super) is_seen: bool,
    /// Whether the file has anything for it.
    pub(super) has_data: bool,
}

/// Reads one scan.
#[derive(Debug)]
pub(super) struct Reader<'a, 'f> {
    bits: Bits<'a>,
    file: &'f File<'a>,
    scan: &'f Scan,
    /// By part.
    tables: [(Option<&'f Table>, Option<&'f Table>); 4],
    /// The last DC value, by part.
    values: [i32; 4],
    /// Blocks to come of which nothing is to be read.
    run: u32,
    /// Units up to the next restart marker, and its number.
    until: usize,
    next: u8,
    /// The data ended too early.
    is_short: bool,
}

impl<'a, 'f> Reader<'a, 'f> {
    pub(super) fn new(file: &'f File<'a>, scan: &'f Scan) -> Self {
        let mut tables = [(None, None); 4];
        for (tables, part) in tables.iter_mut().zip(&scan.parts) {
            let of = |slots: &'f [Option<Table>], slot: usize| slots.get(slot).and_then(Option::as_ref);
            *tables = (of(&file.dc, part.dc), of(&file.ac, part.ac));
        }
        Self {
            bits: Bits::new(file.data, file.at),
            file,
            scan,
            tables,
            values: [0; 4],
            run: 0,
            until: file.restart,
            next: 0,
            is_short: false,
        }
    }

    /// Where the next marker is to be looked for.
    pub(super) fn position(&self) -> usize {
        self.bits.position()
    }

    /// Rows of units; a scan of one component alone has units of one block.
    pub(super) fn rows(&self, frame: &Frame) -> usize {
        match &self.scan.parts[..] {
            [part] => frame.components[part.component].blocks().1,
            _ => frame.units().1,
        }
    }

    /// Calls for every block of some rows of units.
    pub(super) fn blocks(
        &mut self,
        frame: &Frame,
        rows: Range<usize>,
        mut each: impl FnMut(&mut Self, Place),
    ) -> Result<(), Refused> {
        let scan = self.scan;
        let is_alone = scan.parts.len() == 1;
        let columns = match &scan.parts[..] {
            [part] => frame.components[part.component].blocks().0,
            _ => frame.units().0,
        };
        for row in rows {
            for column in 0..columns {
                let has_data = self.begin_unit()?;
                for (at, part) in scan.parts.iter().enumerate() {
                    let component = &frame.components[part.component];
                    let (across, down) = if is_alone {
                        (1, 1)
                    } else {
                        (component.across, component.down)
                    };
                    let (wide, high) = component.blocks();
                    for block in 0..across * down {
                        let (row, column) = (row * down + block / across, column * across + block % across);
                        let place = Place {
                            part: at,
                            component: part.component,
                            row,
                            column,
                            is_seen: row < high && column < wide,
                            has_data,
                        };
                        each(self, place);
                    }
                }
                self.end_unit()?;
            }
        }
        Ok(())
    }

    /// Whether nothing more of the scan can come.
    pub(super) fn is_done(&self) -> bool {
        self.is_short && self.file.restart == 0
    }

    /// Whether there is data for the next unit.
    fn begin_unit(&mut self) -> Result<bool, Refused> {
        if self.file.restart > 0 {
            if self.until == 0 {
                self.restart()?;
            }
            self.until -= 1;
        }
        Ok(!self.is_short)
    }

    fn end_unit(&mut self) -> Result<(), Refused> {
        if self.bits.is_short() {
            if self.bits.is_cut() {
                return Err(cut());
            }
            self.is_short = true;
        }
        Ok(())
    }

    /// Goes on behind a restart marker; looks for it as libjpeg does (src/jdmarker.c, `jpeg_resync_to_restart`).
    #[cold]
    fn restart(&mut self) -> Result<(), Refused> {
        let mut at = self.bits.position();
        loop {
            let (found, behind) = marker(self.file.data, at)?;
            let (is_restart, ahead) = (
                matches!(found, 0xd0..=0xd7),
                found.wrapping_sub(0xd0 + self.next) & 7,
            );
            at = behind;
            match (is_restart, ahead) {
                // The one that is due, or one too far off to say which.
                (true, 0 | 3..=5) => {
                    self.is_short = false;
                    break;
                }
                // One that should have come before, or what is no marker of a picture.
                (true, 6..) => {}
                (false, _) if found < 0xc0 => {}
                // One of those to come, or another segment: what is due is missing, and the marker is left.
                (true, _) | (false, _) => {
                    at = behind - 2;
                    break;
                }
            }
        }
        self.bits.restart(at);
        self.next = (self.next + 1) & 7;
        self.until = self.file.restart;
        self.values = [0; 4];
        self.run = 0;
        Ok(())
    }

    /// Reads a block of a sequential file.
    pub(super) fn sequential(&mut self, part: usize, block: &mut Block) {
        let (Some(dc), Some(ac)) = self.tables[part] else {
            return;
        };
        block[0] = self.dc_value(dc, part) as i16;
        let mut at = 1;
        while at < 64 {
            let symbol = ac.read(&mut self.bits);
            let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            match (run, size) {
                (15, 0) => at += 16,
                (_, 0) => break,
                _ => {
                    at += run;
                    *coefficient(block, at) = self.bits.signed(size) as i16;
                    at += 1;
                }
            }
        }
    }

    /// Reads a block of a progressive file's scan.
    pub(super) fn progressive(&mut self, part: usize, block: &mut Block) {
        match (self.scan.first, self.scan.before) {
            (0, 0) => {
                if let (Some(dc), _) = self.tables[part] {
                    block[0] = (self.dc_value(dc, part) << self.scan.low) as i16;
                }
            }
            (0, _) => block[0] |= (self.bits.take(1) << self.scan.low) as i16,
            (_, before) => match self.tables[part].1 {
                Some(ac) if before == 0 => self.ac_first(ac, block),
                Some(ac) => self.ac_refined(ac, block),
                None => {}
            },
        }
    }

    fn dc_value(&mut self, dc: &Table, part: usize) -> i32 {
        let size = u32::from(dc.read(&mut self.bits));
        let value = &mut self.values[part];
        *value = value.wrapping_add(self.bits.signed(size));
        *value
    }

    fn ac_first(&mut self, ac: &Table, block: &mut Block) {
        if self.run > 0 {
            self.run -= 1;
            return;
        }
        let mut at = self.scan.first;
        while at <= self.scan.last {
            let symbol = ac.read(&mut self.bits);
            let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
            match (run, size) {
                (15, 0) => at += 16,
                (_, 0) => {
                    self.run = (1 << run) - 1 + self.bits.taken(run);
                    break;
                }
                _ => {
                    at += run as usize;
                    *coefficient(block, at) = (self.bits.signed(size) << self.scan.low) as i16;
                    at += 1;
                }
            }
        }
    }

    /// T.81, G.1.2.3: new coefficients are of one bit, and those that are there get one more on the way.
    fn ac_refined(&mut self, ac: &Table, block: &mut Block) {
        let mut at = self.scan.first;
        if self.run == 0 {
            while at <= self.scan.last {
                let symbol = ac.read(&mut self.bits);
                let (run, size) = (u32::from(symbol >> 4), symbol & 15);
                if size == 0 && run < 15 {
                    self.run = (1 << run) + self.bits.taken(run);
                    break;
                }
                let new = match (size, size > 0 && self.bits.taken(1) == 1) {
                    (0, _) => 0,
                    (_, true) => 1 << self.scan.low,
                    (_, false) => -1 << self.scan.low,
                };
                at = self.refine(block, at, Some(run));
                if new != 0 {
                    *coefficient(block, at) = new;
                }
                at += 1;
            }
        }
        if self.run > 0 {
            self.refine(block, at, None);
            self.run -= 1;
        }
    }

    /// Adds a bit to the coefficients that are there, up to the first 0 behind so many others, or to the end.
    fn refine(&mut self, block: &mut Block, from: usize, zeros: Option<u32>) -> usize {
        // Of most blocks there is nothing yet, and to ask for all at once is fast: a file of nothing but runs is long to read.
        if zeros.is_none() && block[1..].iter().fold(0, |any, one| any | one) == 0 {
            return self.scan.last + 1;
        }
        let mut zeros = zeros.unwrap_or(u32::MAX);
        let one = 1 << self.scan.low;
        for at in from..=self.scan.last {
            let value = coefficient(block, at);
            if *value == 0 {
                if zeros == 0 {
                    return at;
                }
                zeros -= 1;
            } else if self.bits.take(1) == 1 && *value & one == 0 {
                *value = value.wrapping_add(if *value < 0 { -one } else { one });
            }
        }
        self.scan.last + 1
    }
}

fn coefficient(block: &mut Block, at: usize) -> &mut i16 {
    &mut block[usize::from(ZIGZAG[at] & 63)]
}
