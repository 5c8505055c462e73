//! `mobula.json`, an optional file beside model_index.json: the model's own defaults, the map from latents to colours, and what
//! `mobula-inference prepare` found out and made.
//!
//! Keys it does not know are left to whoever wrote them.

use std::collections::BTreeMap;
use std::path::Path;

use mobula_diffusion::preview::LatentRgb;
use mobula_diffusion::{Choice, Config as Scheduler};
use serde::{Deserialize, Serialize};

use super::optional;
use crate::error::Error;
use crate::profile::Profile;
use crate::request::MAX_GUIDANCE;

/// The manifest's name in a model's folder.
pub(crate) const FILE: &str = "mobula.json";

/// What a request gets that does not say.
#[derive(Debug, Clone, PartialEq)]
pub struct Defaults {
    /// Denoising steps; those of diffusers' pipeline without a manifest.
    pub steps: u32,
    /// Guidance; that of diffusers' pipeline without a manifest.
    pub guidance_scale: f32,
    /// Scheduler, by its canonical name; the model's own without a manifest.
    pub scheduler: String,
}

/// A network that was prepared, and from what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// File beside the original.
    pub file: String,
    /// SHA-256 of the original `model.onnx`.
    pub source: String,
    /// SHA-256 of the prepared file.
    pub digest: String,
    /// Height and width of latents are multiples of this.
    pub unit: usize,
}

/// How a UNet's calls are best divided among a number of threads, as it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Division {
    /// Sessions that share a call's rows; 1 is a pool of all threads.
    pub lanes: usize,
    /// What the pool takes for a call in the time that lanes take for it.
    pub gain: f64,
}

/// Divisions by the number of threads.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Divisions(BTreeMap<usize, Division>);

impl Divisions {
    /// What was measured with so many threads.
    #[must_use]
    pub fn get(&self, threads: usize) -> Option<&Division> {
        self.0.get(&threads)
    }

    /// Puts in what was measured with so many threads.
    pub(crate) fn put(&mut self, threads: usize, division: Division) {
        self.0.insert(threads, division);
    }

    /// Refuses what no measurement writes.
    fn check(&self) -> Result<(), String> {
        if self.0.len() > MAX_DIVISIONS {
            return Err(format!("lanes has more than {MAX_DIVISIONS} numbers of threads"));
        }
        for (threads, division) in &self.0 {
            let Division { lanes, gain } = division;
            if *lanes == 0 || !threads.is_multiple_of(*lanes) || !gain.is_finite() || *gain < 0.0 {
                return Err(format!(
                    "lanes of {threads} threads is {division:?}, expected lanes that divide them and a gain from 0"
                ));
            }
        }
        Ok(())
    }
}

/// Numbers of threads in a manifest at most.
const MAX_DIVISIONS: usize = 256;

pub(super) struct Manifest {
    pub(super) defaults: Defaults,
    pub(super) latent_rgb: LatentRgb,
    pub(super) prepared: Option<Prepared>,
    pub(super) divisions: Divisions,
    pub(super) profile: Profile,
    pub(super) footprint: Footprints,
}

/// What was measured of the model's memory, by provider.
pub(super) type Footprints = BTreeMap<String, serde_json::Value>;

#[derive(Default, Deserialize)]
struct File {
    #[serde(default)]
    defaults: FileDefaults,
    latent_rgb: Option<FileLatentRgb>,
    #[serde(default)]
    prepared: FilePrepared,
    #[serde(default)]
    lanes: Divisions,
    #[serde(default)]
    profile: Profile,
    #[serde(default)]
    footprint: Footprints,
}

#[derive(Default, Deserialize)]
struct FileDefaults {
    steps: Option<u32>,
    guidance_scale: Option<f32>,
    scheduler: Option<String>,
}

#[derive(Default, Deserialize)]
struct FilePrepared {
    unet: Option<Prepared>,
}

#[derive(Deserialize)]
struct FileLatentRgb {
    weights: Vec<[f32; 3]>,
    bias: [f32; 3],
}

/// Reads the manifest; without one, the defaults of diffusers' pipeline, of the scheduler's configuration, and of the family.
pub(super) fn read(
    folder: &Path,
    scheduler: &Scheduler,
    (steps, guidance): (u32, f32),
    xl: bool,
) -> Result<Manifest, Error> {
    let file: File = optional(folder, FILE)?;
    let wrong = |why: String| Error::File {
        path: FILE.to_owned(),
        why,
    };
    let steps = file.defaults.steps.unwrap_or(steps);
    if steps == 0 || steps as usize > mobula_diffusion::scheduler::MAX_STEPS {
        return Err(wrong(format!(
            "steps is {steps}, expected 1 to {}",
            mobula_diffusion::scheduler::MAX_STEPS
        )));
    }
    let guidance_scale = file.defaults.guidance_scale.unwrap_or(guidance);
    // Distilled models are drawn without guidance: 0 or 1.
    if !(0.0..=MAX_GUIDANCE).contains(&guidance_scale) {
        return Err(wrong(format!(
            "guidance_scale is {guidance_scale}, expected 0 to {MAX_GUIDANCE}"
        )));
    }
    let scheduler = match file.defaults.scheduler {
        None => scheduler.name(),
        Some(name) => Choice::parse(&name, "")
            .map_err(|error| wrong(format!("{error}")))
            .map(|_| name)?,
    };
    let latent_rgb = match file.latent_rgb {
        None if xl => xl_latent_rgb()?,
        None => LatentRgb::default(),
        Some(map) => LatentRgb::new(map.weights, map.bias).map_err(|error| wrong(error.to_string()))?,
    };
    if latent_rgb.channels() != 4 {
        return Err(wrong(format!(
            "latent_rgb has {} weights, expected 4",
            latent_rgb.channels()
        )));
    }
    if let Some(prepared) = &file.prepared.unet {
        let file = &prepared.file;
        if file.contains(['/', '\\']) || file.starts_with('.') || !file.ends_with(".onnx") {
            return Err(wrong(format!(
                "prepared.unet.file is {file:?}, expected a file beside model.onnx"
            )));
        }
        if !(1..=128).contains(&prepared.unit) {
            return Err(wrong(format!(
                "prepared.unet.unit is {}, expected 1 to 128",
                prepared.unit
            )));
        }
    }
    file.profile.check().map_err(wrong)?;
    file.lanes.check().map_err(wrong)?;
    Ok(Manifest {
        defaults: Defaults {
            steps,
            guidance_scale,
            scheduler,
        },
        latent_rgb,
        prepared: file.prepared.unet,
        divisions: file.lanes,
        profile: file.profile,
        footprint: file.footprint,
    })
}

/// The factors for Stable Diffusion XL's latents that Timothy Alexis Vass published in "Explaining the SDXL latent space"
/// (huggingface.co/blog/TimothyAlexisVass), for bytes, brought to [-1, 1].
fn xl_latent_rgb() -> Result<LatentRgb, Error> {
    const BYTES: [[f32; 3]; 4] = [
        [60.0, 60.0, 60.0],
        [-60.0, -5.0, 10.0],
        [25.0, 15.0, -5.0],
        [-70.0, -50.0, -35.0],
    ];
    const BIAS: [f32; 3] = [150.0, 140.0, 130.0];
    let weights = BYTES.map(|row| row.map(|byte| byte / 127.5)).to_vec();
    Ok(LatentRgb::new(weights, BIAS.map(|byte| byte / 127.5 - 1.0))?)
}
