//! What a picture starts from: noise, another picture with or without a mask, or another model's latents.

use std::sync::Arc;

use mobula_proto::common::v1::Pixels;
use mobula_proto::inference::v1::GenerateRequest;

use super::Violations;
use crate::engine::Info;
use crate::runner::Origin;

/// Largest size of a latent's value. Noise that any schedule begins with stays far below: its highest level is 4096 (of a zero
/// terminal SNR), and a value of the normal distribution is below 7 in all pictures of a lifetime.
const MAX_LATENT: f32 = 1e6;

/// Checks the pixels and latents; `None` when something is wrong.
pub(super) fn check(wrong: &mut Violations, request: &GenerateRequest, info: &Info) -> Option<Origin> {
    let before = wrong.0.len();
    let latents = !request.init_latents.is_empty();
    wrong.expect(!(latents && request.init_image.is_some()), "init_latents", || {
        "is given together with init_image; one of them is enough".into()
    });
    wrong.expect(
        request.mask_image.is_none() || request.init_image.is_some(),
        "mask_image",
        || "needs init_image, the picture that is drawn into".into(),
    );
    wrong.expect(
        !latents || request.denoising_start.is_some(),
        "denoising_start",
        || "is missing: init_latents stand somewhere in the schedule".into(),
    );
    let begun = latents || request.init_image.is_some();
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
    let (width, height) = (pixels.width, pixels.height);
    wrong.expect((width, height) == (request.width, request.height), field, || {
        format!(
            "is {width} by {height} pixels, expected {} by {}",
            request.width, request.height
        )
    });
    let expected = u128::from(width) * u128::from(height) * bytes as u128;
    wrong.expect(pixels.data.len() as u128 == expected, field, || {
        format!("has {} bytes, expected {expected}", pixels.data.len())
    });
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
    let mut all = Vec::with_capacity(given.len());
    for latents in given.iter().take(request.seeds.len()) {
        let got = [latents.channels, latents.height, latents.width].map(|side| side as usize);
        let expected = [shape.channels, shape.height, shape.width];
        wrong.expect(
            got == expected && latents.data.len() == 4 * shape.values(),
            "init_latents",
            || {
                format!(
                    "have the shape {got:?} in {} bytes, expected {expected:?} of float32",
                    latents.data.len()
                )
            },
        );
        let values: Arc<[f32]> = latents
            .data
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            .collect();
        // NaN is in no range.
        let outside = values
            .iter()
            .find(|value| !(-MAX_LATENT..=MAX_LATENT).contains(*value));
        wrong.expect(outside.is_none(), "init_latents", || {
            let value = outside.copied().unwrap_or_default();
            format!(
                "hold the value {value:e}, expected numbers from {:e} to {MAX_LATENT:e}",
                -MAX_LATENT
            )
        });
        all.push(values);
    }
    all
}
