//! What can go wrong in the inference service, and what a caller sees of it.
//!
//! Errors about a model folder or an option end a replica's start and are words for people; errors about a request or a run
//! become a gRPC status by [`Error::code`], the only place where that is decided.

use std::time::Duration;

use mobula_diffusion as diffusion;
use mobula_kit::status;
use tonic::{Code, Status};

use crate::engine::Stages;

/// Everything the service refuses or fails at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The shared library is not where it is looked for.
    #[error(
        "ONNX Runtime's library cannot be loaded ({why}); scripts/fetch-onnxruntime.sh fetches it into .ort/lib, or say \
         where it is with --onnxruntime or ORT_DYLIB_PATH"
    )]
    Library {
        /// What was tried and how it failed.
        why: String,
    },
    /// A file of a model folder is missing or cannot be read.
    #[error("{path}: {why}")]
    File {
        /// Path inside the model folder, or of the folder itself.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// A part of the model is not of a kind that is served.
    #[error("{part}: {why}")]
    Model {
        /// `text_encoder`, `unet` or `vae_decoder`.
        part: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A model does not fit into the worker's memory beside those that are there.
    #[error(
        "it takes {}, and {} of the {} of this worker are left: stop another model here, place it on another worker, or give \
         this one more (--memory-bytes)", bytes(*needs), bytes(*left), bytes(*budget)
    )]
    Memory {
        /// Bytes that the model takes.
        needs: u64,
        /// Bytes that are left.
        left: u64,
        /// Bytes in all.
        budget: u64,
    },
    /// A model on demand has no place.
    #[error("there is no room for model {id:?}: {why}")]
    NoRoom {
        /// Its id.
        id: String,
        /// What takes the room.
        why: String,
    },
    /// A replica was assigned with an option that its engine does not have, or with a wrong value.
    #[error("option {name}: {why}")]
    Option {
        /// The option's name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// The model's scheduler configuration, or a request's scheduler or steps.
    #[error(transparent)]
    Diffusion(#[from] diffusion::Error),
    /// Fields of a request are wrong.
    #[error("{}", .0.iter().map(|(field, why)| format!("{field}: {why}")).collect::<Vec<_>>().join("; "))]
    Request(Vec<(String, String)>),
    /// The replica has as much work as it may have.
    #[error("the replica has {pictures} pictures to draw already")]
    Overloaded {
        /// Pictures that wait or run.
        pictures: usize,
    },
    /// The caller's deadline passed.
    #[error("the deadline passed {}", if *started { "while the picture was drawn" } else { "before the first step" })]
    DeadlinePassed {
        /// Whether the first step had run.
        started: bool,
    },
    /// A run of the model failed; the replica goes on.
    #[error("{part} failed: {why}")]
    Run {
        /// Which part ran.
        part: &'static str,
        /// What the engine said.
        why: String,
    },
    /// A picture's numbers left the range of numbers on the way; no replica can do better, and this one goes on.
    #[error(
        "the sample is not finite (NaN or infinity) after step {step} of {of}: the model's numbers overflow with this request; a \
         lower guidance_scale, weaker weights in the prompt, other sampler_options, or an export in float32 may help"
    )]
    Diverged {
        /// The step, counted from 1.
        step: u32,
        /// Steps in all.
        of: u32,
    },
    /// The decoder makes no picture of finite latents, in float32 neither; no replica can do better, and this one goes on.
    #[error(
        "the VAE decoder's values are not finite (NaN or infinity) for this picture, in float32 neither: its latents are far from \
         those of any picture; a lower guidance_scale, weaker weights in the prompt or other sampler_options may help"
    )]
    Undecodable,
    /// A run was ended from another thread, because nobody wants its outcome any more.
    #[error("the run was interrupted")]
    Interrupted,
    /// The replica is of a part of the model that does not do this.
    #[error(
        "this replica does {has} of a picture's way, and was asked for {asked}; ask the deployment that has it"
    )]
    NoStage {
        /// What it was asked for.
        asked: Stages,
        /// What it does.
        has: Stages,
    },
    /// The engine's contract was broken by its caller.
    #[error("{what} has {got} values, expected {expected}")]
    Contract {
        /// Which buffer.
        what: &'static str,
        /// Its length.
        got: usize,
        /// The length it should have.
        expected: usize,
    },
    /// The engine failed for good; another replica can do it.
    #[error("the replica's engine failed: {0}")]
    Failed(String),
    /// The replica is being removed, or the caller went away.
    #[error("the replica is stopping")]
    Stopping,
    /// A picture could not be written.
    #[error("the picture cannot be encoded: {0}")]
    Encode(String),
    /// Listening, serving or attaching failed.
    #[error(transparent)]
    Kit(#[from] mobula_kit::Error),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// An amount of memory for people; never rounded to nothing.
fn bytes(bytes: u64) -> String {
    match bytes {
        0 => "none".to_owned(),
        1..0x400 => format!("{bytes} bytes"),
        0x400..0x10_0000 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

/// Whether what the system or the runtime said of a model's file is about the moment and not about the file: errors of the
/// system other than that there is no such file (2, ENOENT), and memory that could not be had. ONNX Runtime tells its
/// allocation failures in words only.
fn may_pass(why: &str) -> bool {
    let why = why.to_ascii_lowercase();
    let system = why.contains("(os error ") && !why.contains("(os error 2)");
    system || why.contains("memory") || why.contains("alloc")
}

/// After this long another try at a full replica may succeed: a few ticks of a small model.
const RETRY_OVERLOADED: Duration = Duration::from_millis(100);

impl Error {
    /// Decides what a caller sees and whether another replica can help.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Request(_) => Code::InvalidArgument,
            Self::Diffusion(error) => match error.code() {
                diffusion::Code::InvalidArgument => Code::InvalidArgument,
                diffusion::Code::FailedPrecondition => Code::FailedPrecondition,
                diffusion::Code::Internal => Code::Internal,
            },
            Self::File { .. }
            | Self::Model { .. }
            | Self::Memory { .. }
            | Self::Option { .. }
            | Self::NoStage { .. }
            | Self::Diverged { .. }
            | Self::Undecodable => Code::FailedPrecondition,
            Self::Overloaded { .. } | Self::NoRoom { .. } => Code::ResourceExhausted,
            Self::DeadlinePassed { .. } => Code::DeadlineExceeded,
            Self::Run { .. } | Self::Interrupted | Self::Contract { .. } | Self::Encode(_) => Code::Internal,
            Self::Library { .. } | Self::Failed(_) | Self::Stopping | Self::Kit(_) | Self::Thread(_) => {
                Code::Unavailable
            }
        }
    }

    /// Whether loading the same model here again would fail alike: it is missing, is no model that is served, or its options
    /// are wrong. Memory that is short and a disk that cannot be read may do better the next time.
    pub(crate) fn is_permanent(&self) -> bool {
        match self {
            Self::File { why, .. } | Self::Model { why, .. } => !may_pass(why),
            Self::Option { .. } => true,
            Self::Diffusion(error) => error.code() != diffusion::Code::Internal,
            Self::Library { .. }
            | Self::Memory { .. }
            | Self::NoRoom { .. }
            | Self::Request(_)
            | Self::NoStage { .. }
            | Self::Overloaded { .. }
            | Self::DeadlinePassed { .. }
            | Self::Run { .. }
            | Self::Diverged { .. }
            | Self::Undecodable
            | Self::Interrupted
            | Self::Contract { .. }
            | Self::Failed(_)
            | Self::Stopping
            | Self::Encode(_)
            | Self::Kit(_)
            | Self::Thread(_) => false,
        }
    }

    /// The same about a network that is being loaded: no request is to blame, so its file is named.
    pub(crate) fn of_file(self) -> Self {
        if let Self::Run { part, why } = self {
            let path = format!("{part}/model.onnx");
            return Self::File { path, why };
        }
        self
    }

    /// The machine-readable reason beside the code.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Request(_) => "INVALID_REQUEST",
            Self::Diffusion(_) => "SCHEDULER",
            Self::File { .. } | Self::Model { .. } | Self::Memory { .. } | Self::Option { .. } => "MODEL",
            Self::NoStage { .. } => "NO_STAGE",
            Self::Overloaded { .. } => "REPLICA_FULL",
            Self::NoRoom { .. } => "MODELS_FULL",
            Self::DeadlinePassed { .. } => "DEADLINE_PASSED",
            Self::Run { .. } => "RUN_FAILED",
            Self::Diverged { .. } | Self::Undecodable => "NOT_FINITE",
            Self::Interrupted | Self::Contract { .. } | Self::Encode(_) => "INTERNAL",
            Self::Library { .. } | Self::Failed(_) | Self::Kit(_) | Self::Thread(_) => "ENGINE_FAILED",
            Self::Stopping => "REPLICA_STOPPING",
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match &error {
            Error::Request(violations) => status::invalid_fields(violations.clone()),
            Error::Diffusion(inner) if error.code() == Code::InvalidArgument => {
                let (field, text) = (inner.field(), inner.to_string());
                // The text begins with the field, which the details say already.
                let why = text
                    .strip_prefix(field)
                    .and_then(|text| text.strip_prefix(": "))
                    .unwrap_or(&text);
                status::invalid(field, why)
            }
            Error::Overloaded { .. } | Error::NoRoom { .. } => {
                status::retryable(error.code(), error.reason(), error.to_string(), RETRY_OVERLOADED)
            }
            // What the model's runtime said stays in the log; it may name paths of this machine.
            Error::Run { part, .. } => status::error(error.code(), error.reason(), format!("{part} failed")),
            Error::Failed(_) => status::error(error.code(), error.reason(), "the replica's engine failed"),
            Error::Library { .. }
            | Error::File { .. }
            | Error::Model { .. }
            | Error::Memory { .. }
            | Error::Option { .. }
            | Error::Diffusion(_)
            | Error::NoStage { .. }
            | Error::DeadlinePassed { .. }
            | Error::Diverged { .. }
            | Error::Undecodable
            | Error::Interrupted
            | Error::Contract { .. }
            | Error::Stopping
            | Error::Encode(_)
            | Error::Kit(_)
            | Error::Thread(_) => status::error(error.code(), error.reason(), error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_scheduler_is_the_callers_fault_and_names_the_field() {
        let error = Error::from(diffusion::scheduler::Choice::parse("nonsense", "").unwrap_err());
        assert_eq!(error.code(), Code::InvalidArgument);
        let violations = status::violations(&Status::from(error));
        assert_eq!(violations[0].0, "scheduler");
        assert!(violations[0].1.contains("euler_a"), "{violations:?}");
    }

    #[test]
    fn numbers_that_overflow_are_told_with_the_step_and_are_no_fault_of_the_engine() {
        for error in [Error::Diverged { step: 3, of: 20 }, Error::Undecodable] {
            let text = error.to_string();
            let told = Status::from(error);
            assert_eq!(told.code(), Code::FailedPrecondition);
            assert_eq!(status::reason(&told).as_deref(), Some("NOT_FINITE"));
            assert_eq!(told.message(), text);
        }
        let told = Error::Diverged { step: 3, of: 20 }.to_string();
        assert!(told.contains("after step 3 of 20"), "{told}");
    }

    #[test]
    fn only_what_is_wrong_with_the_model_itself_is_permanent() {
        let file = |why: &str| Error::File {
            path: "unet/model.onnx".into(),
            why: why.into(),
        };
        let model = |why: &str| Error::Model {
            part: "unet",
            why: why.into(),
        };
        for error in [
            file("is missing (is this an ONNX export?)"),
            file("No such file or directory (os error 2)"),
            model("model.onnx cannot be loaded: Protobuf parsing failed"),
            Error::Option {
                name: "warp".into(),
                why: "is unknown".into(),
            },
        ] {
            assert!(error.is_permanent(), "{error}");
        }
        for error in [
            file("Input/output error (os error 5)"),
            file("Too many open files (os error 24)"),
            model(
                "model.onnx cannot be loaded: Failed to allocate memory for requested buffer of size 1048576",
            ),
            model("model.onnx cannot be loaded: CUDA failure 2: out of memory"),
            Error::Memory {
                needs: 2,
                left: 1,
                budget: 1,
            },
            Error::Failed("device lost".into()),
        ] {
            assert!(!error.is_permanent(), "{error}");
        }
    }

    #[test]
    fn little_memory_is_not_told_as_none() {
        let told = |needs, left, budget| Error::Memory { needs, left, budget }.to_string();
        let (kib, mib) = (1 << 10, 1 << 20);
        assert!(
            told(3 * mib, 300 * kib, 900 * kib)
                .starts_with("it takes 3 MiB, and 300 KiB of the 900 KiB of this worker are left")
        );
        assert!(
            told(3 * mib, 0, 500)
                .starts_with("it takes 3 MiB, and none of the 500 bytes of this worker are left")
        );
    }

    #[test]
    fn what_the_runtime_says_is_not_told_to_callers() {
        let status = Status::from(Error::Run {
            part: "unet",
            why: "/models/secret/unet/model.onnx".into(),
        });
        assert_eq!((status.code(), status.message()), (Code::Internal, "unet failed"));
        let status = Status::from(Error::Failed("/models/secret".into()));
        assert_eq!(status.code(), Code::Unavailable);
        assert!(!status.message().contains("secret"));
    }
}
