//! The UNet: finds out at load which form of timestep it takes and which sizes it can draw.
//!
//! A scalar timestep is made one per row by the edit in `timestep`, a whole one is made real by the edit in `real`, and the edited
//! network is used only when it gives the original's bytes on equal timesteps and, with one per row, each row's own bytes on
//! different ones. Where that fails, the original serves: rows of equal timesteps share a call, and timesteps are cut to whole ones.
//! Calls of several rows may be divided among the cores, see `divide`, and networks rewritten to go faster, see `rewrite`.
//! A network that `mobula-inference prepare` edited and checked before is used as it is, while its digests fit.

mod divide;
mod probe;
mod rewrite;
mod source;

use std::path::Path;

use super::super::{Batch, Error, Shape};
use super::bound::Bound;
use super::dialect::{self, Dtype, Port};
use super::lanes::Lanes;
use super::session::{Context, Input, Mode, Network, Output, Values};
use crate::model::{self, Division, Model};
use divide::Plan;
use probe::Probe;
use source::{Edit, Source};

const PART: &str = "unet";
/// Latent channels of the family.
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

/// What a row has beside its sample and timestep: tokens of a window and numbers of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Widths {
    pub(super) window: usize,
    pub(super) states: usize,
    pub(super) pooled: usize,
    pub(super) time_ids: usize,
    pub(super) guidance: usize,
}

pub(super) struct Unet {
    network: Network,
    ports: dialect::Unet,
    form: Form,
    unit: usize,
    input_channels: usize,
    widths: Widths,
    /// Whether the same row gives the same bytes in every batch, as on the CPU.
    exact: bool,
    bound: Option<Bound>,
    source: Source,
    lanes: Option<Lanes>,
    /// Whether the network has its weights in common with the lanes.
    shares: bool,
    /// Whether it is still to be found out if the lanes are faster than the pool.
    unsettled: bool,
    /// What was found out.
    settled: Option<Division>,
}

impl Unet {
    /// Loads the network for text states and other values of these widths.
    pub(super) fn load(model: &Model, widths: Widths, context: &Context<'_>) -> Result<Self, Error> {
        let plan = Plan::of(model, context)?;
        // The session that is opened last is the one that stays, and so what is written last.
        let writing = Context {
            written: plan.as_ref().and_then(Plan::written),
            ..context.clone()
        };
        let rewrites = rewrite::is_wanted(context.setup, &model.part(PART));
        let first = if rewrites { context } else { &writing };
        let mut unet = match Self::prepared(model, widths, first) {
            Some(unet) => unet,
            None => Self::found_out(model, widths, first)?,
        };
        if rewrites {
            unet = unet.rewritten(&writing)?;
        }
        unet.bound = Bound::new(context);
        match plan {
            Some(plan) => unet.with_lanes(&plan, context),
            None => Ok(unet),
        }
    }

    /// The network that was prepared from the file that is there, if any.
    fn prepared(model: &Model, widths: Widths, context: &Context<'_>) -> Option<Self> {
        let prepared = model.prepared.as_ref()?;
        let original = model.part(PART);
        let file = original.with_file_name(&prepared.file);
        let same = |path: &Path, digest: &str| model::file_digest(path).is_ok_and(|found| found == digest);
        if !same(&original, &prepared.source) || !same(&file, &prepared.digest) {
            tracing::warn!(file = %file.display(), "the prepared UNet is not of this model.onnx; run `mobula-inference prepare` again");
            return None;
        }
        let load = || {
            let mut unet = Self::of(model, context, Source::new(&file, None), widths)?;
            unet.check_widths(model)?;
            unet.unit = prepared.unit;
            (unet.form == Form::Rows)
                .then_some(unet)
                .ok_or_else(|| Error::Model {
                    part: PART,
                    why: "the prepared file takes no timestep per row".to_owned(),
                })
        };
        match load() {
            Ok(unet) => Some(unet),
            Err(why) => {
                tracing::warn!(%why, "the prepared UNet cannot be used; run `mobula-inference prepare` again");
                None
            }
        }
    }

    fn found_out(model: &Model, widths: Widths, context: &Context<'_>) -> Result<Self, Error> {
        let file = model.part(PART);
        let mut unet = Self::of(model, context, Source::new(&file, None), widths)?;
        unet.check_widths(model)?;
        unet.find_unit(model.levels)?;
        if unet.form != Form::Scalar {
            unet.find_form()?;
        }
        let form = unet.form;
        let edits = Edit::all(form, unet.ports.timestep.dtype);
        if edits.is_empty() {
            return Ok(unet);
        }
        let probe = Probe::new(unet.smallest(), &[501.0; 3]);
        let expected = unet.probe(&probe, 0..3)?;
        let unit = unet.unit;
        // Two large networks at once may be more than memory holds.
        drop(unet);
        for edit in edits {
            match Self::of(model, context, Source::new(&file, Some(*edit)), widths) {
                Ok(mut edited) => {
                    edited.form = if edit.batched { Form::Rows } else { form };
                    edited.unit = unit;
                    let mixes = edited.form != Form::Rows || edited.mixes()?;
                    let got = edited.probe(&probe, 0..3)?;
                    if mixes && edited.same(&got, &expected) {
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
        let mut unet = Self::of(model, context, Source::new(&file, None), widths)?;
        (unet.form, unet.unit) = (form, unit);
        Ok(unet)
    }

    fn of(model: &Model, context: &Context<'_>, source: Source, widths: Widths) -> Result<Self, Error> {
        let network = source.open(context)?;
        let ports = dialect::Unet::of(&network.ports())?;
        let form = if ports.timestep.dims.is_empty() {
            Form::Scalar
        } else {
            Form::Rows
        };
        let declared = usize::try_from(ports.sample.dims[1]).ok();
        let input_channels = declared.or(model.input_channels).unwrap_or(CHANNELS);
        if let (Some(declared), Some(configured)) = (declared, model.input_channels)
            && declared != configured
        {
            let why = format!("its sample has {declared} channels, config.json says {configured}");
            return Err(Error::Model { part: PART, why });
        }
        Ok(Self {
            network,
            ports,
            form,
            unit: 1,
            input_channels,
            widths,
            exact: !context.setup.providers.depends_on_batch(),
            bound: None,
            source,
            lanes: None,
            shares: false,
            unsettled: false,
            settled: None,
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

    /// Sessions among which the rows of a call are divided; 1 is the pool.
    pub(super) fn lanes(&self) -> usize {
        self.lanes.as_ref().map_or(1, Lanes::count)
    }

    /// Whether it is another network than the file's that gives the same.
    #[cfg(test)]
    pub(super) fn is_rewritten(&self) -> bool {
        self.source.is_rewritten()
    }

    /// Whether all sessions have their weights in common.
    #[cfg(test)]
    pub(super) fn shares(&self) -> bool {
        self.shares
    }

    /// Gives each the other's lanes.
    #[cfg(test)]
    pub(super) fn swap_lanes(&mut self, other: &mut Self) {
        std::mem::swap(&mut self.lanes, &mut other.lanes);
    }

    /// What was found out about lanes when it was loaded.
    pub(super) fn settled(&self) -> Option<Division> {
        self.settled
    }

    /// Channels of a row's sample.
    pub(super) fn input_channels(&self) -> usize {
        self.input_channels
    }

    /// Compares what it declares, or where it leaves that open what its configuration says, with what the text encoders and the
    /// configuration give.
    fn check_widths(&self, model: &Model) -> Result<(), Error> {
        let Widths {
            states,
            pooled,
            time_ids,
            guidance,
            ..
        } = self.widths;
        let last = |port: &Port| port.dims.last().copied().unwrap_or(-1);
        let declared = |port: &Option<Port>| port.as_ref().map_or(0, last);
        let attends = match (last(&self.ports.states), model.cross_attention) {
            (-1, Some(width)) => width as i64,
            (declared, _) => declared,
        };
        if attends != -1 && attends != states as i64 {
            let names: Vec<String> = model
                .encoders
                .iter()
                .map(|encoder| format!("{}/model.onnx", encoder.part))
                .collect();
            return Err(Error::File {
                path: format!("{PART}/model.onnx"),
                why: format!(
                    "its cross-attention takes text states of width {attends}, {} {} states of width {states}: they are not of \
                     one model",
                    names.join(" and "),
                    if names.len() == 1 { "gives" } else { "give" },
                ),
            });
        }
        for (what, wanted, given) in [
            ("pooled text", declared(&self.ports.pooled), pooled),
            ("time ids", declared(&self.ports.time_ids), time_ids),
            ("embedded guidance", declared(&self.ports.guidance), guidance),
        ] {
            if wanted != -1 && wanted != given as i64 {
                let why = format!(
                    "it takes {what} of width {wanted}, the text encoder and config.json give {given}"
                );
                return Err(Error::Model { part: PART, why });
            }
        }
        Ok(())
    }

    pub(super) fn run(&mut self, batch: &Batch, out: &mut Vec<f32>) -> Result<(), Error> {
        let call = Call {
            shape: batch.shape(),
            tokens: batch.tokens(),
            samples: batch.samples(),
            timesteps: batch.timesteps(),
            states: batch.states(),
            pooled: batch.pooled(),
            time_ids: batch.time_ids(),
            guidance: batch.guidance(),
        };
        self.call(&call, out).map(|_| ())
    }

    fn call(&mut self, call: &Call<'_>, out: &mut Vec<f32>) -> Result<Vec<usize>, Error> {
        let rows = call.timesteps.len();
        let Shape { height, width, .. } = call.shape;
        let sample = [rows, self.input_channels, height, width];
        let states = [rows, call.tokens, self.widths.states];
        let per_row = [rows];
        let (timesteps, timestep): (&[f32], &[usize]) = match self.form {
            Form::Scalar => (&call.timesteps[..1], &[]),
            Form::One => (&call.timesteps[..1], &[1]),
            Form::Equal | Form::Rows => (call.timesteps, &per_row),
        };
        let ports = &self.ports;
        let mut inputs = vec![
            input(&ports.sample, &sample, call.samples),
            input(&ports.timestep, timestep, timesteps),
            input(&ports.states, &states, call.states),
        ];
        let (pooled, time_ids) = ([rows, self.widths.pooled], [rows, self.widths.time_ids]);
        let guidance = [rows, self.widths.guidance];
        for (port, shape, values) in [
            (&ports.pooled, &pooled, call.pooled),
            (&ports.time_ids, &time_ids, call.time_ids),
            (&ports.guidance, &guidance, call.guidance),
        ] {
            if let Some(port) = port {
                inputs.push(input(port, shape, values));
            }
        }
        if let Some(bound) = &mut self.bound {
            let shape = [rows, CHANNELS, height, width];
            bound.run(&mut self.network, &inputs, (&ports.output, &shape), out)?;
            return Ok(shape.to_vec());
        }
        if let Some(lanes) = &mut self.lanes {
            return lanes.run(&mut self.network, &inputs, &ports.output.name, out);
        }
        let output = Output {
            name: &ports.output.name,
            values: out,
        };
        let mut shapes = self.network.run(&inputs, &mut [output])?;
        Ok(shapes.pop().unwrap_or_default())
    }

    /// Gives memory back.
    pub(super) fn trim(&mut self) {
        let mut lanes = self.lanes.take();
        self.trim_session();
        // Each lane in the pool's place.
        for lane in lanes.iter_mut().flat_map(Lanes::trimmed) {
            std::mem::swap(&mut self.network, lane);
            self.trim_session();
            std::mem::swap(&mut self.network, lane);
        }
        self.lanes = lanes;
    }

    fn trim_session(&mut self) {
        if !self.network.take_used() {
            return;
        }
        if let Some(bound) = &mut self.bound {
            bound.clear();
        }
        let bound = self.bound.take();
        let mode = self.network.set_mode(Mode::Shrinking);
        // What it says does not matter, only that its memory is given back after it.
        let _ = self.probe(&Probe::new(self.smallest(), &[501.0]), 0..1);
        self.network.set_mode(mode);
        self.network.take_used();
        self.bound = bound;
    }
}

fn input<'a>(port: &'a Port, shape: &'a [usize], values: &'a [f32]) -> Input<'a> {
    Input {
        port,
        shape,
        values: Values::Real(values),
    }
}

/// The bytes of a model's UNet with a timestep per row, and the unit of its sizes, checked against the original; `None` when it
/// has one already.
pub(super) fn prepare(
    model: &Model,
    widths: Widths,
    context: &Context<'_>,
) -> Result<Option<(Vec<u8>, usize)>, Error> {
    let file = model.part(PART);
    let original = Unet::of(model, context, Source::new(&file, None), widths)?;
    let (form, dtype) = (original.form, original.ports.timestep.dtype);
    drop(original);
    if form != Form::Scalar {
        return Ok(None);
    }
    let found = Unet::found_out(model, widths, context)?;
    if found.form != Form::Rows {
        let why = "its timestep cannot be made one per row".to_owned();
        return Err(Error::Model { part: PART, why });
    }
    let real = matches!(found.ports.timestep.dtype, Some(Dtype::F32)) && dtype != Some(Dtype::F32);
    let edit = Edit { batched: true, real };
    Ok(Some((edit.apply(&file)?, found.unit)))
}

/// One call's inputs.
struct Call<'a> {
    shape: Shape,
    tokens: usize,
    samples: &'a [f32],
    timesteps: &'a [f32],
    states: &'a [f32],
    pooled: &'a [f32],
    time_ids: &'a [f32],
    guidance: &'a [f32],
}
