//! What kind of pipeline model_index.json describes, and what it can do.
//!
//! It decides by names alone and opens no network. A kind that is not served is refused by its name.

use serde::Deserialize;
use serde_json::Value;

use crate::error::Error;

/// The file that makes a folder a model.
pub(super) const INDEX: &str = "model_index.json";

/// What a model can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Task {
    /// Pictures from prompts.
    TextToImage,
    /// Pictures from pictures and prompts.
    ImageToImage,
    /// Parts of pictures from prompts.
    Inpaint,
    /// The last steps of another model's pictures.
    Refine,
}

/// Which pipeline of its family a folder was exported for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Image,
    Inpaint,
}

/// A pipeline class that is served, whoever exported it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Class {
    pub(super) form: Form,
    /// Stable Diffusion XL.
    pub(super) xl: bool,
    /// Latent consistency models, by their own class.
    pub(super) consistency: bool,
}

/// What model_index.json says, as far as it matters.
#[derive(Deserialize)]
pub(super) struct Index {
    pub(super) _class_name: String,
    text_encoder: Option<Value>,
    text_encoder_2: Option<Value>,
    text_encoder_3: Option<Value>,
    transformer: Option<Value>,
    prior: Option<Value>,
    controlnet: Option<Value>,
    safety_checker: Option<Value>,
    requires_safety_checker: Option<bool>,
    pub(super) force_zeros_for_empty_prompt: Option<bool>,
    pub(super) requires_aesthetics_score: Option<bool>,
}

/// The classes of diffusers; Optimum writes `ORT` before them, diffusers' old exports `Onnx`.
const SERVED: [(&str, Form, bool, bool); 9] = [
    ("StableDiffusionPipeline", Form::Text, false, false),
    ("StableDiffusionImg2ImgPipeline", Form::Image, false, false),
    ("StableDiffusionInpaintPipeline", Form::Inpaint, false, false),
    (
        "StableDiffusionInpaintPipelineLegacy",
        Form::Inpaint,
        false,
        false,
    ),
    ("StableDiffusionXLPipeline", Form::Text, true, false),
    ("StableDiffusionXLImg2ImgPipeline", Form::Image, true, false),
    ("StableDiffusionXLInpaintPipeline", Form::Inpaint, true, false),
    ("LatentConsistencyModelPipeline", Form::Text, false, true),
    ("LatentConsistencyModelImg2ImgPipeline", Form::Image, false, true),
];

/// Words in class names of other kinds of models, and what they are.
const FOREIGN: [(&str, &str); 13] = [
    ("StableDiffusion3", "Stable Diffusion 3"),
    ("Flux", "Flux"),
    ("ControlNet", "a pipeline with ControlNet"),
    ("Adapter", "a pipeline with an adapter"),
    ("Upscale", "an upscaler"),
    ("InstructPix2Pix", "InstructPix2Pix"),
    ("ImageVariation", "image variation"),
    ("GLIGEN", "GLIGEN"),
    ("Gligen", "GLIGEN"),
    ("Kandinsky", "Kandinsky"),
    ("Video", "a video model"),
    ("PixArt", "PixArt, which has a T5 text encoder"),
    ("Cascade", "Stable Cascade"),
];

impl Index {
    /// What kind of pipeline it is.
    pub(super) fn class(&self) -> Result<Class, Error> {
        let name = self._class_name.as_str();
        let plain = name
            .strip_prefix("ORT")
            .or_else(|| name.strip_prefix("Onnx"))
            .unwrap_or(name);
        let class = SERVED
            .iter()
            .find(|(served, ..)| *served == plain)
            .map(|(_, form, xl, consistency)| Class {
                form: *form,
                xl: *xl,
                consistency: *consistency,
            });
        let Some(class) = class else {
            let kind = FOREIGN.iter().find(|(word, _)| name.contains(word));
            let kind = kind.map_or(
                "no pipeline of the Stable Diffusion 1, 2 or XL family",
                |(_, kind)| kind,
            );
            return Err(self.refuse(kind));
        };
        self.refuse_parts()?;
        if !class.xl && present(self.text_encoder_2.as_ref()) {
            return Err(self.refuse("a pipeline with a second text encoder, but not Stable Diffusion XL"));
        }
        Ok(class)
    }

    fn refuse_parts(&self) -> Result<(), Error> {
        for (part, kind) in [
            (
                &self.transformer,
                "a model with a transformer (Stable Diffusion 3, Flux)",
            ),
            (
                &self.text_encoder_3,
                "a model with a third text encoder (Stable Diffusion 3)",
            ),
            (&self.controlnet, "a pipeline with ControlNet"),
            (&self.prior, "a pipeline with a prior"),
        ] {
            if present(part.as_ref()) {
                return Err(self.refuse(kind));
            }
        }
        for part in [&self.text_encoder, &self.text_encoder_2] {
            if named(part.as_ref()).is_some_and(|class| class.contains("T5")) {
                return Err(self.refuse("a model with a T5 text encoder"));
            }
        }
        if self.requires_safety_checker == Some(true) && present(self.safety_checker.as_ref()) {
            return Err(Error::File {
                path: INDEX.to_owned(),
                why: "requires_safety_checker is true, and safety checkers are not served; set it to false to serve the \
                      model without one"
                    .to_owned(),
            });
        }
        if present(self.safety_checker.as_ref()) {
            tracing::warn!("the model has a safety checker, which is not run");
        }
        Ok(())
    }

    /// The text encoders that the folder must have, in the order of their states.
    pub(super) fn encoders(&self, class: Class) -> &'static [&'static str] {
        // The refiner says `[null, null]` for its first; a file that says nothing of parts means the usual ones.
        let absent = |part: &Option<Value>| part.is_some() && !present(part.as_ref());
        match (class.xl, absent(&self.text_encoder)) {
            (false, _) => &["text_encoder"],
            (true, false) => &["text_encoder", "text_encoder_2"],
            (true, true) => &["text_encoder_2"],
        }
    }

    fn refuse(&self, kind: &str) -> Error {
        let served: Vec<&str> = SERVED.iter().map(|(name, ..)| *name).collect();
        Error::File {
            path: INDEX.to_owned(),
            why: format!(
                "{} is {kind}, which is not served; served are {}, and their ORT and Onnx names",
                self._class_name,
                served.join(", ")
            ),
        }
    }
}

impl Class {
    /// Denoising steps and guidance that diffusers' pipeline of this class has when nothing is said.
    pub(super) fn defaults(self) -> (u32, f32) {
        match self {
            Self {
                consistency: true, ..
            } => (4, 8.5),
            // StableDiffusionXLInpaintPipeline kept Stable Diffusion 1's guidance.
            Self {
                xl: true,
                form: Form::Inpaint,
                ..
            } => (50, 7.5),
            Self { xl: true, .. } => (50, 5.0),
            Self { .. } => (50, 7.5),
        }
    }
}

/// Whether a part is there: diffusers writes `[null, null]` for one that is not.
fn present(part: Option<&Value>) -> bool {
    part.and_then(|part| part.get(0)).is_some_and(Value::is_string)
}

/// The class of a part: `["transformers", "CLIPTextModel"]`.
fn named(part: Option<&Value>) -> Option<&str> {
    part.and_then(|part| part.get(1)).and_then(Value::as_str)
}
