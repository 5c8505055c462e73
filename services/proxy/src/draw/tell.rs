//! What the caller is told, in the words of the public API; with a refiner both halves count as one.

use std::time::Duration;

use mobula_proto::{
    common::v1::{Latents, Timings},
    image::v1::{self as image, generate_response::Event},
    inference::v1::{self as inference, generate_response::Event as Drawn},
};

use super::{Draw, Half};

/// Bytes of a latent's number.
const NUMBER_BYTES: u64 = 4;

impl Draw<'_> {
    /// Passes an event on.
    pub(super) async fn pass_on(&mut self, event: Drawn, replica: &str) {
        let event = match event {
            Drawn::Accepted(_) | Drawn::Done(_) | Drawn::Latents(_) => return,
            Drawn::Started(_) => Event::Started(image::Started {
                replica_id: replica.to_owned(),
            }),
            Drawn::Step(step) => Event::Step(self.step(step)),
            Drawn::Preview(preview) => Event::Preview(image::Preview {
                image_index: preview.image_index,
                step: self.behind().saturating_add(preview.step),
                png: preview.png,
            }),
            Drawn::Image(drawn) => match self.picture(drawn) {
                Some(event) => event,
                None => return,
            },
        };
        self.job.emit.send(event).await;
    }

    /// Steps that the half before this one took.
    fn behind(&self) -> u32 {
        match self.half {
            Half::Whole | Half::First(..) => 0,
            Half::Last(..) => self.steps_before,
        }
    }

    fn step(&mut self, step: inference::Step) -> image::Step {
        let of = match self.half {
            Half::Whole => step.of,
            Half::First(..) => {
                self.steps_before = step.of;
                // The refiner has said nothing yet: it takes what is left, one step at least.
                self.plan.taken().max(step.of.saturating_add(1))
            }
            Half::Last(..) => self.steps_before.saturating_add(step.of),
        };
        image::Step {
            index: self.behind().saturating_add(step.index),
            of,
        }
    }

    /// Keeps the latents of a picture for the refiner or the decoder; what does not look like latents is as good as missing.
    pub(super) fn keep(&mut self, done: inference::LatentsDone) {
        let slot = if self.brings_latents() {
            self.latents.get_mut(done.index as usize)
        } else {
            None
        };
        if let (Some(slot), Some(latents)) = (slot, done.latents)
            && is_whole(&latents)
        {
            *slot = Some(latents);
        }
    }

    /// A finished picture, unless the caller has it or never asked for it.
    fn picture(&mut self, drawn: inference::Image) -> Option<Event> {
        if self.brings_latents() {
            return None;
        }
        let index = drawn.index as usize;
        let sent = self.sent.get_mut(index)?;
        if std::mem::replace(sent, true) {
            return None;
        }
        if !drawn.notes.is_empty() {
            tracing::info!(
                request_id = &*self.job.id,
                picture = index,
                notes = drawn.notes.join("; "),
                "a picture was drawn in another way than asked"
            );
        }
        self.last = drawn.timings.unwrap_or_default();
        self.job.shared.metrics.images.increment(1);
        Some(Event::Image(image::Image {
            index: drawn.index,
            seed: self.plan.seeds[index],
            data: drawn.data,
            format: self.plan.output.format.into(),
            width: self.plan.width,
            height: self.plan.height,
            digest: drawn.digest,
            timings: Some(self.merged(self.last)),
            notes: drawn.notes,
        }))
    }

    /// The replicas' timings with this proxy's share.
    pub(super) fn merged(&self, drawn: Timings) -> Timings {
        let before = self.before;
        Timings {
            queue_us: drawn
                .queue_us
                .saturating_add(before.queue_us)
                .saturating_add(micros(self.queued)),
            preprocess_us: micros(self.ready.took),
            encode_us: drawn.encode_us.saturating_add(before.encode_us),
            denoise_us: drawn.denoise_us.saturating_add(before.denoise_us),
            ticks: drawn.ticks.saturating_add(before.ticks),
            total_us: micros(self.job.arrived.elapsed()),
            ..drawn
        }
    }

    /// Says that everything was sent.
    pub(super) async fn done(&mut self, timings: Timings) {
        let timings = self.merged(timings);
        self.job.shared.metrics.timed(&timings);
        self.job.trail.timings(timings);
        let plan = self.plan;
        let first = &mut self.ready.first;
        let parameters = image::Parameters {
            model: first.served.application.name.clone(),
            model_digest: first.model.digest.clone(),
            width: plan.width,
            height: plan.height,
            steps: plan.steps,
            guidance_scale: plan.guidance_scale,
            scheduler: plan.chosen.scheduler.clone(),
            seeds: plan.seeds.clone(),
            truncated_prompt: first.tokens.prompt.truncated_text.clone(),
            truncated_negative_prompt: first.tokens.negative.truncated_text.clone(),
            sigma_schedule: plan.chosen.schedule.clone(),
            strength: plan.source.as_ref().map_or(0.0, |source| source.strength),
            model_id: first.served.id().to_owned(),
        };
        let done = image::Done {
            timings: Some(timings),
            parameters: Some(parameters),
        };
        self.job.emit.send(Event::Done(done)).await;
    }
}

/// True when latents have as many numbers as they say.
fn is_whole(latents: &Latents) -> bool {
    let sides = u64::from(latents.height) * u64::from(latents.width);
    let bytes = sides
        .checked_mul(latents.channels.into())
        .and_then(|numbers| numbers.checked_mul(NUMBER_BYTES));
    bytes.is_some_and(|bytes| bytes > 0 && bytes == latents.data.len() as u64)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
