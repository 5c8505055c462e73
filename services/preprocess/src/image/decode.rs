//! A file to RGB.
//!
//! Colours as Pillow's `convert("RGB")` gives them: alpha is dropped, grey counts three times, of 16 bits the upper eight are
//! taken (also of grey alone, where Pillow cuts values off at 255, so that most pictures turn white).
//! Refuses what [`Limits`] do not allow by the file's header.

use std::io::Cursor;

use image::{
    DynamicImage, ImageDecoder, ImageError, RgbImage,
    codecs::{png::PngDecoder, webp::WebPDecoder},
    metadata::Orientation,
};

use super::{Limits, Raster, Refused, chunks, jpeg};

/// Decodes a PNG, JPEG or WebP file, turned as its EXIF orientation says.
///
/// # Errors
///
/// [`Refused`] says which limit is broken, or what is wrong with the file.
pub fn decode(data: &[u8], limits: &Limits) -> Result<Raster, Refused> {
    read(data, limits, |picture| Ok(rgb(picture)))
}

/// Decodes a PNG or WebP file to one channel: 255 where it is fully transparent, and 0 elsewhere.
///
/// # Errors
///
/// As [`decode`], and [`Refused`] for a file without transparency.
pub fn transparency(data: &[u8], limits: &Limits) -> Result<Raster, Refused> {
    read(data, limits, clear)
}

fn read(
    data: &[u8],
    limits: &Limits,
    shape: impl FnOnce(DynamicImage) -> Result<Raster, Refused>,
) -> Result<Raster, Refused> {
    if data.len() > limits.bytes {
        return Err(Refused::data(format!(
            "is {} bytes long, more than {}",
            data.len(),
            limits.bytes
        )));
    }
    let file = Cursor::new(data);
    match data {
        [0x89, b'P', b'N', b'G', ..] => {
            size(png_size(data), limits)?;
            chunks::check(data)?;
            pixels(
                PngDecoder::with_limits(file, bounds(limits)).map_err(broken)?,
                limits,
            )
            .and_then(shape)
        }
        [0xff, 0xd8, 0xff, ..] => {
            let jpeg::Decoded { pixels, exif } = jpeg::decode(data, limits)?;
            shape(turned(pixels, exif.and_then(Orientation::from_exif_chunk)))
        }
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => {
            pixels(WebPDecoder::new(file).map_err(broken)?, limits).and_then(shape)
        }
        _ => Err(Refused::data("is no PNG, JPEG or WebP file")),
    }
}

fn bounds(limits: &Limits) -> image::Limits {
    let mut bounds = image::Limits::no_limits();
    bounds.max_image_width = Some(limits.side);
    bounds.max_image_height = Some(limits.side);
    bounds.max_alloc = Some(limits.memory);
    bounds
}

/// The size in a PNG file's header, which comes first.
fn png_size(data: &[u8]) -> (u32, u32) {
    let number = |at: usize| match data.get(at..at + 4) {
        Some(&[a, b, c, d]) => u32::from_be_bytes([a, b, c, d]),
        Some(_) | None => 0,
    };
    (number(16), number(20))
}

/// Refuses a size beyond the limits; what is no size at all is the decoder's to name.
pub(super) fn size((width, height): (u32, u32), limits: &Limits) -> Result<(), Refused> {
    if width > limits.side || height > limits.side {
        return Err(Refused::data(format!(
            "is a picture of {width} x {height}, with an edge of more than {} pixels",
            limits.side
        )));
    }
    if u64::from(width) * u64::from(height) > limits.pixels {
        return Err(Refused::data(format!(
            "is a picture of {width} x {height}, more than {} pixels",
            limits.pixels
        )));
    }
    Ok(())
}

/// Decodes what is within the limits.
fn pixels(mut decoder: impl ImageDecoder, limits: &Limits) -> Result<DynamicImage, Refused> {
    size(decoder.dimensions(), limits)?;
    if decoder.total_bytes() > limits.memory {
        return Err(Refused::data(format!(
            "takes {} bytes decoded, more than {}",
            decoder.total_bytes(),
            limits.memory
        )));
    }
    decoder.set_limits(bounds(limits)).map_err(broken)?;
    // A broken orientation is none, as Pillow has it.
    let orientation = decoder.orientation();
    let mut picture = DynamicImage::from_decoder(decoder).map_err(broken)?;
    if let Ok(orientation) = orientation {
        picture.apply_orientation(orientation);
    }
    Ok(picture)
}

/// Turns RGB.
fn turned(pixels: Raster, orientation: Option<Orientation>) -> DynamicImage {
    let picture = RgbImage::from_raw(pixels.width, pixels.height, pixels.data);
    let mut picture = DynamicImage::from(picture.expect("a raster is as long as its size says"));
    if let Some(orientation) = orientation {
        picture.apply_orientation(orientation);
    }
    picture
}

/// Where it is fully transparent.
fn clear(picture: DynamicImage) -> Result<Raster, Refused> {
    fn mark<T: PartialEq + Default>(alpha: T) -> u8 {
        if alpha == T::default() { u8::MAX } else { 0 }
    }
    let (width, height) = (picture.width(), picture.height());
    let data = match picture {
        DynamicImage::ImageLumaA8(picture) => picture.pixels().map(|pixel| mark(pixel.0[1])).collect(),
        DynamicImage::ImageRgba8(picture) => picture.pixels().map(|pixel| mark(pixel.0[3])).collect(),
        DynamicImage::ImageLumaA16(picture) => picture.pixels().map(|pixel| mark(pixel.0[1])).collect(),
        DynamicImage::ImageRgba16(picture) => picture.pixels().map(|pixel| mark(pixel.0[3])).collect(),
        DynamicImage::ImageLuma8(_)
        | DynamicImage::ImageRgb8(_)
        | DynamicImage::ImageLuma16(_)
        | DynamicImage::ImageRgb16(_)
        | DynamicImage::ImageRgb32F(_)
        | DynamicImage::ImageRgba32F(_)
        | _ => {
            return Err(Refused::data(
                "has no transparency; what is fully transparent in it is drawn anew",
            ));
        }
    };
    Ok(Raster {
        width,
        height,
        channels: 1,
        data,
    })
}

fn rgb(picture: DynamicImage) -> Raster {
    let (width, height) = (picture.width(), picture.height());
    let upper = |value: u16| (value >> 8) as u8;
    let data = match picture {
        DynamicImage::ImageRgb8(picture) => picture.into_raw(),
        DynamicImage::ImageLuma8(picture) => picture.iter().flat_map(|grey| [*grey; 3]).collect(),
        DynamicImage::ImageLumaA8(picture) => picture.pixels().flat_map(|pixel| [pixel.0[0]; 3]).collect(),
        DynamicImage::ImageRgba8(picture) => picture
            .pixels()
            .flat_map(|pixel| [pixel.0[0], pixel.0[1], pixel.0[2]])
            .collect(),
        DynamicImage::ImageLuma16(picture) => picture.iter().flat_map(|grey| [upper(*grey); 3]).collect(),
        DynamicImage::ImageLumaA16(picture) => picture
            .pixels()
            .flat_map(|pixel| [upper(pixel.0[0]); 3])
            .collect(),
        DynamicImage::ImageRgb16(picture) => picture.iter().map(|value| upper(*value)).collect(),
        DynamicImage::ImageRgba16(picture) => picture
            .pixels()
            .flat_map(|pixel| [upper(pixel.0[0]), upper(pixel.0[1]), upper(pixel.0[2])])
            .collect(),
        // No decoder above gives floating point.
        other @ (DynamicImage::ImageRgb32F(_) | DynamicImage::ImageRgba32F(_) | _) => {
            other.into_rgb8().into_raw()
        }
    };
    Raster {
        width,
        height,
        channels: 3,
        data,
    }
}

fn broken(error: ImageError) -> Refused {
    let why: String = error.to_string().chars().take(200).collect();
    Refused::data(format!("cannot be decoded: {why}"))
}
