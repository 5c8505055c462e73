//! The engine that runs real models: three ONNX Runtime sessions on the CPU.
//!
//! What a model is (names, dtypes, ranks, whether timesteps may differ, which sizes work, how wide the text is) is read from the
//! sessions or measured at load by small runs, and never assumed. Nothing outside this folder knows ONNX Runtime.

mod dialect;
mod library;
mod real;
mod session;
mod text;
mod timestep;
mod unet;
mod vae;
mod wire;

use super::{Batch, Engine, Error, Info, Shape, whole};
use crate::model::Model;
pub use library::Runtime;
use text::TextEncoder;
use unet::Unet;
use vae::Decoder;

/// The engine; see the module.
pub struct Onnx {
    info: Info,
    text: TextEncoder,
    unet: Unet,
    decoder: Decoder,
}

impl std::fmt::Debug for Onnx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Onnx")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

impl Onnx {
    /// Loads a model's networks and measures what they are.
    ///
    /// # Errors
    /// [`Error::Library`] without ONNX Runtime, [`Error::Model`] for a network that cannot be loaded or is not of a kind that is
    /// served, [`Error::Run`] when a first run fails.
    pub fn load(model: &Model, runtime: &Runtime) -> Result<Self, Error> {
        let mut text = TextEncoder::load(model, runtime)?;
        let width = text.measure_width()?;
        let mut decoder = Decoder::load(model, runtime)?;
        let scale = decoder.measure_scale()?;
        let unet = Unet::load(model, runtime, width)?;
        let info = Info {
            window: text.window(),
            vocabulary: model.vocabulary,
            width,
            channels: unet::CHANNELS,
            scale,
            multiple: unet.unit() * scale,
            mixed_timesteps: unet.mixes_timesteps(),
        };
        tracing::info!(model = %model.folder().display(), ?info, "model is loaded");
        Ok(Self {
            info,
            text,
            unet,
            decoder,
        })
    }
}

impl Engine for Onnx {
    fn info(&self) -> &Info {
        &self.info
    }

    fn encode(&mut self, ids: &[u32], states: &mut Vec<f32>) -> Result<(), Error> {
        let windows = whole("token ids", ids.len(), self.info.window)?;
        states.clear();
        if windows == 0 {
            return Ok(());
        }
        self.text.run(ids, windows, states)?;
        expect("text_encoder", states.len(), windows * self.info.states())
    }

    fn denoise(&mut self, batch: &mut Batch) -> Result<(), Error> {
        batch.check(&self.info)?;
        if batch.rows() == 0 {
            return Ok(());
        }
        let mut outputs = std::mem::take(batch.outputs_mut());
        outputs.clear();
        let ran = self.unet.run(batch, &mut outputs);
        let got = outputs.len();
        *batch.outputs_mut() = outputs;
        ran?;
        expect("unet", got, batch.rows() * batch.shape().values())
    }

    fn decode(&mut self, latents: &[f32], shape: Shape, planes: &mut Vec<f32>) -> Result<(), Error> {
        if shape.channels != self.info.channels {
            let (got, expected) = (shape.channels, self.info.channels);
            return Err(Error::Contract {
                what: "latent channels",
                got,
                expected,
            });
        }
        let pictures = whole("latents", latents.len(), shape.values())?;
        planes.clear();
        if pictures == 0 {
            return Ok(());
        }
        self.decoder.run(latents, pictures, shape, planes)?;
        let pixels = shape.height * shape.width * self.info.scale * self.info.scale;
        expect("vae_decoder", planes.len(), pictures * 3 * pixels)
    }
}

fn expect(part: &'static str, got: usize, expected: usize) -> Result<(), Error> {
    if got == expected {
        return Ok(());
    }
    Err(Error::Run {
        part,
        why: format!("it gave {got} values, expected {expected}"),
    })
}

#[cfg(test)]
mod tests;
