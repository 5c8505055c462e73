//! The contract between the tick loop and what computes: [`Engine`], its buffers, and a conformance kit that every engine
//! passes.
//!
//! An engine runs networks and keeps nothing between calls. It does not schedule, sample, cache or encode pictures.

mod batch;
pub mod conformance;
pub mod fake;
pub mod onnx;

pub use crate::error::Error;
pub use batch::{Batch, Shape};

/// What an engine is, constant for its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Token ids in one window of text.
    pub window: usize,
    /// Token ids are below this.
    pub vocabulary: u32,
    /// Width of the text encoder's states.
    pub width: usize,
    /// Channels of the latents.
    pub channels: usize,
    /// Pixels per latent position, in each direction.
    pub scale: usize,
    /// Width and height of pictures must be multiples of this, pixels.
    pub multiple: usize,
    /// Whether rows of one call may stand at different timesteps.
    pub mixed_timesteps: bool,
}

impl Info {
    /// Values in the states of one window.
    #[must_use]
    pub fn states(&self) -> usize {
        self.window * self.width
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
}

/// Runs the three networks of one model.
///
/// The rules, each checked by [`conformance::check`]:
///
/// 1. **Rows are independent.** A row's output bytes do not depend on which other rows are in the call, how many, or where it
///    stands among them. This holds for windows in `encode` and pictures in `decode` too. "Same seed, same picture" rests on it.
/// 2. **Calls are independent.** The same input gives the same bytes at any time; nothing is remembered.
/// 3. **Timesteps are per row** when [`Info::mixed_timesteps`] says so; else a call with different timesteps is an error.
/// 4. **A wrong length is an error, not a panic**, it is found before anything runs, and the engine works on after it.
/// 5. **Outputs are complete and finite** for finite inputs, in f32, whatever the model computes in.
/// 6. **An empty call** (no window, no row, no picture) succeeds and gives nothing.
///
/// Calls come from one thread at a time and may take long; callers never make them on an async thread. A failed run of the
/// networks is [`Error::Run`]; a panic is taken as a failure of the engine for good.
pub trait Engine: Send {
    /// What this engine is.
    fn info(&self) -> &Info;

    /// Encodes windows of token ids: `ids` is `[n, window]`, `states` becomes `[n, window, width]`.
    ///
    /// # Errors
    /// [`Error::Contract`] when `ids` is no whole number of windows; [`Error::Run`].
    fn encode(&mut self, ids: &[u32], states: &mut Vec<f32>) -> Result<(), Error>;

    /// Runs the UNet over all rows of a batch and fills its outputs.
    ///
    /// # Errors
    /// [`Error::Contract`] when the batch was made for another model or mixes timesteps where it must not; [`Error::Run`].
    fn denoise(&mut self, batch: &mut Batch) -> Result<(), Error>;

    /// Decodes finished latents, in the scale in which the UNet sees them: `latents` is `[n, channels, height, width]` of
    /// `shape`, `planes` becomes `[n, 3, height * scale, width * scale]` in [-1, 1] (not clamped).
    ///
    /// # Errors
    /// [`Error::Contract`] when `latents` is no whole number of pictures; [`Error::Run`].
    fn decode(&mut self, latents: &[f32], shape: Shape, planes: &mut Vec<f32>) -> Result<(), Error>;
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
