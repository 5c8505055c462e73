//! A model folder as diffusers and Optimum write it: what its JSON files say, checked, with diffusers' own defaults where they
//! say nothing.
//!
//! It reads configuration only; weights are the engine's. What is not a Stable Diffusion 1.x or 2.x text-to-image model is
//! refused with words that name the file and the kind of model. Configurations of single parts may be absent, as in the exports
//! of diffusers' old conversion script; the architecture of Stable Diffusion 1 is then assumed, and the engine measures the rest.

mod digest;
mod manifest;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use mobula_diffusion::preview::LatentRgb;
use mobula_diffusion::{Config as Scheduler, Kind};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
pub use digest::digest;
pub use manifest::Defaults;

/// Pipeline classes whose parts are what is served here.
const CLASSES: [&str; 3] = [
    "StableDiffusionPipeline",
    "OnnxStableDiffusionPipeline",
    "ORTStableDiffusionPipeline",
];
/// The parts that must be there.
const PARTS: [&str; 3] = ["text_encoder", "unet", "vae_decoder"];

/// What a model folder says about itself.
#[derive(Debug, Clone)]
pub struct Model {
    folder: PathBuf,
    /// `_class_name` of model_index.json.
    pub class: String,
    /// scheduler/scheduler_config.json.
    pub scheduler: Scheduler,
    /// What a request gets that does not say.
    pub defaults: Defaults,
    /// The map for previews.
    pub latent_rgb: LatentRgb,
    /// Native height and width of the latents.
    pub sample_size: (usize, usize),
    /// Resolutions inside the UNet; each halves the one before.
    pub levels: u32,
    /// Token ids in one window.
    pub window: usize,
    /// Token ids are below this.
    pub vocabulary: u32,
    /// Latents are divided by this before they are decoded.
    pub scaling_factor: f32,
    /// Then this is added.
    pub shift_factor: f32,
}

#[derive(Deserialize)]
struct Index {
    _class_name: String,
    text_encoder_2: Option<serde_json::Value>,
    transformer: Option<serde_json::Value>,
}

#[derive(Default, Deserialize)]
struct UnetConfig {
    in_channels: Option<usize>,
    sample_size: Option<SampleSize>,
    block_out_channels: Option<Vec<usize>>,
    addition_embed_type: Option<String>,
    class_embed_type: Option<String>,
    time_cond_proj_dim: Option<usize>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SampleSize {
    Square(usize),
    Sides([usize; 2]),
}

#[derive(Default, Deserialize)]
struct VaeConfig {
    scaling_factor: Option<f32>,
    shift_factor: Option<f32>,
    latent_channels: Option<usize>,
}

#[derive(Default, Deserialize)]
struct TextConfig {
    max_position_embeddings: Option<usize>,
    vocab_size: Option<u32>,
}

impl Model {
    /// Reads and checks a folder's configuration.
    ///
    /// # Errors
    /// [`Error::File`] for a file that is missing or cannot be read, [`Error::Model`] for a kind of model that is not served,
    /// [`Error::Diffusion`] for its scheduler.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        if !folder.is_dir() {
            return Err(Error::File {
                path: folder.display().to_string(),
                why: "is no folder".into(),
            });
        }
        let index: Index = required(folder, "model_index.json")?;
        check_class(&index)?;
        for part in PARTS {
            check_part(folder, format!("{part}/model.onnx"))?;
        }
        let unet: UnetConfig = optional(folder, "unet/config.json")?;
        check_unet(&unet)?;
        let vae: VaeConfig = optional(folder, "vae_decoder/config.json")?;
        if vae.latent_channels.is_some_and(|channels| channels != 4) {
            return Err(refuse("vae_decoder", "latent_channels is not 4"));
        }
        let text: TextConfig = optional(folder, "text_encoder/config.json")?;
        let scheduler = Scheduler::from_json(&read(folder, "scheduler/scheduler_config.json")?)?;
        let manifest = manifest::read(folder, scheduler.kind())?;
        let sample_size = match unet.sample_size {
            // Stable Diffusion 1's 512 pixels.
            None => (64, 64),
            Some(SampleSize::Square(side)) => (side, side),
            Some(SampleSize::Sides([height, width])) => (height, width),
        };
        if !(1..=1024).contains(&sample_size.0) || !(1..=1024).contains(&sample_size.1) {
            return Err(refuse("unet", "sample_size is not between 1 and 1024"));
        }
        let levels = unet
            .block_out_channels
            .map_or(4, |channels| channels.len() as u32);
        if !(1..=8).contains(&levels) {
            return Err(refuse("unet", "block_out_channels does not have 1 to 8 entries"));
        }
        Ok(Self {
            folder: folder.to_owned(),
            class: index._class_name,
            scheduler,
            defaults: manifest.defaults,
            latent_rgb: manifest.latent_rgb,
            sample_size,
            levels,
            window: text.max_position_embeddings.unwrap_or(77),
            vocabulary: text.vocab_size.unwrap_or(49_408),
            scaling_factor: positive(
                "vae_decoder",
                "scaling_factor",
                vae.scaling_factor.unwrap_or(0.18215),
            )?,
            shift_factor: vae.shift_factor.filter(|shift| shift.is_finite()).unwrap_or(0.0),
        })
    }

    /// The file of a part's network.
    #[must_use]
    pub fn part(&self, part: &str) -> PathBuf {
        self.folder.join(part).join("model.onnx")
    }

    /// The folder it was read from.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Names of the schedulers that can run this model, its own first.
    #[must_use]
    pub fn schedulers(&self) -> Vec<Kind> {
        let own = self.scheduler.kind();
        let runs = |kind: &Kind| mobula_diffusion::Sampler::new(&self.scheduler, Some(*kind), 10).is_ok();
        let others = Kind::ALL.into_iter().filter(|kind| *kind != own);
        std::iter::once(own).chain(others.filter(runs)).collect()
    }
}

/// Refuses a network's file that is missing, or is only the note that a clone without git-lfs leaves in its place.
fn check_part(folder: &Path, file: String) -> Result<(), Error> {
    const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";
    let path = folder.join(&file);
    let wrong = |why: &str| {
        let (path, why) = (file.clone(), why.to_owned());
        Err(Error::File { path, why })
    };
    if !path.is_file() {
        return wrong("is missing (is this an ONNX export?)");
    }
    let mut start = [0; POINTER.len()];
    let read = std::fs::File::open(&path).and_then(|mut file| file.read_exact(&mut start));
    match read {
        Ok(()) if start == *POINTER => {
            wrong("is a Git LFS pointer, not the file itself; run `git lfs pull` where it was cloned")
        }
        // A file too short for a pointer is the engine's to refuse.
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            wrong(&format!("cannot be read: {error}"))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn check_class(index: &Index) -> Result<(), Error> {
    let class = index._class_name.as_str();
    let kind = if class.contains("XL") || present(index.text_encoder_2.as_ref()) {
        "a model with two text encoders (Stable Diffusion XL)"
    } else if class.contains("LatentConsistency") {
        "a latent consistency model"
    } else if present(index.transformer.as_ref()) {
        "a model with a transformer (Stable Diffusion 3, Flux)"
    } else if CLASSES.contains(&class) {
        return Ok(());
    } else {
        "not a text-to-image pipeline of Stable Diffusion 1 or 2"
    };
    let path = "model_index.json".to_owned();
    Err(Error::File {
        path,
        why: format!(
            "{class} is {kind}, which is not served; served are {}",
            CLASSES.join(", ")
        ),
    })
}

/// Whether a part is there: diffusers writes `[null, null]` for one that is not.
fn present(part: Option<&serde_json::Value>) -> bool {
    part.and_then(|part| part.get(0))
        .is_some_and(serde_json::Value::is_string)
}

fn check_unet(unet: &UnetConfig) -> Result<(), Error> {
    match unet.in_channels {
        None | Some(4) => {}
        Some(9) => {
            return Err(refuse(
                "unet",
                "in_channels is 9: an inpainting model, which is not served",
            ));
        }
        Some(other) => return Err(refuse("unet", &format!("in_channels is {other}, expected 4"))),
    }
    if let Some(kind) = &unet.addition_embed_type {
        let why =
            format!("addition_embed_type is {kind} (Stable Diffusion XL and others), which is not served");
        return Err(refuse("unet", &why));
    }
    if let Some(kind) = &unet.class_embed_type {
        return Err(refuse(
            "unet",
            &format!("class_embed_type is {kind}, which is not served"),
        ));
    }
    if unet.time_cond_proj_dim.is_some() {
        return Err(refuse(
            "unet",
            "time_cond_proj_dim is set: a latent consistency model, which is not served",
        ));
    }
    Ok(())
}

fn refuse(part: &'static str, why: &str) -> Error {
    Error::Model {
        part,
        why: format!("config.json: {why}"),
    }
}

fn positive(part: &'static str, key: &str, value: f32) -> Result<f32, Error> {
    if value.is_finite() && value > 0.0 {
        return Ok(value);
    }
    Err(refuse(
        part,
        &format!("{key} is {value}, expected a positive number"),
    ))
}

fn read(folder: &Path, file: &str) -> Result<String, Error> {
    std::fs::read_to_string(folder.join(file)).map_err(|error| {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        let why = if missing {
            "is missing".to_owned()
        } else {
            format!("cannot be read: {error}")
        };
        Error::File {
            path: file.to_owned(),
            why,
        }
    })
}

fn required<T: DeserializeOwned>(folder: &Path, file: &str) -> Result<T, Error> {
    let text = read(folder, file)?;
    serde_json::from_str(&text).map_err(|error| Error::File {
        path: file.to_owned(),
        why: error.to_string(),
    })
}

fn optional<T: DeserializeOwned + Default>(folder: &Path, file: &str) -> Result<T, Error> {
    if folder.join(file).exists() {
        required(folder, file)
    } else {
        Ok(T::default())
    }
}

#[cfg(test)]
mod tests;
