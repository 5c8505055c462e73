//! One small run of every network of an engine: what it gives must be numbers, and fit the next network.
//!
//! A model passes it before it serves, before `prepare` says that it can be served, and after a run failed. It mends nothing.

use std::sync::Arc;

use mobula_diffusion::is_finite;

use super::{Batch, Condition, Encoded, Engine, Error, Moments};

/// Refuses values that are no numbers, of which no picture can be made.
pub(crate) fn finite(part: &'static str, values: &[f32]) -> Result<(), Error> {
    if is_finite(values) {
        return Ok(());
    }
    let why = "it gives values that are not finite (NaN or infinity): its weights are damaged, or too large for float16, \
               which an export in float32 mends"
        .to_owned();
    Err(Error::Run { part, why })
}

/// Runs every network that there is once, on a picture of this many pixels.
///
/// # Errors
/// [`Error::Run`] naming the network that fails or gives values that are not finite.
pub(crate) fn trial(engine: &mut dyn Engine, width: usize, height: usize) -> Result<(), Error> {
    let info = engine.info().clone();
    let shape = info.latents(width, height);
    // What the networks before it would have given, for those that are alone.
    let mut encoded = Encoded {
        states: vec![0.0; info.states()],
        pooled: vec![0.0; info.pooled],
    };
    let mut latents = vec![0.0; shape.values()];
    let mut planes = vec![0.0; 3 * width * height];
    if info.stages.encode_text {
        engine.encode(&vec![0; info.ids()], 0, &mut encoded)?;
        finite("text_encoder", &encoded.states)?;
        finite("text_encoder_2", &encoded.pooled)?;
    }
    let condition = Arc::new(Condition {
        states: encoded.states.into(),
        pooled: encoded.pooled.into(),
        time_ids: vec![width as f32; info.time_ids].into(),
        guidance: vec![0.0; info.guidance].into(),
    });
    if info.stages.denoise {
        let mut batch = Batch::new(&info);
        batch.reset(shape, info.window);
        for _ in 0..2 {
            batch.push(500.0, &condition)?;
        }
        engine.denoise(&mut batch)?;
        finite("unet", batch.output(0))?;
        latents = batch.output(0).to_vec();
    }
    if info.stages.decode {
        engine.decode(&latents, shape, &mut planes)?;
        finite("vae_decoder", &planes)?;
    }
    if info.stages.encode && info.encodes_images {
        let mut moments = Moments::default();
        engine.encode_images(&planes, width, height, &mut moments)?;
        finite("vae_encoder", &moments.mean)?;
        finite("vae_encoder", &moments.deviation)?;
    }
    Ok(())
}
