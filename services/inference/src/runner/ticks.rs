//! The UNet's and the decoder's part of the loop: gather rows, run, give the outputs back, decode what is finished.

use std::sync::Arc;

use mobula_serving::tick::Candidate;
use tokio::time::Instant;

use super::encoders::{Glimpse, Picture};
use super::job::{Job, PictureTimes};
use super::thread::{Loop, Track};
use crate::engine::{Batch, Engine, Error, Shape};
use crate::metrics::Outcome;

/// Pictures decoded in one call, and pixels: larger calls are not faster, and would hold up the next tick.
const MAX_DECODE: usize = 4;
const MAX_DECODE_PIXELS: usize = 512 * 512;

impl Loop {
    /// One UNet call.
    pub(super) fn tick(&mut self) -> Result<(), Error> {
        self.candidates.clear();
        self.candidates.extend(self.tracks.iter().map(|track| Candidate {
            shape: track.job.work.shape.key(),
            cap: cap(self.max_rows, self.native, track.job.work.shape),
            arrival: track.arrival,
            timestep: track.trajectory.timestep().to_bits(),
            rows: track.trajectory.rows(),
        }));
        self.planner
            .plan(&self.candidates, self.timesteps, &mut self.chosen);
        let begun = Instant::now();
        self.gather(begun)?;
        let ran = self.engine.denoise(&mut self.batch);
        let now = Instant::now();
        if let Err(error) = ran {
            let jobs: Vec<_> = self
                .chosen
                .iter()
                .map(|index| Arc::clone(&self.tracks[*index].job))
                .collect();
            return self.run_failed(&error, jobs.iter());
        }
        self.stats.measured(self.batch.rows(), now - begun);
        self.metrics.ticked(self.batch.rows(), now - begun);
        self.scatter(now)?;
        // Most ticks finish nothing.
        if self
            .chosen
            .iter()
            .any(|index| self.tracks[*index].trajectory.is_done())
        {
            let done = self.tracks.extract_if(.., |track| track.trajectory.is_done());
            self.finished.extend(done);
        }
        Ok(())
    }

    /// Writes the chosen trajectories' rows into the batch.
    fn gather(&mut self, begun: Instant) -> Result<(), Error> {
        let Some(first) = self.chosen.first() else {
            return Ok(());
        };
        self.batch.reset(self.tracks[*first].job.work.shape);
        for index in &self.chosen {
            let track = &mut self.tracks[*index];
            track.job.tick_begins(begun);
            track.times.get_or_insert_with(|| PictureTimes::begin(begun));
            let timestep = track.trajectory.timestep();
            for states in track.uncond.iter().chain([&track.cond]) {
                track.trajectory.write_input(self.batch.push(timestep, states)?)?;
            }
        }
        Ok(())
    }

    /// Gives the chosen trajectories their outputs.
    fn scatter(&mut self, now: Instant) -> Result<(), Error> {
        let batch = &self.batch;
        let mut outputs = (0..batch.rows()).map(|row| batch.output(row));
        for (nth, index) in self.chosen.iter().enumerate() {
            let track = &mut self.tracks[*index];
            let uncond = track.uncond.as_ref().and_then(|_| outputs.next());
            // `gather` wrote these rows for these trajectories in this order.
            track
                .trajectory
                .accept(uncond, outputs.next().unwrap_or_default())?;
            if let Some(times) = &mut track.times {
                times.to = now;
                times.ticks += 1;
            }
            let (job, step) = (&track.job, track.trajectory.step() as u32);
            job.step_taken(track.place, now);
            let interval = job.work.preview_interval;
            if interval > 0 && step.is_multiple_of(interval) && !track.trajectory.is_done() {
                let latents = track.trajectory.predicted_original().to_vec();
                let index = job.work.pictures[track.place].0;
                self.encoders.glimpse(Glimpse {
                    job: Arc::clone(job),
                    index,
                    step,
                    latents,
                });
            }
            // Pictures of one job stand together, so the last of them closes the job's part in this tick.
            let next = self
                .chosen
                .get(nth + 1)
                .map(|next| Arc::as_ptr(&self.tracks[*next].job));
            let job = &self.tracks[*index].job;
            if next != Some(Arc::as_ptr(job)) {
                job.tick_ended();
            }
        }
        Ok(())
    }

    /// One call of the decoder, for pictures of one shape that are finished longest.
    pub(super) fn decode(&mut self) -> Result<(), Error> {
        let Some(first) = self.finished.front() else {
            return Ok(());
        };
        let shape = first.job.work.shape;
        let (width, height) = (shape.width * self.info.scale, shape.height * self.info.scale);
        let most = (MAX_DECODE_PIXELS / (width * height)).clamp(1, MAX_DECODE);
        let mut tracks = Vec::with_capacity(most);
        while tracks.len() < most
            && self
                .finished
                .front()
                .is_some_and(|track| track.job.work.shape == shape)
        {
            tracks.extend(self.finished.pop_front());
        }
        self.values.clear();
        for track in &tracks {
            self.values.extend_from_slice(track.trajectory.latents());
        }
        let spans: Vec<_> = tracks
            .iter()
            .map(
                |track| tracing::debug_span!(parent: &track.job.work.span, "decode", pictures = tracks.len()),
            )
            .collect();
        let begun = Instant::now();
        let decoded = self.engine.decode(&self.values, shape, &mut self.planes);
        let took = begun.elapsed();
        drop(spans);
        if let Err(error) = decoded {
            return self.run_failed(&error, tracks.iter().map(|track| &track.job));
        }
        let mut last: Option<Arc<Job>> = None;
        for (track, planes) in tracks
            .into_iter()
            .zip(self.planes.chunks_exact(3 * width * height))
        {
            let sound =
                finite("unet", track.trajectory.latents()).and_then(|()| finite("vae_decoder", planes));
            let Track {
                job, place, times, ..
            } = track;
            // diffusers gives a black picture here; a caller is better served by the reason. The others of the call are sound.
            if let Err(error) = sound {
                self.fail(&job, error);
                continue;
            }
            let Some(mut times) = times else { continue };
            times.decode = took;
            // A call counts once for a request, however many of its pictures were in it.
            if !last.as_ref().is_some_and(|last| Arc::ptr_eq(last, &job)) {
                job.decoded(took);
            }
            let index = job.work.pictures[place].0;
            let picture = Picture {
                job: Arc::clone(&job),
                index,
                times,
                planes: planes.to_vec(),
                width,
                height,
            };
            self.encoders.picture(picture);
            last = Some(job);
        }
        Ok(())
    }

    /// A run failed: its requests fail, and the engine shows by a small run whether it is dead.
    pub(super) fn run_failed<'a>(
        &mut self,
        error: &Error,
        jobs: impl Iterator<Item = &'a Arc<Job>>,
    ) -> Result<(), Error> {
        for job in jobs {
            let (part, why) = if let Error::Run { part, why } = error {
                (*part, why.clone())
            } else {
                ("engine", error.to_string())
            };
            self.fail(job, Error::Run { part, why });
        }
        warm_up(self.engine.as_mut(), self.info.multiple, self.info.multiple)
    }

    /// Ends a request with the reason, once.
    fn fail(&self, job: &Job, error: Error) {
        if job.outbox.has_ended() {
            return;
        }
        tracing::error!(request_id = job.work.request_id, %error, "a run of the model failed");
        job.outbox.fail(error);
        self.metrics.ended(Outcome::Failed);
    }
}

/// Refuses values that are no numbers, of which no picture can be made.
fn finite(part: &'static str, values: &[f32]) -> Result<(), Error> {
    if values.iter().all(|value| value.is_finite()) {
        return Ok(());
    }
    let why = "it gives values that are not finite (NaN or infinity): its weights are damaged, or too large for float16, \
               which an export in float32 mends"
        .to_owned();
    Err(Error::Run { part, why })
}

/// Rows that one call of a shape may have: fewer for pictures above the native size, since attention takes memory with the
/// square of the positions, and large rows keep the cores busy by themselves.
fn cap(max_rows: usize, native: usize, shape: Shape) -> usize {
    let positions = shape.height * shape.width;
    if positions <= native {
        return max_rows;
    }
    (max_rows as u128 * (native as u128).pow(2) / (positions as u128).pow(2)).max(1) as usize
}

/// Runs every part once, on a picture of this many pixels; values that are not finite are a failure.
pub(crate) fn warm_up(engine: &mut dyn Engine, width: usize, height: usize) -> Result<(), Error> {
    let info = engine.info().clone();
    let shape = info.latents(width, height);
    let mut states = Vec::new();
    engine.encode(&vec![0; info.window], &mut states)?;
    finite("text_encoder", &states)?;
    let states: Arc<[f32]> = states.into();
    let mut batch = Batch::new(&info);
    batch.reset(shape);
    for _ in 0..2 {
        batch.push(500.0, &states)?;
    }
    engine.denoise(&mut batch)?;
    finite("unet", batch.output(0))?;
    let mut planes = Vec::new();
    engine.decode(batch.output(0), shape, &mut planes)?;
    finite("vae_decoder", &planes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_above_the_native_size_share_a_call_with_fewer() {
        let shape = |side| Shape {
            channels: 4,
            height: side,
            width: side,
        };
        let caps = [8, 16, 20, 32, 64, 1 << 20].map(|side| cap(16, 16 * 16, shape(side)));
        assert_eq!(caps, [16, 16, 6, 1, 1, 1]);
    }
}
