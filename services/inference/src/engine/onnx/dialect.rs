//! The dialects of exported models: what exporters call the inputs and outputs of each part.
//!
//! Names, dtypes and ranks are read from the model and matched against the tables here; nothing about a model is assumed.
//! What a part needs beyond the tables is refused with words that say which kind of model it is. It runs nothing.

use super::super::Error;

/// Element types that parts may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dtype {
    F32,
    F16,
    I64,
    I32,
}

/// One input or output as the model declares it.
#[derive(Debug, Clone)]
pub(crate) struct Port {
    pub(crate) name: String,
    /// `None` for a type that no part may have.
    pub(crate) dtype: Option<Dtype>,
    /// Dimensions; -1 where the model leaves it open.
    pub(crate) dims: Vec<i64>,
}

/// What a part takes and gives.
#[derive(Debug, Clone)]
pub(crate) struct Ports {
    /// For errors: `text_encoder`, `unet`, `vae_decoder`.
    pub(crate) part: &'static str,
    pub(crate) inputs: Vec<Port>,
    pub(crate) outputs: Vec<Port>,
}

/// The text encoder's ports.
#[derive(Debug, Clone)]
pub(crate) struct TextEncoder {
    pub(crate) ids: Port,
    pub(crate) states: Port,
}

/// The UNet's ports.
#[derive(Debug, Clone)]
pub(crate) struct Unet {
    pub(crate) sample: Port,
    pub(crate) timestep: Port,
    pub(crate) states: Port,
    pub(crate) output: Port,
}

/// The VAE decoder's ports.
#[derive(Debug, Clone)]
pub(crate) struct Decoder {
    pub(crate) latents: Port,
    pub(crate) images: Port,
}

// Who uses which name: the first of each list is Optimum's and the diffusers conversion script's, the others are those of
// ONNX Runtime's and Olive's Stable Diffusion examples.
const IDS: &[&str] = &["input_ids"];
const TEXT_STATES: &[&str] = &["last_hidden_state", "text_embeddings"];
const SAMPLE: &[&str] = &["sample"];
const TIMESTEP: &[&str] = &["timestep"];
const UNET_STATES: &[&str] = &["encoder_hidden_states"];
const UNET_OUTPUT: &[&str] = &["out_sample", "latent"];
const LATENTS: &[&str] = &["latent_sample", "latent"];
const IMAGES: &[&str] = &["sample", "images"];

const INTEGER: &[Dtype] = &[Dtype::I64, Dtype::I32];
const REAL: &[Dtype] = &[Dtype::F32, Dtype::F16];
const ANY: &[Dtype] = &[Dtype::F32, Dtype::F16, Dtype::I64, Dtype::I32];

/// Inputs that other kinds of models have, and what they are called.
const FOREIGN: [(&str, &str); 7] = [
    ("text_embeds", "a Stable Diffusion XL model"),
    ("time_ids", "a Stable Diffusion XL model"),
    (
        "timestep_cond",
        "a latent consistency model with guidance embedding",
    ),
    ("pooled_projections", "a Stable Diffusion 3 or Flux model"),
    ("class_labels", "a model with class conditioning"),
    ("down_block_0", "a UNet for ControlNet"),
    ("attention_mask", "a text encoder with attention mask"),
];

impl TextEncoder {
    /// Matches the text encoder's ports.
    pub(crate) fn of(ports: &Ports) -> Result<Self, Error> {
        ports.refuse_others(&[IDS])?;
        let text = Self {
            ids: ports.input(IDS, INTEGER, &[2])?,
            states: ports.output(TEXT_STATES, REAL, 3)?,
        };
        ports.refuse_fixed_batch(&text.ids, &[1])?;
        Ok(text)
    }
}

impl Unet {
    /// Matches the UNet's ports; `timestep` may have rank 0 or 1.
    pub(crate) fn of(ports: &Ports) -> Result<Self, Error> {
        ports.refuse_others(&[SAMPLE, TIMESTEP, UNET_STATES])?;
        let unet = Self {
            sample: ports.input(SAMPLE, REAL, &[4])?,
            timestep: ports.input(TIMESTEP, ANY, &[0, 1])?,
            states: ports.input(UNET_STATES, REAL, &[3])?,
            output: ports.output(UNET_OUTPUT, REAL, 4)?,
        };
        ports.refuse_fixed_batch(&unet.sample, &[])?;
        ports.refuse_fixed_size(&unet.sample)?;
        match unet.sample.dims[1] {
            -1 | 4 => Ok(unet),
            9 => Err(ports.error("its sample has 9 channels: an inpainting model, which is not served")),
            8 => Err(ports.error("its sample has 8 channels: an InstructPix2Pix model, which is not served")),
            other => Err(ports.error(&format!("its sample has {other} channels, expected 4"))),
        }
    }
}

impl Decoder {
    /// Matches the VAE decoder's ports.
    pub(crate) fn of(ports: &Ports) -> Result<Self, Error> {
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

impl Ports {
    fn input(&self, names: &[&str], dtypes: &[Dtype], ranks: &[usize]) -> Result<Port, Error> {
        let port = find(&self.inputs, names).ok_or_else(|| self.missing("input", names, &self.inputs))?;
        self.check(port, dtypes, ranks)
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
                "it has the input {}, which no known kind of Stable Diffusion 1 or 2 model has",
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
mod tests {
    use super::*;

    fn port(name: &str, dtype: Dtype, dims: &[i64]) -> Port {
        Port {
            name: name.to_owned(),
            dtype: Some(dtype),
            dims: dims.to_vec(),
        }
    }

    fn unet(sample: &[i64], timestep: Port, output: &str) -> Ports {
        Ports {
            part: "unet",
            inputs: vec![
                port("sample", Dtype::F32, sample),
                timestep,
                port("encoder_hidden_states", Dtype::F32, &[-1, -1, 768]),
            ],
            outputs: vec![port(output, Dtype::F32, &[-1, 4, -1, -1])],
        }
    }

    #[test]
    fn all_three_dialects_of_a_unet_match() {
        for (timestep, output) in [
            (port("timestep", Dtype::F32, &[]), "out_sample"),
            (port("timestep", Dtype::I64, &[-1]), "out_sample"),
            (port("timestep", Dtype::F16, &[1]), "latent"),
        ] {
            let matched = Unet::of(&unet(&[-1, 4, -1, -1], timestep, output)).unwrap();
            assert_eq!(matched.output.name, output);
        }
    }

    #[test]
    fn models_of_other_kinds_are_refused_by_name() {
        let timestep = port("timestep", Dtype::F32, &[]);
        let mut xl = unet(&[-1, 4, -1, -1], timestep.clone(), "out_sample");
        xl.inputs.push(port("text_embeds", Dtype::F32, &[-1, 1280]));
        assert!(
            Unet::of(&xl)
                .unwrap_err()
                .to_string()
                .contains("Stable Diffusion XL")
        );
        let inpaint = unet(&[-1, 9, -1, -1], timestep.clone(), "out_sample");
        assert!(Unet::of(&inpaint).unwrap_err().to_string().contains("inpainting"));
        let fixed = unet(&[2, 4, 64, 64], timestep, "out_sample");
        assert!(
            Unet::of(&fixed)
                .unwrap_err()
                .to_string()
                .contains("fixed batch of 2")
        );
        let timestep = port("timestep", Dtype::F32, &[]);
        let still = unet(&[-1, 4, 64, -1], timestep, "out_sample");
        assert!(
            Unet::of(&still)
                .unwrap_err()
                .to_string()
                .contains("height and width [64, -1]")
        );
    }

    #[test]
    fn a_part_in_the_wrong_folder_is_refused_with_what_it_has() {
        let decoder = Ports {
            part: "vae_decoder",
            inputs: vec![port("latent", Dtype::F32, &[-1, 4, -1, -1])],
            outputs: vec![port("sample", Dtype::F32, &[-1, 3, -1, -1])],
        };
        assert!(Decoder::of(&decoder).is_ok());
        let text = TextEncoder::of(&decoder).unwrap_err().to_string();
        assert!(text.contains("vae_decoder") && text.contains("latent"), "{text}");
        let wrong = Ports {
            inputs: vec![port("input_ids", Dtype::F32, &[-1, -1])],
            ..decoder
        };
        assert!(
            TextEncoder::of(&wrong)
                .unwrap_err()
                .to_string()
                .contains("input_ids is Some(F32)")
        );
    }
}
