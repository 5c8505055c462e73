//! The UNet: finds out at load which form of timestep it takes and which sizes it can draw.
//!
//! A scalar timestep is made one per row by the edit in `timestep`, a whole one is made real by the edit in `real`, and the edited
//! network is used only when it gives the original's bytes on equal timesteps and, with one per row, each row's own bytes on
//! different ones. Where that fails, the original serves: rows of equal timesteps share a call, and timesteps are cut to whole ones.

use super::super::{Batch, Error, Shape};
use super::dialect::{self, Dtype};
use super::library::Runtime;
use super::real;
use super::session::{Input, Network, Values, Wanted};
use super::timestep;
use crate::model::Model;

const PART: &str = "unet";
/// Latent channels of Stable Diffusion 1 and 2.
pub(super) const CHANNELS: usize = 4;

/// How the network takes its timestep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// One number for all rows, rank 0.
    Scalar,
    /// One number for all rows, rank 1.
    One,
    /// A number per row, all equal.
    Equal,
    /// A number per row, each its own.
    Rows,
}

pub(super) struct Unet {
    network: Network,
    ports: dialect::Unet,
    wanted: Wanted,
    form: Form,
    unit: usize,
}

/// What is changed about the timestep.
#[derive(Debug, Clone, Copy)]
struct Edit {
    /// From a scalar to one per row.
    batched: bool,
    /// From a whole number to a real one.
    real: bool,
}

impl Edit {
    /// What is worth trying, best first.
    fn all(form: Form, dtype: Option<Dtype>) -> &'static [Self] {
        const fn edit(batched: bool, real: bool) -> Edit {
            Edit { batched, real }
        }
        let whole = matches!(dtype, Some(Dtype::I64 | Dtype::I32));
        match (form == Form::Scalar, whole) {
            (true, true) => const { &[edit(true, true), edit(true, false), edit(false, true)] },
            (true, false) => const { &[edit(true, false)] },
            (false, true) => const { &[edit(false, true)] },
            (false, false) => &[],
        }
    }
}

/// Rows for a small run.
struct Probe {
    shape: Shape,
    states: [usize; 2],
    timesteps: Vec<f32>,
}

impl Unet {
    /// Loads the network; `width` is that of the text encoder's states.
    pub(super) fn load(model: &Model, runtime: &Runtime, width: usize) -> Result<Self, Error> {
        let file = model.part(PART);
        let mut unet = Self::of(Network::from_file(PART, &file, runtime)?)?;
        unet.check_width(width)?;
        unet.find_unit(model, width)?;
        if unet.form != Form::Scalar {
            unet.find_form(model, width)?;
        }
        let form = unet.form;
        let edits = Edit::all(form, unet.ports.timestep.dtype);
        if edits.is_empty() {
            return Ok(unet);
        }
        let probe = Probe::new(unet.smallest(), model.window, width, &[501.0; 3]);
        let expected = unet.probe(&probe, 0..3)?;
        let unit = unet.unit;
        // Two large networks at once may be more than memory holds.
        drop(unet);
        for edit in edits {
            match Self::edited(model, runtime, *edit) {
                Ok(mut edited) => {
                    edited.form = if edit.batched { Form::Rows } else { form };
                    edited.unit = unit;
                    let mixes = edited.form != Form::Rows || edited.mixes(model, width)?;
                    if mixes && edited.probe(&probe, 0..3)? == expected {
                        return Ok(edited);
                    }
                    tracing::warn!(
                        ?edit,
                        "the UNet with its timestep edited differs from the original"
                    );
                }
                Err(why) => tracing::warn!(%why, ?edit, "the UNet's timestep cannot be edited"),
            }
        }
        tracing::warn!(
            "the UNet is used as it is: rows of equal timesteps share calls, or timesteps are whole numbers"
        );
        let mut unet = Self::of(Network::from_file(PART, &file, runtime)?)?;
        (unet.form, unet.unit) = (form, unit);
        Ok(unet)
    }

    /// Loads the network with its timestep edited.
    fn edited(model: &Model, runtime: &Runtime, edit: Edit) -> Result<Self, Error> {
        let refused = |why: timestep::Refused| Error::Model {
            part: PART,
            why: why.to_string(),
        };
        let file = model.part(PART);
        let mut bytes = std::fs::read(&file).map_err(|error| Error::File {
            path: format!("{PART}/model.onnx"),
            why: error.to_string(),
        })?;
        if edit.batched {
            bytes = timestep::batched(&bytes, "timestep", "sample").map_err(refused)?;
        }
        if edit.real {
            bytes = real::real(&bytes, "timestep").map_err(refused)?;
        }
        let folder = file.parent().unwrap_or_else(|| model.folder());
        Self::of(Network::from_memory(PART, &bytes, folder, runtime)?)
    }

    fn of(network: Network) -> Result<Self, Error> {
        let ports = dialect::Unet::of(&network.ports())?;
        let wanted = Wanted::new(PART, &ports.output)?;
        let form = if ports.timestep.dims.is_empty() {
            Form::Scalar
        } else {
            Form::Rows
        };
        Ok(Self {
            network,
            ports,
            wanted,
            form,
            unit: 1,
        })
    }

    /// Whether rows of one call may stand at different timesteps.
    pub(super) fn mixes_timesteps(&self) -> bool {
        self.form == Form::Rows
    }

    /// Height and width of latents must be multiples of this.
    pub(super) fn unit(&self) -> usize {
        self.unit
    }

    fn check_width(&self, width: usize) -> Result<(), Error> {
        match self.ports.states.dims[2] {
            -1 => Ok(()),
            wanted if wanted == width as i64 => Ok(()),
            wanted => {
                let why = format!("it takes text states of width {wanted}, the text encoder gives {width}");
                Err(Error::Model { part: PART, why })
            }
        }
    }

    /// Finds the smallest unit of latent sizes that the network can draw: each of its levels halves the size, and exporters
    /// differ in whether odd sizes come back whole.
    fn find_unit(&mut self, model: &Model, width: usize) -> Result<(), Error> {
        let deepest = model.levels - 1;
        let loud = std::mem::replace(&mut self.wanted, Wanted::quiet(PART, &self.ports.output)?);
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
            match self.probe(&Probe::new(shape, model.window, width, &[501.0]), 0..1) {
                Ok(_) => {
                    self.wanted = loud;
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
    fn smallest(&self) -> Shape {
        Shape {
            channels: CHANNELS,
            height: 2 * self.unit,
            width: 2 * self.unit,
        }
    }

    /// Finds out what a rank-1 timestep may hold.
    fn find_form(&mut self, model: &Model, width: usize) -> Result<(), Error> {
        if self.mixes(model, width).unwrap_or(false) {
            return Ok(());
        }
        let equal = Probe::new(self.smallest(), model.window, width, &[501.0; 2]);
        self.form = Form::Equal;
        if self.probe(&equal, 0..2).is_err() {
            self.form = Form::One;
            self.probe(&equal, 0..2)?;
        }
        tracing::warn!("the UNet takes one timestep per call: only rows of equal timesteps share calls");
        Ok(())
    }

    /// Whether rows at different timesteps give in one call what each gives alone.
    fn mixes(&mut self, model: &Model, width: usize) -> Result<bool, Error> {
        let probe = Probe::new(self.smallest(), model.window, width, &[900.0, 100.0, 501.0]);
        let together = self.probe(&probe, 0..3)?;
        let mut alone = Vec::new();
        for row in 0..3 {
            alone.extend(self.probe(&probe, row..row + 1)?);
        }
        Ok(together == alone)
    }

    /// Runs some rows of a probe; returns the bits of the output.
    fn probe(&mut self, probe: &Probe, rows: std::ops::Range<usize>) -> Result<Vec<u32>, Error> {
        let (values, states) = (probe.shape.values(), probe.states[0] * probe.states[1]);
        // Every row's content depends on its number alone.
        let wave = |row: usize, length: usize| (0..length).map(move |i| (((row * 7 + i) as f32) * 0.7).sin());
        let samples: Vec<f32> = rows.clone().flat_map(|row| wave(row, values)).collect();
        let texts: Vec<f32> = rows.clone().flat_map(|row| wave(row + 9, states)).collect();
        let call = Call {
            shape: probe.shape,
            states: probe.states,
            samples: &samples,
            timesteps: &probe.timesteps[rows],
            texts: &texts,
        };
        let mut out = Vec::new();
        let shape = self.call(&call, &mut out)?;
        if out.len() != samples.len() {
            return Err(Error::Run {
                part: PART,
                why: format!("its output has the shape {shape:?}"),
            });
        }
        Ok(out.into_iter().map(f32::to_bits).collect())
    }

    pub(super) fn run(&mut self, batch: &Batch, out: &mut Vec<f32>) -> Result<(), Error> {
        let call = Call {
            shape: batch.shape(),
            states: batch.window(),
            samples: batch.samples(),
            timesteps: batch.timesteps(),
            texts: batch.states(),
        };
        self.call(&call, out).map(|_| ())
    }

    fn call(&mut self, call: &Call<'_>, out: &mut Vec<f32>) -> Result<Vec<usize>, Error> {
        let rows = call.timesteps.len();
        let Shape {
            channels,
            height,
            width,
        } = call.shape;
        let (sample, states) = (
            [rows, channels, height, width],
            [rows, call.states[0], call.states[1]],
        );
        let per_row = [rows];
        let (timesteps, timestep): (&[f32], &[usize]) = match self.form {
            Form::Scalar => (&call.timesteps[..1], &[]),
            Form::One => (&call.timesteps[..1], &[1]),
            Form::Equal | Form::Rows => (call.timesteps, &per_row),
        };
        let inputs = [
            Input {
                port: &self.ports.sample,
                shape: &sample,
                values: Values::Real(call.samples),
            },
            Input {
                port: &self.ports.timestep,
                shape: timestep,
                values: Values::Real(timesteps),
            },
            Input {
                port: &self.ports.states,
                shape: &states,
                values: Values::Real(call.texts),
            },
        ];
        self.network.run(inputs, &self.wanted, out)
    }
}

/// One call's inputs.
struct Call<'a> {
    shape: Shape,
    /// Window and width of the text states.
    states: [usize; 2],
    samples: &'a [f32],
    timesteps: &'a [f32],
    texts: &'a [f32],
}

impl Probe {
    fn new(shape: Shape, window: usize, width: usize, timesteps: &[f32]) -> Self {
        Self {
            shape,
            states: [window, width],
            timesteps: timesteps.to_vec(),
        }
    }
}
