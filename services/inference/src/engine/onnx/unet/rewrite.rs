//! Rewriting a UNet to go faster on the CPU: the same function in less work.
//!
//! A rewritten network is used when it gives the original's numbers in small runs, with rows of one picture and of others, and every
//! row the same bytes in company as alone. Whether it is used depends on the model's files and the replica's options, never on a
//! measurement: replicas of a model draw the same bytes.

use super::super::super::Error;
use super::super::dialect::Dtype;
use super::super::edit;
use super::super::session::{self, Context};
use super::probe::{Probe, near};
use super::{Form, PART, Unet};

/// How far outputs may be off, as a part of one more than their size: sums are made in another order, and where a value is handed on
/// in float16 that was not before, it is rounded once more.
const NEAR: f32 = 1e-4;
const NEAR_HALF: f32 = 2e-2;

/// What is rewritten.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rewrite {
    /// What rows of one picture have in common is computed once.
    once: bool,
}

impl Rewrite {
    /// What is worth trying, best first.
    const ALL: [Self; 1] = [Self { once: true }];

    /// The bytes of a network, rewritten.
    pub(super) fn apply(self, mut bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
        let refused = |why: edit::Refused| session::refused(PART, &why);
        if self.once {
            bytes = edit::once_a_picture(&bytes, "sample", "timestep").map_err(refused)?;
        }
        Ok(bytes)
    }
}

impl Unet {
    /// The network rewritten, where that is asked for and can be done.
    pub(super) fn rewritten(&mut self, context: &Context<'_>) -> Result<bool, Error> {
        let others = [&self.ports.pooled, &self.ports.time_ids, &self.ports.guidance];
        // With other inputs hardly anything is made of sample and timestep alone.
        if !context.setup.rewrites() || self.form != Form::Rows || others.iter().any(|port| port.is_some()) {
            return Ok(false);
        }
        let probe = Probe::of_pictures(self.smallest(), &[501.0, 501.0, 100.0]);
        let expected = self.probe(&probe, 0..3)?;
        for rewrite in Rewrite::ALL {
            let source = self.source.rewritten(rewrite);
            match source.open(context) {
                Ok(network) => {
                    let plain = std::mem::replace(&mut self.network, network);
                    if self.is_as(&probe, &expected).unwrap_or(false) {
                        self.source = source;
                        return Ok(true);
                    }
                    self.network = plain;
                    tracing::warn!(?rewrite, "the UNet rewritten differs from the original");
                }
                Err(why) => tracing::debug!(%why, ?rewrite, "the UNet is not rewritten"),
            }
        }
        Ok(false)
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
