//! A model folder as diffusers and Optimum write it: what its JSON files say, checked, with diffusers' own defaults where they
//! say nothing.
//!
//! It reads configuration only; weights are the engine's. What is not of the Stable Diffusion 1, 2 or XL family, latent
//! consistency models included, is refused with words that name the file and the kind of model. Configurations of single parts
//! may be absent, as in the exports of diffusers' old conversion script; the architecture of Stable Diffusion 1 is then assumed,
//! and the engine measures the rest.

mod class;
mod digest;
mod manifest;
mod parts;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use mobula_diffusion::Config as Scheduler;
use mobula_diffusion::preview::LatentRgb;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::profile::Profile;
pub use class::Task;
use class::{Class, Form, INDEX, Index};
pub use digest::{digest, file_digest, fingerprint};
pub(crate) use manifest::FILE as MANIFEST;
pub use manifest::{Defaults, Division, Divisions, Prepared};
pub use parts::{TextPart, Vae};

/// A configuration file may be so large; the largest known one has 40 KiB.
const MAX_JSON: u64 = 16 << 20;

/// What a model folder says about itself.
#[derive(Debug, Clone)]
pub struct Model {
    folder: PathBuf,
    /// `_class_name` of model_index.json.
    pub class: String,
    /// What it can do, the task of its class first.
    pub tasks: Vec<Task>,
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
    /// Text encoders, in the order of their states.
    pub encoders: Vec<TextPart>,
    /// Stable Diffusion XL: two encoders' penultimate states, pooled text, numbers about the size.
    pub is_xl: bool,
    /// Stable Diffusion XL's refiner, which has the second encoder only.
    pub is_refiner: bool,
    /// Numbers about the size that the UNet takes: 6, or 5 with an aesthetic score; 0 where it takes none.
    pub time_ids: usize,
    /// The numbers about the size hold an aesthetic score in place of the target size.
    pub requires_aesthetics_score: bool,
    /// The states of an absent negative prompt are zeros, not those of an empty text.
    pub force_zeros_for_empty_prompt: bool,
    /// Width of the text states that the UNet takes, where its configuration says one.
    pub cross_attention: Option<usize>,
    /// Values of the embedded guidance scale that the UNet takes (latent consistency models); 0 where it takes none.
    pub guidance: usize,
    /// Channels of the UNet's input as configured: 4, or 9 for inpainting; the engine finds out when nothing is said.
    pub input_channels: Option<usize>,
    /// The VAE's numbers.
    pub vae: Vae,
    /// Whether there is a VAE encoder.
    pub encodes_images: bool,
    /// The UNet with its timestep made one per row by `prepare`, while it fits the original.
    pub prepared: Option<Prepared>,
    /// How UNet calls are best divided among cores, from the manifest.
    pub divisions: Divisions,
    /// Measured latencies of UNet calls, from the manifest.
    pub profile: Profile,
    footprint: manifest::Footprints,
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
        if !folder.join(INDEX).exists() {
            return Err(Error::File {
                path: folder.display().to_string(),
                why: format!(
                    "has no {INDEX}: it is no model in the ONNX layout of diffusers; name the folder with that file, or make \
                     one with `optimum-cli export onnx --model NAME {}`",
                    folder.display()
                ),
            });
        }
        let index: Index = required(folder, INDEX)?;
        let class = index.class()?;
        let names = index.encoders(class);
        for part in names.iter().chain(&["unet", "vae_decoder"]) {
            check_part(folder, format!("{part}/model.onnx"))?;
        }
        let encodes_images = folder.join("vae_encoder/model.onnx").exists();
        if encodes_images {
            check_part(folder, "vae_encoder/model.onnx".to_owned())?;
        }
        let mut encoders = Vec::with_capacity(names.len());
        let mut pooled = None;
        for part in names {
            let (text, projection) = parts::text(folder, part)?;
            pooled = projection;
            encoders.push(text);
        }
        let unet = parts::unet(folder, pooled)?;
        check_family(&index, class, &unet)?;
        let scheduler = Scheduler::from_json(&read(folder, "scheduler/scheduler_config.json")?)?;
        let defaults = class.defaults();
        let manifest = manifest::read(folder, &scheduler, defaults, class.xl)?;
        let is_refiner = class.xl && encoders.len() == 1;
        let requires_aesthetics_score = index.requires_aesthetics_score.unwrap_or(false);
        let time_ids = match unet.time_ids {
            _ if !class.xl => 0,
            Some(count) => count,
            None if requires_aesthetics_score => 5,
            None => 6,
        };
        Ok(Self {
            folder: folder.to_owned(),
            tasks: tasks(class, unet.input_channels, is_refiner, encodes_images)?,
            class: index._class_name,
            scheduler,
            defaults: manifest.defaults,
            latent_rgb: manifest.latent_rgb,
            sample_size: unet.sample_size,
            levels: unet.levels,
            encoders,
            is_xl: class.xl,
            is_refiner,
            time_ids,
            requires_aesthetics_score,
            force_zeros_for_empty_prompt: index.force_zeros_for_empty_prompt.unwrap_or(class.xl),
            cross_attention: unet.cross_attention,
            guidance: unet.guidance,
            input_channels: unet.input_channels,
            vae: parts::vae(folder)?,
            encodes_images,
            prepared: manifest.prepared,
            divisions: manifest.divisions,
            profile: manifest.profile,
            footprint: manifest.footprint,
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

    /// Token ids in one window, the same for all encoders.
    #[must_use]
    pub fn window(&self) -> usize {
        self.encoders.first().map_or(77, |encoder| encoder.window)
    }

    /// Size of a part with its weights when `file` is its graph, bytes; other graphs in its folder are not counted.
    ///
    /// # Errors
    /// [`Error::File`] for what cannot be read.
    pub fn part_bytes(&self, part: &str, file: &Path) -> Result<u64, Error> {
        digest::bytes(&self.folder.join(part), |path| {
            path == file || path.extension().is_none_or(|ending| ending != "onnx")
        })
    }

    /// Memory that the loaded model takes where computing has this name, bytes, as far as it was measured by `prepare`.
    #[must_use]
    pub fn footprint(&self, computes: &str) -> Option<u64> {
        self.footprint.get(computes)?.get("loaded_bytes")?.as_u64()
    }

    /// Whether a VAE with float16 weights is computed in float32, as diffusers' pipelines of Stable Diffusion XL do where
    /// `force_upcast` says so; those of Stable Diffusion 1 and 2 never look at it.
    #[must_use]
    pub fn upcasts_vae(&self) -> bool {
        self.is_xl && self.vae.force_upcast
    }
}

/// What a model can do, from its class and its parts.
fn tasks(
    class: Class,
    input_channels: Option<usize>,
    is_refiner: bool,
    encodes_images: bool,
) -> Result<Vec<Task>, Error> {
    let missing = |task: &str| Error::File {
        path: "vae_encoder/model.onnx".to_owned(),
        why: format!("is missing, which {task} cannot do without"),
    };
    if is_refiner {
        let mut tasks = vec![Task::Refine];
        if encodes_images {
            tasks.extend([Task::ImageToImage, Task::Inpaint]);
        }
        return Ok(tasks);
    }
    if input_channels == Some(9) {
        return if encodes_images {
            Ok(vec![Task::Inpaint])
        } else {
            Err(missing("an inpainting model"))
        };
    }
    let mut tasks = vec![Task::TextToImage];
    if encodes_images {
        tasks.extend([Task::ImageToImage, Task::Inpaint]);
    }
    let own = match class.form {
        Form::Text => Task::TextToImage,
        Form::Image => Task::ImageToImage,
        Form::Inpaint => Task::Inpaint,
    };
    // An image pipeline without its encoder still draws from prompts; the task of its class comes first where it can.
    if let Some(place) = tasks.iter().position(|task| *task == own) {
        tasks[..=place].rotate_right(1);
    }
    Ok(tasks)
}

/// Refuses a UNet that does not fit the pipeline's class.
fn check_family(index: &Index, class: Class, unet: &parts::Unet) -> Result<(), Error> {
    if unet.text_time && !class.xl {
        return Err(Error::Model {
            part: "unet",
            why: format!(
                "config.json: addition_embed_type is text_time (Stable Diffusion XL), but {INDEX} says {}",
                index._class_name
            ),
        });
    }
    if class.consistency && unet.guidance == 0 {
        tracing::warn!(
            "a latent consistency model whose UNet takes no embedded guidance; guidance has no effect"
        );
    }
    Ok(())
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

fn read(folder: &Path, file: &str) -> Result<String, Error> {
    let wrong = |why: String| Error::File {
        path: file.to_owned(),
        why,
    };
    let path = folder.join(file);
    // A pipe or a device would be read for ever.
    if path.exists() && !path.is_file() {
        return Err(wrong("is no regular file".to_owned()));
    }
    let opened = std::fs::File::open(path).map_err(|error| {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        wrong(if missing {
            "is missing".to_owned()
        } else {
            format!("cannot be read: {error}")
        })
    })?;
    let mut text = String::new();
    let size = opened
        .take(MAX_JSON + 1)
        .read_to_string(&mut text)
        .map_err(|error| wrong(format!("cannot be read: {error}")))?;
    if size as u64 > MAX_JSON {
        return Err(wrong(format!(
            "is larger than {MAX_JSON} bytes, which no configuration is"
        )));
    }
    Ok(text)
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
