//! What can keep a load test from running at all; a request that fails is a result, not an error.

use std::path::PathBuf;

/// Why no report could be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The target's address is no address.
    #[error(
        "`{target}` is no address: use host:port for gRPC or http://host:port for HTTP, under TLS grpcs:// and https://"
    )]
    Target {
        /// What was given.
        target: String,
    },
    /// Nothing answered before the load began.
    #[error("{target} did not answer the first request: {why}; is the mesh running (`mobula up`)?")]
    Unreachable {
        /// What was called.
        target: String,
        /// What came back.
        why: String,
    },
    /// The rate over time cannot be read.
    #[error("the rate over time is wrong: {why}")]
    Stages {
        /// What is wrong with it.
        why: String,
    },
    /// A class of requests cannot be read.
    #[error(
        "`{text}` does not describe requests: write name=big,weight=15,size=512,steps=20,guidance=7.5,priority=high,slo=20s"
    )]
    Class {
        /// What was given.
        text: String,
    },
    /// There are too many different requests.
    #[error("{cards} different requests, {most} can be: use fewer --seeds, prompts or classes")]
    Mix {
        /// How many there would be.
        cards: u64,
        /// How many there can be.
        most: u64,
    },
    /// A trace cannot be read.
    #[error("the trace's line {line}: {why}")]
    Trace {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// An option's value makes no sense.
    #[error("--{option} {value}: {why}")]
    Option {
        /// Its name.
        option: &'static str,
        /// Its value.
        value: String,
        /// What can be.
        why: &'static str,
    },
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Where from.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A report could not be written.
    #[error("cannot write the report to {}", path.display())]
    Write {
        /// Where to.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A thread, a timer or a listener could not be made.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}
