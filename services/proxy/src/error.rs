//! What can go wrong in the proxy, and the one mapping to codes.
//!
//! Text says what failed with which value; what a worker or the transport said beyond that goes to the log only.

use std::{sync::Arc, time::Duration};

use mobula_kit::status;
use mobula_proto::common::v1::Priority;
use mobula_serving::{
    admission::{Bound, Full, TooLate},
    quota::{self, Refusal},
    retry::GiveUp,
};
use tonic::{Code, Status};

use crate::problem::Problem;

/// Told to a caller who may try again at once elsewhere: another proxy, or this one after its restart.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// For who asks for what the route table does not have: a config is accepted before the proxies have heard of it.
pub(crate) const JUST_DEPLOYED: &str = "one that was just deployed is here in a moment: `mobula status` says how far it is, `mobula deploy --wait` waits for it";

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fields are wrong.
    #[error("{}", words(.0))]
    Invalid(Vec<Problem>),
    /// There is no such model.
    #[error("there is no model {name:?}; there are: {}; {JUST_DEPLOYED}", list(.known))]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Nobody that may come in.
    #[error("{}", stranger(*.is_shown))]
    Unauthenticated {
        /// True when a key was shown.
        is_shown: bool,
    },
    /// The caller's key does not open the model.
    #[error("this API key does not open the model {model:?}")]
    Closed {
        /// Which, as it was asked for.
        model: String,
    },
    /// The caller's key does not go so far.
    #[error("priority: this API key allows {} at most", class(*.max))]
    TooHigh {
        /// How far it goes.
        max: Priority,
    },
    /// The caller's key allows no more for now.
    #[error("this API key allows {refusal}")]
    OverLimit {
        /// Whose key it is.
        tenant: Arc<str>,
        /// Which limit was reached.
        refusal: Refusal,
    },
    /// No model was named, and there is not exactly one.
    #[error("model: name one of {}", list(.known))]
    ModelNotNamed {
        /// What there is.
        known: Vec<String>,
    },
    /// A model has no such version.
    #[error("{name} has version 1 and no other, not {version:?}")]
    UnknownVersion {
        /// The model.
        name: String,
        /// What was asked for.
        version: String,
    },
    /// There is no such thing here.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The application does not serve such a model.
    #[error("{application} serves no model {model_id:?}; there are: {}", list(.known))]
    UnknownModelId {
        /// Name of the application.
        application: String,
        /// What was asked for.
        model_id: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The application serves models on demand only, and none was named.
    #[error("model_id: name one of {}", list(.known))]
    ModelIdNotNamed {
        /// What there is.
        known: Vec<String>,
    },
    /// A request with this id runs.
    #[error("a request with id {id:?} is running")]
    Duplicate {
        /// The id.
        id: String,
    },
    /// No request with this id runs.
    #[error("no request with id {id:?} is running here")]
    NotRunning {
        /// The id.
        id: String,
    },
    /// Too many wait.
    #[error("{full}")]
    Overloaded {
        /// How many, and when to come back.
        full: Full,
        /// HTTP status of the answer, as the deployment says: 503 or 429.
        status: u16,
    },
    /// It waited for as long as may be.
    #[error(
        "no replica was free for the {waited:?} that a request may wait; come back when there is less to do, or ask for more replicas"
    )]
    WaitedTooLong {
        /// How long it waited.
        waited: Duration,
        /// When there is likely to be room.
        retry_after: Duration,
    },
    /// Too many bytes are held that others draw from.
    #[error("requests hold all of the {limit} bytes of prompts and pictures that they may")]
    PicturesFull {
        /// Bytes that they may hold together.
        limit: u64,
    },
    /// The deadline would pass.
    #[error("{0}")]
    TooLate(#[from] TooLate),
    /// The deadline has passed.
    #[error("the deadline passed")]
    DeadlinePassed,
    /// Its caller stays and does not read.
    #[error("the events were not read for {limit:?}")]
    NotRead {
        /// How long a caller may take to read an event.
        limit: Duration,
    },
    /// Somebody cancelled it.
    #[error("the request was cancelled")]
    Cancelled,
    /// The controller was never heard.
    #[error("the route table is not populated yet")]
    NoRoutes,
    /// No replica came.
    #[error("{}", without(deployment, *waited, why))]
    NoReplica {
        /// Application and deployment.
        deployment: String,
        /// How long the request waited; zero when it did not.
        waited: Duration,
        /// Why there is none, where that is known.
        why: String,
    },
    /// Parts of a split application are of different models for longer than an update may take.
    #[error("the replicas of {deployment} serve another model than the one that draws")]
    OtherModel {
        /// Application and deployment.
        deployment: String,
    },
    /// Other deployments serve the application now.
    #[error("{deployment} is no part of its application any more; the request is to be sent again")]
    Moved {
        /// Application and deployment.
        deployment: String,
    },
    /// Replicas were lost, or replaced while they drew, too often to go on.
    #[error("{reason} and the request is not started again: {why}")]
    GaveUp {
        /// Why it would have to be.
        reason: String,
        /// Which bound was reached.
        why: GiveUp,
        /// How the last attempt ended; for the log.
        #[source]
        last: Box<Status>,
    },
    /// A worker's last word.
    #[error("{}", .0.message())]
    Worker(Box<Status>),
    /// A worker answered what it must not.
    #[error("a worker's answer was wrong: {0}")]
    Answer(&'static str),
    /// The service could not start or serve.
    #[error(transparent)]
    Kit(#[from] mobula_kit::Error),
}

impl Error {
    /// Decides what a caller sees and whether a retry elsewhere can help.
    pub fn code(&self) -> Code {
        match self {
            Self::Invalid(_) | Self::ModelNotNamed { .. } | Self::ModelIdNotNamed { .. } => {
                Code::InvalidArgument
            }
            Self::UnknownModel { .. }
            | Self::UnknownVersion { .. }
            | Self::UnknownModelId { .. }
            | Self::NotRunning { .. } => Code::NotFound,
            Self::Unsupported(_) => Code::Unimplemented,
            Self::Unauthenticated { .. } => Code::Unauthenticated,
            Self::Closed { .. } | Self::TooHigh { .. } => Code::PermissionDenied,
            Self::Duplicate { .. } => Code::AlreadyExists,
            Self::OverLimit { .. }
            | Self::Overloaded { .. }
            | Self::WaitedTooLong { .. }
            | Self::PicturesFull { .. } => Code::ResourceExhausted,
            Self::TooLate(_) | Self::DeadlinePassed | Self::NotRead { .. } => Code::DeadlineExceeded,
            Self::Cancelled => Code::Cancelled,
            Self::NoRoutes
            | Self::NoReplica { .. }
            | Self::OtherModel { .. }
            | Self::Moved { .. }
            | Self::GaveUp { .. } => Code::Unavailable,
            Self::Worker(status) => status.code(),
            Self::Answer(_) | Self::Kit(_) => Code::Internal,
        }
    }

    /// The reason for ErrorInfo: part of the contract.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "INVALID_FIELD",
            Self::UnknownModel { .. } | Self::UnknownVersion { .. } | Self::UnknownModelId { .. } => {
                "UNKNOWN_MODEL"
            }
            Self::Unsupported(_) => "UNSUPPORTED",
            Self::ModelNotNamed { .. } | Self::ModelIdNotNamed { .. } => "MODEL_NOT_NAMED",
            Self::Unauthenticated { is_shown: false } => "API_KEY_MISSING",
            Self::Unauthenticated { is_shown: true } => "API_KEY_INVALID",
            Self::Closed { .. } => "MODEL_NOT_ALLOWED",
            Self::TooHigh { .. } => "PRIORITY_NOT_ALLOWED",
            Self::OverLimit { refusal, .. } => match refusal.bound {
                quota::Bound::Requests => "RATE_LIMIT_EXCEEDED",
                quota::Bound::Running => "CONCURRENCY_LIMIT_EXCEEDED",
                quota::Bound::Minute | quota::Bound::Day => "PIXEL_QUOTA_EXCEEDED",
            },
            Self::Duplicate { .. } => "DUPLICATE_REQUEST",
            Self::NotRunning { .. } => "NOT_RUNNING",
            Self::Overloaded { full, .. } => match full.bound {
                Bound::Requests | Bound::Low => "QUEUE_FULL",
                Bound::Share => "QUEUE_SHARE_FULL",
                Bound::Bytes => "QUEUE_BYTES_FULL",
                Bound::Age => "QUEUE_TOO_LONG",
            },
            Self::WaitedTooLong { .. } => "QUEUE_TOO_LONG",
            Self::PicturesFull { .. } => "PICTURES_FULL",
            Self::TooLate(_) => "DEADLINE_UNREACHABLE",
            Self::DeadlinePassed => "DEADLINE_PASSED",
            Self::NotRead { .. } => "NOT_READ",
            Self::Cancelled => "CANCELLED",
            Self::NoRoutes => "NO_ROUTES",
            Self::NoReplica { .. } | Self::Moved { .. } => "NO_REPLICA",
            Self::OtherModel { .. } => "OTHER_MODEL",
            Self::GaveUp { .. } => "REPLICAS_LOST",
            Self::Worker(_) => "WORKER",
            Self::Answer(_) | Self::Kit(_) => "INTERNAL",
        }
    }

    /// When a retry makes sense, if it does.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { full, .. } => Some(full.retry_after),
            Self::WaitedTooLong { retry_after, .. } => Some(*retry_after),
            Self::OverLimit { refusal, .. } => Some(refusal.retry_after.unwrap_or(RETRY_SOON)),
            Self::PicturesFull { .. }
            | Self::NoRoutes
            | Self::NoReplica { .. }
            | Self::OtherModel { .. }
            | Self::Moved { .. }
            | Self::GaveUp { .. } => Some(RETRY_SOON),
            Self::Worker(status) => status::retry_after(status),
            Self::Invalid(_)
            | Self::Unauthenticated { .. }
            | Self::Closed { .. }
            | Self::TooHigh { .. }
            | Self::UnknownModel { .. }
            | Self::UnknownVersion { .. }
            | Self::Unsupported(_)
            | Self::UnknownModelId { .. }
            | Self::ModelNotNamed { .. }
            | Self::ModelIdNotNamed { .. }
            | Self::Duplicate { .. }
            | Self::NotRunning { .. }
            | Self::TooLate(_)
            | Self::DeadlinePassed
            | Self::NotRead { .. }
            | Self::Cancelled
            | Self::Answer(_)
            | Self::Kit(_) => None,
        }
    }

    /// The fields that are wrong, with why.
    pub fn violations(&self) -> Vec<(String, String)> {
        match self {
            Self::Invalid(problems) => problems
                .iter()
                .map(|p| (p.field.clone().into_owned(), p.rule.to_string()))
                .collect(),
            Self::ModelNotNamed { known } => {
                vec![("model".to_owned(), format!("name one of {}", list(known)))]
            }
            Self::ModelIdNotNamed { known } => {
                vec![("model_id".to_owned(), format!("name one of {}", list(known)))]
            }
            Self::Worker(status) => status::violations(status),
            Self::Unauthenticated { .. }
            | Self::Closed { .. }
            | Self::TooHigh { .. }
            | Self::OverLimit { .. }
            | Self::UnknownModel { .. }
            | Self::UnknownVersion { .. }
            | Self::Unsupported(_)
            | Self::UnknownModelId { .. }
            | Self::Duplicate { .. }
            | Self::NotRunning { .. }
            | Self::Overloaded { .. }
            | Self::WaitedTooLong { .. }
            | Self::PicturesFull { .. }
            | Self::TooLate(_)
            | Self::DeadlinePassed
            | Self::NotRead { .. }
            | Self::Cancelled
            | Self::NoRoutes
            | Self::NoReplica { .. }
            | Self::OtherModel { .. }
            | Self::Moved { .. }
            | Self::GaveUp { .. }
            | Self::Answer(_)
            | Self::Kit(_) => Vec::new(),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        if let Error::Worker(status) = error {
            return *status;
        }
        let violations = error.violations();
        if !violations.is_empty() {
            return status::invalid_fields(violations);
        }
        if let Error::OverLimit { tenant, .. } = &error {
            let over = status::Quota {
                subject: format!("tenant:{tenant}"),
                retry_after: error.retry_after().unwrap_or(RETRY_SOON),
            };
            return status::over_quota(error.reason(), error.to_string(), over);
        }
        match error.retry_after() {
            Some(after) => status::retryable(error.code(), error.reason(), error.to_string(), after),
            None => status::error(error.code(), error.reason(), error.to_string()),
        }
    }
}

/// What somebody is told who may not come in.
fn stranger(is_shown: bool) -> &'static str {
    if is_shown {
        "the API key is not known here"
    } else {
        "an API key is needed: show it as `authorization: Bearer KEY` or as `x-api-key: KEY`"
    }
}

/// A class as callers write it.
fn class(class: Priority) -> &'static str {
    match class {
        Priority::Low => "low",
        Priority::Unspecified | Priority::Normal => "normal",
        Priority::High => "high",
    }
}

fn without(deployment: &str, waited: Duration, why: &str) -> String {
    match (waited.is_zero(), why) {
        (true, "") => format!("{deployment} has no replica yet"),
        (true, why) => format!("{deployment} has no replica: {why}"),
        (false, "") => format!("no replica of {deployment} was there within {waited:?}"),
        (false, why) => format!("no replica of {deployment} was there within {waited:?}: {why}"),
    }
}

fn words(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(|p| format!("{}: {}", p.field, p.rule))
        .collect::<Vec<_>>()
        .join("; ")
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Rule;

    #[test]
    fn bad_fields_become_a_bad_request_with_every_field() {
        let error = Error::Invalid(vec![
            Problem::new("prompt", Rule::TooShort { min: 1 }),
            Problem::new("width", Rule::MultipleOf { is: 100, of: 8 }),
        ]);
        let status = Status::from(error);
        assert_eq!(status.code(), Code::InvalidArgument);
        let fields: Vec<_> = status::violations(&status)
            .into_iter()
            .map(|(field, _)| field)
            .collect();
        assert_eq!(fields, ["prompt", "width"]);
    }

    #[test]
    fn a_full_queue_says_when_to_come_back() {
        let full = Full {
            waiting: 3,
            retry_after: Duration::from_secs(7),
            ..Full::default()
        };
        let status = Status::from(Error::Overloaded { full, status: 429 });
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status::retry_after(&status), Some(Duration::from_secs(7)));
        assert_eq!(status::reason(&status).as_deref(), Some("QUEUE_FULL"));
    }

    #[test]
    fn who_is_over_a_limit_is_told_which_whose_and_when_to_come_back() {
        let refusal = Refusal {
            bound: quota::Bound::Requests,
            limit: 0.5,
            retry_after: Some(Duration::from_millis(1500)),
        };
        let tenant = "acme".into();
        let status = Status::from(Error::OverLimit { tenant, refusal });
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.message(), "this API key allows 0.5 requests per second");
        assert_eq!(status::retry_after(&status), Some(Duration::from_millis(1500)));
        assert_eq!(status::reason(&status).as_deref(), Some("RATE_LIMIT_EXCEEDED"));
        let subjects = status::quotas(&status);
        assert_eq!(
            subjects,
            [("tenant:acme".to_owned(), status.message().to_owned())]
        );
    }

    #[test]
    fn who_finds_no_replica_is_told_why() {
        let told = |seconds, why: &str| {
            let error = Error::NoReplica {
                deployment: "demo#pipeline".into(),
                waited: Duration::from_secs(seconds),
                why: why.into(),
            };
            error.to_string()
        };
        assert_eq!(told(0, "no GPU"), "demo#pipeline has no replica: no GPU");
        assert_eq!(told(30, ""), "no replica of demo#pipeline was there within 30s");
        assert_eq!(
            told(30, "no GPU"),
            "no replica of demo#pipeline was there within 30s: no GPU"
        );
    }

    #[test]
    fn an_unknown_model_lists_those_there_are() {
        let error = Error::UnknownModel {
            name: "x".into(),
            known: vec!["a".into(), "b".into()],
        };
        assert_eq!(
            error.to_string(),
            format!("there is no model \"x\"; there are: a, b; {JUST_DEPLOYED}")
        );
    }
}
