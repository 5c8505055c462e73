//! The engine that runs real models: ONNX Runtime sessions for text encoders, UNet, VAE decoder and VAE encoder.
//!
//! What a model is (names, dtypes, ranks, whether timesteps may differ, which sizes work, how wide the text is) is read from the
//! sessions or measured at load by small runs, and never assumed. Nothing outside this folder knows ONNX Runtime.
//!
//! Who computes is chosen in [`Setup`]. The CPU was run; the other execution providers are written and compiled, not run.

mod bound;
mod common;
mod decoder;
mod dialect;
mod edit;
mod encoder;
mod fused;
mod lanes;
mod library;
mod pictures;
mod provider;
mod report;
mod session;
mod setup;
mod signal;
mod staged;
mod text;
mod texts;
mod tiles;
mod unet;

use std::sync::Arc;

use mobula_embeddings::{Embeddings, Encoder as Which, Vocabulary};

use super::{Batch, Decoded, Encoded, Engine, Error, Info, Interrupt, Moments, Shape, Stages, whole};
use crate::model::{Division, Model};
use decoder::Decoder;
pub(crate) use edit::every as every_edit;
use encoder::Encoder;
pub use library::Runtime;
pub use report::{Part, PreparedUnet, family, parts, prepare_unet};
use session::Context;
pub use setup::Setup;
use signal::Signal;
use text::{Added, TextEncoders};
use texts::Texts;
use unet::{Unet, Widths};

/// The engine; see the module.
pub struct Onnx {
    info: Info,
    text: Option<TextEncoders>,
    unet: Option<Unet>,
    decoder: Option<Decoder>,
    encoder: Option<Encoder>,
    runtime: Runtime,
    setup: Setup,
    signal: Arc<Signal>,
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
    /// [`Error::Library`] without ONNX Runtime, [`Error::Option`] for an execution provider that cannot be had, [`Error::Model`] for
    /// a network that cannot be loaded or is not of a kind that is served, [`Error::Run`] when a first run fails.
    pub fn load(model: &Model, runtime: &Runtime, setup: &Setup) -> Result<Self, Error> {
        runtime.check()?;
        let signal = Arc::new(Signal::new(&setup.providers)?);
        let context = Context::new(runtime, setup, &signal);
        let stages = setup.stages;
        let wants = |wanted: bool| wanted.then_some(());
        let added = added(model)?;
        let text = wants(stages.encode_text)
            .map(|()| TextEncoders::load(model, &added, &context))
            .transpose()?;
        let texts = match &text {
            Some(text) => Texts::of(text),
            None if stages.denoise => Texts::configured(model, &added)?,
            // Nobody asks a VAE about texts.
            None => Texts::default(),
        };
        let decoder = wants(stages.decode)
            .map(|()| Decoder::load(model, &context))
            .transpose()?;
        let scale = decoder.as_ref().map_or(model.vae.scale, Decoder::scale);
        let encoder = wants(stages.encode && model.encodes_images)
            .map(|()| Encoder::load(model, scale, &context))
            .transpose()?;
        let widths = widths(model, &texts);
        let unet = wants(stages.denoise)
            .map(|()| Unet::load(model, widths, &context))
            .transpose()?;
        let (scaling, shift) = match model.vae.statistics {
            None => (model.vae.scaling, model.vae.shift),
            // The channels' means are taken from the VAE's values here.
            Some(_) => (model.vae.scaling, 0.0),
        };
        let info = Info {
            window: texts.window,
            encoders: texts.encoders,
            width: widths.states,
            pooled: widths.pooled,
            time_ids: widths.time_ids,
            guidance: widths.guidance,
            channels: unet::CHANNELS,
            input_channels: unet.as_ref().map_or(unet::CHANNELS, Unet::input_channels),
            encodes_images: encoder.is_some(),
            scaling,
            shift,
            scale,
            multiple: unet.as_ref().map_or(1, Unet::unit) * scale,
            mixed_timesteps: unet.as_ref().is_none_or(Unet::mixes_timesteps),
            provider: setup.providers.full_name().to_owned(),
            bucket: setup.providers.depends_on_batch().then_some(setup.bucket),
            lanes: unet.as_ref().map_or(1, Unet::lanes),
            threads: runtime.threads.max(1),
            stages,
        };
        tracing::info!(model = %model.folder().display(), ?info, "model is loaded");
        Ok(Self {
            info,
            text,
            unet,
            decoder,
            encoder,
            runtime: runtime.clone(),
            setup: setup.clone(),
            signal,
        })
    }

    /// Finds out how UNet calls are best divided among the cores, when that is neither asked for nor known. To be called before
    /// anything is measured, while nothing else computes.
    ///
    /// # Errors
    /// [`Error::Run`].
    pub fn settle(&mut self, model: &Model) -> Result<(), Error> {
        self.signal.begin();
        if let Some(unet) = &mut self.unet {
            unet.settle(model, &Context::new(&self.runtime, &self.setup, &self.signal))?;
            self.info.lanes = unet.lanes();
        }
        Ok(())
    }

    /// What [`Onnx::settle`] found out; none when there was nothing to find out.
    #[must_use]
    pub fn division(&self) -> Option<Division> {
        self.unet.as_ref()?.settled()
    }

    /// What it says when it is asked for a stage of which it has no network.
    fn lacks(&self, asked: Stages) -> Error {
        Error::NoStage {
            asked,
            has: self.info.stages,
        }
    }
}

/// What the UNet of a model takes beside sample and timestep.
fn widths(model: &Model, text: &Texts) -> Widths {
    Widths {
        window: text.window,
        states: text.encoders.iter().map(|encoder| encoder.width).sum(),
        pooled: if model.is_xl { text.pooled } else { 0 },
        time_ids: model.time_ids,
        guidance: model.guidance,
    }
}

/// The vectors of the textual inversions in the model's folder, for each encoder.
fn added(model: &Model) -> Result<Vec<Added>, Error> {
    let wrong = |error: mobula_embeddings::Error| Error::File {
        path: "embeddings".to_owned(),
        why: error.to_string(),
    };
    let embeddings = Embeddings::open(&model.folder().join("embeddings")).map_err(wrong)?;
    let mut all = Vec::with_capacity(model.encoders.len());
    for encoder in &model.encoders {
        let which = if encoder.part == "text_encoder" {
            Which::First
        } else {
            Which::Second
        };
        let mut added = Added::default();
        if !embeddings.is_empty() {
            let vocabulary = Vocabulary::of_model(model.folder(), which).map_err(wrong)?;
            added.width = vocabulary.width;
            for row in embeddings.rows(which, vocabulary).map_err(wrong)? {
                added.values.extend_from_slice(&row.vectors.values);
            }
        }
        all.push(added);
    }
    Ok(all)
}

/// What a session that is made later needs; a macro, because networks are borrowed beside it.
macro_rules! context {
    ($engine:expr) => {
        Context::new(&$engine.runtime, &$engine.setup, &$engine.signal)
    };
}

impl Engine for Onnx {
    fn info(&self) -> &Info {
        &self.info
    }

    fn encode(&mut self, ids: &[u32], clip_skip: usize, out: &mut Encoded) -> Result<(), Error> {
        let windows = whole("token ids", ids.len(), self.info.ids())?;
        let most = self.info.max_clip_skip();
        if clip_skip > most {
            return Err(Error::Contract {
                what: "clip_skip",
                got: clip_skip,
                expected: most,
            });
        }
        out.states.clear();
        out.pooled.clear();
        if windows == 0 {
            return Ok(());
        }
        self.signal.begin();
        let Some(text) = &mut self.text else {
            return Err(self.lacks(Stages::ENCODE_TEXT));
        };
        text.run(ids, clip_skip, out)?;
        if self.info.pooled == 0 {
            out.pooled.clear();
        }
        expect("text_encoder", out.states.len(), windows * self.info.states())?;
        expect("text_encoder_2", out.pooled.len(), windows * self.info.pooled)
    }

    fn denoise(&mut self, batch: &mut Batch) -> Result<(), Error> {
        batch.check(&self.info)?;
        if batch.rows() == 0 {
            return Ok(());
        }
        let Some(unet) = &mut self.unet else {
            return Err(self.lacks(Stages::DENOISE));
        };
        let mut outputs = std::mem::take(batch.outputs_mut());
        outputs.clear();
        self.signal.begin();
        let ran = unet.run(batch, &mut outputs);
        let got = outputs.len();
        *batch.outputs_mut() = outputs;
        ran?;
        expect("unet", got, batch.rows() * batch.shape().values())
    }

    fn decode(&mut self, latents: &[f32], shape: Shape, planes: &mut Vec<f32>) -> Result<Decoded, Error> {
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
            return Ok(Decoded::default());
        }
        self.signal.begin();
        let Some(decoder) = &mut self.decoder else {
            return Err(self.lacks(Stages::DECODE));
        };
        let decoded = decoder.run(latents, shape, &context!(self), planes)?;
        let pixels = shape.positions() * self.info.scale * self.info.scale;
        expect("vae_decoder", planes.len(), pictures * 3 * pixels)?;
        Ok(decoded)
    }

    fn encode_images(
        &mut self,
        pixels: &[f32],
        width: usize,
        height: usize,
        out: &mut Moments,
    ) -> Result<(), Error> {
        let scale = self.info.scale;
        for (what, side) in [("width", width), ("height", height)] {
            if side == 0 || !side.is_multiple_of(scale) {
                let expected = side.next_multiple_of(scale).max(scale);
                return Err(Error::Contract {
                    what,
                    got: side,
                    expected,
                });
            }
        }
        let pictures = whole("pixels", pixels.len(), 3 * width * height)?;
        out.mean.clear();
        out.deviation.clear();
        let Some(encoder) = &mut self.encoder else {
            return Err(Error::Contract {
                what: "pixels for a model without a VAE encoder",
                got: pixels.len(),
                expected: 0,
            });
        };
        if pictures == 0 {
            return Ok(());
        }
        self.signal.begin();
        encoder.run(pixels, (width, height), &context!(self), out)
    }

    fn trim(&mut self) {
        self.signal.begin();
        if let Some(text) = &mut self.text {
            text.trim();
        }
        if let Some(unet) = &mut self.unet {
            unet.trim();
        }
        if let Some(decoder) = &mut self.decoder {
            decoder.trim();
        }
        if let Some(encoder) = &mut self.encoder {
            encoder.trim();
        }
    }

    fn interrupter(&self) -> Option<Arc<dyn Interrupt>> {
        Some(Arc::clone(&self.signal) as Arc<dyn Interrupt>)
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
