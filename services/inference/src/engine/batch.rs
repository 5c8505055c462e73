//! The rows of one UNet call, in buffers that are kept from call to call.
//!
//! It gathers; it decides nothing. Invariant: the buffers always hold whole rows, and a steady batch allocates nothing.

use std::sync::Arc;

use super::{Error, Info};

/// Shape of one picture's latents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shape {
    /// Channels.
    pub channels: usize,
    /// Rows of latent positions.
    pub height: usize,
    /// Columns of latent positions.
    pub width: usize,
}

impl Shape {
    /// Values in all.
    #[must_use]
    pub fn values(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Height and width in one number, for grouping.
    #[must_use]
    pub fn key(&self) -> u64 {
        ((self.height as u64) << 32) | self.width as u64
    }
}

/// The rows of one UNet call.
#[derive(Debug)]
pub struct Batch {
    shape: Shape,
    /// Token positions and width of the text states.
    window: [usize; 2],
    rows: usize,
    samples: Vec<f32>,
    timesteps: Vec<f32>,
    states: Vec<f32>,
    /// Which states are in each place of `states`, so that a row that stays where it was is not copied again.
    present: Vec<Option<Arc<[f32]>>>,
    outputs: Vec<f32>,
}

impl Batch {
    /// Makes an empty batch for models like `info`.
    #[must_use]
    pub fn new(info: &Info) -> Self {
        Self {
            shape: Shape {
                channels: info.channels,
                height: 0,
                width: 0,
            },
            window: [info.window, info.width],
            rows: 0,
            samples: Vec::new(),
            timesteps: Vec::new(),
            states: Vec::new(),
            present: Vec::new(),
            outputs: Vec::new(),
        }
    }

    /// Empties it for rows of `shape`; memory and unchanged states stay.
    pub fn reset(&mut self, shape: Shape) {
        self.shape = shape;
        self.rows = 0;
        self.samples.clear();
        self.timesteps.clear();
        self.outputs.clear();
    }

    /// Adds a row and returns where its sample goes (`[channels, height, width]`, zeros until written).
    ///
    /// # Errors
    /// [`Error::Contract`] when `states` is not one window's states.
    pub fn push(&mut self, timestep: f32, states: &Arc<[f32]>) -> Result<&mut [f32], Error> {
        let length = self.states_len();
        if states.len() != length {
            return Err(Error::Contract {
                what: "text states",
                got: states.len(),
                expected: length,
            });
        }
        let place = self.rows;
        if self.present.len() == place {
            self.present.push(None);
            self.states.resize((place + 1) * length, 0.0);
        }
        let same = self.present[place]
            .as_ref()
            .is_some_and(|present| Arc::ptr_eq(present, states));
        if !same {
            self.states[place * length..][..length].copy_from_slice(states);
            self.present[place] = Some(Arc::clone(states));
        }
        self.rows += 1;
        self.timesteps.push(timestep);
        let values = self.shape.values();
        self.samples.resize(self.rows * values, 0.0);
        Ok(&mut self.samples[place * values..])
    }

    /// Shape of each row's sample.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Token positions and width of each row's text states.
    #[must_use]
    pub fn window(&self) -> [usize; 2] {
        self.window
    }

    fn states_len(&self) -> usize {
        self.window[0] * self.window[1]
    }

    /// Rows in it.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// `[rows, channels, height, width]`.
    #[must_use]
    pub fn samples(&self) -> &[f32] {
        &self.samples
    }

    /// `[rows]`.
    #[must_use]
    pub fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    /// `[rows, window, width]`.
    #[must_use]
    pub fn states(&self) -> &[f32] {
        &self.states[..self.rows * self.states_len()]
    }

    /// Where an engine puts its output, `[rows, channels, height, width]`; empty before.
    pub fn outputs_mut(&mut self) -> &mut Vec<f32> {
        &mut self.outputs
    }

    /// One row's output.
    ///
    /// # Panics
    /// When no engine has filled the outputs of that row.
    #[must_use]
    pub fn output(&self, row: usize) -> &[f32] {
        let values = self.shape.values();
        &self.outputs[row * values..][..values]
    }

    /// Lets go of states that nobody else holds, so that an idle engine does not keep the text of past requests.
    pub fn forget(&mut self) {
        self.present.clear();
        self.states.clear();
        self.reset(Shape {
            height: 0,
            width: 0,
            ..self.shape
        });
    }

    /// Refuses a batch that was made for another model, or that mixes timesteps where the model cannot.
    pub(crate) fn check(&self, info: &Info) -> Result<(), Error> {
        if self.shape.channels != info.channels {
            return Err(Error::Contract {
                what: "latent channels",
                got: self.shape.channels,
                expected: info.channels,
            });
        }
        if self.window != [info.window, info.width] {
            return Err(Error::Contract {
                what: "text states",
                got: self.states_len(),
                expected: info.states(),
            });
        }
        let mixed = self
            .timesteps
            .windows(2)
            .filter(|pair| pair[0].to_bits() != pair[1].to_bits())
            .count();
        if mixed > 0 && !info.mixed_timesteps {
            return Err(Error::Contract {
                what: "different timesteps",
                got: mixed + 1,
                expected: 1,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: Info = Info {
        window: 2,
        vocabulary: 9,
        width: 3,
        channels: 1,
        scale: 8,
        multiple: 8,
        mixed_timesteps: false,
    };

    #[test]
    fn states_that_stay_in_place_are_not_copied_again_and_new_ones_are() {
        let (a, b): (Arc<[f32]>, Arc<[f32]>) = (vec![1.0; 6].into(), vec![2.0; 6].into());
        let shape = INFO.latents(16, 8);
        let mut batch = Batch::new(&INFO);
        batch.reset(shape);
        batch.push(1.0, &a).unwrap().copy_from_slice(&[5.0, 6.0]);
        batch.push(1.0, &b).unwrap();
        assert_eq!(batch.samples(), [5.0, 6.0, 0.0, 0.0]);
        batch.reset(shape);
        batch.push(2.0, &b).unwrap();
        assert_eq!((batch.rows(), batch.states()), (1, &[2.0; 6][..]));
        assert_eq!(batch.samples(), [0.0, 0.0]);
        batch.push(2.0, &b).unwrap();
        assert_eq!(batch.states(), [2.0; 12]);
    }

    #[test]
    fn mixed_timesteps_and_foreign_states_are_refused() {
        let mut batch = Batch::new(&INFO);
        batch.reset(INFO.latents(8, 8));
        assert!(batch.push(1.0, &vec![0.0; 5].into()).is_err());
        let states = vec![0.0; 6].into();
        batch.push(1.0, &states).unwrap();
        assert!(batch.check(&INFO).is_ok());
        batch.push(2.0, &states).unwrap();
        assert!(batch.check(&INFO).is_err());
        assert!(
            batch
                .check(&Info {
                    mixed_timesteps: true,
                    ..INFO
                })
                .is_ok()
        );
    }
}
