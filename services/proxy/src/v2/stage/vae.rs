//! Latents to pictures and pictures to what latents are drawn from: what is asked of the VAE. Pure.

use mobula_proto::{
    common::v1::{Determinism, Latents, Pixels},
    image::v1::{ImageFormat, Provenance},
};

use super::{
    super::{
        datatype::Datatype,
        given::Given,
        spec::{IMAGE, MASK, PIXELS},
        tensor::shown,
    },
    denoise,
    text::floats,
};
use crate::{problem::Rule, words};

/// Latents that a call may have, as the worker allows.
const LATENTS_MAX: u64 = 64;
/// Pixels of a latent position where nothing says more: the VAE's scale factor of every Stable Diffusion.
const SCALE: u32 = 8;

/// What is to be decoded.
#[derive(Debug, Default)]
pub(super) struct Decode {
    pub(super) latents: Vec<Latents>,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) format: ImageFormat,
    pub(super) quality: u32,
    pub(super) determinism: Determinism,
    /// The file says that a machine made it.
    pub(super) is_marked: bool,
    /// Pixels instead of files.
    pub(super) as_pixels: bool,
}

/// Reads latents to decode.
pub(super) fn decode(given: &mut Given, outputs: &[String]) -> Decode {
    let mut as_pixels = false;
    for (nth, name) in outputs.iter().enumerate() {
        match name.as_str() {
            PIXELS if nth == 0 => as_pixels = true,
            IMAGE | PIXELS if outputs.len() > 1 => {
                given.wrong("outputs", "are image or pixels, one of the two")
            }
            IMAGE => {}
            other => given.wrong(shown(other.to_owned()), "is no output; there are image, pixels"),
        }
    }
    let found = floats(given, "latents", 4);
    let (width, height) = (given.small("width"), given.small("height"));
    let provenance = given.word("provenance", words::PROVENANCES);
    if provenance == i32::from(Provenance::Full) {
        given.wrong(
            "provenance",
            "is full; latents do not say what they were made with",
        );
    }
    let mut asked = Decode {
        format: ImageFormat::try_from(given.word("format", words::FORMATS)).unwrap_or_default(),
        quality: given.small("quality").unwrap_or_default(),
        determinism: Determinism::try_from(given.word("determinism", words::DETERMINISMS))
            .unwrap_or_default(),
        is_marked: provenance != i32::from(Provenance::None),
        as_pixels,
        ..Decode::default()
    };
    let Some((shape, data)) = found else {
        given.complain("latents", Rule::Missing);
        return asked;
    };
    if shape[0] > LATENTS_MAX {
        given.wrong(
            "latents",
            format!("are of {} pictures, and may be of {LATENTS_MAX}", shape[0]),
        );
        return asked;
    }
    let side = |positions: u64| u32::try_from(positions).unwrap_or(u32::MAX).saturating_mul(SCALE);
    asked.width = width.unwrap_or_else(|| side(shape[3]));
    asked.height = height.unwrap_or_else(|| side(shape[2]));
    asked.latents = denoise::latents(&shape, &data);
    asked
}

/// A picture that is to be encoded, and a mask of its size: what is left outside of it is encoded too.
#[derive(Debug)]
pub(super) struct Encode {
    pub(super) image: Pixels,
    pub(super) mask: Option<Pixels>,
}

/// Reads a picture to encode.
pub(super) fn encode(given: &mut Given) -> Option<Encode> {
    let image = pixels(given, PIXELS, 3);
    let mask = mask(given);
    let Some(image) = image else {
        given.complain(PIXELS, Rule::Missing);
        return None;
    };
    if let Some(mask) = &mask
        && (mask.width, mask.height) != (image.width, image.height)
    {
        let [mask, image] = [mask, &image].map(|pixels| format!("{} x {}", pixels.width, pixels.height));
        given.wrong(MASK, format!("is {mask}, and the picture is {image}"));
    }
    Some(Encode { image, mask })
}

/// Reads a mask: what is not 0 is drawn anew.
pub(super) fn mask(given: &mut Given) -> Option<Pixels> {
    pixels(given, MASK, 1)
}

/// A picture of so many channels; one channel needs no side of its own.
fn pixels(given: &mut Given, field: &'static str, channels: i64) -> Option<Pixels> {
    let tensor = given.tensor(field)?;
    let mut shape = &tensor.shape[..];
    if let [1, rest @ ..] = shape
        && rest.len() == 3
    {
        shape = rest;
    }
    let side = |side: i64| u32::try_from(side).ok().filter(|side| *side > 0);
    let sides = match *shape {
        _ if tensor.datatype != Datatype::Uint8 => None,
        [height, width, last] if last == channels => side(height).zip(side(width)),
        [height, width] if channels == 1 => side(height).zip(side(width)),
        _ => None,
    };
    let Some((height, width)) = sides else {
        let wanted = match channels {
            1 => "[height, width]".to_owned(),
            channels => format!("[height, width, {channels}]"),
        };
        let why = format!(
            "is {} of the shape {:?}, and must be UINT8 of {wanted}",
            tensor.datatype.name(),
            tensor.shape
        );
        given.wrong(field, why);
        return None;
    };
    Some(Pixels {
        width,
        height,
        data: tensor.into_raw(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v2::tensor::Tensor;

    fn told(given: &Given) -> Vec<String> {
        given
            .problems
            .iter()
            .map(|p| format!("{} {}", p.field, p.rule))
            .collect()
    }

    fn latents(shape: &[i64]) -> Given {
        let count: i64 = shape.iter().product();
        let tensor = Tensor::of(
            "latents",
            Datatype::Fp32,
            shape.to_vec(),
            vec![0; count as usize * 4].into(),
        );
        Given::new(vec![tensor], Default::default())
    }

    #[test]
    fn latents_say_how_large_their_pictures_are() {
        let mut given = latents(&[2, 4, 8, 16]);
        let asked = decode(&mut given, &["pixels".to_owned()]);
        assert!(given.problems.is_empty(), "{:?}", told(&given));
        assert_eq!((asked.latents.len(), asked.width, asked.height), (2, 128, 64));
        assert!(asked.as_pixels && asked.is_marked);
        for (shape, outputs, start) in [
            (&[65, 1, 1, 1][..], &[][..], "latents are of 65 pictures"),
            (
                &[4, 8][..],
                &[][..],
                "latents has the shape [4, 8], and must have 4 sides",
            ),
            (
                &[1, 4, 8, 8][..],
                &["image", "pixels"][..],
                "outputs are image or pixels",
            ),
            (&[1, 4, 8, 8][..], &["seed"][..], "seed is no output"),
        ] {
            let mut given = latents(shape);
            let outputs: Vec<_> = outputs.iter().map(|name| (*name).to_owned()).collect();
            decode(&mut given, &outputs);
            assert!(told(&given)[0].starts_with(start), "{:?}", told(&given));
        }
    }

    #[test]
    fn a_picture_is_rows_of_red_green_and_blue() {
        let read = |datatype, shape: &[i64]| {
            let count: i64 = shape.iter().product();
            let tensor = Tensor::of("pixels", datatype, shape.to_vec(), vec![7; count as usize].into());
            let mut given = Given::new(vec![tensor], Default::default());
            (encode(&mut given).map(|asked| asked.image), told(&given))
        };
        for shape in [&[2, 4, 3][..], &[1, 2, 4, 3]] {
            let (pixels, told) = read(Datatype::Uint8, shape);
            let pixels = pixels.unwrap();
            assert_eq!(
                (pixels.width, pixels.height, pixels.data.len(), told.len()),
                (4, 2, 24, 0)
            );
        }
        for shape in [&[2, 4][..], &[2, 4, 4], &[0, 4, 3], &[2, 2, 4, 3]] {
            assert!(read(Datatype::Uint8, shape).1[0].contains("must be UINT8 of [height, width, 3]"));
        }
        assert!(read(Datatype::Int8, &[2, 4, 3]).0.is_none());
    }
    #[test]
    fn a_mask_is_of_the_pictures_size() {
        let read = |shape: &[i64]| {
            let tensor = |name: &str, shape: &[i64]| {
                let count: i64 = shape.iter().product();
                Tensor::of(
                    name,
                    Datatype::Uint8,
                    shape.to_vec(),
                    vec![255; count as usize].into(),
                )
            };
            let tensors = vec![tensor("pixels", &[2, 4, 3]), tensor("mask", shape)];
            let mut given = Given::new(tensors, Default::default());
            (encode(&mut given).and_then(|asked| asked.mask), told(&given))
        };
        for shape in [&[2, 4][..], &[2, 4, 1], &[1, 2, 4, 1]] {
            let (mask, told) = read(shape);
            assert_eq!((mask.unwrap().data.len(), told.len()), (8, 0));
        }
        assert_eq!(read(&[4, 2]).1, ["mask is 2 x 4, and the picture is 4 x 2"]);
        let named = |name: &str| {
            let value = crate::v2::ask::Value::Text("a".into());
            let mut given = Given::new(Vec::new(), [(name.to_owned(), value)].into());
            encode(&mut given);
            told(&given)
        };
        assert_eq!(
            named("pixels"),
            ["pixels is given as a parameter, and must be a tensor"]
        );
        assert_eq!(named("mask").len(), 2, "the picture is missing besides");
        assert!(read(&[2, 4, 3]).1[0].contains("must be UINT8 of [height, width]"));
    }
}
