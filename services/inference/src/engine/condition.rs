//! What a row of a UNet call is conditioned on, beside its latents and its timestep.

use std::sync::Arc;

use super::{Error, Info};

/// Conditioning of rows, made once for a prompt of a request. Slices are empty where the model takes none.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// `[tokens, width]`; tokens are whole windows.
    pub states: Arc<[f32]>,
    /// The pooled text, `[pooled]`.
    pub pooled: Arc<[f32]>,
    /// Numbers about the size, `[time_ids]`.
    pub time_ids: Arc<[f32]>,
    /// The embedded guidance scale, `[guidance]`.
    pub guidance: Arc<[f32]>,
}

impl Condition {
    /// Tokens of the states, if the condition fits a model; each length is checked.
    ///
    /// # Errors
    /// [`Error::Contract`] naming the part whose length is wrong.
    pub fn tokens(&self, info: &Info) -> Result<usize, Error> {
        let expect = |what, got, expected| {
            if got == expected {
                Ok(())
            } else {
                Err(Error::Contract { what, got, expected })
            }
        };
        let windows = super::whole("text states", self.states.len(), info.states())?;
        if windows == 0 {
            return Err(Error::Contract {
                what: "text states",
                got: 0,
                expected: info.states(),
            });
        }
        expect("pooled text", self.pooled.len(), info.pooled)?;
        expect("time ids", self.time_ids.len(), info.time_ids)?;
        expect("guidance embedding", self.guidance.len(), info.guidance)?;
        Ok(windows * info.window)
    }
}
