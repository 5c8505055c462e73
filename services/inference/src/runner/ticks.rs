//! The UNet's part of the loop: choose rows, gather them, run, give the outputs back.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::decode::Finished;
use super::encoders::Glimpse;
use super::job::{Job, PictureTimes};
use super::plan;
use super::thread::Loop;
use super::track::Rows;
use crate::engine::{Condition, Error, trial};
use crate::metrics::{Metrics, Outcome};

/// A tick that takes no longer is over before anybody could have read that it began.
const SWIFT: Duration = Duration::from_millis(1);

impl Loop {
    /// One UNet call.
    pub(super) fn tick(&mut self) -> Result<(), Error> {
        self.choose();
        self.gather(Instant::now())?;
        let readers = self
            .chosen
            .iter()
            .map(|index| self.tracks[*index].job.outbox.reader());
        self.running.begin(readers);
        let mut begun = Instant::now();
        let ran = self.place.run(true, || {
            begun = Instant::now();
            self.engine.denoise(&mut self.batch)
        });
        self.running.end();
        let now = Instant::now();
        match ran {
            Ok(()) => {}
            // Nobody who was in it is left; the sweep lets go of them.
            Err(Error::Interrupted) => return Ok(()),
            Err(error) => {
                let jobs: Vec<_> = self
                    .chosen
                    .iter()
                    .map(|index| Arc::clone(&self.tracks[*index].job))
                    .collect();
                return self.run_failed(&error, jobs.iter());
            }
        }
        self.measured(now - begun);
        self.swift = now - begun < SWIFT;
        self.scatter(now)?;
        // Most ticks finish nothing.
        if self
            .chosen
            .iter()
            .any(|index| self.tracks[*index].trajectory.is_done())
        {
            let done: Vec<_> = self
                .tracks
                .extract_if(.., |track| track.trajectory.is_done())
                .collect();
            self.regroup();
            for track in done {
                if track.draw.latents {
                    self.send_latents(&track);
                } else {
                    self.finished.push_back(Finished::of(track));
                }
            }
        }
        Ok(())
    }

    /// Writes the chosen trajectories' rows into the batch.
    fn gather(&mut self, begun: Instant) -> Result<(), Error> {
        let Some(first) = self.chosen.first().map(|index| &self.tracks[*index]) else {
            return Ok(());
        };
        let filled = self.groups.filled(plan::key(first), &self.info);
        self.batch.reset(first.job.work.shape, first.tokens());
        for index in &self.chosen {
            let track = &mut self.tracks[*index];
            if track.job.tick_begins(&track.draw, begun, self.swift) {
                self.metrics.batches.waited(begun - track.job.work.arrived);
            }
            track.times.get_or_insert_with(|| PictureTimes::begin(begun));
            let timestep = track.trajectory.timestep();
            let mut push = |condition: &Arc<Condition>| -> Result<(), Error> {
                let sample = self.batch.push(timestep, condition)?;
                Ok(track.trajectory.write_input(sample)?)
            };
            match track.rows() {
                None => {}
                Some(Rows::One(cond) | Rows::Same(cond)) => push(cond)?,
                Some(Rows::Two(uncond, cond)) => {
                    push(uncond)?;
                    push(cond)?;
                }
            }
        }
        // Where kernels are chosen by the batch, a strict call always has as many rows.
        if let Some(rows) = filled {
            self.batch.fill_up(rows)?;
        }
        Ok(())
    }

    /// Gives the chosen trajectories their outputs.
    fn scatter(&mut self, now: Instant) -> Result<(), Error> {
        let batch = &self.batch;
        let mut outputs = (0..batch.rows()).map(|row| batch.output(row));
        for (nth, index) in self.chosen.iter().enumerate() {
            let track = &mut self.tracks[*index];
            // `gather` wrote these rows for these trajectories in this order.
            let mut next = || outputs.next().unwrap_or_default();
            let (uncond, cond) = match track.rows() {
                None => (None, &[][..]),
                Some(Rows::One(_)) => (None, next()),
                Some(Rows::Same(_)) => {
                    let both = next();
                    (Some(both), both)
                }
                Some(Rows::Two(..)) => (Some(next()), next()),
            };
            track.trajectory.accept(uncond, cond)?;
            if !track.trajectory.is_finite() && !track.job.outbox.has_ended() {
                // The sweep lets go of it before the next tick, with the other pictures of its request.
                let (job, call) = (&track.job, track.trajectory.step() - 1);
                let step = track.draw.sampler.step_of(call) as u32 + 1;
                let error = Error::Diverged {
                    step,
                    of: track.draw.steps(),
                };
                not_finite(&self.metrics, job, error);
            }
            if let Some(times) = &mut track.times {
                times.to = now;
                times.ticks += 1;
            }
            let (job, calls) = (&track.job, track.trajectory.step() as u32);
            job.step_taken(&track.draw, track.place, now, self.swift);
            let interval = track.draw.preview_interval;
            let step = track.draw.steps_done(calls);
            let stepped = step > track.draw.steps_done(calls - 1);
            let ended = job.outbox.has_ended();
            if interval > 0
                && stepped
                && !ended
                && step.is_multiple_of(interval)
                && !track.trajectory.is_done()
            {
                let latents = track.trajectory.predicted_original().to_vec();
                let index = job.work.pictures[track.place].0;
                self.encoders.glimpse(Glimpse {
                    job: Arc::clone(job),
                    index,
                    step,
                    latents,
                });
            }
            // Pictures of one job may stand apart: the last of them closes the job's part in this tick.
            let rest = &self.chosen[nth + 1..];
            let job = &self.tracks[*index].job;
            if !rest
                .iter()
                .any(|other| Arc::ptr_eq(&self.tracks[*other].job, job))
            {
                job.tick_ended();
            }
        }
        Ok(())
    }

    /// Ends a request of whose picture the decoder makes nothing.
    pub(super) fn undecodable(&self, job: &Job) {
        if !job.outbox.has_ended() {
            not_finite(&self.metrics, job, Error::Undecodable);
        }
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
        let engine = self.engine.as_mut();
        let size = self.info.multiple;
        self.place.run(true, || trial(engine, size, size))
    }

    /// Ends a request with the reason, once.
    pub(super) fn fail(&self, job: &Job, error: Error) {
        if job.outbox.has_ended() {
            return;
        }
        tracing::error!(request_id = job.work.request_id, %error, "a run of the model failed");
        job.outbox.fail(error);
        self.metrics.ended(Outcome::Failed);
    }
}

/// Ends a request whose numbers are none. The engine did what it was asked for, so its health is no question here.
fn not_finite(metrics: &Metrics, job: &Job, error: Error) {
    tracing::info!(request_id = job.work.request_id, %error, "no picture comes of a request");
    job.outbox.fail(error);
    metrics.ended(Outcome::NotFinite);
}
