//! What can keep a load test from running at all; a request that fails is a result, not an error.

use std::path::PathBuf;

/// Why no report could be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The target's address is no address.
    #[error("`{target}` is no address: use host:port for gRPC or http://host:port for HTTP")]
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
    /// The prompts could not be read.
    #[error("cannot read prompts from {}", path.display())]
    Prompts {
        /// Where from.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The report file could not be written.
    #[error("cannot write the report to {}", path.display())]
    Write {
        /// Where to.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}
