//! What may be done to the predicted picture before a step uses it: nothing, clipping, or dynamic thresholding.

use super::keys::Keys;
use crate::Error;

/// Treatment of the predicted picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Threshold {
    None,
    /// Clip to this magnitude.
    Clip(f32),
    /// Dynamic thresholding (Saharia et al. 2022, arXiv 2205.11487): clip to a quantile of the magnitudes and divide by it.
    Dynamic {
        ratio: f64,
        max: f32,
    },
}

impl Threshold {
    /// Reads the keys of dynamic thresholding, which win over clipping.
    pub(super) fn read(keys: &mut Keys<'_>) -> Result<Self, Error> {
        let ratio = keys.number("dynamic_thresholding_ratio", 0.995, (0.0, 1.0))?;
        let max = keys.number("sample_max_value", 1.0, (0.0, 1e6))?;
        let on = keys.flag("thresholding", false)?;
        Ok(if on {
            Self::Dynamic {
                ratio,
                max: max as f32,
            }
        } else {
            Self::None
        })
    }

    /// Reads these and the keys of clipping, of which `clips` says whether it is on by default.
    pub(super) fn read_or_clip(keys: &mut Keys<'_>, clips: bool) -> Result<Self, Error> {
        let clip = keys.flag("clip_sample", clips)?;
        let range = keys.number("clip_sample_range", 1.0, (0.0, 1e6))?;
        Ok(match Self::read(keys)? {
            Self::None if clip => Self::Clip(range as f32),
            other @ (Self::None | Self::Clip(_) | Self::Dynamic { .. }) => other,
        })
    }

    /// Applies it to a whole predicted picture; `scratch` is as long and its content is lost.
    pub(super) fn apply(self, picture: &mut [f32], scratch: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Clip(range) => picture.iter_mut().for_each(|x| *x = x.clamp(-range, range)),
            Self::Dynamic { ratio, max } => {
                for (magnitude, x) in scratch.iter_mut().zip(&*picture) {
                    *magnitude = x.abs();
                }
                scratch.sort_unstable_by(f32::total_cmp);
                // torch.clamp(min=1, max=max): the maximum wins where it is below the minimum.
                let s = quantile(scratch, ratio).max(1.0).min(max);
                picture.iter_mut().for_each(|x| *x = x.max(-s).min(s) / s);
            }
        }
    }
}

/// `torch.quantile` with linear interpolation, of sorted values.
fn quantile(sorted: &[f32], q: f64) -> f32 {
    let rank = q as f32 * (sorted.len() - 1) as f32;
    let below = rank.floor();
    let low = sorted[below as usize];
    let high = sorted[rank.ceil() as usize];
    low + (high - low) * (rank - below)
}
