//! Small runs that show what a UNet is: which sizes come back whole, and whether rows may stand at different timesteps.

use std::ops::Range;

use super::super::super::{Error, Shape, finite};
use super::super::session::Mode;
use super::{CHANNELS, Call, Form, PART, Unet};

/// Rows for a small run.
pub(super) struct Probe {
    shape: Shape,
    timesteps: Vec<f32>,
    /// Rows beside each other that have one sample.
    each: usize,
}

impl Probe {
    pub(super) fn new(shape: Shape, timesteps: &[f32]) -> Self {
        Self {
            shape,
            timesteps: timesteps.to_vec(),
            each: 1,
        }
    }

    /// As guidance has them: two rows of each picture.
    pub(super) fn of_pictures(shape: Shape, timesteps: &[f32]) -> Self {
        Self {
            each: 2,
            ..Self::new(shape, timesteps)
        }
    }
}

impl Unet {
    /// Finds the smallest unit of latent sizes that the network can draw: each of its levels halves the size, and exporters
    /// differ in whether odd sizes come back whole.
    pub(super) fn find_unit(&mut self, levels: u32) -> Result<(), Error> {
        let deepest = levels - 1;
        let mode = self.network.set_mode(Mode::Silent);
        let mut last = Error::Model {
            part: PART,
            why: "it draws no size".into(),
        };
        for level in 0..=deepest {
            self.unit = 1 << level;
            let shape = Shape {
                height: self.odd(deepest - level),
                width: self.odd(deepest - level),
                channels: CHANNELS,
            };
            // A form of timestep that is not known yet must not look like a wrong size: one row is right for all forms.
            match self.probe(&Probe::new(shape, &[501.0]), 0..1) {
                Ok(_) => {
                    self.network.set_mode(mode);
                    return Ok(());
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// A size that is a multiple of the unit and of nothing more, and can be halved so many times more.
    fn odd(&self, halvings: u32) -> usize {
        self.unit * ((1 << halvings) + 1)
    }

    /// The smallest size that tells rows apart.
    pub(super) fn smallest(&self) -> Shape {
        Shape {
            channels: CHANNELS,
            height: 2 * self.unit,
            width: 2 * self.unit,
        }
    }

    /// Finds out what a rank-1 timestep may hold.
    pub(super) fn find_form(&mut self) -> Result<(), Error> {
        if self.mixes().unwrap_or(false) {
            return Ok(());
        }
        let equal = Probe::new(self.smallest(), &[501.0; 2]);
        self.form = Form::Equal;
        if self.probe(&equal, 0..2).is_err() {
            self.form = Form::One;
            self.probe(&equal, 0..2)?;
        }
        tracing::warn!("the UNet takes one timestep per call: only rows of equal timesteps share calls");
        Ok(())
    }

    /// Whether rows at different timesteps give in one call what each gives alone.
    pub(super) fn mixes(&mut self) -> Result<bool, Error> {
        let probe = Probe::new(self.smallest(), &[900.0, 100.0, 501.0]);
        let together = self.probe(&probe, 0..3)?;
        let mut alone = Vec::new();
        for row in 0..3 {
            alone.extend(self.probe(&probe, row..row + 1)?);
        }
        Ok(self.same(&together, &alone))
    }

    /// Whether two runs gave the same: the very bits where kernels do not depend on the batch, else nearly the same numbers.
    pub(super) fn same(&self, a: &[u32], b: &[u32]) -> bool {
        if self.exact { a == b } else { near(a, b, NEAR) }
    }

    /// Runs some rows of a probe; returns the bits of the output, which must be numbers.
    pub(super) fn probe(&mut self, probe: &Probe, rows: Range<usize>) -> Result<Vec<u32>, Error> {
        let (count, values) = (rows.len(), CHANNELS * probe.shape.positions());
        let waves = self.waves(probe, rows);
        let mut out = Vec::new();
        let shape = self.call(&waves.call(), &mut out)?;
        if out.len() != count * values {
            return Err(Error::Run {
                part: PART,
                why: format!("its output has the shape {shape:?}"),
            });
        }
        finite(PART, &out)?;
        Ok(out.into_iter().map(f32::to_bits).collect())
    }

    /// The inputs of some rows of a probe.
    pub(super) fn waves(&self, probe: &Probe, rows: Range<usize>) -> Waves {
        let widths = self.widths;
        let positions = probe.shape.positions();
        // Every row's content depends on its number alone.
        let wave = |row: usize, length: usize| (0..length).map(move |i| (((row * 7 + i) as f32) * 0.7).sin());
        let all = |shift: usize, length: usize| -> Vec<f32> {
            rows.clone().flat_map(|row| wave(row + shift, length)).collect()
        };
        // Sizes as pictures have them: embedded as sines of large angles, other numbers would tell less.
        let time_ids = rows
            .clone()
            .flat_map(|row| (0..widths.time_ids).map(move |i| (64 * (row + i)) as f32));
        Waves {
            shape: probe.shape,
            tokens: widths.window,
            samples: rows
                .clone()
                .flat_map(|row| wave(row - row % probe.each, self.input_channels * positions))
                .collect(),
            timesteps: probe.timesteps[rows.clone()].to_vec(),
            states: all(9, widths.window * widths.states),
            pooled: all(5, widths.pooled),
            time_ids: time_ids.collect(),
            guidance: all(3, widths.guidance),
        }
    }
}

/// Inputs that are waves.
pub(super) struct Waves {
    shape: Shape,
    tokens: usize,
    samples: Vec<f32>,
    timesteps: Vec<f32>,
    states: Vec<f32>,
    pooled: Vec<f32>,
    time_ids: Vec<f32>,
    guidance: Vec<f32>,
}

impl Waves {
    pub(super) fn call(&self) -> Call<'_> {
        Call {
            shape: self.shape,
            tokens: self.tokens,
            samples: &self.samples,
            timesteps: &self.timesteps,
            states: &self.states,
            pooled: &self.pooled,
            time_ids: &self.time_ids,
            guidance: &self.guidance,
        }
    }
}

/// Kernels that depend on the batch differ by the order of their sums; float16 has 11 bits.
const NEAR: f32 = 2e-2;

/// Whether numbers, given as bits, are off by no more than a part of one more than their size.
pub(super) fn near(a: &[u32], b: &[u32], part: f32) -> bool {
    let value = |bits: &u32| f32::from_bits(*bits);
    let near = |(a, b): (&u32, &u32)| (value(a) - value(b)).abs() <= part * (1.0 + value(a).abs());
    a.len() == b.len() && a.iter().zip(b).all(near)
}
