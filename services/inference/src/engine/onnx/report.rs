//! What a model's networks are, for people, and the UNet that `prepare` writes: opened without a whole engine.

use std::sync::Arc;

use super::super::{Error, Info};
use super::dialect::Port;
use super::library::Runtime;
use super::session::{Context, Network};
use super::setup::Setup;
use super::signal::Signal;
use super::text::TextEncoders;
use super::{Texts, added, unet, widths};
use crate::model::Model;

/// One network's inputs and outputs, as its file declares them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its folder.
    pub name: &'static str,
    /// Size of its file, bytes; weights beside it not counted.
    pub bytes: u64,
    /// Name, type and dimensions of each input.
    pub inputs: Vec<String>,
    /// Name, type and dimensions of each output.
    pub outputs: Vec<String>,
}

/// A UNet with a timestep per row, made from one that has a single timestep, and checked against it.
#[derive(Debug)]
pub struct PreparedUnet {
    /// The file's content; its weights stay in the files that the original names.
    pub bytes: Vec<u8>,
    /// Height and width of latents are multiples of this.
    pub unit: usize,
}

/// Opens each network of a model and describes it.
///
/// # Errors
/// [`Error::Library`], [`Error::Model`] naming the part.
pub fn parts(model: &Model, runtime: &Runtime) -> Result<Vec<Part>, Error> {
    let setup = Setup::default();
    let context = context(runtime, &setup)?;
    let mut names: Vec<&'static str> = model.encoders.iter().map(|encoder| encoder.part).collect();
    names.extend(["unet", "vae_decoder"]);
    if model.encodes_images {
        names.push("vae_encoder");
    }
    let mut parts = Vec::with_capacity(names.len());
    for name in names {
        let file = model.part(name);
        let ports = Network::from_file(name, &file, &context)?.ports();
        let describe = |ports: &[Port]| ports.iter().map(describe).collect();
        parts.push(Part {
            name,
            bytes: std::fs::metadata(&file).map_or(0, |data| data.len()),
            inputs: describe(&ports.inputs),
            outputs: describe(&ports.outputs),
        });
    }
    Ok(parts)
}

/// Makes the UNet with a timestep per row and checks it by numbers; `None` when the model's own has one.
///
/// # Errors
/// [`Error::Model`] when the edit is not possible or changes the numbers.
pub fn prepare_unet(model: &Model, runtime: &Runtime) -> Result<Option<PreparedUnet>, Error> {
    let setup = Setup::default();
    let context = context(runtime, &setup)?;
    let text = TextEncoders::load(model, &added(model)?, &context)?;
    let prepared = unet::prepare(model, widths(model, &Texts::of(&text)), &context)?;
    Ok(prepared.map(|(bytes, unit)| PreparedUnet { bytes, unit }))
}

fn context<'a>(runtime: &'a Runtime, setup: &'a Setup) -> Result<Context<'a>, Error> {
    runtime.check()?;
    Ok(Context::new(
        runtime,
        setup,
        &Arc::new(Signal::new(&setup.providers)?),
    ))
}

fn describe(port: &Port) -> String {
    let dims: Vec<String> = port
        .dims
        .iter()
        .map(|side| {
            if *side < 0 {
                "?".to_owned()
            } else {
                side.to_string()
            }
        })
        .collect();
    let dtype = port
        .dtype
        .map_or_else(|| "other".to_owned(), |dtype| format!("{dtype:?}").to_lowercase());
    format!("{} {dtype}[{}]", port.name, dims.join(","))
}

/// A short word for what family a loaded model is of.
#[must_use]
pub fn family(model: &Model, info: &Info) -> &'static str {
    match (model.is_xl, model.is_refiner, info.guidance > 0) {
        (_, _, true) => "latent consistency",
        (true, true, _) => "Stable Diffusion XL refiner",
        (true, false, _) => "Stable Diffusion XL",
        (false, ..) => "Stable Diffusion 1 or 2",
    }
}
