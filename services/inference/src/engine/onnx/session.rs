//! One network of a model as an ONNX Runtime session: made, described, and run with tensors of whatever dtype it wants.
//!
//! Everything outside works in f32 and u32; conversions to the model's f16, int32 or int64 happen here and nowhere else.

use std::borrow::Cow;
use std::path::Path;

use half::f16;
use half::slice::HalfFloatSliceExt;
use ort::logging::LogLevel;
use ort::session::builder::SessionBuilder;
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, Session, SessionInputValue};
use ort::value::{Outlet, TensorElementType, TensorRef};

use super::super::Error;
use super::dialect::{Dtype, Port, Ports};
use super::library::Runtime;

/// A network and the buffers for its conversions.
pub(super) struct Network {
    part: &'static str,
    session: Session,
    /// One for each input, kept for their memory.
    staged: Vec<Staged>,
}

/// One run's input: a port of the model, its shape and its values.
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

/// Options of runs that want one output.
pub(super) struct Wanted {
    name: String,
    options: RunOptions<HasSelectedOutputs>,
}

impl Wanted {
    pub(super) fn new(part: &'static str, port: &Port) -> Result<Self, Error> {
        Self::make(port, LogLevel::Warning).map_err(|error| run_error(part, &error))
    }

    /// Options for a run that may fail without a word in the log.
    pub(super) fn quiet(part: &'static str, port: &Port) -> Result<Self, Error> {
        Self::make(port, LogLevel::Fatal).map_err(|error| run_error(part, &error))
    }

    fn make(port: &Port, level: LogLevel) -> ort::Result<Self> {
        let mut options = RunOptions::new()?;
        options.set_log_level(level)?;
        let options = options.with_outputs(OutputSelector::no_default().with(&port.name));
        Ok(Self {
            name: port.name.clone(),
            options,
        })
    }
}

impl Network {
    /// Makes a session from a file; weights in other files are found beside it.
    pub(super) fn from_file(part: &'static str, file: &Path, runtime: &Runtime) -> Result<Self, Error> {
        let session = builder(runtime)?
            .commit_from_file(file)
            .map_err(|error| load_error(part, &error))?;
        Ok(Self {
            part,
            session,
            staged: Vec::new(),
        })
    }

    /// Makes a session from an edited model whose other files are in `folder`.
    pub(super) fn from_memory(
        part: &'static str,
        model: &[u8],
        folder: &Path,
        runtime: &Runtime,
    ) -> Result<Self, Error> {
        // Since ONNX Runtime 1.19; onnxruntime_session_options_config_keys.h.
        const KEY: &str = "session.model_external_initializers_file_folder_path";
        let mut builder = builder(runtime)?
            .with_config_entry(KEY, folder.to_string_lossy())
            .map_err(|error| load_error(part, &error))?;
        let session = builder
            .commit_from_memory(model)
            .map_err(|error| load_error(part, &error))?;
        Ok(Self {
            part,
            session,
            staged: Vec::new(),
        })
    }

    /// What the network takes and gives.
    pub(super) fn ports(&self) -> Ports {
        let describe = |outlets: &[Outlet]| outlets.iter().map(describe).collect();
        Ports {
            part: self.part,
            inputs: describe(self.session.inputs()),
            outputs: describe(self.session.outputs()),
        }
    }

    /// Runs it and appends the wanted output to `out` in f32; returns the output's shape.
    pub(super) fn run<const N: usize>(
        &mut self,
        inputs: [Input<'_>; N],
        wanted: &Wanted,
        out: &mut Vec<f32>,
    ) -> Result<Vec<usize>, Error> {
        let part = self.part;
        self.staged.resize_with(N, Staged::default);
        let mut feed = Vec::with_capacity(N);
        for (input, staged) in inputs.iter().zip(&mut self.staged) {
            let value = staged.tensor(input).map_err(|error| run_error(part, &error))?;
            feed.push((Cow::from(input.port.name.as_str()), value));
        }
        let outputs = self
            .session
            .run_with_options(feed, &wanted.options)
            .map_err(|error| run_error(part, &error))?;
        let value = outputs.get(&wanted.name).ok_or_else(|| Error::Run {
            part,
            why: format!("it gave no {}", wanted.name),
        })?;
        if let Ok((shape, values)) = value.try_extract_tensor::<f32>() {
            out.extend_from_slice(values);
            return Ok(dimensions(shape));
        }
        let (shape, values) = value
            .try_extract_tensor::<f16>()
            .map_err(|error| run_error(part, &error))?;
        let start = out.len();
        out.resize(start + values.len(), 0.0);
        values.convert_to_f32_slice(&mut out[start..]);
        Ok(dimensions(shape))
    }
}

/// Where an input's values are converted when the model wants another type than the engine has.
#[derive(Default)]
struct Staged {
    half: Vec<f16>,
    long: Vec<i64>,
    int: Vec<i32>,
}

impl Staged {
    fn tensor<'a>(&'a mut self, input: &Input<'a>) -> ort::Result<SessionInputValue<'a>> {
        let shape = input.shape;
        self.long.clear();
        self.int.clear();
        Ok(match (input.port.dtype, input.values) {
            (Some(Dtype::F16), Values::Real(values)) => {
                self.half.resize(values.len(), f16::ZERO);
                self.half.convert_from_f32_slice(values);
                TensorRef::from_array_view((shape, &self.half[..]))?.into()
            }
            // Cut towards zero, as numpy's astype does it in diffusers' ONNX pipeline.
            (Some(Dtype::I64), Values::Real(values)) => {
                self.long.extend(values.iter().map(|value| *value as i64));
                TensorRef::from_array_view((shape, &self.long[..]))?.into()
            }
            (Some(Dtype::I32), Values::Real(values)) => {
                self.int.extend(values.iter().map(|value| *value as i32));
                TensorRef::from_array_view((shape, &self.int[..]))?.into()
            }
            (Some(Dtype::F32) | None, Values::Real(values)) => {
                TensorRef::from_array_view((shape, values))?.into()
            }
            (Some(Dtype::I32), Values::Ids(values)) => {
                self.int.extend(values.iter().map(|id| *id as i32));
                TensorRef::from_array_view((shape, &self.int[..]))?.into()
            }
            (_, Values::Ids(values)) => {
                self.long.extend(values.iter().map(|id| i64::from(*id)));
                TensorRef::from_array_view((shape, &self.long[..]))?.into()
            }
        })
    }
}

fn builder(runtime: &Runtime) -> Result<SessionBuilder, Error> {
    let failed = |why: String| Error::Library { why };
    let builder = Session::builder(runtime.environment()?).map_err(|error| failed(error.to_string()))?;
    // The pattern of one shape is of no use to the next, and keeps a second block of memory.
    builder
        .with_memory_pattern(false)
        .map_err(|error| failed(error.to_string()))
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

fn load_error(part: &'static str, error: &dyn std::fmt::Display) -> Error {
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

fn run_error(part: &'static str, error: &dyn std::fmt::Display) -> Error {
    Error::Run {
        part,
        why: error.to_string(),
    }
}
