//! JPEG files to pixels, byte for byte as libjpeg-turbo with its defaults, which is what Pillow has.
//!
//! Sequential and progressive files of 8 bits with Huffman codes, of one, three or four components, with restarts; whole
//! numbers in the inverse DCT, smooth upsampling. Read in bands of one row of units, so that only pixels are held, and the
//! coefficients of files in more than one scan. Of a progressive file that ends before its scans have brought everything,
//! what is there is shown (libjpeg smooths it). Refuses what libjpeg does, a file that is cut off, arithmetic coding, and
//! more scans than [`SCANS`]. Invariant: memory is taken only for a size that [`Limits`] allow.

mod bits;
mod colour;
mod frame;
mod header;
mod huffman;
mod idct;
mod plane;
mod scan;
mod standard;
mod upsample;

use self::{
    colour::Space,
    frame::{Frame, Scan},
    header::{File, cut, marker},
    idct::Block,
    plane::Plane,
    scan::Reader,
    upsample::Upsampler,
};
use super::{Limits, Raster, Refused, decode::size};

/// Scans of a file: the usual script of a progressive file has 10; one that brings nothing costs a pass over the picture.
const SCANS: usize = 100;

/// Pixels, and the EXIF data beside them.
pub(super) struct Decoded<'a> {
    pub(super) pixels: Raster,
    pub(super) exif: Option<&'a [u8]>,
}

/// Decodes a file that begins with a JPEG's first marker.
pub(super) fn decode<'a>(data: &'a [u8], limits: &Limits) -> Result<Decoded<'a>, Refused> {
    let mut file = File::new(data);
    let scan = file.next_scan()?.ok_or_else(|| broken("it has no picture"))?;
    let frame = file.frame.as_ref().ok_or_else(cut)?;
    let (width, height) = (frame.width as u32, frame.height as u32);
    size((width, height), limits)?;
    fits(frame.width * frame.height * 3, limits)?;
    let space = Space::of(frame, file.is_jfif, file.adobe);
    let data = if !frame.is_progressive && scan.parts.len() == frame.components.len() {
        let mut reader = Reader::new(&file, &scan);
        let data = draw(frame, space, |band, planes| {
            at_once(&mut reader, frame, band, planes)
        })?;
        file.at = reader.position();
        read_end(&mut file)?;
        data
    } else {
        let coefficients = collect(&mut file, scan, limits)?;
        let frame = file.frame.as_ref().ok_or_else(cut)?;
        draw(frame, space, |band, planes| {
            from_collected(&coefficients, frame, band, planes);
            Ok(())
        })?
    };
    Ok(Decoded {
        pixels: Raster {
            width,
            height,
            channels: 3,
            data,
        },
        exif: file.exif,
    })
}

/// A file that cannot be decoded.
fn broken(why: &str) -> Refused {
    Refused::data(format!("cannot be decoded: {why}"))
}

fn fits(bytes: usize, limits: &Limits) -> Result<(), Refused> {
    if bytes as u64 <= limits.memory {
        return Ok(());
    }
    Err(Refused::data(format!(
        "takes {bytes} bytes decoded, more than {}",
        limits.memory
    )))
}

/// Reads on behind a picture that is there: Pillow takes no file with no marker there, or with a wrong one.
fn read_end(file: &mut File<'_>) -> Result<(), Refused> {
    marker(file.data, file.at)?;
    match file.next_scan() {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err(broken("a scan behind one that has everything")),
        // What is cut off is not of the picture.
        Err(refused) if refused == cut() => Ok(()),
        Err(refused) => Err(refused),
    }
}

/// Turns bands to pixels, each when `fill` has written the one behind it.
fn draw(
    frame: &Frame,
    space: Space,
    mut fill: impl FnMut(usize, &mut [Plane]) -> Result<(), Refused>,
) -> Result<Vec<u8>, Refused> {
    let upsamplers = frame
        .components
        .iter()
        .map(|component| Upsampler::new(component, frame));
    let mut upsamplers = upsamplers.collect::<Result<Vec<_>, _>>()?;
    let mut planes: Vec<Plane> = frame.components.iter().map(Plane::new).collect();
    let mut data = vec![0; frame.width * frame.height * 3];
    let mut rows = data.chunks_exact_mut(frame.width * 3).enumerate();
    let bands = frame.units().1;
    for band in 0..=bands {
        if band < bands {
            fill(band, &mut planes)?;
        }
        if band > 0 {
            for (at, rgb) in rows.by_ref().take(frame.down * 8) {
                let mut parts: [&[u8]; 4] = [&[]; 4];
                for ((part, upsampler), plane) in parts.iter_mut().zip(&mut upsamplers).zip(&planes) {
                    *part = upsampler.row(plane, at);
                }
                space.row(&parts[..frame.components.len()], rgb);
            }
        }
    }
    Ok(data)
}

/// Reads a band of the only scan of a sequential file.
fn at_once(
    reader: &mut Reader<'_, '_>,
    frame: &Frame,
    band: usize,
    planes: &mut [Plane],
) -> Result<(), Refused> {
    // The rows of units of a scan of one component are rows of its blocks.
    let rows = match &frame.components[..] {
        [component] => component.down,
        _ => 1,
    };
    let end = ((band + 1) * rows).min(reader.rows(frame));
    reader.blocks(frame, band * rows..end, |reader, place| {
        let mut block: Block = [0; 64];
        if place.has_data {
            reader.sequential(place.part, &mut block);
        }
        if place.is_seen
            && let Some(worth) = &frame.components[place.component].worth
        {
            let (samples, stride) = planes[place.component].block(place.row, place.column);
            idct::samples(&block, worth, samples, stride);
        }
    })
}

/// A component's coefficients, with those of blocks that only fill up units.
struct Coefficients {
    stride: usize,
    blocks: Vec<Block>,
}

impl Coefficients {
    fn new(frame: &Frame, component: usize, limits: &Limits) -> Result<Self, Refused> {
        let (units, component) = (frame.units(), &frame.components[component]);
        let stride = units.0 * component.across;
        let count = stride * units.1 * component.down;
        fits(count * size_of::<Block>(), limits)?;
        Ok(Self {
            stride,
            blocks: vec![[0; 64]; count],
        })
    }
}

/// Reads all scans of a file.
fn collect(file: &mut File<'_>, first: Scan, limits: &Limits) -> Result<Vec<Coefficients>, Refused> {
    let mut all = Vec::new();
    if let Some(frame) = &file.frame {
        for component in 0..frame.components.len() {
            all.push(Coefficients::new(frame, component, limits)?);
        }
    }
    let mut scan = Some(first);
    let mut count = 0;
    while let Some(current) = scan {
        count += 1;
        if count > SCANS {
            return Err(broken(&format!("more than {SCANS} scans")));
        }
        let frame = file.frame.as_ref().ok_or_else(cut)?;
        let mut reader = Reader::new(file, &current);
        for row in 0..reader.rows(frame) {
            reader.blocks(frame, row..row + 1, |reader, place| {
                let of = &mut all[place.component];
                let block = &mut of.blocks[place.row * of.stride + place.column];
                match (place.has_data, frame.is_progressive) {
                    (false, _) => {}
                    (true, true) => reader.progressive(place.part, block),
                    (true, false) => reader.sequential(place.part, block),
                }
            })?;
            if reader.is_done() {
                break;
            }
        }
        file.at = reader.position();
        scan = file.next_scan()?;
    }
    Ok(all)
}

fn from_collected(all: &[Coefficients], frame: &Frame, band: usize, planes: &mut [Plane]) {
    for ((of, component), plane) in all.iter().zip(&frame.components).zip(planes) {
        let (wide, high) = component.blocks();
        // A component that no scan brought is of the level of grey.
        let worth = component.worth.unwrap_or([0; 64]);
        for row in band * component.down..((band + 1) * component.down).min(high) {
            for (column, block) in of.blocks[row * of.stride..][..wide].iter().enumerate() {
                let (samples, stride) = plane.block(row, column);
                idct::samples(block, &worth, samples, stride);
            }
        }
    }
}
