//! Rewriting a UNet to go faster on the CPU: the same function in less work.
//!
//! A rewritten network is used when it gives the original's numbers in small runs, with rows of one picture and of others, and every
//! row the same bytes in company as alone. Whether it is used depends on the model's files and the replica's options, never on a
//! measurement: replicas of a model draw the same bytes.

use std::path::Path;

use super::super::super::Error;
use super::super::dialect::Dtype;
use super::super::edit;
use super::super::session::{self, Context};
use super::super::setup::Setup;
use super::probe::{Probe, near};
use super::{Form, PART, Unet};

/// How far outputs may be off, as a part of one more than their size: sums are made in another order, and where a value is handed on
/// in float16 that was not before, it is rounded once more.
const NEAR: f32 = 1e-4;
const NEAR_HALF: f32 = 2e-2;

/// Files beyond it are left as they are, bytes: while they are rewritten, they are in memory up to four times. Graphs with weights in
/// other files are small.
const MAX_FILE: u64 = 512 << 20;

/// What is rewritten.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rewrite {
    /// What rows of one picture have in common is computed once.
    once: bool,
    /// Doublings of pixels are folded into the convolutions behind them.
    folded: bool,
    /// Norms and gates are operators of ours.
    fused: bool,
}

impl Rewrite {
    /// What is tried, best first.
    fn all(once: bool) -> impl Iterator<Item = Self> {
        let edits =
            [(true, true), (false, true), (false, false)].map(|(fused, folded)| Self { once, folded, fused });
        let without = [(true, true), (false, true)].map(|(fused, folded)| Self {
            once: false,
            folded,
            fused,
        });
        edits.into_iter().chain(without.into_iter().filter(move |_| once))
    }

    /// Whether it puts operators of ours into the graph.
    pub(super) fn has_operators(self) -> bool {
        self.fused
    }

    /// The bytes of a network, rewritten; none where there is nothing to rewrite, or to fuse where that is asked for.
    pub(super) fn apply(self, bytes: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let refused = |why: edit::Refused| session::refused(PART, &why);
        let mut edited = None;
        if self.fused {
            let fused = edit::fused(bytes).map_err(refused)?;
            let Some(fused) = fused else { return Ok(None) };
            edited = Some(fused);
        }
        if self.folded {
            let before = edited.as_deref().unwrap_or(bytes);
            edited = edit::folded(before).map_err(refused)?.or(edited);
        }
        if self.once {
            let before = edited.as_deref().unwrap_or(bytes);
            match edit::once_a_picture(before, "sample", "timestep") {
                Ok(after) => edited = Some(after),
                Err(why) => tracing::debug!(%why, "rows of a picture share nothing"),
            }
        }
        Ok(edited)
    }
}

/// Whether a network is to be rewritten, of a file that is not too large for it.
pub(super) fn is_wanted(setup: &Setup, file: &Path) -> bool {
    setup.rewrites() && file.metadata().is_ok_and(|file| file.len() <= MAX_FILE)
}

impl Unet {
    /// The network rewritten, where that can be done, else as it is.
    ///
    /// # Errors
    /// [`Error`] when it cannot be loaded again as it was.
    pub(super) fn rewritten(mut self, context: &Context<'_>) -> Result<Self, Error> {
        let rows = self.form == Form::Rows;
        let shape = self.smallest();
        let probe = if rows {
            Probe::of_pictures(shape, &[501.0, 501.0, 100.0])
        } else {
            Probe::new(shape, &[501.0; 3])
        };
        let expected = self.probe(&probe, 0..3);
        // Two large networks at once may be more than memory holds.
        drop(self.network);
        if let Ok(expected) = expected {
            let others = [&self.ports.pooled, &self.ports.time_ids, &self.ports.guidance];
            // With other inputs hardly anything is made of sample and timestep alone.
            let once = rows && others.iter().all(|port| port.is_none());
            for rewrite in Rewrite::all(once) {
                let source = self.source.rewritten(rewrite);
                match source.open(context) {
                    Ok(network) => {
                        self.network = network;
                        let plain = std::mem::replace(&mut self.source, source);
                        match self.is_as(&probe, &expected) {
                            Ok(true) => return Ok(self),
                            Ok(false) => {
                                tracing::warn!(?rewrite, "the UNet rewritten differs from the original")
                            }
                            Err(why) => tracing::warn!(%why, ?rewrite, "the UNet rewritten does not run"),
                        }
                        self.source = plain;
                        drop(self.network);
                    }
                    Err(why) if source.is_found() => {
                        tracing::warn!(%why, ?rewrite, "the UNet rewritten cannot be loaded");
                    }
                    Err(why) => tracing::debug!(%why, ?rewrite, "the UNet is not rewritten so"),
                }
            }
        }
        self.network = self.source.open(context)?;
        Ok(self)
    }

    /// Whether rows give what was expected, and the same bytes together and alone.
    fn is_as(&mut self, probe: &Probe, expected: &[u32]) -> Result<bool, Error> {
        let together = self.probe(probe, 0..3)?;
        let mut alone = Vec::new();
        for row in 0..3 {
            alone.extend(self.probe(probe, row..row + 1)?);
        }
        let half = self.ports.sample.dtype == Some(Dtype::F16);
        let off = if half { NEAR_HALF } else { NEAR };
        Ok(near(&together, expected, off) && together == alone)
    }
}
