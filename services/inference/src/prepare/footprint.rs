//! What a model takes of memory, as the system counts it for this process.

use serde::Serialize;

/// A model's memory with one provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Footprint {
    /// After loading and its first small runs.
    pub(super) loaded_bytes: u64,
    /// At most while it was measured, the process included.
    pub(super) peak_bytes: u64,
}
