//! What can go wrong, told by name: which key or field, which value, and what would be accepted.
//!
//! Invariant: every error is about an input (a request or a model's files); nothing here fails by itself.

/// Whose input an error is about, so that a service can pick its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The request asked for something that cannot be done; the same request fails on every replica.
    InvalidArgument,
    /// The model's scheduler configuration cannot be used; no request can repair it.
    FailedPrecondition,
    /// The caller broke this crate's contract (a buffer of the wrong length, a step too many).
    Internal,
}

/// Everything this crate refuses.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("scheduler_config.json is not valid JSON: {reason}")]
    Json { reason: String },
    #[error("scheduler_config.json: key `{key}` is missing")]
    Missing { key: &'static str },
    #[error("scheduler_config.json: key `{key}` is {value}, expected {expected}")]
    Value {
        key: &'static str,
        value: String,
        expected: String,
    },
    #[error("scheduler_config.json: key `{key}` is {value}, which is not served: {reason}")]
    Unsupported {
        key: &'static str,
        value: String,
        reason: &'static str,
    },
    #[error("scheduler: unknown name `{name}`, accepted are {accepted}")]
    UnknownScheduler { name: String, accepted: String },
    #[error("scheduler: `{name}` is not served: {reason}")]
    RefusedScheduler { name: String, reason: &'static str },
    #[error("sigma_schedule: unknown name `{name}`, accepted are {accepted}")]
    UnknownSchedule { name: String, accepted: String },
    #[error("sigma_schedule: `{schedule}` cannot be used with scheduler `{kind}`, accepted are {accepted}")]
    Schedule {
        schedule: String,
        kind: String,
        accepted: String,
    },
    #[error("scheduler: `{kind}` cannot be used with this model's `{key}` = {value}: {reason}")]
    Incompatible {
        kind: String,
        key: &'static str,
        value: String,
        reason: &'static str,
    },
    #[error("steps: {steps} is out of range, accepted are 1 to {max}")]
    Steps { steps: usize, max: usize },
    #[error("steps: {steps} cannot be done by `{kind}` with this model: {reason}")]
    StepsForKind {
        steps: usize,
        kind: String,
        reason: &'static str,
    },
    #[error("{field}: {value} is out of range, accepted are {accepted}")]
    Field {
        field: &'static str,
        value: String,
        accepted: &'static str,
    },
    #[error("{what} has {got} values, expected {expected}")]
    Length {
        what: &'static str,
        got: usize,
        expected: usize,
    },
    #[error("{what}: the trajectory has rows for {expected} outputs, got {got}")]
    Rows {
        what: &'static str,
        got: usize,
        expected: usize,
    },
    #[error("the trajectory is done after {calls} model calls")]
    Done { calls: usize },
}

impl Error {
    /// Decides whose fault it is: the request's, the model's or the caller's.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::UnknownScheduler { .. }
            | Self::RefusedScheduler { .. }
            | Self::UnknownSchedule { .. }
            | Self::Schedule { .. }
            | Self::Incompatible { .. }
            | Self::Steps { .. }
            | Self::StepsForKind { .. }
            | Self::Field { .. } => Code::InvalidArgument,
            Self::Json { .. } | Self::Missing { .. } | Self::Value { .. } | Self::Unsupported { .. } => {
                Code::FailedPrecondition
            }
            Self::Length { .. } | Self::Rows { .. } | Self::Done { .. } => Code::Internal,
        }
    }

    /// Names the request field or the configuration key at fault; empty where neither is.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::Missing { key } | Self::Value { key, .. } | Self::Unsupported { key, .. } => key,
            Self::UnknownScheduler { .. } | Self::RefusedScheduler { .. } | Self::Incompatible { .. } => {
                "scheduler"
            }
            Self::UnknownSchedule { .. } | Self::Schedule { .. } => "sigma_schedule",
            Self::Steps { .. } | Self::StepsForKind { .. } => "steps",
            Self::Field { field, .. } => field,
            Self::Json { .. } => "scheduler_config.json",
            Self::Length { .. } | Self::Rows { .. } | Self::Done { .. } => "",
        }
    }
}
