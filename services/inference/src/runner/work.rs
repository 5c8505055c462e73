//! What is asked of the loop, checked: pictures from words, or one stage of their way.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use mobula_diffusion::Sampler;
use mobula_diffusion::random::Source;
use mobula_diffusion::trajectory::Guidance;
use mobula_proto::common::v1::Timings;
use mobula_serving::tick::Class;
use tokio::time::Instant;
use tracing::Span;

use super::cache::Text;
use super::prompt::Prompt;
use crate::encode::{self, Format};
use crate::engine::{Encoded, Moments, Shape, Stages};

/// What pictures start from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Origin {
    Noise,
    /// Another picture, `[height, width, 3]` bytes, and a mask, `[height, width]` bytes.
    Picture {
        rgb: Bytes,
        mask: Option<Bytes>,
    },
    /// Another picture that was encoded elsewhere, and what is left of it outside the mask, if there is one.
    Encoded {
        moments: Moments,
        mask: Option<Bytes>,
    },
    /// Another model's latents, one for each picture that was asked for, in the order of the request.
    Latents(Vec<Arc<[f32]>>),
}

/// What is asked for, checked.
#[derive(Debug)]
pub(crate) struct Work {
    /// For the log.
    pub(crate) request_id: String,
    pub(crate) task: Task,
    /// Shape of the latents.
    pub(crate) shape: Shape,
    pub(crate) class: Class,
    /// Company may change the picture a little.
    pub(crate) fast: bool,
    /// Index and seed of each picture that is wanted; of pictures that are only decoded the seed says nothing.
    pub(crate) pictures: Vec<(u32, u64)>,
    /// How its pictures are encoded.
    pub(crate) format: Format,
    pub(crate) text: Vec<encode::Text>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) arrived: Instant,
    pub(crate) span: Span,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Task {
    /// The UNet's loop, and what comes before and after it.
    Draw(Arc<Draw>),
    /// Latents to pictures, one for each of `Work::pictures`.
    Decode(Vec<Arc<[f32]>>),
    /// These windows to states; the answer is an [`Answer`].
    Texts(Vec<Text>),
    /// A picture, `[height, width, 3]` bytes, and what a mask, `[height, width]` bytes, leaves of it, to moments; the answer is
    /// an [`Answer`].
    Picture { rgb: Bytes, mask: Option<Bytes> },
}

/// What pictures are drawn of.
#[derive(Debug, Clone)]
pub(crate) struct Draw {
    pub(crate) prompt: Prompt,
    /// Present exactly with two rows.
    pub(crate) negative: Option<Prompt>,
    /// Layers to leave out, for the prompt and for the negative one.
    pub(crate) clip_skip: [usize; 2],
    /// Numbers about the size, for the prompt and the negative one.
    pub(crate) time_ids: [Arc<[f32]>; 2],
    pub(crate) sampler: Arc<Sampler>,
    pub(crate) guidance: Guidance,
    pub(crate) source: Source,
    pub(crate) origin: Origin,
    /// Send latents, not pictures.
    pub(crate) latents: bool,
    pub(crate) preview_interval: u32,
    /// Windows that were encoded elsewhere.
    pub(crate) texts: HashMap<Text, Arc<Encoded>>,
}

/// What comes of a task that has one answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) result: Output,
    pub(crate) timings: Timings,
}

/// What a stage made.
#[derive(Debug, PartialEq)]
pub(crate) enum Output {
    /// One for each window that was asked for.
    Texts(Vec<Arc<Encoded>>),
    Moments(Moments),
}

/// What a replica's load is counted in: calls of the largest network that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Rows of UNet calls.
    Rows,
    /// Pictures that are decoded or encoded.
    Pictures,
    /// Windows of text.
    Windows,
}

impl Unit {
    pub(super) fn of(stages: Stages) -> Self {
        if stages.denoise {
            Self::Rows
        } else if stages.decode || stages.encode {
            Self::Pictures
        } else {
            Self::Windows
        }
    }
}

impl Work {
    /// Things that it brings into the loop.
    pub(crate) fn count(&self) -> usize {
        match &self.task {
            Task::Draw(_) | Task::Decode(_) => self.pictures.len(),
            Task::Texts(_) | Task::Picture { .. } => 1,
        }
    }

    /// What it costs a replica whose load is counted so.
    pub(super) fn cost(&self, unit: Unit) -> u64 {
        let pictures = self.pictures.len() as u64;
        match (unit, &self.task) {
            (Unit::Rows, Task::Draw(draw)) => draw.rows() * draw.sampler.calls() as u64 * pictures,
            (Unit::Pictures, Task::Decode(_)) => pictures,
            (Unit::Pictures, Task::Picture { .. }) => 1,
            (Unit::Windows, Task::Texts(texts)) => texts.len() as u64,
            // Short beside what the load is counted in, as they are on the way of a whole picture.
            (Unit::Rows, Task::Decode(_) | Task::Texts(_) | Task::Picture { .. })
            | (Unit::Pictures, Task::Draw(_) | Task::Texts(_))
            | (Unit::Windows, Task::Draw(_) | Task::Decode(_) | Task::Picture { .. }) => 0,
        }
    }
}

impl Draw {
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
    pub(crate) fn windows(&self) -> impl Iterator<Item = Text> + '_ {
        windows(&self.prompt, self.negative.as_ref(), self.clip_skip)
    }
}

/// The ids of every window of two prompts, with the layers to leave out.
pub(crate) fn windows<'a>(
    prompt: &'a Prompt,
    negative: Option<&'a Prompt>,
    [skip, negative_skip]: [usize; 2],
) -> impl Iterator<Item = Text> + 'a {
    let text = move |skip: usize| move |ids: &Arc<[u32]>| (Arc::clone(ids), skip);
    let negative = negative.into_iter().flat_map(Prompt::ids);
    prompt
        .ids()
        .map(text(skip))
        .chain(negative.map(text(negative_skip)))
}
