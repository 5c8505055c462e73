//! The dialects of exported models: what exporters call the inputs and outputs of each part.
//!
//! Names, dtypes and ranks are read from the model and matched against the tables here; nothing about a model is assumed.
//! What a part needs beyond the tables is refused with words that say which kind of model it is. It runs nothing.

use super::super::Error;

/// Element types that parts may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dtype {
    F32,
    F16,
    I64,
    I32,
}

/// One input or output as the model declares it.
#[derive(Debug, Clone)]
pub(super) struct Port {
    pub(super) name: String,
    /// `None` for a type that no part may have.
    pub(super) dtype: Option<Dtype>,
    /// Dimensions; -1 where the model leaves it open.
    pub(super) dims: Vec<i64>,
}

/// What a part takes and gives.
#[derive(Debug, Clone)]
pub(super) struct Ports {
    /// For errors: `text_encoder`, `unet`, `vae_decoder` and so on.
    pub(super) part: &'static str,
    pub(super) inputs: Vec<Port>,
    pub(super) outputs: Vec<Port>,
}

/// A text encoder's ports.
#[derive(Debug, Clone)]
pub(super) struct TextEncoder {
    pub(super) ids: Port,
    /// The last layer's states, after the final norm.
    pub(super) states: Option<Port>,
    /// The projected state of the end of the text, of Stable Diffusion XL's second encoder.
    pub(super) pooled: Option<Port>,
    /// The states after the embeddings and after each layer, where the export has them.
    pub(super) hidden: Vec<Port>,
}

/// The UNet's ports.
#[derive(Debug, Clone)]
pub(super) struct Unet {
    pub(super) sample: Port,
    pub(super) timestep: Port,
    pub(super) states: Port,
    pub(super) pooled: Option<Port>,
    pub(super) time_ids: Option<Port>,
    pub(super) guidance: Option<Port>,
    pub(super) output: Port,
}

/// The VAE decoder's ports.
#[derive(Debug, Clone)]
pub(super) struct Decoder {
    pub(super) latents: Port,
    pub(super) images: Port,
}

/// The VAE encoder's ports.
#[derive(Debug, Clone)]
pub(super) struct Encoder {
    pub(super) images: Port,
    /// Mean and logarithm of the variance one after the other, or latents that were drawn inside.
    pub(super) latents: Port,
}

// Who uses which name: the first of each list is Optimum's and the diffusers conversion script's, the others are those of
// ONNX Runtime's and Olive's Stable Diffusion examples.
const IDS: &[&str] = &["input_ids"];
const TEXT_STATES: &[&str] = &["last_hidden_state", "text_embeddings"];
const TEXT_POOLED: &[&str] = &["text_embeds"];
const SAMPLE: &[&str] = &["sample"];
const TIMESTEP: &[&str] = &["timestep"];
const UNET_STATES: &[&str] = &["encoder_hidden_states"];
const UNET_POOLED: &[&str] = &["text_embeds"];
const TIME_IDS: &[&str] = &["time_ids"];
const GUIDANCE: &[&str] = &["timestep_cond"];
const UNET_OUTPUT: &[&str] = &["out_sample", "latent"];
const LATENTS: &[&str] = &["latent_sample", "latent"];
const IMAGES: &[&str] = &["sample", "images"];
const PARAMETERS: &[&str] = &["latent_parameters", "latent_sample", "latent"];
/// Optimum's names of the states after each layer begin so.
const HIDDEN: &str = "hidden_states.";
/// Layers of a text encoder at most.
const MAX_LAYERS: usize = 256;

const INTEGER: &[Dtype] = &[Dtype::I64, Dtype::I32];
const REAL: &[Dtype] = &[Dtype::F32, Dtype::F16];
const ANY: &[Dtype] = &[Dtype::F32, Dtype::F16, Dtype::I64, Dtype::I32];

/// Inputs that other kinds of models have, and what they are called.
const FOREIGN: [(&str, &str); 7] = [
    ("pooled_projections", "a Stable Diffusion 3 or Flux model"),
    ("class_labels", "a model with class conditioning"),
    ("down_block_0", "a UNet for ControlNet"),
    ("down_block_additional", "a UNet for ControlNet or adapters"),
    ("mid_block_additional", "a UNet for ControlNet"),
    ("image_embeds", "a UNet with image prompts"),
    ("attention_mask", "a text encoder with attention mask"),
];

impl TextEncoder {
    /// Matches a text encoder's ports.
    pub(super) fn of(ports: &Ports) -> Result<Self, Error> {
        ports.refuse_others(&[IDS])?;
        let ids = ports.input(IDS, INTEGER, &[2])?;
        let hidden: Vec<Port> = (0..MAX_LAYERS)
            .map_while(|layer| find(&ports.outputs, &[&format!("{HIDDEN}{layer}")]).cloned())
            .collect();
        for port in &hidden {
            ports.check(port, REAL, &[port.dims.len()])?;
        }
        let pooled = find(&ports.outputs, TEXT_POOLED);
        // The only output of the second encoder may be its projection; of a first one it is the states.
        let states = match (&pooled, find(&ports.outputs, TEXT_STATES)) {
            (Some(_), None) => None,
            _ => Some(ports.output(TEXT_STATES, REAL, 3)?),
        };
        let text = Self {
            ids,
            states,
            // Its declared shape is wrong in Optimum's exports.
            pooled: pooled
                .map(|port| ports.check(port, REAL, &[port.dims.len()]))
                .transpose()?,
            hidden,
        };
        ports.refuse_fixed_batch(&text.ids, &[1])?;
        Ok(text)
    }
}

impl Unet {
    /// Matches the UNet's ports; `timestep` may have rank 0 or 1.
    pub(super) fn of(ports: &Ports) -> Result<Self, Error> {
        ports.refuse_others(&[SAMPLE, TIMESTEP, UNET_STATES, UNET_POOLED, TIME_IDS, GUIDANCE])?;
        let unet = Self {
            sample: ports.input(SAMPLE, REAL, &[4])?,
            timestep: ports.input(TIMESTEP, ANY, &[0, 1])?,
            states: ports.input(UNET_STATES, REAL, &[3])?,
            pooled: ports.optional(UNET_POOLED, REAL)?,
            time_ids: ports.optional(TIME_IDS, ANY)?,
            guidance: ports.optional(GUIDANCE, REAL)?,
            output: ports.output(UNET_OUTPUT, REAL, 4)?,
        };
        ports.refuse_fixed_batch(&unet.sample, &[])?;
        ports.refuse_fixed_size(&unet.sample)?;
        if unet.pooled.is_some() != unet.time_ids.is_some() {
            return Err(
                ports.error("it has only one of text_embeds and time_ids, Stable Diffusion XL has both")
            );
        }
        match unet.sample.dims[1] {
            -1 | 4 | 9 => Ok(unet),
            8 => Err(ports.error("its sample has 8 channels: an InstructPix2Pix model, which is not served")),
            other => Err(ports.error(&format!(
                "its sample has {other} channels, expected 4, or 9 for inpainting"
            ))),
        }
    }
}

impl Decoder {
    /// Matches the VAE decoder's ports.
    pub(super) fn of(ports: &Ports) -> Result<Self, Error> {
        ports.refuse_others(&[LATENTS])?;
        let decoder = Self {
            latents: ports.input(LATENTS, REAL, &[4])?,
            images: ports.output(IMAGES, REAL, 4)?,
        };
        ports.refuse_fixed_batch(&decoder.latents, &[1])?;
        ports.refuse_fixed_size(&decoder.latents)?;
        Ok(decoder)
    }
}

impl Encoder {
    /// Matches the VAE encoder's ports.
    pub(super) fn of(ports: &Ports) -> Result<Self, Error> {
        ports.refuse_others(&[IMAGES])?;
        let encoder = Self {
            images: ports.input(IMAGES, REAL, &[4])?,
            latents: ports.output(PARAMETERS, REAL, 4)?,
        };
        ports.refuse_fixed_batch(&encoder.images, &[1])?;
        ports.refuse_fixed_size(&encoder.images)?;
        Ok(encoder)
    }
}

impl Ports {
    fn input(&self, names: &[&str], dtypes: &[Dtype], ranks: &[usize]) -> Result<Port, Error> {
        let port = find(&self.inputs, names).ok_or_else(|| self.missing("input", names, &self.inputs))?;
        self.check(port, dtypes, ranks)
    }

    fn optional(&self, names: &[&str], dtypes: &[Dtype]) -> Result<Option<Port>, Error> {
        let port = find(&self.inputs, names);
        port.map(|port| self.check(port, dtypes, &[2])).transpose()
    }

    fn output(&self, names: &[&str], dtypes: &[Dtype], rank: usize) -> Result<Port, Error> {
        // A part with a single output has no other meaning, whatever its name is.
        let only = if self.outputs.len() == 1 {
            self.outputs.first()
        } else {
            None
        };
        let port = find(&self.outputs, names).or(only);
        let port = port.ok_or_else(|| self.missing("output", names, &self.outputs))?;
        // Some exporters leave out the shape of outputs, or get it wrong; what comes out is checked when it comes.
        let ranks = if port.dims.is_empty() { [0] } else { [rank] };
        self.check(port, dtypes, &ranks)
    }

    fn check(&self, port: &Port, dtypes: &[Dtype], ranks: &[usize]) -> Result<Port, Error> {
        if !port.dtype.is_some_and(|dtype| dtypes.contains(&dtype)) {
            return Err(self.error(&format!(
                "{} is {:?}, expected one of {dtypes:?}",
                port.name, port.dtype
            )));
        }
        if !ranks.contains(&port.dims.len()) {
            return Err(self.error(&format!(
                "{} has the shape {:?}, expected rank {ranks:?}",
                port.name, port.dims
            )));
        }
        Ok(port.clone())
    }

    fn refuse_others(&self, known: &[&[&str]]) -> Result<(), Error> {
        let is_known = |name: &str| known.iter().any(|names| names.contains(&name));
        let Some(other) = self.inputs.iter().find(|port| !is_known(&port.name)) else {
            return Ok(());
        };
        let kind = FOREIGN
            .iter()
            .find(|(name, _)| other.name.starts_with(name))
            .map(|(_, kind)| *kind);
        Err(self.error(&match kind {
            Some(kind) => format!("it has the input {}: {kind}, which is not served", other.name),
            None => format!(
                "it has the input {}, which no model of the Stable Diffusion 1, 2 or XL family has",
                other.name
            ),
        }))
    }

    /// Refuses a batch that is fixed, unless at one of `served`.
    fn refuse_fixed_batch(&self, port: &Port, served: &[i64]) -> Result<(), Error> {
        match port.dims[0] {
            -1 => Ok(()),
            fixed if served.contains(&fixed) => Ok(()),
            fixed => Err(self.error(&format!(
                "{} has a fixed batch of {fixed}; export the model with a dynamic batch",
                port.name
            ))),
        }
    }

    fn refuse_fixed_size(&self, port: &Port) -> Result<(), Error> {
        match port.dims[2..] {
            [-1, -1] => Ok(()),
            ref fixed => Err(self.error(&format!(
                "{} has the fixed height and width {fixed:?} (-1 is open); export the model with dynamic height and width",
                port.name
            ))),
        }
    }

    fn missing(&self, what: &str, names: &[&str], ports: &[Port]) -> Error {
        let has: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
        self.error(&format!(
            "it has no {what} {}; it has {}",
            names.join(" or "),
            has.join(", ")
        ))
    }

    fn error(&self, why: &str) -> Error {
        Error::Model {
            part: self.part,
            why: why.to_owned(),
        }
    }
}

fn find<'a>(ports: &'a [Port], names: &[&str]) -> Option<&'a Port> {
    names
        .iter()
        .find_map(|name| ports.iter().find(|port| port.name == *name))
}

#[cfg(test)]
mod tests;
