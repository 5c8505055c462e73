//! `mobula-inference prepare`: looks at a model folder, makes what serving would otherwise make at every start, and measures it.
//!
//! It reports what each network takes and gives, runs each once as a worker does, and refuses what a worker would refuse; writes
//! the UNet with a timestep per row beside the original, after its numbers were checked; measures UNet calls by their rows, and
//! memory; and keeps all that in mobula.json, where other keys stay as they are. A worker uses what was written while the digests
//! of the files fit, and works without it otherwise. Besides mobula.json it changes no file that it did not write itself.
//!
//! Invariant: nothing is written of a model that cannot be served.

mod draft;
mod footprint;
mod manifest;
mod table;

use std::io::{IsTerminal as _, Write};
use std::path::PathBuf;
use std::time::Duration;

use crate::engine::onnx::{self, Onnx, Runtime, Setup};
use crate::engine::{Engine as _, Info, trial};
use crate::error::Error;
use crate::model::{self, Model, Prepared};
use crate::profile::{self, Profile};
use draft::Draft;
use footprint::Meter;
use manifest::Manifest;

/// The prepared UNet, beside the original, so that weights in other files are found by both.
const BATCHED: &str = "model.batched.onnx";

const EXAMPLES: &str = "\
Examples:
  mobula prepare models/demo --check               run every network once, say what the model is, change nothing
  mobula prepare models/demo                       prepare it and measure it at its own size
  mobula prepare sd15 --size 512x512 --size 768x512 --seconds 120

Writes unet/model.batched.onnx and mobula.json into the model's folder.
Exit codes: 0 done, 1 the model cannot be prepared, 2 or 64 wrong usage.";

/// Flags of `prepare`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Model folder: an ONNX export in the layout of diffusers and Optimum
    #[arg(value_name = "DIR")]
    pub model: PathBuf,
    /// Run every network once and report; write nothing
    #[arg(long)]
    pub check: bool,
    /// A size to measure, pixels; may be given several times; by default the model's own
    #[arg(long, value_name = "WxH", value_parser = size)]
    pub size: Vec<(usize, usize)>,
    /// Rows in the largest call that is measured
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub max_rows: usize,
    /// Time for measuring each size, seconds
    #[arg(long, value_name = "S", default_value_t = 20)]
    pub seconds: u64,
    /// Who computes: execution providers with commas between them
    #[arg(long, env = "MOBULA_PROVIDERS", default_value = "cpu")]
    pub providers: String,
    /// How UNet calls are divided among the CPU's cores: a number of sessions that share each call's rows and the threads, 1 for
    /// one pool of threads, or auto, which measures what is faster
    #[arg(long, env = "MOBULA_LANES", default_value = "auto")]
    pub lanes: String,
    /// ONNX Runtime's shared library; by default it is looked for beside the executable and in .ort/lib
    #[arg(long, env = "ORT_DYLIB_PATH")]
    pub onnxruntime: Option<PathBuf>,
    /// Threads that compute; by default one per core that this process may use
    #[arg(long, env = "MOBULA_THREADS")]
    pub threads: Option<usize>,
}

fn size(text: &str) -> Result<(usize, usize), String> {
    let sides = text.split_once(['x', 'X']).and_then(|(width, height)| {
        let side = |text: &str| text.parse().ok().filter(|side| (8..=8192).contains(side));
        Some((side(width)?, side(height)?))
    });
    sides.ok_or_else(|| "expected width x height in pixels, such as 768x512".to_owned())
}

/// Prepares a model, or looks at it; writes a report to `out`.
///
/// # Errors
/// [`Error::File`] and [`Error::Model`] for a model that cannot be served or prepared, [`Error::Library`],
/// [`Error::Option`] for a size that the model cannot draw, [`Error::Run`].
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), Error> {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = Runtime {
        library: args.onnxruntime.clone(),
        threads: args.threads.unwrap_or_else(cores),
        spin: false,
    };
    let setup = Setup::new(&args.providers, None, &args.lanes)?;
    // Before any network is opened: what they leave behind is used again by the next ones.
    let meter = Meter::begin();
    let model = Model::open(&args.model)?;
    let parts = onnx::parts(&model, &runtime)?;
    say(out, &table::model(&model))?;
    say(out, &table::parts(&parts))?;
    if args.check {
        progress("running every network once");
        tried(&model, (&runtime, &setup))?;
        say(out, &table::tasks(&model))?;
        let batched = table::timestep_is_per_row(&parts);
        return say(out, &table::verdict(&model, batched));
    }
    prepare(args, model, (&runtime, &setup), meter, out)
}

/// Loads a model as a worker does and runs every network once, on the smallest picture.
fn tried(model: &Model, (runtime, setup): (&Runtime, &Setup)) -> Result<Onnx, Error> {
    let mut engine = Onnx::load(model, runtime, setup).map_err(Error::of_file)?;
    let side = engine.info().multiple;
    trial(&mut engine, side, side).map_err(Error::of_file)?;
    engine.settle(model)?;
    Ok(engine)
}

/// Makes the UNet with a timestep per row, tries the model with it, and only then writes it; then measures the model.
fn prepare(
    args: &Args,
    mut model: Model,
    (runtime, setup): (&Runtime, &Setup),
    mut meter: Meter,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let mut manifest = Manifest::read(&args.model)?;
    progress("making the UNet's timestep one per row, and checking its numbers");
    let draft = draft_unet(&model, runtime)?;
    model.prepared = draft.as_ref().map(|(_, prepared)| prepared.clone());
    // What was found out before is found out anew.
    let divisions = std::mem::take(&mut model.divisions);
    progress("loading the model and running every network once");
    let mut engine = tried(&model, (runtime, setup))?;
    meter.loaded();
    let sizes = sizes(args, &model, engine.info())?;
    say(out, &table::tasks(&model))?;
    let prepared = draft
        .map(|(draft, prepared)| publish(draft, prepared))
        .transpose()?;
    say(out, &table::prepared(prepared.as_ref()))?;
    manifest.set_prepared(prepared.as_ref());
    manifest.write(&args.model)?;
    say(out, &table::engine(&model, engine.info()))?;
    if let Some(division) = engine.division() {
        say(out, &table::division(division, engine.info().threads))?;
        manifest.set_division(divisions, engine.info().threads, division);
    }
    measure(args, &mut engine, model.profile, &sizes, (&mut manifest, out))?;
    let footprint = meter.footprint();
    say(out, &table::footprint(&footprint))?;
    manifest.set_footprint(&engine.info().computes(), &footprint);
    manifest.write(&args.model)?;
    progress("");
    say(
        out,
        &format!("written: {}\n", args.model.join(model::MANIFEST).display()),
    )
}

/// Makes the prepared UNet, if the model needs one, under a name that goes away unless it is published.
fn draft_unet(model: &Model, runtime: &Runtime) -> Result<Option<(Draft, Prepared)>, Error> {
    let Some(made) = onnx::prepare_unet(model, runtime).map_err(Error::of_file)? else {
        return Ok(None);
    };
    let original = model.part("unet");
    let draft = Draft::write(&original.with_file_name(BATCHED), &made.bytes)?;
    let prepared = Prepared {
        file: draft.name(),
        source: model::file_digest(&original)?,
        digest: model::file_digest(draft.path())?,
        unit: made.unit,
    };
    Ok(Some((draft, prepared)))
}

/// Gives the prepared UNet its name.
fn publish(draft: Draft, prepared: Prepared) -> Result<Prepared, Error> {
    draft.publish()?;
    let file = BATCHED.to_owned();
    Ok(Prepared { file, ..prepared })
}

/// The sizes that are measured: those asked for, or the model's own.
fn sizes(args: &Args, model: &Model, info: &Info) -> Result<Vec<(usize, usize)>, Error> {
    if args.size.is_empty() {
        let native = |side: usize| (side * info.scale).next_multiple_of(info.multiple);
        return Ok(vec![(native(model.sample_size.1), native(model.sample_size.0))]);
    }
    for (width, height) in &args.size {
        if width % info.multiple != 0 || height % info.multiple != 0 {
            return Err(Error::Option {
                name: "--size".to_owned(),
                why: format!("{width}x{height}: sides must be multiples of {}", info.multiple),
            });
        }
    }
    Ok(args.size.clone())
}

/// Measures the model's UNet calls and puts the numbers into the manifest.
fn measure(
    args: &Args,
    engine: &mut Onnx,
    mut profile: Profile,
    sizes: &[(usize, usize)],
    (manifest, out): (&mut Manifest, &mut dyn Write),
) -> Result<(), Error> {
    let info = engine.info().clone();
    for (width, height) in sizes {
        progress(&format!("measuring UNet calls at {width}x{height}"));
        let shape = info.latents(*width, *height);
        let budget = Duration::from_secs(args.seconds);
        let curve = profile::measure(engine, shape, info.window, args.max_rows, budget)?;
        say(out, &table::curve(*width, *height, &curve))?;
        profile.put(&info.computes(), shape, info.window, curve);
    }
    manifest.set_profile(&profile);
    Ok(())
}

/// Says on a terminal what takes time; the report itself goes elsewhere.
fn progress(what: &str) {
    let mut terminal = std::io::stderr();
    if terminal.is_terminal() {
        let dots = if what.is_empty() { "" } else { "..." };
        // A terminal that is gone is no reason to stop.
        let _ = write!(terminal, "\r\x1b[K{what}{dots}");
        let _ = terminal.flush();
    }
}

fn say(out: &mut dyn Write, text: &str) -> Result<(), Error> {
    if std::io::stderr().is_terminal() {
        progress("");
    }
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Error::File {
            path: "standard output".to_owned(),
            why: format!("cannot be written: {error}"),
        })
}

#[cfg(test)]
mod tests;
