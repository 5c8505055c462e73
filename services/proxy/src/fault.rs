//! What a worker's status means for the request that got it. Pure.
//!
//! The line is drawn so: what the *request* is to blame for, or what the model itself says, is final; whatever happens to
//! a replica or to the way there is not the caller's business. Doing a request twice is harmless, because the same seeds
//! draw the same pictures.

use std::error::Error as _;

use tonic::{Code, Status};

/// What a status means.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The replica has as many requests as it takes.
    Full,
    /// The replica does not have the model.
    Lacks,
    /// The replica, or the way to it, is gone.
    Gone(Status),
    /// The deadline passed.
    TimedOut,
    /// An answer like any other: it goes to the caller.
    Final(Status),
}

/// Classifies the end of a call. `accepted` says whether the replica had taken the request.
pub(crate) fn classify(status: Status, accepted: bool) -> Fault {
    let status = mobula_kit::status::received(status);
    // A status with a source was made on this side out of a broken transport; one from the worker has none.
    if status.source().is_some() {
        return Fault::Gone(status);
    }
    match status.code() {
        Code::ResourceExhausted if !accepted => Fault::Full,
        // CANCELLED without our asking: the stream was reset. UNKNOWN: it ended without a status.
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::ResourceExhausted => Fault::Gone(status),
        // The worker does not have the replica any more, or another program took over its address.
        Code::NotFound | Code::Unimplemented if !accepted => Fault::Gone(status),
        // A rollout that adds models leaves replicas for a while that do not have them yet.
        Code::InvalidArgument if !accepted && names_model(&status) => Fault::Lacks,
        Code::DeadlineExceeded => Fault::TimedOut,
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss
        | Code::Unauthenticated => Fault::Final(status),
    }
}

/// Whether a last word says that something is wrong with the replica, and not with the request or its picture.
pub(crate) fn is_own_fault(status: &Status) -> bool {
    matches!(status.code(), Code::Internal | Code::DataLoss)
}

/// The field to blame is the one that the proxy checked against the table.
fn names_model(status: &Status) -> bool {
    mobula_kit::status::violations(status)
        .iter()
        .any(|(field, _)| field == "model_id")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_full_replica_is_not_a_lost_one() {
        assert!(matches!(
            classify(Status::resource_exhausted(""), false),
            Fault::Full
        ));
        assert!(matches!(
            classify(Status::resource_exhausted(""), true),
            Fault::Gone(_)
        ));
    }

    #[test]
    fn what_the_request_is_to_blame_for_is_final() {
        assert!(matches!(
            classify(Status::invalid_argument(""), false),
            Fault::Final(_)
        ));
        assert!(matches!(
            classify(Status::internal("the model failed"), true),
            Fault::Final(_)
        ));
    }

    #[test]
    fn a_replica_that_lacks_the_model_is_not_lost() {
        let status = mobula_kit::status::invalid("model_id", "there is no such model");
        assert!(matches!(classify(status.clone(), false), Fault::Lacks));
        assert!(matches!(classify(status, true), Fault::Final(_)));
    }

    #[test]
    fn a_broken_transport_is_a_lost_replica_whatever_its_code() {
        let mut status = Status::internal("h2 protocol error");
        status.set_source(Arc::new(std::io::Error::other("reset")));
        assert!(matches!(classify(status, true), Fault::Gone(_)));
        assert!(matches!(
            classify(Status::unknown("no status"), true),
            Fault::Gone(_)
        ));
        assert!(matches!(
            classify(Status::not_found("no such replica"), false),
            Fault::Gone(_)
        ));
    }

    #[test]
    fn the_clients_own_timer_is_a_deadline() {
        assert!(matches!(
            classify(Status::cancelled("Timeout expired"), true),
            Fault::TimedOut
        ));
    }
}
