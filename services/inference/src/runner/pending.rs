//! Requests that wait for an encoder: of texts, or of the picture they start from.

use std::collections::HashMap;
use std::sync::Arc;

use mobula_diffusion::image;
use mobula_diffusion::trajectory::{Mask, Posterior};

use super::cache::{Cache, Text};
use super::job::Job;
use super::work::{Origin, Task};
use crate::engine::{Encoded, Error, Info, Moments};

/// A request that is not drawn yet.
pub(super) struct Pending {
    pub(super) job: Arc<Job>,
    /// What it starts from, once that is known.
    pub(super) begin: Option<Begin>,
    /// Windows that must be encoded, each once.
    pub(super) missing: Vec<Text>,
    /// Windows that are encoded; they stay here until it starts, whatever the cache lets go of.
    pub(super) found: HashMap<Text, Arc<Encoded>>,
    /// How many of them the cache knew.
    pub(super) cached: u64,
}

/// What a request's pictures start from, encoded.
#[derive(Debug, Clone)]
pub(super) enum Begin {
    Noise,
    Picture {
        image: Posterior,
        mask: Option<Mask>,
    },
    /// By index of the picture in the request.
    Latents(Vec<Arc<[f32]>>),
}

impl Pending {
    /// Takes up a request with what it brought and what the cache knows of it.
    pub(super) fn new(job: &Arc<Job>, cache: &mut Cache, info: &Info) -> Result<Self, Error> {
        let (mut missing, mut found, mut cached) = (Vec::new(), HashMap::new(), 0);
        let (begin, texts) = match &job.work.task {
            Task::Draw(draw) => {
                found.clone_from(&draw.texts);
                let texts = draw.windows().collect();
                (begin_of(&draw.origin, job, info)?, texts)
            }
            Task::Texts(texts) => (Some(Begin::Noise), texts.clone()),
            Task::Picture { .. } | Task::Decode(_) => (None, Vec::new()),
        };
        for text in texts {
            if found.contains_key(&text) || missing.contains(&text) {
                continue;
            }
            match cache.get(&text) {
                Some(states) => {
                    found.insert(text, states);
                    cached += 1;
                }
                None => missing.push(text),
            }
        }
        Ok(Self {
            job: Arc::clone(job),
            begin,
            missing,
            found,
            cached,
        })
    }

    /// Takes what it misses out of a run's windows; whether there was any.
    pub(super) fn take(&mut self, fresh: &HashMap<Text, Arc<Encoded>>) -> bool {
        let before = self.missing.len();
        let found = &mut self.found;
        self.missing.retain(|text| match fresh.get(text) {
            None => true,
            Some(states) => {
                found.insert(text.clone(), Arc::clone(states));
                false
            }
        });
        self.missing.len() < before
    }
}

/// What a request starts from, as far as that is known without the VAE encoder.
fn begin_of(origin: &Origin, job: &Job, info: &Info) -> Result<Option<Begin>, Error> {
    Ok(match origin {
        Origin::Noise => Some(Begin::Noise),
        Origin::Latents(latents) => Some(Begin::Latents(latents.clone())),
        Origin::Picture { .. } => None,
        Origin::Encoded { moments, mask } => {
            let shape = job.work.shape;
            let size = (shape.width * info.scale, shape.height * info.scale);
            Some(begin(moments, mask.as_deref(), size, info)?)
        }
    })
}

/// The pixels that a request's VAE encoder run takes: the picture, and with a mask also what is left of it outside the mask.
/// `[1 or 2, 3, height, width]` in [-1, 1].
pub(super) fn planes(
    rgb: &[u8],
    mask: Option<&[u8]>,
    (width, height): (usize, usize),
) -> Result<Vec<f32>, Error> {
    let mut planes = image::to_planes(rgb, height, width)?;
    if let Some(mask) = mask {
        let mut rest = planes.clone();
        image::blank(&mut rest, mask)?;
        planes.extend(rest);
    }
    Ok(planes)
}

/// What a request starts from, of its VAE encoder run.
pub(super) fn begin(
    moments: &Moments,
    mask: Option<&[u8]>,
    (width, height): (usize, usize),
    info: &Info,
) -> Result<Begin, Error> {
    let values = moments.mean.len() / if mask.is_some() { 2 } else { 1 };
    let posterior = |n: usize| Posterior {
        mean: moments.mean[n * values..][..values].into(),
        deviation: (!moments.deviation.is_empty()).then(|| moments.deviation[n * values..][..values].into()),
        scaling: info.scaling,
        shift: info.shift,
    };
    let mask = match mask {
        None => None,
        Some(mask) => Some(Mask {
            weights: image::mask_weights(mask, height, width, info.scale)?.into(),
            masked: posterior(1),
            concatenated: info.input_channels > info.channels,
        }),
    };
    Ok(Begin::Picture {
        image: posterior(0),
        mask,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fake;

    #[test]
    fn what_is_outside_the_mask_is_left_of_the_picture() {
        let rgb = [0, 255, 51, 255, 0, 102];
        let planes = planes(&rgb, Some(&[255, 127]), (2, 1)).unwrap();
        let expected = [-1.0, 1.0, 1.0, -1.0, -0.6, -0.2, 0.0, 1.0, 0.0, -1.0, 0.0, -0.2];
        assert!(
            planes
                .iter()
                .zip(expected)
                .all(|(got, want)| (got - want).abs() < 1e-6),
            "{planes:?}"
        );
        assert!(super::planes(&rgb, Some(&[255]), (2, 1)).is_err());
    }

    #[test]
    fn the_second_picture_of_a_run_is_the_masked_one() {
        let info = fake::info();
        let moments = Moments {
            mean: (0..8).map(|n| n as f32).collect(),
            deviation: Vec::new(),
        };
        let begin = begin(&moments, Some(&[255; 64]), (8, 8), &info).unwrap();
        let Begin::Picture {
            image,
            mask: Some(mask),
        } = begin
        else {
            panic!("{begin:?}")
        };
        assert_eq!((*image.mean).to_vec(), [0.0, 1.0, 2.0, 3.0]);
        assert_eq!((*mask.masked.mean).to_vec(), [4.0, 5.0, 6.0, 7.0]);
        assert_eq!((*mask.weights).to_vec(), [1.0]);
    }
}
