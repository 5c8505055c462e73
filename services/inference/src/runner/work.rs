//! What to draw, checked.

use std::sync::Arc;

use bytes::Bytes;
use mobula_diffusion::Sampler;
use mobula_diffusion::random::Source;
use mobula_diffusion::trajectory::Guidance;
use mobula_serving::tick::Class;
use tokio::time::Instant;
use tracing::Span;

use super::cache::Text;
use super::prompt::Prompt;
use crate::encode::{self, Format};
use crate::engine::Shape;

/// What pictures start from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Origin {
    Noise,
    /// Another picture, `[height, width, 3]` bytes, and a mask, `[height, width]` bytes.
    Picture {
        rgb: Bytes,
        mask: Option<Bytes>,
    },
    /// Another model's latents, one for each picture that was asked for, in the order of the request.
    Latents(Vec<Arc<[f32]>>),
}

/// What to draw, checked.
#[derive(Debug)]
pub(crate) struct Work {
    /// For the log.
    pub(crate) request_id: String,
    pub(crate) prompt: Prompt,
    /// Present exactly with two rows.
    pub(crate) negative: Option<Prompt>,
    /// Layers to leave out, for the prompt and for the negative one.
    pub(crate) clip_skip: [usize; 2],
    /// Numbers about the size, for the prompt and the negative one.
    pub(crate) time_ids: [Arc<[f32]>; 2],
    /// Shape of the latents.
    pub(crate) shape: Shape,
    pub(crate) sampler: Arc<Sampler>,
    pub(crate) guidance: Guidance,
    pub(crate) source: Source,
    pub(crate) class: Class,
    /// Company may change the picture a little.
    pub(crate) fast: bool,
    /// Index and seed of each picture that is to be drawn.
    pub(crate) pictures: Vec<(u32, u64)>,
    pub(crate) origin: Origin,
    /// Send latents, not pictures.
    pub(crate) latents: bool,
    pub(crate) preview_interval: u32,
    /// How its pictures are encoded.
    pub(crate) format: Format,
    pub(crate) text: Vec<encode::Text>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) arrived: Instant,
    pub(crate) span: Span,
}

impl Work {
    /// Rows of one picture in one call at most.
    pub(crate) fn rows(&self) -> u64 {
        1 + u64::from(self.negative.is_some())
    }

    /// Steps of one picture: as asked for, or as many as are in the part of the schedule it goes through.
    pub(crate) fn steps(&self) -> u32 {
        self.sampler.span_steps() as u32
    }

    /// Steps of one picture that are done after so many model calls: a step of a second-order scheduler is done after its second
    /// call, and PNDM's first one too.
    pub(crate) fn steps_done(&self, calls: u32) -> u32 {
        self.sampler.steps_done(calls as usize) as u32
    }

    /// The ids of every window that must be encoded, with the layers to leave out.
    pub(crate) fn texts(&self) -> impl Iterator<Item = Text> + '_ {
        let [skip, negative_skip] = self.clip_skip;
        let text = move |skip: usize| move |ids: &Arc<[u32]>| (Arc::clone(ids), skip);
        let negative = self.negative.iter().flat_map(Prompt::ids);
        self.prompt
            .ids()
            .map(text(skip))
            .chain(negative.map(text(negative_skip)))
    }
}
