//! What a picture starts from: noise, another picture with or without a mask, one that was encoded already, or another
//! model's latents.

use std::sync::Arc;

use mobula_diffusion::is_finite;
use mobula_proto::common::v1::{self as common, DataType, Pixels};
use mobula_proto::inference::v1::{self as proto, GenerateRequest};

use super::Violations;
use crate::engine::{Info, Moments, Shape};
use crate::runner::Origin;

/// Largest size of a latent's value. Noise that any schedule begins with stays far below: its highest level is 4096 (of a zero
/// terminal SNR), and a value of the normal distribution is below 7 in all pictures of a lifetime.
const MAX_LATENT: f32 = 1e6;
/// Sides of a shape that are given back when it is wrong.
const SIDES_SHOWN: usize = 8;

/// Checks the pixels, latents, and what a picture was encoded to; `None` when something is wrong.
pub(super) fn check(
    wrong: &mut Violations,
    request: &GenerateRequest,
    encoded: Option<&proto::Moments>,
    info: &Info,
) -> Option<Origin> {
    let before = wrong.0.len();
    let latents = !request.init_latents.is_empty();
    let picture = request.init_image.is_some() || encoded.is_some();
    wrong.expect(!(latents && picture), "init_latents", || {
        "is given together with init_image; one of them is enough".into()
    });
    wrong.expect(request.mask_image.is_none() || picture, "mask_image", || {
        "needs init_image, the picture that is drawn into".into()
    });
    wrong.expect(
        !latents || request.denoising_start.is_some(),
        "denoising_start",
        || "is missing: init_latents stand somewhere in the schedule".into(),
    );
    let begun = latents || picture;
    wrong.expect(
        begun || request.denoising_start.is_none(),
        "denoising_start",
        || "needs init_latents or init_image to go on from".into(),
    );
    let masked = info.input_channels > info.channels;
    wrong.expect(!masked || request.mask_image.is_some(), "mask_image", || {
        "is missing: this model draws into masked pictures only (its UNet takes the mask as an input)".into()
    });
    let origin = if latents {
        Origin::Latents(self::latents(wrong, request, info))
    } else if let Some(encoded) = encoded {
        if let Some(mask) = &request.mask_image {
            pixels(wrong, "mask_image", mask, request, 1);
        }
        Origin::Encoded {
            moments: moments(wrong, request, encoded, info),
            mask: request.mask_image.as_ref().map(|mask| mask.data.clone()),
        }
    } else if let Some(image) = &request.init_image {
        wrong.expect(info.encodes_images, "init_image", || {
            "this model was exported without vae_encoder, so it cannot start from a picture".into()
        });
        pixels(wrong, "init_image", image, request, 3);
        if let Some(mask) = &request.mask_image {
            pixels(wrong, "mask_image", mask, request, 1);
        }
        Origin::Picture {
            rgb: image.data.clone(),
            mask: request.mask_image.as_ref().map(|mask| mask.data.clone()),
        }
    } else {
        Origin::Noise
    };
    (wrong.0.len() == before).then_some(origin)
}

fn pixels(wrong: &mut Violations, field: &str, pixels: &Pixels, request: &GenerateRequest, bytes: usize) {
    sized(wrong, field, pixels, (request.width, request.height), bytes);
}

/// Refuses pixels that are not of a size, with so many bytes each.
pub(super) fn sized(
    wrong: &mut Violations,
    field: &str,
    pixels: &Pixels,
    expected: (u32, u32),
    bytes: usize,
) {
    let (width, height) = (pixels.width, pixels.height);
    wrong.expect((width, height) == expected, field, || {
        format!(
            "is {width} by {height} pixels, expected {} by {}",
            expected.0, expected.1
        )
    });
    let expected = u128::from(width) * u128::from(height) * bytes as u128;
    wrong.expect(pixels.data.len() as u128 == expected, field, || {
        format!("has {} bytes, expected {expected}", pixels.data.len())
    });
}

/// What a picture was encoded to, and with a mask what is left of it outside.
fn moments(
    wrong: &mut Violations,
    request: &GenerateRequest,
    encoded: &proto::Moments,
    info: &Info,
) -> Moments {
    let shape = info.latents(request.width as usize, request.height as usize);
    let pictures = 1 + usize::from(request.mask_image.is_some());
    let expected = [pictures, shape.channels, shape.height, shape.width];
    let mean = encoded.mean.clone().unwrap_or_default();
    let deviation = encoded.deviation.as_ref();
    Moments {
        mean: tensor(wrong, "init_moments.mean", &mean, &expected),
        deviation: deviation
            .map(|deviation| tensor(wrong, "init_moments.deviation", deviation, &expected))
            .unwrap_or_default(),
    }
}

/// The numbers of a tensor of a shape.
pub(super) fn tensor(
    wrong: &mut Violations,
    field: &str,
    tensor: &common::Tensor,
    expected: &[usize],
) -> Vec<f32> {
    let shaped = tensor.shape.len() == expected.len()
        && tensor
            .shape
            .iter()
            .zip(expected)
            .all(|(got, side)| *got == *side as u64);
    let bytes = 4 * expected.iter().map(|side| *side as u128).product::<u128>();
    let is_whole = shaped && tensor.data.len() as u128 == bytes && tensor.data_type() == DataType::Fp32;
    wrong.expect(is_whole, field, || {
        format!(
            "has the shape {:?} in {} bytes, expected {expected:?} of DATA_TYPE_FP32",
            tensor.shape.iter().take(SIDES_SHOWN).collect::<Vec<_>>(),
            tensor.data.len()
        )
    });
    if !is_whole {
        return Vec::new();
    }
    let values: Vec<f32> = numbers(&tensor.data);
    wrong.expect(is_finite(&values), field, || {
        "holds values that are not finite (NaN or infinity)".into()
    });
    values
}

fn numbers<T: FromIterator<f32>>(data: &[u8]) -> T {
    data.chunks_exact(4)
        .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        .collect()
}

fn latents(wrong: &mut Violations, request: &GenerateRequest, info: &Info) -> Vec<Arc<[f32]>> {
    let given = &request.init_latents;
    wrong.expect(given.len() == request.seeds.len(), "init_latents", || {
        format!("{} latents for {} seeds", given.len(), request.seeds.len())
    });
    if wrong.has("width") || wrong.has("height") {
        // Nothing can be compared with a size that is refused already.
        return Vec::new();
    }
    let shape = info.latents(request.width as usize, request.height as usize);
    let given = given.iter().take(request.seeds.len());
    given
        .map(|latents| finished(wrong, "init_latents", latents, shape))
        .collect()
}

/// Latents of a shape, whose numbers a schedule can have.
pub(super) fn finished(
    wrong: &mut Violations,
    field: &str,
    latents: &common::Latents,
    shape: Shape,
) -> Arc<[f32]> {
    let got = [latents.channels, latents.height, latents.width].map(|side| side as usize);
    let expected = [shape.channels, shape.height, shape.width];
    wrong.expect(
        got == expected && latents.data.len() == 4 * shape.values(),
        field,
        || {
            format!(
                "have the shape {got:?} in {} bytes, expected {expected:?} of float32",
                latents.data.len()
            )
        },
    );
    let values: Arc<[f32]> = numbers(&latents.data);
    // NaN is in no range.
    let outside = values
        .iter()
        .find(|value| !(-MAX_LATENT..=MAX_LATENT).contains(*value));
    wrong.expect(outside.is_none(), field, || {
        let value = outside.copied().unwrap_or_default();
        format!(
            "hold the value {value:e}, expected numbers from {:e} to {MAX_LATENT:e}",
            -MAX_LATENT
        )
    });
    values
}
