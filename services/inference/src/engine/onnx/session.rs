//! One network of a model as an ONNX Runtime session: made, described, and run with tensors of whatever dtype it wants.
//!
//! Everything outside works in f32 and u32; conversions to the model's f16, int32 or int64 happen here and nowhere else.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use half::f16;
use half::slice::HalfFloatSliceExt as _;
use ort::logging::LogLevel;
use ort::session::builder::SessionBuilder;
use ort::session::{RunOptions, Session, SessionInputValue};
use ort::value::{Outlet, TensorElementType, TensorValueTypeMarker, Value};

use super::super::Error;
use super::dialect::{Dtype, Port, Ports};
use super::edit::{self, Refused};
use super::fused;
use super::library::Runtime;
use super::pictures::Pictures;
use super::setup::Setup;
use super::signal::Signal;
use super::staged::Staged;

/// A protobuf message cannot be larger; weights beyond it are in files of their own.
const MAX_FILE: u64 = 2 << 30;

/// What sessions of one engine share.
#[derive(Clone)]
pub(super) struct Context<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) setup: &'a Setup,
    pub(super) signal: Arc<Signal>,
    /// Threads of its own that a session gets; none shares the pool.
    pub(super) own: Option<usize>,
    /// Whether a session's graph has operators of ours. Files that somebody else made must not reach them.
    pub(super) operators: bool,
    /// Where a session's graph is written when it is optimized.
    pub(super) written: Option<&'a Path>,
}

impl<'a> Context<'a> {
    /// For sessions on the pool of threads.
    pub(super) fn new(runtime: &'a Runtime, setup: &'a Setup, signal: &Arc<Signal>) -> Self {
        Self {
            runtime,
            setup,
            signal: Arc::clone(signal),
            own: None,
            operators: false,
            written: None,
        }
    }
}

/// A network and the buffers for its conversions.
pub(super) struct Network {
    part: &'static str,
    session: Session,
    signal: Arc<Signal>,
    /// For runs that may fail without a word in the log.
    silent: RunOptions,
    /// For runs after which memory goes back to the system.
    shrinking: RunOptions,
    mode: Mode,
    /// Whether it ran since its memory was given back.
    used: bool,
    /// One for each input, kept for their memory.
    staged: Vec<Staged>,
    /// What rows of one picture share, where the network was edited for it.
    pictures: Option<Pictures>,
}

/// How a network's runs are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Plain,
    Silent,
    Shrinking,
}

/// One run's input: a port of the model, its shape and its values.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    pub(super) port: &'a Port,
    pub(super) shape: &'a [usize],
    pub(super) values: Values<'a>,
}

/// Values of an input as the engine has them.
#[derive(Clone, Copy)]
pub(super) enum Values<'a> {
    Real(&'a [f32]),
    Ids(&'a [u32]),
}

impl Values<'_> {
    /// Those of some of all rows.
    pub(super) fn rows(self, all: usize, range: &Range<usize>) -> Self {
        let place = |length: usize| range.start * (length / all)..range.end * (length / all);
        match self {
            Self::Real(values) => Self::Real(&values[place(values.len())]),
            Self::Ids(values) => Self::Ids(&values[place(values.len())]),
        }
    }
}

/// One run's output: its name, and where its values are appended.
pub(super) struct Output<'a> {
    pub(super) name: &'a str,
    pub(super) values: &'a mut Vec<f32>,
}

/// Opens a part's file and checks where it says that its weights are; gives its size too.
fn checked(part: &'static str, file: &Path) -> Result<(File, u64), Error> {
    let wrong = |error: std::io::Error| wrong(part, file, error.to_string());
    let mut opened = File::open(file).map_err(wrong)?;
    let size = opened.metadata().map_err(wrong)?.len();
    if size > MAX_FILE {
        let why = format!("has {size} bytes, no ONNX file has more than {MAX_FILE}");
        return Err(self::wrong(part, file, why));
    }
    edit::check_external(&opened, size).map_err(|why| refused(part, &why))?;
    opened.rewind().map_err(wrong)?;
    Ok((opened, size))
}

/// Reads a part's file, in which it was checked where weights are.
pub(super) fn read(part: &'static str, file: &Path) -> Result<Vec<u8>, Error> {
    let (mut opened, size) = checked(part, file)?;
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    opened
        .read_to_end(&mut bytes)
        .map_err(|error| wrong(part, file, error.to_string()))?;
    Ok(bytes)
}

fn wrong(part: &str, file: &Path, why: String) -> Error {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    Error::File {
        path: format!("{part}/{name}"),
        why,
    }
}

/// What an edit refused, as an error of the part.
pub(super) fn refused(part: &'static str, why: &Refused) -> Error {
    if matches!(why, Refused::Malformed(_)) {
        return load_error(part, &format!("Protobuf parsing failed: {why}"));
    }
    Error::Model {
        part,
        why: why.to_string(),
    }
}

impl Network {
    /// Makes a session from a file; weights in other files are found beside it.
    pub(super) fn from_file(part: &'static str, file: &Path, context: &Context<'_>) -> Result<Self, Error> {
        checked(part, file)?;
        Self::from_written(part, file, context, Ok)
    }

    /// Makes a session with more options from a file that needs no check.
    pub(super) fn from_written(
        part: &'static str,
        file: &Path,
        context: &Context<'_>,
        set: impl FnOnce(SessionBuilder) -> ort::Result<SessionBuilder>,
    ) -> Result<Self, Error> {
        let session = set(builder(context, part)?)
            .and_then(|mut builder| builder.commit_from_file(file))
            .map_err(|error| load_error(part, &error))?;
        Self::of(part, session, context)
    }

    /// Makes a session from an edited model whose other files are in `folder`.
    pub(super) fn from_memory(
        part: &'static str,
        model: &[u8],
        folder: &Path,
        context: &Context<'_>,
    ) -> Result<Self, Error> {
        // Since ONNX Runtime 1.19; onnxruntime_session_options_config_keys.h.
        const KEY: &str = "session.model_external_initializers_file_folder_path";
        let mut builder = builder(context, part)?
            .with_config_entry(KEY, folder.to_string_lossy())
            .map_err(|error| load_error(part, &error))?;
        let session = builder
            .commit_from_memory(model)
            .map_err(|error| load_error(part, &error))?;
        Self::of(part, session, context)
    }

    /// Makes a session from a file with everything that is float16 turned to float32.
    pub(super) fn wide(part: &'static str, file: &Path, context: &Context<'_>) -> Result<Self, Error> {
        let folder = file.parent().unwrap_or(file);
        let bytes = edit::float32(&read(part, file)?, folder).map_err(|why| refused(part, &why))?;
        Self::from_memory(part, &bytes, folder, context)
    }

    fn of(part: &'static str, session: Session, context: &Context<'_>) -> Result<Self, Error> {
        let options = |change: &dyn Fn(&mut RunOptions) -> ort::Result<()>| {
            let mut options = RunOptions::new()?;
            context.setup.providers.without_graph(&mut options)?;
            change(&mut options)?;
            Ok(options)
        };
        let picture = session
            .inputs()
            .iter()
            .find(|input| input.name() == edit::PICTURE);
        let pictures = picture.map(|input| Pictures::new(describe(input)));
        let arenas = context.setup.providers.arenas();
        let silent = options(&|options| options.set_log_level(LogLevel::Fatal))
            .map_err(|error: ort::Error| run_error(part, &error))?;
        let shrinking = options(&|options| options.set("memory.enable_memory_arena_shrinkage", &arenas))
            .map_err(|error: ort::Error| run_error(part, &error))?;
        Ok(Self {
            part,
            session,
            signal: Arc::clone(&context.signal),
            silent,
            shrinking,
            mode: Mode::Plain,
            used: false,
            staged: Vec::new(),
            pictures,
        })
    }

    /// What the network takes and gives, as its file has it.
    pub(super) fn ports(&self) -> Ports {
        let own = |port: &Port| port.name != edit::PICTURE;
        let describe = |outlets: &[Outlet]| outlets.iter().map(describe).filter(own).collect();
        Ports {
            part: self.part,
            inputs: describe(self.session.inputs()),
            outputs: describe(self.session.outputs()),
        }
    }

    /// Changes how runs are made; returns how they were.
    pub(super) fn set_mode(&mut self, mode: Mode) -> Mode {
        std::mem::replace(&mut self.mode, mode)
    }

    /// Whether it ran since this was last asked.
    pub(super) fn take_used(&mut self) -> bool {
        std::mem::take(&mut self.used)
    }

    /// The session, for runs with bound memory.
    pub(super) fn session(&mut self) -> &mut Session {
        self.used = true;
        &mut self.session
    }

    /// What ends a run early.
    pub(super) fn signal(&self) -> Arc<Signal> {
        Arc::clone(&self.signal)
    }

    /// The error of a failed run: an interruption when that was asked for.
    pub(super) fn failed(&self, error: &dyn std::fmt::Display) -> Error {
        if self.signal.was_asked() {
            Error::Interrupted
        } else {
            run_error(self.part, error)
        }
    }

    /// Runs it and appends the outputs in f32; returns their shapes. Where rows share what they have in common by picture, the first
    /// two inputs are `sample` and `timestep`.
    pub(super) fn run(
        &mut self,
        inputs: &[Input<'_>],
        outputs: &mut [Output<'_>],
    ) -> Result<Vec<Vec<usize>>, Error> {
        let part = self.part;
        self.used = true;
        let shared = self.pictures.as_mut().map(|pictures| pictures.shared(inputs));
        let inputs = shared.as_deref().unwrap_or(inputs);
        self.staged.resize_with(inputs.len(), Staged::default);
        let mut feed = Vec::with_capacity(inputs.len());
        for (input, staged) in inputs.iter().zip(&mut self.staged) {
            let value = staged.view(input).map_err(|error| run_error(part, &error))?;
            feed.push((
                Cow::from(input.port.name.as_str()),
                SessionInputValue::from(value),
            ));
        }
        let options = match self.mode {
            Mode::Plain => self.signal.options(),
            Mode::Silent => &self.silent,
            Mode::Shrinking => &self.shrinking,
        };
        let got = match self.session.run_with_options(feed, options) {
            Ok(got) => got,
            Err(_) if self.mode == Mode::Plain && self.signal.was_asked() => return Err(Error::Interrupted),
            Err(error) => return Err(run_error(part, &error)),
        };
        let mut shapes = Vec::with_capacity(outputs.len());
        for output in outputs {
            let value = got.get(output.name).ok_or_else(|| Error::Run {
                part,
                why: format!("it gave no {}", output.name),
            })?;
            shapes.push(take(value, output.values).map_err(|error| run_error(part, &error))?);
        }
        Ok(shapes)
    }
}

/// Appends a tensor's values in f32; returns its shape.
pub(super) fn take<T: TensorValueTypeMarker + ?Sized>(
    value: &Value<T>,
    out: &mut Vec<f32>,
) -> ort::Result<Vec<usize>> {
    if let Ok((shape, values)) = value.try_extract_tensor::<f32>() {
        out.extend_from_slice(values);
        return Ok(dimensions(shape));
    }
    let (shape, values) = value.try_extract_tensor::<f16>()?;
    let start = out.len();
    out.resize(start + values.len(), 0.0);
    values.convert_to_f32_slice(&mut out[start..]);
    Ok(dimensions(shape))
}

fn builder(context: &Context<'_>, part: &str) -> Result<SessionBuilder, Error> {
    let failed = |why: String| Error::Library { why };
    let environment = context.runtime.environment()?;
    let builder = Session::builder(environment).map_err(|error| failed(error.to_string()))?;
    // The pattern of one shape is of no use to the next, and keeps a second block of memory.
    let builder = builder
        .with_memory_pattern(false)
        .map_err(|error| failed(error.to_string()))?;
    let builder = match context.operators {
        false => builder,
        true => fused::domain()
            .and_then(|domain| Ok(builder.with_operators(domain)?))
            .map_err(|error| failed(error.to_string()))?,
    };
    let builder = match context.written {
        None => builder,
        Some(file) => writes(builder, file).map_err(|error| failed(error.to_string()))?,
    };
    let builder = match context.own {
        None => builder,
        Some(threads) => {
            own_threads(builder, threads, context.runtime.spin).map_err(|error| failed(error.to_string()))?
        }
    };
    // The other networks run once a picture, in many shapes: nothing to record.
    let graphs = part == "unet" && context.setup.providers.records_graphs();
    context.setup.providers.register(builder, graphs)
}

/// Has the optimized graph written. Such a session tells of errors only: its warning that what is written is for this machine alone
/// is for those who keep that.
fn writes(builder: SessionBuilder, file: &Path) -> ort::Result<SessionBuilder> {
    let builder = builder.with_optimized_model_path(file)?;
    Ok(builder.with_log_level(LogLevel::Error)?)
}

/// Takes a session off the pool: with one thread it is the one that calls.
fn own_threads(builder: SessionBuilder, threads: usize, spin: bool) -> ort::Result<SessionBuilder> {
    let builder = builder.with_independent_thread_pool()?;
    let builder = builder.with_intra_threads(threads)?;
    Ok(builder.with_intra_op_spinning(spin)?)
}

fn describe(outlet: &Outlet) -> Port {
    let dtype = match outlet.dtype().tensor_type() {
        Some(TensorElementType::Float32) => Some(Dtype::F32),
        Some(TensorElementType::Float16) => Some(Dtype::F16),
        Some(TensorElementType::Int64) => Some(Dtype::I64),
        Some(TensorElementType::Int32) => Some(Dtype::I32),
        _ => None,
    };
    let dims = outlet
        .dtype()
        .tensor_shape()
        .map(|shape| shape.to_vec())
        .unwrap_or_default();
    Port {
        name: outlet.name().to_owned(),
        dtype,
        dims,
    }
}

fn dimensions(shape: &[i64]) -> Vec<usize> {
    shape
        .iter()
        .map(|side| usize::try_from(*side).unwrap_or(0))
        .collect()
}

pub(super) fn load_error(part: &'static str, error: &dyn std::fmt::Display) -> Error {
    let said = error.to_string();
    // ONNX Runtime's words for a file that is no model at all do not say what to do.
    let no_model = ["Protobuf parsing failed", "No graph was found"];
    let advice = if no_model.iter().any(|words| said.contains(words)) {
        " The file is damaged or no ONNX model: copy or export it again."
    } else {
        ""
    };
    Error::Model {
        part,
        why: format!("model.onnx cannot be loaded: {said}{advice}"),
    }
}

pub(super) fn run_error(part: &'static str, error: &dyn std::fmt::Display) -> Error {
    Error::Run {
        part,
        why: error.to_string(),
    }
}
