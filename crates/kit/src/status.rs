//! gRPC statuses with google.rpc details, made and read the same way by every service.
//!
//! The domain of every ErrorInfo is `mobula`. Retry hints travel in RetryInfo and in gRPC's own pushback metadata,
//! never in text. Internal causes do not belong in here: they are logged where they end.

use std::time::Duration;

use tonic::{Code, Status, metadata::MetadataMap};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

/// Domain of the reasons in ErrorInfo.
pub const DOMAIN: &str = "mobula";

/// Metadata by which a gRPC client's own retry policy is told when to come back (gRFC A6), milliseconds.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// Names of the codes, by number, as gRPC and protobuf's JSON write them.
pub const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The name of a code.
pub fn name(code: Code) -> &'static str {
    CODES[code as usize]
}

/// INVALID_ARGUMENT with a BadRequest that names one field and why.
pub fn invalid(field: &str, why: impl Into<String>) -> Status {
    invalid_fields(vec![(field.to_owned(), why.into())])
}

/// INVALID_ARGUMENT with a BadRequest that names each field and why; the message says the same in words.
pub fn invalid_fields(violations: Vec<(String, String)>) -> Status {
    let said: Vec<_> = violations
        .iter()
        .map(|(field, why)| format!("{field}: {why}"))
        .collect();
    let fields: Vec<_> = violations
        .into_iter()
        .map(|(field, why)| FieldViolation::new(field, why))
        .collect();
    Status::with_error_details(
        Code::InvalidArgument,
        said.join("; "),
        ErrorDetails::with_bad_request(fields),
    )
}

/// A status with an ErrorInfo; `reason` is SCREAMING_SNAKE and part of the contract.
pub fn error(code: Code, reason: &'static str, message: impl Into<String>) -> Status {
    let details = ErrorDetails::with_error_info(reason, DOMAIN, std::collections::HashMap::new());
    Status::with_error_details(code, message, details)
}

/// A status with an ErrorInfo and the time after which a retry makes sense.
pub fn retryable(
    code: Code,
    reason: &'static str,
    message: impl Into<String>,
    retry_after: Duration,
) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, std::collections::HashMap::new());
    details.set_retry_info(Some(retry_after));
    Status::with_error_details_and_metadata(code, message, details, pushback(retry_after))
}

/// A quota that is used up.
#[derive(Debug)]
pub struct Quota {
    /// Whose, as `tenant:NAME`.
    pub subject: String,
    /// When a retry makes sense.
    pub retry_after: Duration,
}

/// RESOURCE_EXHAUSTED with an ErrorInfo, a QuotaFailure that says the message of its subject, and the time after which a
/// retry makes sense.
pub fn over_quota(reason: &'static str, message: String, quota: Quota) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, std::collections::HashMap::new());
    details.add_quota_failure_violation(quota.subject, message.clone());
    details.set_retry_info(Some(quota.retry_after));
    let metadata = pushback(quota.retry_after);
    Status::with_error_details_and_metadata(Code::ResourceExhausted, message, details, metadata)
}

/// When to come back, for gRPC's own retry policies.
fn pushback(retry_after: Duration) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    let millis = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
    metadata.insert(PUSHBACK, millis.into());
    metadata
}

/// The subjects whose quotas a status says are used up, with why.
pub fn quotas(status: &Status) -> Vec<(String, String)> {
    let failure = status.get_details_quota_failure();
    let violations = failure.map(|failure| failure.violations).unwrap_or_default();
    violations
        .into_iter()
        .map(|violation| (violation.subject, violation.description))
        .collect()
}

/// The reason in a status's ErrorInfo, whatever its domain.
pub fn reason(status: &Status) -> Option<String> {
    status.get_details_error_info().map(|info| info.reason)
}

/// When a retry makes sense, if the status says so.
pub fn retry_after(status: &Status) -> Option<Duration> {
    status.get_details_retry_info()?.retry_delay
}

/// The fields that a status complains about, with why.
pub fn violations(status: &Status) -> Vec<(String, String)> {
    let fields = status
        .get_details_bad_request()
        .map(|bad| bad.field_violations)
        .unwrap_or_default();
    fields
        .into_iter()
        .map(|violation| (violation.field, violation.description))
        .collect()
}

/// Puts right what a call of ours ended with: tonic's client says CANCELLED when its own timer for `grpc-timeout` runs
/// out, where gRPC means DEADLINE_EXCEEDED. Pass every status received from a client through it.
pub fn received(status: Status) -> Status {
    // The text of tonic's `TimeoutExpired`; the type itself does not survive in the status.
    if status.code() == Code::Cancelled && status.message() == "Timeout expired" {
        return Status::deadline_exceeded("the deadline of the call passed");
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_name() {
        for (number, name) in (0..).zip(CODES) {
            let code = Code::from_i32(number);
            assert_eq!((code as i32, self::name(code)), (number, name));
            let debug = format!("{code:?}").to_lowercase();
            assert_eq!(name.replace('_', "").to_lowercase(), debug);
        }
    }

    #[test]
    fn a_bad_request_names_every_field() {
        let given = vec![
            ("steps".to_owned(), "must be 1 to 1000".to_owned()),
            ("width".to_owned(), "must be a multiple of 8".to_owned()),
        ];
        let status = invalid_fields(given.clone());
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(
            status.message(),
            "steps: must be 1 to 1000; width: must be a multiple of 8"
        );
        assert_eq!(violations(&status), given);
    }

    #[test]
    fn a_retryable_status_says_why_and_when() {
        let status = retryable(
            Code::ResourceExhausted,
            "REPLICA_FULL",
            "full",
            Duration::from_millis(250),
        );
        assert_eq!(reason(&status).as_deref(), Some("REPLICA_FULL"));
        assert_eq!(retry_after(&status), Some(Duration::from_millis(250)));
        assert_eq!(status.metadata().get(PUSHBACK).unwrap(), "250");
    }

    #[test]
    fn a_plain_status_has_no_details() {
        let status = Status::unavailable("away");
        assert_eq!((reason(&status), retry_after(&status)), (None, None));
        assert!(violations(&status).is_empty());
    }
}
