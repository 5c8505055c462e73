//! The contract between the tick loop and what computes: [`Engine`], its buffers, and a conformance kit that every engine
//! passes.
//!
//! An engine runs networks and keeps nothing between calls. It does not schedule, sample, cache or encode pictures.

mod batch;
mod condition;
pub mod conformance;
pub mod fake;
pub mod onnx;
mod stages;
mod trial;

use std::sync::Arc;

pub use crate::error::Error;
pub use batch::{Batch, Shape};
pub use condition::Condition;
pub use stages::Stages;
pub(crate) use trial::{finite, trial};

/// One text encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoder {
    /// Token ids are below this; those of textual inversion embeddings are among them.
    pub vocabulary: u32,
    /// Width of its states.
    pub width: usize,
    /// Layers that `clip_skip` may leave out at most.
    pub layers: usize,
}

/// What an engine is, constant for its life.
#[derive(Debug, Clone, PartialEq)]
pub struct Info {
    /// Token ids in one window of text, the same for all encoders.
    pub window: usize,
    /// Text encoders in the order of their states: one, or two (Stable Diffusion XL).
    pub encoders: Vec<Encoder>,
    /// Width of the states that the UNet takes: the sum of the encoders' widths.
    pub width: usize,
    /// Values of a pooled text (`text_embeds` of Stable Diffusion XL); 0 where the model takes none.
    pub pooled: usize,
    /// Numbers about the size (`time_ids`): 6 for Stable Diffusion XL, 5 for its refiner, 0 where the model takes none.
    pub time_ids: usize,
    /// Values of the embedded guidance scale (`timestep_cond` of latent consistency models); 0 where the model takes none.
    pub guidance: usize,
    /// Channels of the latents.
    pub channels: usize,
    /// Channels of the UNet's input: those of the latents, or with mask and masked latents `2 * channels + 1`.
    pub input_channels: usize,
    /// Whether it has a VAE encoder.
    pub encodes_images: bool,
    /// The VAE's `scaling_factor`: latents are the VAE's values less `shift`, times this.
    pub scaling: f32,
    /// The VAE's `shift_factor`.
    pub shift: f32,
    /// Pixels per latent position, in each direction.
    pub scale: usize,
    /// Width and height of pictures must be multiples of this, pixels.
    pub multiple: usize,
    /// Whether rows of one call may stand at different timesteps.
    pub mixed_timesteps: bool,
    /// Who computes, as ONNX Runtime names it (`CPUExecutionProvider`).
    pub provider: String,
    /// Where kernels are chosen by the batch: strict rows run in calls that are filled up to this many. `None` on CPUs.
    pub bucket: Option<usize>,
    /// Sessions among which the rows of a UNet call are divided, each with its part of the threads; 1 where every call has all of
    /// them.
    pub lanes: usize,
    /// Threads that compute; 0 where they are not the engine's.
    pub threads: usize,
    /// What it has the networks of; calls of others are [`Error::NoStage`].
    pub stages: Stages,
}

impl Info {
    /// Values in the states of one window.
    #[must_use]
    pub fn states(&self) -> usize {
        self.window * self.width
    }

    /// Token ids of one window for all encoders.
    #[must_use]
    pub fn ids(&self) -> usize {
        self.window * self.encoders.len()
    }

    /// The latents of a picture of `width` by `height` pixels.
    #[must_use]
    pub fn latents(&self, width: usize, height: usize) -> Shape {
        Shape {
            channels: self.channels,
            height: height / self.scale,
            width: width / self.scale,
        }
    }

    /// By what name measurements are kept: they hold for who computes, and for how the cores are divided.
    #[must_use]
    pub fn computes(&self) -> String {
        computes(&self.provider, self.lanes, self.threads)
    }

    /// Layers that `clip_skip` may leave out of every encoder.
    #[must_use]
    pub fn max_clip_skip(&self) -> usize {
        self.encoders
            .iter()
            .map(|encoder| encoder.layers)
            .min()
            .unwrap_or(0)
    }
}

/// See [`Info::computes`].
pub(crate) fn computes(provider: &str, lanes: usize, threads: usize) -> String {
    match lanes {
        0 | 1 => provider.to_owned(),
        _ => format!("{provider}, {lanes} lanes of {}", (threads / lanes).max(1)),
    }
}

/// What text encoders make of windows.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Encoded {
    /// `[n, window, width]`, the encoders' states side by side.
    pub states: Vec<f32>,
    /// `[n, pooled]`; empty where the model takes none.
    pub pooled: Vec<f32>,
}

/// What a VAE encoder makes of pictures, in the VAE's own scale.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Moments {
    /// `[n, channels, height, width]`.
    pub mean: Vec<f32>,
    /// The same shape; empty where the export samples inside, so that `mean` is a sample.
    pub deviation: Vec<f32>,
}

/// How a decode went.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// Pictures, counted from 0, for which the model's own precision gave values that are not finite, so that float32 was used.
    /// The others of the call are not touched: a picture does not depend on its company.
    pub again: Vec<usize>,
}

/// Ends a running call from another thread.
pub trait Interrupt: Send + Sync {
    /// Makes the running call return [`Error::Interrupted`] at its next operator; without one it does nothing.
    fn interrupt(&self);
}

/// Runs the networks of one model.
///
/// The rules, each checked by [`conformance::check`]:
///
/// 1. **Rows are independent.** A row's output bytes do not depend on which other rows are in the call, how many, or where it
///    stands among them. This holds for windows in `encode` and pictures in `decode` too. "Same seed, same picture" rests on it.
/// 2. **Calls are independent.** The same input gives the same bytes at any time; nothing is remembered.
/// 3. **Timesteps are per row** when [`Info::mixed_timesteps`] says so; else a call with different timesteps is an error.
/// 4. **A wrong length is an error, not a panic**, it is found before anything runs, and the engine works on after it.
/// 5. **Outputs are complete and finite** for finite inputs, in f32, whatever the model computes in; except where the model
///    itself gives no numbers, in float32 neither: then those of that row or picture alone are not finite, and it is no error.
/// 6. **An empty call** (no window, no row, no picture) succeeds and gives nothing.
///
/// Calls come from one thread at a time and may take long; callers never make them on an async thread. A failed run of the
/// networks is [`Error::Run`]; a panic is taken as a failure of the engine for good.
pub trait Engine: Send {
    /// What this engine is.
    fn info(&self) -> &Info;

    /// Encodes windows of token ids, `[n, encoders, window]`, leaving out the encoders' last `clip_skip` layers as diffusers
    /// does (Stable Diffusion XL counts from the penultimate one). Fills `out` anew.
    ///
    /// # Errors
    /// [`Error::Contract`] when `ids` is no whole number of windows or `clip_skip` is above [`Info::max_clip_skip`];
    /// [`Error::Run`].
    fn encode(&mut self, ids: &[u32], clip_skip: usize, out: &mut Encoded) -> Result<(), Error>;

    /// Runs the UNet over all rows of a batch and fills its outputs.
    ///
    /// # Errors
    /// [`Error::Contract`] when the batch was made for another model or mixes timesteps where it must not; [`Error::Run`];
    /// [`Error::Interrupted`].
    fn denoise(&mut self, batch: &mut Batch) -> Result<(), Error>;

    /// Decodes finished latents, in the scale in which the UNet sees them: `latents` is `[n, channels, height, width]` of
    /// `shape`, `planes` becomes `[n, 3, height * scale, width * scale]` in [-1, 1] (not clamped).
    ///
    /// A picture for which the model gives no numbers, in float32 neither, has planes that are not finite; the others of the
    /// call are what they are without it. Callers look.
    ///
    /// # Errors
    /// [`Error::Contract`] when `latents` is no whole number of pictures; [`Error::Run`].
    fn decode(&mut self, latents: &[f32], shape: Shape, planes: &mut Vec<f32>) -> Result<Decoded, Error>;

    /// Encodes pictures, `[n, 3, height, width]` in [-1, 1]. Fills `out` anew. As in `decode`, a picture for which the model
    /// gives no numbers has moments that are not finite, and does nothing to the others.
    ///
    /// # Errors
    /// [`Error::Contract`] when `pixels` is no whole number of pictures or the model has no VAE encoder; [`Error::Run`].
    fn encode_images(
        &mut self,
        pixels: &[f32],
        width: usize,
        height: usize,
        out: &mut Moments,
    ) -> Result<(), Error>;

    /// Gives the memory of past large calls back to the system. Called when there is nothing to do.
    fn trim(&mut self) {}

    /// What ends a running call from another thread, where the engine can.
    fn interrupter(&self) -> Option<Arc<dyn Interrupt>> {
        None
    }
}

/// How many items of `each` values `got` is.
pub(crate) fn whole(what: &'static str, got: usize, each: usize) -> Result<usize, Error> {
    if each == 0 || !got.is_multiple_of(each) {
        return Err(Error::Contract {
            what,
            got,
            expected: each * (got / each.max(1)).max(1),
        });
    }
    Ok(got / each)
}
