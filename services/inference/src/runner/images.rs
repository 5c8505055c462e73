//! The VAE encoder's part of the loop: the picture that a request starts from becomes moments.

use tokio::time::Instant;

use super::pending::{self, Begin};
use super::thread::Loop;
use super::work::{Origin, Output, Task, Unit};
use crate::engine::{Error, Moments, finite};

impl Loop {
    /// Whether a request waits for the VAE encoder.
    pub(super) fn wants_images(&self) -> bool {
        self.waiting.iter().any(|pending| pending.begin.is_none())
    }

    /// One call of the VAE encoder, for the request that waits longest.
    pub(super) fn encode_image(&mut self) -> Result<(), Error> {
        let Some(at) = self.waiting.iter().position(|pending| pending.begin.is_none()) else {
            return Ok(());
        };
        let job = self.waiting[at].job.clone();
        let (rgb, mask) = match &job.work.task {
            Task::Picture { rgb, mask } => (rgb, mask),
            Task::Draw(draw) if let Origin::Picture { rgb, mask } = &draw.origin => (rgb, mask),
            Task::Draw(_) | Task::Texts(_) | Task::Decode(_) => {
                self.waiting[at].begin = Some(Begin::Noise);
                return Ok(());
            }
        };
        let scale = self.info.scale;
        let (width, height) = (job.work.shape.width * scale, job.work.shape.height * scale);
        let planes = match pending::planes(rgb, mask.as_deref(), (width, height)) {
            Ok(planes) => planes,
            Err(error) => return self.give_back(at, error),
        };
        let span = tracing::debug_span!(parent: &job.work.span, "encode_init_image", width, height);
        let begun = Instant::now();
        let mut moments = Moments::default();
        let encode = || self.engine.encode_images(&planes, width, height, &mut moments);
        let encoded = self
            .place
            .run(true, encode)
            .and_then(|()| finite("vae_encoder", &moments.mean))
            .and_then(|()| finite("vae_encoder", &moments.deviation));
        drop(span);
        let took = begun.elapsed();
        job.encoded(took);
        if self.unit == Unit::Pictures {
            self.stats.measured(1.0, took);
        }
        if let Err(error) = encoded {
            self.waiting.remove(at);
            return self.run_failed(&error, std::iter::once(&job));
        }
        if let Task::Picture { .. } = job.work.task {
            self.waiting.remove(at);
            let timings = job.answered(Output::Moments(moments));
            self.metrics.finished(&timings);
            return Ok(());
        }
        let begin = match pending::begin(&moments, mask.as_deref(), (width, height), &self.info) {
            Ok(begin) => begin,
            Err(error) => return self.give_back(at, error),
        };
        if let Some(pending) = self.waiting.get_mut(at) {
            pending.begin = Some(begin);
        }
        self.start_at(at);
        Ok(())
    }

    /// Ends a request whose picture cannot be used; checked requests never come here.
    fn give_back(&mut self, at: usize, error: Error) -> Result<(), Error> {
        if let Some(pending) = self.waiting.remove(at) {
            self.fail(&pending.job, error);
        }
        Ok(())
    }
}
