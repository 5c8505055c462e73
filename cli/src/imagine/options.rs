//! What of a request most people leave alone: pictures to draw from, how prompts are written, how the model is sampled.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::ValueEnum;
use mobula_proto::common::v1::{self as common, RandomSource};
use mobula_proto::image::v1::{GenerateRequest, PromptSyntax, Refiner};

use crate::Error;

/// Flags beyond the usual ones.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Start from this picture: PNG, JPEG or WebP (image to image)
    #[arg(long, value_name = "FILE")]
    init_image: Option<PathBuf>,
    /// Draw only where this picture is white, and keep the rest (inpainting)
    #[arg(long, value_name = "FILE", requires = "init_image")]
    mask: Option<PathBuf>,
    /// How much of the picture is drawn anew, 0 to 1
    #[arg(
        long,
        value_name = "X",
        requires = "init_image",
        allow_negative_numbers = true
    )]
    strength: Option<f32>,
    /// How noise levels are spread: karras, exponential, beta, sgm_uniform, ays and others
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    sigma_schedule: String,
    /// How weights and the like are written in the prompts
    #[arg(long, value_name = "SYNTAX")]
    syntax: Option<Syntax>,
    /// Layers of the text encoder to leave out at the end, as in diffusers (one less than A1111's)
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    clip_skip: u32,
    /// Brings the contrast of a guided picture back, 0 to 1
    #[arg(
        long,
        value_name = "X",
        default_value_t = 0.0,
        hide_default_value = true,
        allow_negative_numbers = true
    )]
    guidance_rescale: f32,
    /// Where random numbers come from: what diffusers draws with a torch.Generator of this device
    #[arg(long, value_name = "DEVICE")]
    random_source: Option<Random>,
    /// Who goes first when the mesh is full
    #[arg(long, value_name = "WHEN")]
    priority: Option<Priority>,
    /// Hand over to this application for the last steps
    #[arg(long, value_name = "NAME")]
    refiner: Option<String>,
    /// The part of the steps after which the refiner takes over
    #[arg(
        long,
        value_name = "X",
        requires = "refiner",
        default_value_t = 0.8,
        allow_negative_numbers = true
    )]
    switch_at: f32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Syntax {
    /// Every character is itself
    Plain,
    /// (word:1.2), [word], BREAK, [from:to:when], [one|other]
    A1111,
    /// word++, word--, (words)1.2
    Compel,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Random {
    Cpu,
    Cuda,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Priority {
    Low,
    Normal,
    High,
}

/// The pictures to draw from, as they are in their files; empty where there is none.
#[derive(Debug, Default)]
pub(super) struct Pictures {
    init: Bytes,
    mask: Bytes,
}

impl Options {
    /// Reads the files, before the mesh is asked.
    pub(super) async fn read(&self) -> Result<Pictures, Error> {
        Ok(Pictures {
            init: file(self.init_image.as_deref()).await?,
            mask: file(self.mask.as_deref()).await?,
        })
    }

    /// Puts into a request what was given.
    pub(super) fn fill(&self, request: &mut GenerateRequest, pictures: &Pictures) {
        request.init_image = pictures.init.clone();
        request.mask_image = pictures.mask.clone();
        request.strength = self.strength;
        request.sigma_schedule.clone_from(&self.sigma_schedule);
        request.clip_skip = self.clip_skip;
        request.guidance_rescale = self.guidance_rescale;
        if let Some(syntax) = self.syntax {
            request.set_prompt_syntax(match syntax {
                Syntax::Plain => PromptSyntax::Plain,
                Syntax::A1111 => PromptSyntax::A1111,
                Syntax::Compel => PromptSyntax::Compel,
            });
        }
        if let Some(source) = self.random_source {
            request.set_random_source(match source {
                Random::Cpu => RandomSource::Cpu,
                Random::Cuda => RandomSource::Cuda,
            });
        }
        if let Some(priority) = self.priority {
            request.set_priority(match priority {
                Priority::Low => common::Priority::Low,
                Priority::Normal => common::Priority::Normal,
                Priority::High => common::Priority::High,
            });
        }
        request.refiner = self.refiner.as_ref().map(|model| Refiner {
            model: model.clone(),
            switch_at: self.switch_at,
            ..Refiner::default()
        });
    }
}

async fn file(path: Option<&Path>) -> Result<Bytes, Error> {
    let Some(path) = path else {
        return Ok(Bytes::new());
    };
    let unreadable = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let read = tokio::fs::read(path).await.map_err(unreadable)?;
    if read.is_empty() {
        // To the mesh an empty file is none.
        let empty = std::io::Error::new(std::io::ErrorKind::InvalidData, "the file is empty");
        return Err(unreadable(empty));
    }
    Ok(read.into())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    fn parse(line: &[&str]) -> Result<Options, clap::Error> {
        let line = std::iter::once("imagine").chain(line.iter().copied());
        Command::try_parse_from(line).map(|command| command.options)
    }

    #[tokio::test]
    async fn every_flag_has_its_field() {
        let folder = tempfile::tempdir().unwrap();
        let (init, mask) = (folder.path().join("a.png"), folder.path().join("b.png"));
        std::fs::write(&init, b"picture").unwrap();
        std::fs::write(&mask, b"mask").unwrap();
        let line = "--strength 0.5 --sigma-schedule karras --syntax a1111 --clip-skip 1 --guidance-rescale 0.7 \
                    --random-source cuda --priority low --refiner xl";
        let mut line: Vec<_> = line.split_whitespace().collect();
        let (init, mask) = (init.display().to_string(), mask.display().to_string());
        line.extend(["--init-image", &init, "--mask", &mask]);
        let options = parse(&line).unwrap();
        let mut request = GenerateRequest::default();
        options.fill(&mut request, &options.read().await.unwrap());
        let expected = GenerateRequest {
            init_image: "picture".into(),
            mask_image: "mask".into(),
            strength: Some(0.5),
            sigma_schedule: "karras".into(),
            prompt_syntax: PromptSyntax::A1111.into(),
            clip_skip: 1,
            guidance_rescale: 0.7,
            random_source: RandomSource::Cuda.into(),
            priority: common::Priority::Low.into(),
            refiner: Some(Refiner {
                model: "xl".into(),
                switch_at: 0.8,
                ..Refiner::default()
            }),
            ..GenerateRequest::default()
        };
        assert_eq!(request, expected);
    }

    #[test]
    fn flags_that_need_another_say_so() {
        for line in [["--mask", "m.png"], ["--strength", "0.5"], ["--switch-at", "0.5"]] {
            assert!(parse(&line).is_err(), "{line:?}");
        }
        assert!(parse(&["--priority", "urgent"]).is_err());
    }

    #[tokio::test]
    async fn a_file_that_is_missing_or_empty_is_named_before_the_mesh_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none.png");
        let options = || parse(&["--init-image", &path.display().to_string()]).unwrap();
        let told = options().read().await.unwrap_err().to_string();
        assert!(
            told.starts_with("cannot read") && told.contains("none.png"),
            "{told}"
        );
        std::fs::write(&path, b"").unwrap();
        let told = options().read().await.unwrap_err().to_string();
        assert!(told.contains("empty"), "{told}");
    }
}
