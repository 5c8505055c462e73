//! The Open Inference Protocol, version 2, as KServe has it and Triton extends it: applications as models, over gRPC
//! (`inference.GRPCInferenceService`) and HTTP (`/v2`).
//!
//! Both doors read a request into an [`ask::Ask`] and write an [`ask::Answer`]; what is asked of a pipeline becomes requests
//! of the generator, with its admission, deadlines and cancels. It refuses what it cannot do (shared memory, classification,
//! sequences) by name, and never drops a tensor or a parameter that it does not know.

mod ask;
mod catalog;
mod datatype;
mod drawn;
mod given;
mod grpc;
mod infer;
pub(crate) mod json;
mod pipeline;
mod spec;
mod stage;
mod statistics;
mod story;
mod tensor;

pub(crate) use self::{
    ask::{Answer, Ask, Parameters, To, VERSION, Value},
    catalog::{Which, all, load_as_it_is},
    datatype::Datatype,
    grpc::{EXTENSIONS, Inference, NO_LOG, NO_SHARED_MEMORY, NO_TRACES, NO_UNLOAD, SERVER, refused},
    infer::{Oip, Terms},
    statistics::{Ended, Statistics},
    tensor::{Elements, Head, Tensor, shown, wrong},
};
