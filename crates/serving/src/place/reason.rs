//! Why a replica has no place, in words that say what to do about it.

use std::fmt;

use super::{Amounts, Kind, Resource};

/// Why the replicas of a group that were not placed were not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There is no worker of the kind.
    NoWorker {
        /// What kind it takes.
        kind: Kind,
    },
    /// Every worker of the kind holds as many replicas as it may.
    NoRoom {
        /// What kind it takes.
        kind: Kind,
        /// How many there are.
        workers: usize,
    },
    /// No worker of the kind has enough of one resource.
    Short {
        /// What kind it takes.
        kind: Kind,
        /// Of what there is too little.
        resource: Resource,
        /// What is needed.
        need: u64,
        /// What the worker with most of it has free.
        free: u64,
        /// What that worker has in all.
        of: u64,
    },
    /// Each resource is free somewhere, but no worker of the kind has all of them.
    Apart {
        /// What kind it takes.
        kind: Kind,
        /// What is needed together.
        need: Amounts,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWorker { kind } => write!(f, "no {kind} worker is attached"),
            Self::NoRoom { kind, workers: 1 } => {
                write!(
                    f,
                    "the one {kind} worker holds as many replicas as it may; add a worker"
                )
            }
            Self::NoRoom { kind, workers } => {
                write!(
                    f,
                    "all {workers} {kind} workers hold as many replicas as they may; add a worker"
                )
            }
            Self::Short {
                kind,
                resource,
                need,
                free,
                of,
            } if need > of => write!(
                f,
                "no {kind} worker has {}: the largest has {} (free: {}); start a larger worker or lower {}",
                resource.words(*need, ""),
                resource.amount(*of),
                resource.amount(*free),
                resource.option(),
            ),
            Self::Short {
                kind,
                resource,
                need,
                free,
                of,
            } => write!(
                f,
                "no {kind} worker has {}: the largest has {} free of {}; add a worker or lower {}",
                resource.words(*need, "free"),
                resource.amount(*free),
                resource.amount(*of),
                resource.option(),
            ),
            Self::Apart { kind, need } => {
                write!(
                    f,
                    "no {kind} worker has {need} free together; add a worker or lower the replica's need"
                )
            }
        }
    }
}
