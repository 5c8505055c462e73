//! The rows of one UNet call, in buffers that are kept from call to call.
//!
//! It gathers; it decides nothing. Invariant: the buffers always hold whole rows, and a steady batch allocates nothing.

use std::sync::Arc;

use super::{Condition, Error, Info};

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
        self.channels * self.positions()
    }

    /// Latent positions.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.height * self.width
    }
}

/// The rows of one UNet call.
#[derive(Debug)]
pub struct Batch {
    info: Info,
    shape: Shape,
    tokens: usize,
    rows: usize,
    samples: Vec<f32>,
    timesteps: Vec<f32>,
    states: Vec<f32>,
    pooled: Vec<f32>,
    time_ids: Vec<f32>,
    guidance: Vec<f32>,
    /// Which condition is in each place, so that a row that stays where it was is not copied again.
    present: Vec<Option<Arc<Condition>>>,
    outputs: Vec<f32>,
}

impl Batch {
    /// Makes an empty batch for models like `info`.
    #[must_use]
    pub fn new(info: &Info) -> Self {
        Self {
            info: info.clone(),
            shape: Shape {
                channels: info.channels,
                height: 0,
                width: 0,
            },
            tokens: info.window,
            rows: 0,
            samples: Vec::new(),
            timesteps: Vec::new(),
            states: Vec::new(),
            pooled: Vec::new(),
            time_ids: Vec::new(),
            guidance: Vec::new(),
            present: Vec::new(),
            outputs: Vec::new(),
        }
    }

    /// Empties it for rows of `shape` with prompts of so many tokens; memory and unchanged conditions stay.
    pub fn reset(&mut self, shape: Shape, tokens: usize) {
        self.shape = shape;
        if tokens != self.tokens {
            self.tokens = tokens;
            self.present.clear();
        }
        self.rows = 0;
        self.samples.clear();
        self.timesteps.clear();
        self.outputs.clear();
    }

    /// Adds a row and returns where its sample goes (`[input_channels, height, width]`, zeros until written).
    ///
    /// # Errors
    /// [`Error::Contract`] when the condition is not one of this model, or has another number of tokens than the batch.
    pub fn push(&mut self, timestep: f32, condition: &Arc<Condition>) -> Result<&mut [f32], Error> {
        let place = self.rows;
        let same = self
            .present
            .get(place)
            .and_then(Option::as_ref)
            .is_some_and(|present| Arc::ptr_eq(present, condition));
        if !same {
            let got = condition.tokens(&self.info)?;
            if got != self.tokens {
                return Err(Error::Contract {
                    what: "tokens of a prompt",
                    got,
                    expected: self.tokens,
                });
            }
            let Condition {
                states,
                pooled,
                time_ids,
                guidance,
            } = &**condition;
            put(&mut self.states, place, states);
            put(&mut self.pooled, place, pooled);
            put(&mut self.time_ids, place, time_ids);
            put(&mut self.guidance, place, guidance);
            if self.present.len() <= place {
                self.present.resize(place + 1, None);
            }
            self.present[place] = Some(Arc::clone(condition));
        }
        self.rows += 1;
        self.timesteps.push(timestep);
        let values = self.input_values();
        self.samples.resize(self.rows * values, 0.0);
        Ok(&mut self.samples[place * values..])
    }

    /// Adds copies of the first row until there are so many; their outputs are nobody's.
    ///
    /// # Errors
    /// As [`Batch::push`].
    pub fn fill_up(&mut self, rows: usize) -> Result<(), Error> {
        let Some(condition) = self.present.first().and_then(Clone::clone) else {
            return Ok(());
        };
        let values = self.input_values();
        while self.rows > 0 && self.rows < rows {
            let timestep = self.timesteps[0];
            self.push(timestep, &condition)?;
            let end = self.samples.len() - values;
            self.samples.copy_within(..values, end);
        }
        Ok(())
    }

    /// Shape of each row's latents.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// `[rows, input_channels, height, width]` of the samples.
    #[must_use]
    pub fn input_shape(&self) -> [usize; 4] {
        let channels = self.info.input_channels;
        [self.rows, channels, self.shape.height, self.shape.width]
    }

    fn input_values(&self) -> usize {
        self.info.input_channels * self.shape.positions()
    }

    /// Tokens of each row's prompt.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Rows in it.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Rows by [`Batch::input_shape`].
    #[must_use]
    pub fn samples(&self) -> &[f32] {
        &self.samples
    }

    /// `[rows]`.
    #[must_use]
    pub fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    /// `[rows, tokens, width]`.
    #[must_use]
    pub fn states(&self) -> &[f32] {
        &self.states[..self.rows * self.tokens * self.info.width]
    }

    /// `[rows, pooled]`.
    #[must_use]
    pub fn pooled(&self) -> &[f32] {
        &self.pooled[..self.rows * self.info.pooled]
    }

    /// `[rows, time_ids]`.
    #[must_use]
    pub fn time_ids(&self) -> &[f32] {
        &self.time_ids[..self.rows * self.info.time_ids]
    }

    /// `[rows, guidance]`.
    #[must_use]
    pub fn guidance(&self) -> &[f32] {
        &self.guidance[..self.rows * self.info.guidance]
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

    /// Lets go of conditions that nobody else holds, so that an idle engine does not keep the text of past requests.
    pub fn forget(&mut self) {
        self.present.clear();
        for kept in [
            &mut self.states,
            &mut self.pooled,
            &mut self.time_ids,
            &mut self.guidance,
            &mut self.samples,
            &mut self.outputs,
        ] {
            *kept = Vec::new();
        }
        self.rows = 0;
        self.timesteps.clear();
    }

    /// Refuses a batch that was made for another model, or that mixes timesteps where the model cannot.
    pub(crate) fn check(&self, info: &Info) -> Result<(), Error> {
        for (what, got, expected) in [
            ("latent channels", self.shape.channels, info.channels),
            ("input channels", self.info.input_channels, info.input_channels),
            ("text states", self.info.states(), info.states()),
            ("pooled text", self.info.pooled, info.pooled),
            ("time ids", self.info.time_ids, info.time_ids),
            ("guidance embedding", self.info.guidance, info.guidance),
        ] {
            if got != expected {
                return Err(Error::Contract { what, got, expected });
            }
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

/// Puts one row's values into their place.
fn put(all: &mut Vec<f32>, place: usize, values: &[f32]) {
    let length = values.len();
    if all.len() < (place + 1) * length {
        all.resize((place + 1) * length, 0.0);
    }
    all[place * length..][..length].copy_from_slice(values);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fake;

    fn info() -> Info {
        Info {
            window: 2,
            width: 3,
            channels: 1,
            input_channels: 1,
            mixed_timesteps: false,
            ..fake::info()
        }
    }

    fn condition(value: f32, states: usize) -> Arc<Condition> {
        let none: Arc<[f32]> = Arc::default();
        Arc::new(Condition {
            states: vec![value; states].into(),
            pooled: Arc::clone(&none),
            time_ids: Arc::clone(&none),
            guidance: none,
        })
    }

    #[test]
    fn conditions_that_stay_in_place_are_not_copied_again_and_new_ones_are() {
        let (a, b) = (condition(1.0, 6), condition(2.0, 6));
        let info = info();
        let shape = info.latents(16, 8);
        let mut batch = Batch::new(&info);
        batch.reset(shape, 2);
        batch.push(1.0, &a).unwrap().copy_from_slice(&[5.0, 6.0]);
        batch.push(1.0, &b).unwrap();
        assert_eq!(batch.samples(), [5.0, 6.0, 0.0, 0.0]);
        batch.reset(shape, 2);
        batch.push(2.0, &b).unwrap();
        assert_eq!((batch.rows(), batch.states()), (1, &[2.0; 6][..]));
        assert_eq!(batch.samples(), [0.0, 0.0]);
        batch.push(2.0, &b).unwrap();
        assert_eq!(batch.states(), [2.0; 12]);
    }

    #[test]
    fn prompts_of_another_length_are_copied_anew() {
        let info = info();
        let shape = info.latents(8, 8);
        let (short, long) = (condition(1.0, 6), condition(2.0, 12));
        let mut batch = Batch::new(&info);
        for (condition, tokens, expected) in [(&short, 2, 1.0), (&long, 4, 2.0), (&short, 2, 1.0)] {
            batch.reset(shape, tokens);
            for _ in 0..2 {
                batch.push(1.0, condition).unwrap();
            }
            assert_eq!(batch.states(), vec![expected; 2 * 3 * tokens]);
        }
        batch.reset(shape, 2);
        assert!(batch.push(1.0, &long).is_err());
    }

    #[test]
    fn mixed_timesteps_and_foreign_states_are_refused() {
        let info = info();
        let mut batch = Batch::new(&info);
        batch.reset(info.latents(8, 8), 2);
        assert!(batch.push(1.0, &condition(0.0, 5)).is_err());
        let condition = condition(0.0, 6);
        batch.push(1.0, &condition).unwrap();
        assert!(batch.check(&info).is_ok());
        batch.push(2.0, &condition).unwrap();
        assert!(batch.check(&info).is_err());
        let mixed = Info {
            mixed_timesteps: true,
            ..info
        };
        assert!(batch.check(&mixed).is_ok());
    }
}
