//! One picture on its way.

use std::sync::Arc;
use std::time::Duration;

use mobula_diffusion::Trajectory;

use super::compose::Texts;
use super::job::{Job, PictureTimes};
use super::work::Draw;
use crate::engine::Condition;

/// One picture on its way.
pub(super) struct Track {
    pub(super) job: Arc<Job>,
    pub(super) draw: Arc<Draw>,
    /// Place in `Work::pictures`.
    pub(super) place: usize,
    pub(super) trajectory: Trajectory,
    texts: Arc<Texts>,
    pub(super) order: Order,
    pub(super) times: Option<PictureTimes>,
}

/// Order of arrival among all pictures: smaller came earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    /// Of the request's first picture.
    pub(super) request: u64,
    pub(super) picture: u64,
}

/// Conditions of the rows of a picture's next call.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rows<'a> {
    /// Without guidance.
    One(&'a Arc<Condition>),
    /// With guidance, and both prompts the same: one row is both.
    Same(&'a Arc<Condition>),
    /// With guidance: unconditional, then conditional.
    Two(&'a Arc<Condition>, &'a Arc<Condition>),
}

impl Rows<'_> {
    pub(super) fn count(self) -> usize {
        match self {
            Self::One(_) | Self::Same(_) => 1,
            Self::Two(..) => 2,
        }
    }
}

impl Track {
    pub(super) fn new(
        (job, draw): (&Arc<Job>, &Arc<Draw>),
        place: usize,
        trajectory: Trajectory,
        texts: &Arc<Texts>,
        order: Order,
    ) -> Self {
        Self {
            job: Arc::clone(job),
            draw: Arc::clone(draw),
            place,
            trajectory,
            texts: Arc::clone(texts),
            order,
            times: None,
        }
    }

    /// The rows of its next call; none when a prompt holds nothing, which checked requests never do.
    pub(super) fn rows(&self) -> Option<Rows<'_>> {
        let step = self.step();
        let cond = self.texts.cond.at(step)?;
        let uncond = match &self.texts.uncond {
            Some(uncond) if self.trajectory.is_guided() => uncond.at(step)?,
            Some(_) | None => return Some(Rows::One(cond)),
        };
        Some(if Arc::ptr_eq(uncond, cond) {
            Rows::Same(cond)
        } else {
            Rows::Two(uncond, cond)
        })
    }

    /// The step that its next call belongs to, counted from 0: some schedulers make several calls a step.
    fn step(&self) -> u32 {
        self.trajectory.sampler().step_of(self.trajectory.step()) as u32
    }

    /// Calls that are left.
    pub(super) fn calls_left(&self) -> u32 {
        (self.trajectory.steps() - self.trajectory.step()) as u32
    }

    /// Tokens of its prompts.
    pub(super) fn tokens(&self) -> usize {
        self.texts.tokens
    }

    /// When its request's time is over, counted from `epoch`.
    pub(super) fn deadline(&self, epoch: tokio::time::Instant) -> Option<Duration> {
        let deadline = self.job.work.deadline?;
        Some(deadline.saturating_duration_since(epoch))
    }

    /// When its request came, counted from `epoch`.
    pub(super) fn arrived(&self, epoch: tokio::time::Instant) -> Duration {
        self.job.work.arrived.saturating_duration_since(epoch)
    }
}
