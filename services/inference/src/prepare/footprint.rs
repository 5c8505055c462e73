//! What a model takes of memory, as the system counts it for this process.

use serde::Serialize;

use crate::memory;

/// A model's memory with one provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Footprint {
    /// After loading and its first small runs.
    pub(super) loaded_bytes: u64,
    /// At most while it was measured, the process included.
    pub(super) peak_bytes: u64,
}

/// Reads a model's memory from what the process grows by.
#[derive(Debug)]
pub(super) struct Meter {
    empty: u64,
    loaded: u64,
}

impl Meter {
    /// Begins before anything is opened.
    pub(super) fn begin() -> Self {
        let empty = memory::resident();
        Self { empty, loaded: empty }
    }

    /// The model is there now.
    pub(super) fn loaded(&mut self) {
        self.loaded = memory::resident();
    }

    /// What was read so far.
    pub(super) fn footprint(&self) -> Footprint {
        Footprint {
            loaded_bytes: self.loaded.saturating_sub(self.empty),
            peak_bytes: memory::peak(),
        }
    }
}
