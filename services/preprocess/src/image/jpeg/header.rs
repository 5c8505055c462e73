//! What stands around a picture's data: the frame, tables, and how a scan is to be read (T.81, annex B).
//!
//! As tolerant as libjpeg's src/jdmarker.c: bytes between segments are passed over, segments without a use too. Refuses
//! arithmetic coding, lossless and hierarchical files, other than 8 bits, and what contradicts itself.
//! Invariant: a [`Scan`] names components of its [`Frame`], each once, and tables that are there if it needs them.

use crate::image::Refused;

use super::{
    broken,
    frame::{Component, Frame, Part, Scan, ZIGZAG},
    huffman::Table,
    standard,
};

/// Tables of a kind that a file can hold at once.
const SLOTS: usize = 4;

/// A file that is being read.
#[derive(Debug)]
pub(super) struct File<'a> {
    pub(super) data: &'a [u8],
    /// Where to go on.
    pub(super) at: usize,
    pub(super) frame: Option<Frame>,
    worths: [Option<[i16; 64]>; SLOTS],
    pub(super) dc: [Option<Table>; SLOTS],
    pub(super) ac: [Option<Table>; SLOTS],
    /// Units between two restart markers; 0 is none.
    pub(super) restart: usize,
    pub(super) is_jfif: bool,
    /// How Adobe's marker says that colours were turned.
    pub(super) adobe: Option<u8>,
    /// The TIFF file in the first EXIF segment.
    pub(super) exif: Option<&'a [u8]>,
}

impl<'a> File<'a> {
    /// Begins to read a file that begins with a JPEG's first marker.
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self {
            data,
            at: 2,
            frame: None,
            worths: [None; SLOTS],
            dc: [const { None }; SLOTS],
            ac: [const { None }; SLOTS],
            restart: 0,
            is_jfif: false,
            adobe: None,
            exif: None,
        }
    }

    /// Reads on to a scan, behind whose header it stops; none at the end marker.
    pub(super) fn next_scan(&mut self) -> Result<Option<Scan>, Refused> {
        loop {
            let marker = self.next_marker()?;
            match marker {
                // Markers without a segment: of restarts, and of private use.
                0xd0..=0xd7 | 0x01 => {}
                0xd8 => return Err(broken("it begins a second time")),
                0xd9 => return Ok(None),
                0xc0..=0xc2 => self.frame(marker == 0xc2)?,
                0xc9 | 0xca => return Err(broken("arithmetic coding is not supported")),
                0xc3 | 0xc5..=0xc8 | 0xcb | 0xcd..=0xcf => {
                    return Err(broken("lossless and hierarchical files are not supported"));
                }
                0xc4 => self.huffman()?,
                0xdb => self.quantization()?,
                0xdd => match *self.segment()? {
                    [high, low] => self.restart = usize::from(u16::from_be_bytes([high, low])),
                    _ => return Err(broken("a restart segment of another length than 4")),
                },
                0xda => return self.scan().map(Some),
                0xe0 => {
                    let segment = self.segment()?;
                    self.is_jfif |= segment.len() >= 14 && segment.starts_with(b"JFIF\0");
                }
                0xe1 => {
                    let segment = self.segment()?;
                    if self.exif.is_none() {
                        self.exif = segment.strip_prefix(b"Exif\0\0");
                    }
                }
                0xee => {
                    if let [b'A', b'd', b'o', b'b', b'e', _, _, _, _, _, _, transform, ..] =
                        *self.segment()?
                    {
                        self.adobe = Some(transform);
                    }
                }
                // Other applications', comments, arithmetic conditions, the number of lines.
                0xcc | 0xdc | 0xe2..=0xef | 0xfe => {
                    self.segment()?;
                }
                _ => return Err(broken(&format!("unknown marker {marker:#x}"))),
            }
        }
    }

    fn next_marker(&mut self) -> Result<u8, Refused> {
        let (marker, behind) = marker(self.data, self.at)?;
        self.at = behind;
        Ok(marker)
    }

    /// The content of the segment that begins here.
    fn segment(&mut self) -> Result<&'a [u8], Refused> {
        let rest = self.data.get(self.at..).unwrap_or_default();
        let length = usize::from(u16::from_be_bytes(*rest.first_chunk().ok_or_else(cut)?));
        if length < 2 {
            return Err(broken("a segment of less than 2 bytes"));
        }
        self.at += length;
        rest.get(2..length).ok_or_else(cut)
    }

    fn frame(&mut self, is_progressive: bool) -> Result<(), Refused> {
        let segment = self.segment()?;
        if self.frame.is_some() {
            return Err(broken("a second frame"));
        }
        self.frame = Some(Frame::read(segment, is_progressive)?);
        Ok(())
    }

    fn quantization(&mut self) -> Result<(), Refused> {
        let mut rest = self.segment()?;
        while let Some((head, behind)) = rest.split_first() {
            let slot = self.worths.get_mut(usize::from(head & 15));
            let slot = slot.ok_or_else(|| broken("a quantization table of another number than 0 to 3"))?;
            let mut table = [0; 64];
            let size = if head >> 4 == 0 { 1 } else { 2 };
            let Some((values, behind)) = behind.split_at_checked(64 * size) else {
                return Err(broken("a quantization table that is too short"));
            };
            for (place, value) in ZIGZAG.iter().zip(values.chunks_exact(size)) {
                let value = value.iter().fold(0, |sum, byte| sum << 8 | u16::from(*byte));
                // Of more than 15 bits the lower 16 count, as in the products of libjpeg's vector code.
                table[usize::from(*place)] = value.cast_signed();
            }
            *slot = Some(table);
            rest = behind;
        }
        Ok(())
    }

    fn huffman(&mut self) -> Result<(), Refused> {
        let mut rest = self.segment()?;
        while let Some((head, behind)) = rest.split_first() {
            let short = || broken("a Huffman table that is too short");
            let (counts, behind) = behind.split_first_chunk().ok_or_else(short)?;
            let count = counts.iter().map(|count| usize::from(*count)).sum();
            let (symbols, behind) = behind.split_at_checked(count).ok_or_else(short)?;
            let slots = if head & 16 == 0 {
                &mut self.dc
            } else {
                &mut self.ac
            };
            let slot = slots.get_mut(usize::from(head & !16));
            let slot = slot.ok_or_else(|| broken("a Huffman table of another number than 0 to 3"))?;
            *slot = Some(Table::new(counts, symbols)?);
            rest = behind;
        }
        Ok(())
    }

    fn scan(&mut self) -> Result<Scan, Refused> {
        let segment = self.segment()?;
        let frame = self
            .frame
            .as_mut()
            .ok_or_else(|| broken("a scan before any frame"))?;
        let odd = || broken("a scan header of another length than its components take");
        let (count, rest) = segment.split_first().ok_or_else(odd)?;
        let (named, rest) = rest.split_at_checked(2 * usize::from(*count)).ok_or_else(odd)?;
        let &[first, last, bits] = rest else {
            return Err(odd());
        };
        let mut parts: Vec<Part> = Vec::new();
        for [id, tables] in named.as_chunks::<2>().0 {
            // Where components share a name, they come in order.
            let is_free = |at: usize| parts.iter().all(|part| part.component != at);
            let of_name = |(at, one): &(usize, &Component)| one.id == *id && is_free(*at);
            let component = frame
                .components
                .iter()
                .enumerate()
                .find(of_name)
                .map(|(at, _)| at);
            parts.push(Part {
                component: component.ok_or_else(|| broken("a scan of a component that the frame has not"))?,
                dc: usize::from(tables >> 4),
                ac: usize::from(tables & 15),
            });
        }
        if parts.is_empty() {
            return Err(broken("a scan of no component"));
        }
        let blocks =
            |part: &Part| frame.components[part.component].across * frame.components[part.component].down;
        if parts.len() > 1 && parts.iter().map(blocks).sum::<usize>() > 10 {
            return Err(broken("a scan with more than 10 blocks a unit"));
        }
        let scan = Scan {
            parts,
            first: usize::from(first),
            last: usize::from(last),
            before: u32::from(bits >> 4),
            low: u32::from(bits & 15),
        };
        if frame.is_progressive {
            scan.check_progress()?;
        }
        for part in &scan.parts {
            let component = &mut frame.components[part.component];
            if component.worth.is_none() {
                let table = self.worths.get(component.slot).copied().flatten();
                component.worth = Some(table.ok_or_else(|| broken("no quantization table"))?);
            }
        }
        let is_progressive = frame.is_progressive;
        self.check_tables(&scan, is_progressive)?;
        Ok(scan)
    }

    /// Sees to it that the tables that a scan needs are there; frames of films leave the usual ones out.
    fn check_tables(&mut self, scan: &Scan, is_progressive: bool) -> Result<(), Refused> {
        if !is_progressive {
            for slot in 0..2 {
                self.dc[slot].get_or_insert_with(|| standard::dc(slot));
                self.ac[slot].get_or_insert_with(|| standard::ac(slot));
            }
        }
        let (needs_dc, needs_ac) = match is_progressive {
            true => (scan.first == 0 && scan.before == 0, scan.first > 0),
            false => (true, true),
        };
        for part in &scan.parts {
            let missing = || broken("no Huffman table");
            if needs_dc {
                let table = self
                    .dc
                    .get(part.dc)
                    .and_then(Option::as_ref)
                    .ok_or_else(missing)?;
                if !table.is_of_sizes {
                    return Err(broken("a Huffman table has a size of more than 15 bits"));
                }
            }
            if needs_ac {
                self.ac
                    .get(part.ac)
                    .and_then(Option::as_ref)
                    .ok_or_else(missing)?;
            }
        }
        Ok(())
    }
}

/// The next marker, and where it ends; passes over what is none.
pub(super) fn marker(data: &[u8], at: usize) -> Result<(u8, usize), Refused> {
    let mut rest = data.get(at..).unwrap_or_default().iter();
    loop {
        rest.by_ref().find(|byte| **byte == 0xff).ok_or_else(cut)?;
        // Any number of 0xff may stand before a marker; 0 behind them is data.
        let byte = *rest.by_ref().find(|byte| **byte != 0xff).ok_or_else(cut)?;
        if byte != 0 {
            return Ok((byte, data.len() - rest.as_slice().len()));
        }
    }
}

/// The file ends where it should not.
pub(super) fn cut() -> Refused {
    broken("the file is cut off")
}
