//! Edits of ONNX files in memory, before a session is made of them: each finds what it changes by the structure of the graph,
//! changes nothing else, and refuses a graph of another form.
//!
//! Files come from anywhere: whatever the bytes are, an edit ends with a model or with [`Refused`], without a panic and without
//! more memory than the file and what it says of its own tensors' bytes. Callers check by numbers what can be checked so.

mod constants;
mod every;
mod external;
mod float;
mod fused;
mod graph;
mod layers;
mod patterns;
mod pictures;
mod real;
mod stream;
mod timestep;
mod upsample;
mod vocabulary;
mod weights;
pub(crate) mod wire;

pub(crate) use every::every;
pub(crate) use external::check as check_external;
pub(crate) use float::float32;
pub(crate) use fused::fused;
pub(crate) use layers::{Tap, tapped};
pub(crate) use pictures::{PICTURE, once_a_picture};
pub(crate) use real::real;
pub(crate) use timestep::batched;
pub(crate) use upsample::folded;
pub(crate) use vocabulary::extended;
pub(crate) use weights::weights;
use wire::{Field, Malformed};

#[cfg(test)]
pub(crate) use graph::{GRAPH_INPUT, GRAPH_NODE, NODE_OP_TYPE, VALUE_NAME, text};

/// Why a model was not edited.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    #[error("the file has no graph, or several")]
    NoGraph,
    #[error("the graph has no input {0}")]
    NoInput(String),
    #[error("the graph has no output {0}")]
    NoOutput(String),
    #[error("input {0} is no scalar")]
    NotScalar(String),
    #[error("input {name} is used by {uses} nodes, expected one Unsqueeze")]
    Uses { name: String, uses: usize },
    #[error("input {name} goes into {op}, expected Unsqueeze")]
    Operator { name: String, op: String },
    #[error("input {name} goes into {op} before it is cast")]
    Computed { name: String, op: String },
    #[error("{0}")]
    Layers(String),
    #[error("rows of a picture cannot share what they have in common: {0}")]
    Pictures(&'static str),
    #[error("{0}")]
    Vocabulary(String),
    #[error("tensor {name}: {why}")]
    Tensor { name: String, why: String },
    #[error("weights are in the file {0:?}, which is not inside the model's folder")]
    Outside(String),
    #[error("weights are in the file {file}, which cannot be read: {why}")]
    Weights { file: String, why: String },
}

impl From<std::io::Error> for Refused {
    fn from(error: std::io::Error) -> Self {
        Self::Unreadable(error.to_string())
    }
}

/// The model with its graph replaced by what `edit` makes of it.
pub(crate) fn with_graph(
    model: &[u8],
    edit: impl FnOnce(&[u8]) -> Result<Vec<u8>, Refused>,
) -> Result<Vec<u8>, Refused> {
    let top = wire::collect(model)?;
    let edited = edit(only_graph(&top)?)?;
    Ok(replaced(&top, &edited))
}

/// The graph of a model whose fields are given.
fn only_graph<'a>(top: &[Field<'a>]) -> Result<&'a [u8], Refused> {
    let mut graphs = top.iter().filter(|field| field.number == graph::MODEL_GRAPH);
    match (graphs.next(), graphs.next()) {
        (Some(only), None) => Ok(only.bytes),
        _ => Err(Refused::NoGraph),
    }
}

/// The fields of a model with another graph.
fn replaced(top: &[Field<'_>], graph: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(graph.len() + 1024);
    for field in top {
        if field.number == graph::MODEL_GRAPH {
            wire::put_bytes(&mut out, graph::MODEL_GRAPH, graph);
        } else {
            out.extend_from_slice(field.raw);
        }
    }
    out
}

#[cfg(test)]
mod hostile;
