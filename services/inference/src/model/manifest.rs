//! `mobula.json`, an optional file beside model_index.json: the model's own defaults, and the map from latents to colours.
//!
//! Keys it does not know are left to whoever wrote them.

use std::path::Path;

use mobula_diffusion::Kind;
use mobula_diffusion::preview::LatentRgb;
use serde::Deserialize;

use super::optional;
use crate::error::Error;
use crate::request::MAX_GUIDANCE;

const FILE: &str = "mobula.json";

/// What a request gets that does not say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Defaults {
    /// Denoising steps; diffusers' 50 without a manifest.
    pub steps: u32,
    /// Guidance; diffusers' 7.5 without a manifest.
    pub guidance_scale: f32,
    /// Scheduler; the model's own without a manifest.
    pub scheduler: Kind,
}

pub(super) struct Manifest {
    pub(super) defaults: Defaults,
    pub(super) latent_rgb: LatentRgb,
}

#[derive(Default, Deserialize)]
struct File {
    #[serde(default)]
    defaults: FileDefaults,
    latent_rgb: Option<FileLatentRgb>,
}

#[derive(Default, Deserialize)]
struct FileDefaults {
    steps: Option<u32>,
    guidance_scale: Option<f32>,
    scheduler: Option<String>,
}

#[derive(Deserialize)]
struct FileLatentRgb {
    weights: Vec<[f32; 3]>,
    bias: [f32; 3],
}

/// Reads the manifest; without one, the defaults of diffusers and of the scheduler's configuration.
pub(super) fn read(folder: &Path, scheduler: Kind) -> Result<Manifest, Error> {
    let file: File = optional(folder, FILE)?;
    let wrong = |why: String| Error::File {
        path: FILE.to_owned(),
        why,
    };
    let steps = file.defaults.steps.unwrap_or(50);
    if steps == 0 || steps as usize > mobula_diffusion::scheduler::MAX_STEPS {
        return Err(wrong(format!(
            "steps is {steps}, expected 1 to {}",
            mobula_diffusion::scheduler::MAX_STEPS
        )));
    }
    let guidance_scale = file.defaults.guidance_scale.unwrap_or(7.5);
    // Distilled models are drawn without guidance: 0 or 1.
    if !(0.0..=MAX_GUIDANCE).contains(&guidance_scale) {
        return Err(wrong(format!(
            "guidance_scale is {guidance_scale}, expected 0 to {MAX_GUIDANCE}"
        )));
    }
    let scheduler = match file.defaults.scheduler {
        None => scheduler,
        Some(name) => name.parse().map_err(|error| wrong(format!("{error}")))?,
    };
    let latent_rgb = match file.latent_rgb {
        None => LatentRgb::default(),
        Some(map) => LatentRgb::new(map.weights, map.bias).map_err(|error| wrong(error.to_string()))?,
    };
    if latent_rgb.channels() != 4 {
        return Err(wrong(format!(
            "latent_rgb has {} weights, expected 4",
            latent_rgb.channels()
        )));
    }
    Ok(Manifest {
        defaults: Defaults {
            steps,
            guidance_scale,
            scheduler,
        },
        latent_rgb,
    })
}
